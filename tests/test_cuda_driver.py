"""The driver's side of the CUDA device against stand-ins for cuda.core: what it would ask of a GPU, and in which order.

Nothing here runs on a GPU: whether cuda.core and the card do what is asked is for tests on one.
"""

import ctypes
import importlib
import sys
import threading
from types import CellType, FunctionType, SimpleNamespace

import numpy as np
import pytest

from minigrad.kernels.cuda import array, kernel, memory, toolkit
from minigrad.kernels.cuda.language import Float, Int, Pointer, Unsigned, device_function, int64
from minigrad.kernels.sources import digest_of_sources

if not toolkit.HAS_COMPILER:
    pytest.skip("numba-cuda and cuda-core are not installed", allow_module_level=True)

import cuda.bindings.driver as api
import cuda.core


class Card:
    """What stands in for a GPU: memory is the host's, launches are written down."""

    def __init__(self):
        self.log, self.limit, self.used = [], 1 << 20, 0
        self.current = set()  # threads in which it is current
        self.copies, self.pinned = 0, {}

    def allocate(self, size, stream):
        assert threading.get_ident() in self.current
        if self.used + size > self.limit:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
        self.used += size
        return Buffer(self, size)


class Buffer:
    def __init__(self, card, size):
        self.card, self.size, self.values = card, size, (ctypes.c_uint8 * size)()
        self.handle = ctypes.addressof(self.values)

    def __del__(self):
        self.card.used -= self.size


class Stream:
    handle = 77

    def __init__(self, card):
        self.card, self.recording = card, False

    def create_graph_builder(self):
        return Builder(self.card, self)

    def sync(self):
        self.card.log.append("sync")

    def wait(self, other):
        self.card.log.append(("wait", other))

    def record(self, event):
        event.position = self.card.copies

    @staticmethod
    def from_handle(handle):
        return SimpleNamespace(wait=lambda stream: stream.card.log.append((handle, "waits")))


class Event:
    def __init__(self, card):
        self.card, self.position = card, None

    def sync(self):
        self.card.log.append(("copied", self.position))


class Builder:
    def __init__(self, card, stream):
        self.card, self.launches, self.stream = card, [], stream

    def begin_building(self):
        self.stream.recording = True

    def end_building(self):
        self.stream.recording = False

    def complete(self):
        assert not self.stream.recording
        return SimpleNamespace(launch=lambda stream: self.card.log.append(("graph", self.launches)))


@pytest.fixture
def card(monkeypatch):
    """The driver module, imported on top of a stand-in."""
    card = Card()
    device = SimpleNamespace(
        set_current=lambda: card.current.add(threading.get_ident()), create_stream=lambda: Stream(card),
        compute_capability=(9, 0), name="a card", device_id=0, sync=lambda: card.log.append("all"),
        memory_resource=SimpleNamespace(allocate=card.allocate, handle=5), create_event=lambda: Event(card),
    )

    def launch(queue, config, loaded, *arguments):
        assert threading.get_ident() in card.current
        (queue.launches if isinstance(queue, Builder) else card.log).append((loaded, config, arguments))

    def copy(target, source, size, handle):
        assert threading.get_ident() in card.current
        card.copies += 1
        ctypes.memmove(target, source, size)
        assert handle == 77
        return (api.CUresult.CUDA_SUCCESS,)

    monkeypatch.setattr(cuda.core, "Device", lambda number=0: device)
    monkeypatch.setattr(cuda.core, "Stream", Stream)
    monkeypatch.setattr(cuda.core, "launch", launch)
    monkeypatch.setattr(cuda.core, "LaunchConfig", lambda grid, block: (grid, block))
    monkeypatch.setattr(cuda.core, "ObjectCode", SimpleNamespace(
        from_cubin=lambda cubin: SimpleNamespace(get_kernel=lambda name: name),
        from_ptx=cuda.core.ObjectCode.from_ptx,
    ))
    for name in ("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpyDtoDAsync"):
        monkeypatch.setattr(api, name, copy)
    def pin(size, flags):
        memory = (ctypes.c_uint8 * size)()
        card.pinned[ctypes.addressof(memory)] = memory
        return api.CUresult(0), ctypes.addressof(memory)

    monkeypatch.setattr(api, "cuMemHostAlloc", pin)
    monkeypatch.setattr(api, "cuMemFreeHost", lambda address: (card.pinned.pop(address), (api.CUresult(0),))[1])
    monkeypatch.setattr(api, "cuMemPoolTrimTo", lambda pool, keep: (card.log.append("trim"), (api.CUresult(0),))[1])
    monkeypatch.setattr(api, "cuMemGetInfo", lambda: (api.CUresult(0), 3 << 20, 8 << 30))
    card.driver = importlib.import_module("minigrad.kernels.cuda.driver")
    monkeypatch.setattr(memory, "allocate", card.driver.allocate)
    yield card
    for name in ("driver", "compile"):
        del sys.modules[f"minigrad.kernels.cuda.{name}"]


