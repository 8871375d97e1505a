"""The threads that kernels share blocks of a loop with.

A launch here waits for nobody who is not at work on it. The calling thread starts at once; a thread that is awake
helps, one that wakes too late finds nothing left to do. With GNU OpenMP, which Numba uses, the caller waits for every
thread to wake and to arrive: see `numba_pool` for what that costs if they sleep between launches, and if they do not
and another process wants the processor. Measured in one process on two cores, OpenMP's time by
ours: net A's step 1.11, captured 1.08, inference 1.08, net B's 1.04, 1.01, 1.02; beside a busy process 1.56, 1.80,
1.54, 0.96, 1.11, 0.97. OpenMP with threads that never sleep is as fast as this on an idle machine, and B's captured
step then takes up to twelve times as long beside a busy process.

The protocol. One word, ``JOB``, holds the number of the job (upper half), whether it is open (``OPEN``) and how many
helpers are inside. A helper enters by counting itself in while the job is open; whoever is inside takes blocks until
there are none; the caller closes the job and returns once nobody is inside. Blocks are shared out beforehand, so that
a thread finds in its cache what it wrote in the launch before; who has finished takes blocks of the others. What a
block computes does not depend on who takes it, so results do not either.
"""

import atexit
import contextlib
import ctypes
import os
import threading

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir

from minigrad.kernels.cpu import numba_pool
from minigrad.kernels.cpu.atomics import ANYBODY, HAS_FUTEX, add, call_blocks, load, now, replace, sleep, store, wake
from minigrad.kernels.cpu.compile import inline, kernel, machine_code

# The pool's memory, in bytes from its start; what different threads write lies in different cache lines.
LINE = 64
JOB, NUMBER = 0, 4  # the word, and its upper half alone
OPEN = 1 << 31
SLEEPERS = 1 * LINE  # how many helpers sleep
BUSY = 2 * LINE  # whether somebody has a job here
WAITING = 3 * LINE  # whether that caller sleeps
ENDED = 3 * LINE + 8  # whether the helpers shall return
FUNCTION, DATA, THREADS, CHUNK = 4 * LINE, 4 * LINE + 8, 4 * LINE + 16, 4 * LINE + 24  # the job
SHARES = 5 * LINE  # one line per thread: the next block of its share, and the end of it

# Nanoseconds. A helper that has nothing to do looks for the next job for a while, then sleeps. It is patient on an idle
# machine, up to MOST, and loses its patience when the system takes the processor away from it: between two looks more
# than TAKEN_AWAY pass. Every job that comes while it looks makes it a little more patient again.
LEAST, MOST, TAKEN_AWAY = 20_000, 300_000, 100_000
CHUNKS = 8  # into which a share is cut: a thread that loses the processor keeps no more than one from the others


@inline
def _helpers_inside(job):  # pragma: no cover - runs only compiled
    return job & (OPEN - 1)


@inline
def _take_blocks(pool, me):  # pragma: no cover - runs only compiled
    """Run blocks of the job until none is left: those of the own share first."""
    function, data = load(pool + FUNCTION), load(pool + DATA)
    threads, chunk = load(pool + THREADS), load(pool + CHUNK)
    for turn in range(threads):
        share = pool + SHARES + (me + turn) % threads * LINE
        end = load(share + 8)
        while load(share) < end:
            first = add(share, chunk)
            if first < end:
                call_blocks(function, first, min(chunk, end - first), data)


@inline
def _mask(helpers):  # pragma: no cover - runs only compiled
    """A bit for each of helpers 1 ... `helpers`; more than there are bits share them."""
    return ANYBODY if helpers >= 32 else (1 << helpers) - 1


