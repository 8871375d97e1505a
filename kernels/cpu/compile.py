"""How the CPU kernels are compiled, cached and made safe to call: one decorator, one cache.

Numba's own cache cannot serve a library well: it raises at import when the package lies in a read-only
folder, it does not see an edit of a function in another file, and it does not cache closures. This one
keeps a file per kernel and signature, named by a hash of everything the machine code depends on (the sources
of the kernel and of all it imports among them; for a kernel that is not the project's see `fingerprint`), and treats
every failure as "not cached".
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import sys
import threading
import time
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core.caching import _Cache
from numba.core.compiler import Compiler, CompileResult
from numba.core.serialize import dumps

from minigrad.kernels.collection import without_collection
from minigrad.kernels.cpu import ahead
from minigrad.kernels.cpu.claims import PATIENCE, claim, is_held, release
from minigrad.kernels.cpu.emitter import VECTOR_BYTES
from minigrad.kernels.cpu.fingerprint import fingerprint

# nnan and ninf are left out on purpose: they let LLVM delete NaN and infinity.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
# Without the wrapper for C callers, which nobody here is, a kernel compiles 15 to 20 % faster.
OPTIONS = {"error_model": "numpy", "nogil": True, "fastmath": FASTMATH, "no_cfunc_wrapper": True}

# Called as listener(event, kernel_name, signature) with event "start" or "end" around each compilation.
compile_listeners = []


def cache_folder():
    """The folder of the compiled kernels: ``$MINIGRAD_CACHE_DIR`` or the user's cache folder."""
    root = os.environ.get("MINIGRAD_CACHE_DIR")
    if root:
        return Path(root)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "minigrad"


@functools.cache
def _imported_files(file):
    """A source file of the kernels and those of their files that it imports, directly or not."""
    found, waiting = set(), [Path(file)]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minigrad.kernels.cpu"):
                base = Path(__file__).parent.joinpath(*node.module.split(".")[3:])
                names = [base.with_suffix(".py"), *[(base / alias.name).with_suffix(".py") for alias in node.names]]
                waiting.extend([name for name in names if name.is_file()])
    return frozenset(found)


def _source_files(function):
    """The files that a kernel's machine code comes from: its own, and those of the functions it closes over."""
    files = set(_imported_files(inspect.getfile(function)))
    for cell in function.__closure__ or ():
        inner = getattr(cell.cell_contents, "py_func", cell.cell_contents)
        if inspect.isfunction(inner):
            files |= _source_files(inner)
    return files


@functools.cache
def _contents(file):
    return hashlib.sha256(file.read_bytes()).digest()


def sources_key(function):
    """A hash of all that a kernel's machine code depends on, beside the signature and the processor."""
    settings = (sys.version, numba.__version__, llvmlite.__version__, np.__version__, numba.config.BOUNDSCHECK,
                numba.config.OPT, numba.config.DEBUG, os.environ.get("MINIGRAD_LANES"))
    digest = hashlib.sha256(repr(settings).encode())
    if not (function.__module__ or "").startswith("minigrad.kernels"):
        digest.update(fingerprint(function, lambda used: _imported_files(inspect.getfile(used))).encode())
        return digest.hexdigest()
    for file in sorted(_source_files(function)):
        digest.update(_contents(file))
    return digest.hexdigest()


@functools.cache
def _forget_unused(folder, days=60):
    """Delete what no process has used for a while: the kernels of earlier versions. Once per process."""
    oldest = time.time() - days * 86400
    for file in folder.glob("*.pickle*"):
        if file.stat().st_mtime < oldest:
            file.unlink()


class KernelCache(_Cache):
    """Compiled kernels on disk. Whatever goes wrong here means "not cached", never an exception."""

    def __init__(self, function):
        self.function, self.name = function, function.__name__

    @property
    def cache_path(self):
        return str(cache_folder())

    def file_of(self, signature, codegen):
        """Where the kernel compiled for a signature is, or would be."""
        key = repr((sources_key(self.function), signature, codegen.magic_tuple()))
        return cache_folder() / f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.pickle"

    def load_overload(self, sig, target_context):
        target_context.refresh()
        with contextlib.suppress(Exception):
            return self._read(sig, target_context)
        for listener in compile_listeners:
            listener("start", self.name, sig)
        with contextlib.suppress(Exception):
            claim(self.file_of(sig, target_context.codegen()), PATIENCE)
            if is_held():  # else nothing that others compile would be found, or each would compile all of it
                ahead.begin(self.name)
            compiled = self._read(sig, target_context)  # by another process, meanwhile
            release()
            self._end(sig)
            return compiled
        return None

    def save_overload(self, sig, data):
        self._end(sig)
        with contextlib.suppress(Exception):  # a read-only or full disk: the next process compiles again
            file = self.file_of(sig, data.codegen)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
            partial.write_bytes(dumps(data._reduce()))
            partial.replace(file)  # atomic: another process sees the whole file or none
            _forget_unused(file.parent)
        release()

    def _read(self, sig, target_context):
        """The compiled kernel; raises if it is absent, unreadable, truncated, from another world."""
        file = self.file_of(sig, target_context.codegen())
        compiled = CompileResult._rebuild(target_context, *pickle.loads(file.read_bytes()))
        with contextlib.suppress(OSError):
            os.utime(file)  # in use: see _forget_unused
        return compiled

    def _end(self, sig):
        for listener in compile_listeners:
            listener("end", self.name, sig)

    def enable(self):
        pass

    def disable(self):
        pass

    def flush(self):
        pass