def kernel_of(*kinds):
    """A kernel that is never compiled: only how its arguments are handed over is looked at."""
    parameters = [(f"a{i}", kind() if kind is Pointer else kind) for i, kind in enumerate(kinds)]
    return SimpleNamespace(parameters=parameters, element_type=lambda key: key[0], __name__="k")


@pytest.fixture
def uncompiled(card, monkeypatch):
    monkeypatch.setattr(card.driver, "compile_kernel", lambda k, key, arch: SimpleNamespace(cubin=b"", name=k.__name__))
    return card


def test_arguments(uncompiled):
    """An address as an int (cuda.core passes 8 bytes), numbers as what the kernel's signature says."""
    driver, x = uncompiled.driver, array.empty((4,), np.float64)
    run = driver.prepare(kernel_of(Pointer, Pointer[int64], Int, Unsigned, Float), (np.dtype(np.float64),))
    run(3, 128, (x, x[2:], 5, 7, 0.5))
    loaded, config, sent = uncompiled.log[-1]
    assert loaded == "k" and config == (3, 128)
    assert sent[:2] == (x.address, x.address + 16) and type(sent[0]) is int
    assert [type(a) for a in sent[2:]] == [ctypes.c_int32, ctypes.c_uint32, ctypes.c_double]
    assert [a.value for a in sent[2:]] == [5, 7, 0.5]


def test_copies(card):
    x = array.empty((3,), np.float32)
    card.driver.from_host(x, np.array([1.0, 2.0, 3.0], np.float32))
    assert card.log == []  # nothing waits for values that are sent
    assert card.driver.to_host(x).tolist() == [1, 2, 3] and card.log[-1] == "sync"
    y = array.empty((3,), np.float32)
    card.driver.copy(x, y)
    assert card.driver.to_host(y).tolist() == [1, 2, 3]


def test_values_are_sent_by_way_of_pinned_memory(card):
    """Each piece is used again when its last copy is done, and not before; a larger one takes its place."""
    x, driver = array.empty((50_000,), np.float32), card.driver
    for count in (3, 4, 5, 6):
        driver.from_host(x[:count], np.arange(count))
    assert card.log == [] and len(card.pinned) == 4
    driver.from_host(x[:2], np.arange(2))
    assert card.log == [("copied", 1)] and len(card.pinned) == 4
    driver.from_host(x, np.arange(50_000))
    assert card.log == [("copied", 1), ("copied", 2)]
    assert sorted(map(len, card.pinned.values())) == [1 << 16] * 3 + [1 << 18]
    assert driver.to_host(x).tolist() == list(range(50_000))
    driver._stage.LARGEST = 100
    del card.log[:]
    driver.from_host(x, np.zeros(50_000))
    assert card.log == ["sync"] and not driver.to_host(x).any()
    driver.from_host(x[:0], np.zeros(0))


def test_memory_goes_back_and_runs_out(card):
    first = array.empty((1 << 19,), np.uint8)
    del first
    assert card.used == 0
    kept = array.empty((1 << 19,), np.uint8)
    with pytest.raises(MemoryError, match=r"cuda: out of memory: 768 KiB were asked for, 3 MiB of 8 GiB are free on a"):
        array.empty((3 << 18,), np.uint8)
    assert card.log == ["sync", "trim"]  # it was tried again after the pool had been emptied
    assert kept.memory.size == 1 << 19