@inline
def _wait_for_job(pool, me, seen, patience):  # pragma: no cover - runs only compiled
    """Look, then sleep, until there is a job of another number than `seen`; returns the patience left."""
    start = last = now()
    while load(pool + JOB) >> 32 == seen:
        time = now()
        if time - last > TAKEN_AWAY:
            patience = LEAST
        last = time
        if time - start > patience:
            add(pool + SLEEPERS, 1)
            sleep(pool + NUMBER, seen, 1 << (me - 1) % 32)
            add(pool + SLEEPERS, -1)
            start = last = now()
    return min(MOST, patience + patience // 64)


@inline
def _enter(pool, me):  # pragma: no cover - runs only compiled
    """Count oneself in, if the job is open and has a place for `me`; returns its word, and whether one is in."""
    job = load(pool + JOB)
    while job & OPEN and me < load(pool + THREADS):
        if replace(pool + JOB, job, job + 1):
            return job, True
        job = load(pool + JOB)
    return job, False


@inline
def _leave(pool):  # pragma: no cover - runs only compiled
    before = add(pool + JOB, -1)
    if not before & OPEN and _helpers_inside(before) == 1 and load(pool + WAITING):
        wake(pool + JOB, 1, ANYBODY)


@inline
def _wait_for_helpers(pool):  # pragma: no cover - runs only compiled
    """Look, then sleep, until nobody is inside the closed job."""
    start = now()
    job = load(pool + JOB)
    while _helpers_inside(job):
        if now() - start > LEAST:
            store(pool + WAITING, 1)
            job = load(pool + JOB)
            if _helpers_inside(job):
                sleep(pool + JOB, job & 0xFFFFFFFF, ANYBODY)
        job = load(pool + JOB)
    store(pool + WAITING, 0)


@kernel
def help_out(pool, me):  # pragma: no cover - runs only compiled
    """What helper number `me` does all day."""
    seen, patience = load(pool + JOB) >> 32, MOST
    while not load(pool + ENDED):
        patience = _wait_for_job(pool, me, seen, patience)
        job, inside = _enter(pool, me)
        seen = job >> 32
        if inside:
            if me < load(pool + THREADS):  # certain only now: before, it may have been another job's
                _take_blocks(pool, me)
            _leave(pool)


@kernel
def share_out(pool, function, count, data, threads):  # pragma: no cover - runs only compiled
    """Run a function for `count` blocks on up to `threads` threads, the caller being one of them.

    If another thread has a job here the caller works alone.
    """
    threads = min(threads, count)
    if threads < 2 or not replace(pool + BUSY, 0, 1):
        call_blocks(function, 0, count, data)
        return
    store(pool + FUNCTION, function)
    store(pool + DATA, data)
    store(pool + THREADS, threads)
    store(pool + CHUNK, max(1, count // (threads * CHUNKS)))
    for i in range(threads):
        store(pool + SHARES + i * LINE, i * count // threads)
        store(pool + SHARES + i * LINE + 8, (i + 1) * count // threads)
    number = ((load(pool + JOB) >> 32) + 1) & 0x7FFFFFFF
    store(pool + JOB, number << 32 | OPEN)
    if load(pool + SLEEPERS) > 0:
        wake(pool + NUMBER, threads - 1, _mask(threads - 1))
    _take_blocks(pool, 0)
    if _helpers_inside(add(pool + JOB, -OPEN)):
        _wait_for_helpers(pool)
    store(pool + BUSY, 0)


@kernel
def end(pool):  # pragma: no cover - runs only compiled
    """Make the helpers return from `help_out`."""
    store(pool + ENDED, 1)
    add(pool + JOB, 1 << 32)  # a new number, so that nobody falls asleep waiting for one
    wake(pool + NUMBER, 1 << 30, ANYBODY)


class Pool:
    """The pool's memory and threads.

    Parameters
    ----------
    threads : int
        How many at most work on a job, the caller being one of them.
    """

    def __init__(self, threads):
        self.threads = threads
        self.memory = np.zeros(SHARES + (threads + 1) * LINE, np.uint8)
        # Never freed: a thread of the user's may still be inside a kernel when the interpreter is gone.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.memory))
        start = self.memory.__array_interface__["data"][0]
        self.address = start + -start % LINE
        self.start()
        os.register_at_fork(after_in_child=self.start)
        atexit.register(self.end)

    def start(self):
        """Start the helpers, or as many as the system allows: none has to be there.

        In a forked process the parent's are not there, whatever they were doing; new ones take 1 to 10 ms.
        """
        self.memory[:] = 0
        self.helpers = []
        for number in range(1, self.threads):
            helper = threading.Thread(
                target=help_out, args=(self.address, number), name=f"minigrad kernel {number}", daemon=True
            )
            try:
                helper.start()
            except RuntimeError:  # can't start new thread
                break
            self.helpers.append(helper)

    def end(self):
        """Have the helpers return before the process ends. What is launched after that runs on the caller alone."""
        end(self.address)
        for helper in self.helpers:
            helper.join()


INTEGER, POINTER = ir.IntType(64), ir.IntType(8).as_pointer()


def _address(dispatcher, *kinds):
    """Where a kernel's machine code is."""
    dispatcher.compile(kinds)
    compiled = dispatcher.overloads[kinds]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def _call_share_out(builder, pool, arguments):
    """Call our own pool; Numba's functions take the places of a result and of an exception first, unused here."""
    kind = ir.FunctionType(ir.IntType(32), [POINTER.as_pointer()] * 2 + [INTEGER] * 5)
    function = builder.inttoptr(INTEGER(_address(share_out, *[numba.int64] * 5)), kind.as_pointer())
    places = [builder.alloca(POINTER), builder.alloca(POINTER)]
    builder.call(function, [*places, INTEGER(pool.address), *arguments])


def _call_numba(builder, arguments):
    """Call Numba's pool: its interface of generalised ufuncs, with an array of bytes at address 0 to step through, so
    that the "address" of an element is its number."""
    function, count, data, threads = arguments
    places = [builder.alloca(INTEGER) for _ in range(3)]
    for place, value in zip(places, (INTEGER(0), count, INTEGER(1)), strict=True):
        builder.store(value, place)
    kind = ir.FunctionType(ir.VoidType(), [INTEGER] + [INTEGER.as_pointer()] * 3 + [INTEGER] * 4)
    called = ir.Function(builder.module, kind, "numba_parallel_for")
    builder.call(called, [function, *places, data, INTEGER(0), INTEGER(1), threads])


def _entry(pool):
    """The function that kernels call, of (function, count, data, threads): with one pool or the other in it."""
    module = ir.Module("minigrad_thread_pool")
    module.triple = llvm.get_process_triple()
    outer = ir.Function(module, ir.FunctionType(ir.VoidType(), [INTEGER] * 4), SYMBOL)
    builder = ir.IRBuilder(outer.append_basic_block("entry"))
    if pool:
        _call_share_out(builder, pool, outer.args)
    else:
        _call_numba(builder, outer.args)
    builder.ret_void()
    return machine_code(module)


SYMBOL = "minigrad_share_out"
pool, one_at_a_time = None, contextlib.nullcontext()
if not numba.config.DISABLE_JIT:
    # Numba's pool keeps the number of threads in any case: numba.set_num_threads means these kernels too.
    numbas_lock = numba_pool.launch()
    if HAS_FUTEX and os.environ.get("MINIGRAD_THREAD_POOL") != "numba":
        for name in ("syscall", "clock_gettime"):
            llvm.add_symbol(name, ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value)
        help_out.compile((numba.int64, numba.int64))  # here, not in each helper
        end.compile((numba.int64,))
        pool = Pool(numba.config.NUMBA_NUM_THREADS)
    else:
        one_at_a_time = numbas_lock
    _engine = _entry(pool)
    llvm.add_symbol(SYMBOL, _engine.get_function_address(SYMBOL))  # before any kernel is loaded


def layer():
    """Whose threads these are, for reports."""
    if numba.config.DISABLE_JIT:
        return "none"
    return "minigrad" if pool else f"numba {numba.threading_layer()}"


def serialised(kernel):
    """A kernel that is safe to call from several Python threads."""
    if isinstance(one_at_a_time, contextlib.nullcontext):
        return kernel
    return numba_pool.serialised(kernel, one_at_a_time)