class WideCompiler(Compiler):
    """Numba's compiler, with loops made of vectors as wide as those that ``simd`` writes.

    LLVM prefers 32 bytes on Intel's processors with AVX-512, the first of which ran slower with 64, but does what a
    function asks for. The attribute is our functions' own; ``NUMBA_CPU_FEATURES`` would be the whole process's.
    """

    def compile_extra(self, function):
        if self.state.library is None:
            self.state.library = self._library(function.__qualname__)
        return super().compile_extra(function)

    def _library(self, name):
        """What Numba would make itself to collect the code in; it states the width in each function that comes."""
        library = self.state.targetctx.codegen().create_library(name)
        library.enable_object_caching()
        add = library.add_ir_module

        def add_wide(module):
            for function in module.functions:
                if not function.is_declaration:
                    # As llvmlite's own `add` would, but that refuses what it does not know.
                    set.add(function.attributes, f'"prefer-vector-width"="{8 * VECTOR_BYTES}"')
            add(module)

        library.add_ir_module = add_wide
        return library


class KernelCompiler(WideCompiler):
    """`WideCompiler`, with the garbage collector off meanwhile.

    It makes millions of objects, few of them garbage: the first step of net B took 62.7 s with the collector at work,
    50.9 s without. Lost: a pipeline of our own (no machine code for helpers, fewer passes, types of operators looked up
    once), 44.9 s, but made of Numba's internals.
    """

    def compile_extra(self, function):
        try:
            with without_collection():
                return super().compile_extra(function)
        except BaseException:
            release()
            raise


def kernel(function=None, *, name=None):
    """Compile a kernel with the project's options, and cache it on disk.

    Parameters
    ----------
    function : callable
        The kernel's body. It may be a closure over other jitted functions if `name` is given.
    name : str, optional
        The kernel's name in the cache; unique per backend. The function's own name if left out.
    """
    if function is None:
        return lambda f: kernel(f, name=name)
    if name:
        function.__name__ = function.__qualname__ = name
    if numba.config.DISABLE_JIT:
        return np.errstate(all="ignore")(function)  # compiled code does not warn either
    # A kernel allocates nothing, so it needs none of Numba's reference counting of its arrays: a launch with three
    # takes 0.27 us instead of 0.38. Inside (`inline`, the bodies of `parallel_for`) it stays: without it a function
    # could not return a slice.
    dispatcher = numba.njit(function, _nrt=False, pipeline_class=KernelCompiler, **OPTIONS)
    dispatcher._cache = KernelCache(function)
    return dispatcher


def chosen(choose):
    """A kernel that is one of several compiled ones: ``choose(*arguments)`` returns which, and its arguments.

    Only what is used is compiled. The choice is kept as the attribute `choose`, for those who want the compiled one.
    """

    @functools.wraps(choose)
    def call(*arguments):
        kernel, arguments = choose(*arguments)
        kernel(*arguments)

    call.choose = choose
    return call


def inline(function):
    """A device of the kernels' own: a small function that LLVM inlines into its callers."""
    return numba.njit(function, _nrt=True, pipeline_class=WideCompiler, **OPTIONS)


def machine_code(module):
    """The engine that holds the machine code of an llvmlite module, and has to be kept alive with it.

    Not optimised: for code that does little more than call what Numba has compiled.
    """
    llvm.initialize_native_target()  # Numba does it when it compiles, so not if its JIT is off
    llvm.initialize_native_asmprinter()
    parsed = llvm.parse_assembly(str(module))
    target = llvm.Target.from_default_triple().create_target_machine(opt=0)
    engine = llvm.create_mcjit_compiler(parsed, target)
    engine.finalize_object()
    return engine