def test_memory_is_found_again(card):
    """Garbage in cycles is collected before giving up."""
    cycle = [array.empty((1 << 19,), np.uint8)]
    cycle.append(cycle)
    del cycle
    assert array.empty((3 << 18,), np.uint8).size == 3 << 18


def test_a_recorded_step_is_a_graph(uncompiled):
    driver, x = uncompiled.driver, array.empty((4,), np.float32)
    run = driver.prepare(kernel_of(Pointer, Int), (np.dtype(np.float32),))
    repeat = driver.recorded(lambda: (run(1, 32, (x, 1)), run(2, 32, (x, 2))))
    assert uncompiled.log == []
    repeat()
    kind, launches = uncompiled.log.pop()
    assert kind == "graph" and [config for _, config, _ in launches] == [(1, 32), (2, 32)]
    run(1, 32, (x, 3))
    assert uncompiled.log[-1][2][1].value == 3  # afterwards launches go to the stream again


def test_a_graph_is_recorded_beside_the_stream(uncompiled, monkeypatch):
    """Memory that goes back while a graph is being recorded goes back in our stream, which therefore is not the one
    that records: such a stream takes back only what the graph itself has allocated. Other threads launch there.
    """
    driver, x = uncompiled.driver, array.empty((4,), np.float32)
    run = driver.prepare(kernel_of(Pointer, Int), (np.dtype(np.float32),))

    def step():
        run(1, 32, (x, 1))
        assert not driver.stream.recording
        other = threading.Thread(target=run, args=(5, 32, (x, 5)))
        other.start()
        other.join()

    repeat = driver.recorded(step)
    assert [config for _, config, _ in uncompiled.log] == [(5, 32)]
    repeat()
    assert [config for _, config, _ in uncompiled.log[-1][1]] == [(1, 32)]


def test_the_card_is_current_in_every_thread(uncompiled):
    """CUDA keeps the current device for each thread."""
    driver, found = uncompiled.driver, []

    def work():
        x = array.empty((3,), np.float32)
        driver.from_host(x, np.ones(3, np.float32))
        driver.prepare(kernel_of(Pointer), (np.dtype(np.float32),))(1, 32, (x,))
        found.append(driver.to_host(x).tolist())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[1, 1, 1]]


def test_scratch_memory_of_threads(card, monkeypatch):
    """Another thread's launches may come between the two that hand something over in scratch memory."""
    monkeypatch.setattr(memory, "_scratch", memory._Scratch())
    found = [memory.scratch(4, np.float32).address]
    assert memory.scratch(9, np.int64).address == found[0]
    thread = threading.Thread(target=lambda: found.append(memory.scratch(4, np.float32).address))
    thread.start()
    thread.join()
    assert found[0] != found[1] and card.used == 1 << 16  # that of the thread has gone with it
    with memory.own_scratch() as own:
        assert memory.scratch(4, np.float32).memory is own and own.address not in found  # a recording's
    assert memory.scratch(4, np.float32).address == found[0] and card.used == 2 << 16
    del own
    assert card.used == 1 << 16


def test_other_streams_wait(card):
    card.driver.hand_over(None)
    card.driver.hand_over(9)
    card.driver.hand_over(-1)
    card.driver.wait_for_all()
    assert card.log == [(1, "waits"), (9, "waits"), "all"]


def test_errors_have_names(card):
    with pytest.raises(RuntimeError, match="cuda: CUDA_ERROR_INVALID_VALUE"):
        card.driver._check((api.CUresult.CUDA_ERROR_INVALID_VALUE,))


@pytest.mark.parametrize(("version", "reason"), [
    (12080, "the driver is one for CUDA 12.8, and what is compiled here takes one for 13.0 or newer"), (13000, None)])
def test_an_old_driver_is_refused(card, monkeypatch, version, reason):
    monkeypatch.setattr(api, "cuDriverGetVersion", lambda: (api.CUresult.CUDA_SUCCESS, version))
    assert toolkit._no_gpu() == reason


def refuse(monkeypatch, compile_):
    """No kernel may be compiled or linked any more."""
    for name in ("ptx_of", "link"):
        monkeypatch.setattr(compile_, name, lambda *a: pytest.fail("made again"))


def test_compiled_and_cached(card, monkeypatch, tmp_path):
    """A kernel is compiled and linked once; the next process finds the cubin and does neither."""
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    compile_ = importlib.import_module("minigrad.kernels.cuda.compile")
    fill = next(k for k in kernel.KERNELS if k.__name__ == "_fill")
    key = (np.dtype(np.float32),)
    code = compile_.compile_kernel(fill, key, (9, 0))
    (file,) = (tmp_path / "cuda").iterdir()
    assert file.read_bytes() == code.cubin and code.cubin[:4] == b"\x7fELF"
    assert code.name.encode() in code.cubin and f".entry {code.name}(" in compile_.ptx_of(fill, key)
    refuse(monkeypatch, compile_)
    assert compile_.compile_kernel(fill, key, (9, 0)) == code
    for other in ((key, (8, 0)), ((np.dtype(np.float64),), (9, 0))):
        with pytest.raises(pytest.fail.Exception):
            compile_.compile_kernel(fill, *other)


@pytest.mark.parametrize(("where", "name", "value"), [
    (None, "SOURCES", "edited"), (None, "versions", lambda: "newer"), ("config", "OPT", 0),
    ("config", "CUDA_DEBUGINFO_DEFAULT", 1)])
def test_a_cubin_made_of_something_else_is_another(card, monkeypatch, where, name, value):
    compile_ = importlib.import_module("minigrad.kernels.cuda.compile")
    fill = next(k for k in kernel.KERNELS if k.__name__ == "_fill")
    file = compile_.file_of(fill, (np.dtype(np.float32),), (9, 0))
    monkeypatch.setattr(compile_.numba.config if where else compile_, name, value)
    assert compile_.file_of(fill, (np.dtype(np.float32),), (9, 0)) != file


def test_the_digest_of_the_sources_follows_them(tmp_path):
    digests = []
    for text in ("x = 1", "x = 2", "x = 1"):
        (tmp_path / "maps.py").write_text(text)
        digests.append(digest_of_sources(tmp_path))
    assert digests[0] == digests[2] != digests[1]


def test_every_kernel_has_a_cubin_of_its_own(card):
    compile_ = importlib.import_module("minigrad.kernels.cuda.compile")
    assert len({repr((k.__name__, compile_.identity(k.function))) for k in kernel.KERNELS}) == len(kernel.KERNELS)


def test_what_a_kernel_has_captured_tells_it_from_others(card):
    compile_ = importlib.import_module("minigrad.kernels.cuda.compile")

    def made(number):
        @device_function
        def add(x):
            return x + number

        return lambda x: add(x)

    assert compile_.identity(made(1)) == compile_.identity(made(1)) != compile_.identity(made(2))


def test_a_kernel_around_somebody_elses_function_is_not_ours(card):
    """`map_two` is the project's own, what it is given here is not: edits of that would not be seen."""
    compile_ = importlib.import_module("minigrad.kernels.cuda.compile")
    assert all(compile_.is_ours(k.function) for k in kernel.KERNELS)
    captured = next(k.function for k in kernel.KERNELS if k.function.__closure__)
    foreign = device_function(lambda x: x)
    copy = FunctionType(captured.__code__, captured.__globals__, captured.__name__, captured.__defaults__,
                        tuple([CellType(foreign) for _ in captured.__closure__]))
    copy.__module__ = captured.__module__
    assert not compile_.is_ours(copy)


def test_a_foreign_kernel_is_found_again_by_its_ptx(card, monkeypatch, tmp_path):
    """Its sources are not known, so it is compiled to see whether it has changed, but not linked again."""
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    compile_ = importlib.import_module("minigrad.kernels.cuda.compile")

    def scaled(factor):
        def times(x: Pointer):
            x[0] *= factor

        return kernel.Kernel(times, None, (), False)

    linked, link = [], compile_.link
    monkeypatch.setattr(compile_, "link", lambda *given: linked.append(given) or link(*given))
    key = (np.dtype(np.float32),)
    codes = [compile_.compile_kernel(scaled(factor), key, (9, 0)) for factor in (2, 2, 3)]
    assert codes[0] == codes[1] and codes[0].cubin != codes[2].cubin
    assert len(linked) == 2 and len(list((tmp_path / "cuda").iterdir())) == 2
