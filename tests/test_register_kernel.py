"""register_kernel: kernels from outside the package at the seam of a device; kernelcheck."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import minigrad as mg
from minigrad import extension
from minigrad.kernels import cpu, reference
from minigrad.kernels.cpu import launch
from minigrad.recording.recorder import CaptureError
from minigrad.testing import KernelcheckError, kernelcheck

ROOT = Path(__file__).parent.parent
jit_is_on = pytest.mark.skipif(not launch.possible(), reason="kernels are Python functions here")


@pytest.fixture
def register():
    """register_kernel; what it registers is gone after the test."""
    before = dict(extension._kernels)

    def call(name, **functions):
        mg.register_kernel(name, **functions)
        return name

    yield call
    for name in set(extension._kernels) - set(before):
        del extension._kernels[name]
        for module in extension._modules.values():
            delattr(module, name)


def plus_one(x, out):
    for i in range(x.size):
        out[i] = x[i] + 1


def plus_two(x, out):
    for i in range(x.size):
        out[i] = x[i] + 2


# -- registering ---------------------------------------------------------------------------------------------------


def test_registering_imports_nothing():
    code = ("import sys, minigrad as mg\n"
            "def f(x, out):\n    for i in range(x.size):\n        out[i] = x[i] + 1\n"
            "mg.register_kernel('light', cpu=f, cuda=f, reference=f)\n"
            "print(sorted({'numba', 'cuda', 'llvmlite'} & set(sys.modules)))\n"
            "x = mg.zeros(3); out = mg.ones(3)\n"
            "mg.cpu.kernels.light(x.data, out.data)\n"
            "print(out)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.splitlines() == ["[]", "tensor([1., 1., 1.])"], done.stderr


def test_the_projects_own_lists_do_not_change(register):
    names = set(vars(reference)), list(cpu.__all__)
    register("foreign_kernel", cpu=plus_one, reference=plus_one)
    assert (set(vars(reference)), cpu.__all__) == names


@pytest.mark.parametrize("name", ["", "two words", "1st", "class", "_private", 3, None])
def test_a_bad_name(name):
    with pytest.raises(ValueError, match="expected the name to be an identifier"):
        mg.register_kernel(name, cpu=plus_one)


@pytest.mark.parametrize("module", ["cpu", "cuda"])
def test_every_name_of_the_kernels_is_taken(module):
    names = vars(mg.get_device(module).kernels)
    for name in set(names) - set(extension._kernels):
        with pytest.raises(ValueError, match="expected (the|a) name"):
            mg.register_kernel(name, cpu=plus_one)


def test_a_workspace_is_no_kernel():
    with pytest.raises(ValueError, match="names in _workspace belong to the built-in kernels' scratch"):
        mg.register_kernel("mine_workspace", cpu=plus_one)


def _generator(x, out):
    yield x


def _early(x, out):
    if x.size == 0:
        return
    out[0] = x[0]


def _value(x, out):
    if x.size:
        return
    return x.sum()


@pytest.mark.parametrize("functions, message", [
    ({}, "expected a function for cpu or cuda for 'mine', got neither"),
    ({"cpu": 3}, "expected cpu of 'mine' to be a Python function or one compiled by numba.njit, got int"),
    ({"cpu": np.exp}, "got ufunc"),
    ({"cpu": plus_one, "cuda": "text"}, "expected cuda of 'mine' to be a function, got str"),
    ({"cpu": plus_one, "reference": 1.0}, "expected reference of 'mine' to be a function, got float"),
    ({"cpu": lambda x, out: x}, "expected cpu of 'mine' to return nothing"),
    ({"cpu": lambda x, out: 3}, "expected cpu of 'mine' to return nothing"),
    ({"cpu": _value}, "expected cpu of 'mine' to return nothing"),
    ({"cpu": _generator}, "expected cpu of 'mine' to return nothing"),
    ({"cuda": _value}, "expected cuda of 'mine' to return nothing"),
    ({"cpu": lambda x, out=None: None}, r"to take plain arguments without defaults, got \(x, out=None\)"),
    ({"cpu": lambda *x: None}, "to take plain arguments"),
    ({"cpu": plus_one, "reference": lambda x, y, out: None}, "but cpu takes 2, reference takes 3"),
])  # fmt: skip
def test_what_is_no_kernel(functions, message):
    with pytest.raises(TypeError, match=message):
        mg.register_kernel("mine", **functions)
    assert extension.registered("mine") is None


def test_a_name_is_taken_once(register):
    name = register("taken_kernel", cpu=plus_one)
    with pytest.raises(ValueError, match=f"there is a kernel 'taken_kernel' already, by {__name__}.plus_one"):
        register(name, cpu=plus_two)
    register(name, cpu=plus_one, cuda=plus_one)  # the same, and one for another device


def test_the_same_definition_again_replaces(register):
    def define(step):
        def cell(x, out):
            for i in range(x.size):
                out[i] = x[i] + step

        return register("cell_kernel", cpu=cell)

    x, out = np.zeros(3, np.float32), np.empty(3, np.float32)
    for step in (1, 2):
        name = define(step)
        for _ in range(2 * launch.OFTEN):
            getattr(mg.cpu.kernels, name)(x, out)
        assert out.tolist() == [step] * 3


def test_a_device_without_the_kernel(register):
    name = register("only_cpu", cpu=plus_one)
    with pytest.raises(NotImplementedError, match=r"only_cpu: no kernel for cuda was registered; give one by "
                                                  r"register_kernel\('only_cpu', cuda=...\)"):
        getattr(mg.get_device("cuda").kernels, name)(None, None)


# -- kernels of every kind at the seam -----------------------------------------------------------------------------


def run_often(name, *arguments):
    for _ in range(2 * launch.OFTEN + 1):
        getattr(mg.cpu.kernels, name)(*arguments)


def captured_sum(name, times=3):
    """Results of calls of a captured step with one op of a kernel."""

    class Op(mg.Function):
        def forward(self, x):
            out = self.device.empty(x.shape, x.dtype)
            getattr(self.device.kernels, name)(x, out)
            return out

    step = mg.capture(lambda x: Op.apply(x) * 2.0)
    return [step(mg.tensor([float(i), 1.0])).numpy().tolist() for i in range(times)]


@numba.njit
def njit_plus_one(x, out):
    for i in range(x.size):
        out[i] = x[i] + 1


@numba.njit("void(float32[:], float32[:])")
def signed_plus_one(x, out):
    for i in range(x.size):
        out[i] = x[i] + 1


@pytest.mark.parametrize("function", [plus_one, njit_plus_one, signed_plus_one])
def test_functions_and_dispatchers(register, function):
    name = register("kind_of_kernel", cpu=function)
    x, out = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    run_often(name, x, out)
    assert out.tolist() == [1, 2, 3, 4, 5]
    assert captured_sum(name) == [[2.0, 4.0], [4.0, 4.0], [6.0, 4.0]]


@jit_is_on
def test_dispatcher_is_taken_as_it_is(register):
    name = register("own_options", cpu=njit_plus_one)
    assert launch.dispatcher_of(getattr(mg.cpu.kernels, name)) is njit_plus_one
    run_often(name, np.zeros(3), np.zeros(3))
    assert isinstance(getattr(mg.cpu.kernels, name), type(len))  # and is launched without the dispatcher


def test_a_return_value_that_shows_when_it_is_called(register):
    name = register("returns", cpu=lambda x, out: x.size or None)
    with pytest.raises(TypeError, match="returns: expected the kernel to return nothing, got int; write the"):
        getattr(mg.cpu.kernels, name)(np.ones(3), np.ones(3))


@jit_is_on
def test_a_return_value_that_does_not_show_is_never_called_without_room_for_it(register):
    name = register("returns_at_times", cpu=lambda x, out: (x.size - 2) or None)
    x = np.ones(2, np.float32)
    run_often(name, x, x)  # returns None, and the compiled function is one that may return a number
    assert not isinstance(getattr(mg.cpu.kernels, name), type(len))
    assert captured_sum(name, 2)


def divides(x, out, by):
    out[0] = x[0] + 1 // by


@jit_is_on
def test_an_error_of_a_kernel_is_not_lost(register):
    name = register("divides", cpu=numba.njit(divides))
    x, out = np.ones(1), np.zeros(1)
    run_often(name, x, out, 1)
    with pytest.raises(ZeroDivisionError):
        getattr(mg.cpu.kernels, name)(x, out, 0)
    assert getattr(mg.cpu.kernels, name)(x, out, 1) is None and out[0] == 2


@jit_is_on
def test_a_kernel_allocates_nothing(register):
    def allocates(x, out):
        scratch = np.zeros(3)
        out[0] = scratch[0]

    name = register("allocates", cpu=allocates)
    with pytest.raises(TypeError, match="allocates: a kernel allocates no arrays; take scratch as an argument"):
        getattr(mg.cpu.kernels, name)(np.ones(3), np.ones(3))


@jit_is_on
def test_other_compile_errors_are_numbas(register):
    def calls_nonsense(x, out):
        x.nonsense()

    name = register("no_such_thing", cpu=calls_nonsense)
    with pytest.raises(numba.TypingError, match="nonsense"):
        getattr(mg.cpu.kernels, name)(np.ones(3), np.ones(3))


def sums_a_pair(x, out, pair):
    for i in range(x.size):
        out[i] = x[i] + pair[0] + pair[1]


def test_captured_with_an_argument_that_machine_code_does_not_hold(register):
    name = register("takes_a_tuple", cpu=sums_a_pair)

    class Op(mg.Function):
        def forward(self, x):
            out = self.device.empty(x.shape, x.dtype)
            getattr(self.device.kernels, name)(x, out, (1.0, 2.0))
            return out

    step = mg.capture(lambda x: Op.apply(x * 2.0) * 2.0)
    assert [step(mg.tensor([float(i)])).item() for i in range(3)] == [6.0, 10.0, 14.0]


def test_recording_without_the_kernel_of_the_device(register):
    register("not_on_cpu", cuda=lambda x, out: None)
    with pytest.raises(NotImplementedError, match="no kernel for cpu"):
        captured_sum("not_on_cpu")
    with pytest.raises(CaptureError):  # the recorder has left the seam, and works as before
        mg.capture(lambda x: x.item())(mg.ones(1))


def test_annotations_of_a_cuda_kernel():
    from minigrad.kernels.cuda.language import Pointer, kernel

    with pytest.raises(TypeError, match="kernel none: expected n to be annotated as .*Unsigned or Float, got none"):
        @kernel
        def none(x: Pointer, n): ...

    with pytest.raises(TypeError, match="got 'Pointer'; annotations are texts"):
        @kernel
        def text(x: "Pointer"): ...


# -- kernelcheck ---------------------------------------------------------------------------------------------------


def add_one(x, out):
    out[...] = x + 1


def forgets_the_last(x, out):
    for i in range(x.size - 1):
        out[i] = x[i] + 1


def changes_its_input(x, out):
    for i in range(x.size):
        out[i] = x[i] + 1
        x[i] = 0


@pytest.mark.parametrize("function, message", [
    (plus_two, r"output 0 of checked at \(0,\): the reference says 1.0, the kernel 2.0; 4 of 4 elements differ"),
    (forgets_the_last, r"at \(3,\): the reference says 4.0, the kernel nan; 1 of 4"),
    (changes_its_input, "checked changes its input 0"),
])  # fmt: skip
def test_kernelcheck_finds(register, function, message):
    register("checked", cpu=function, reference=add_one)
    x = np.arange(4.0)
    with pytest.raises(KernelcheckError, match=message):
        kernelcheck("checked", [x], [x.shape])
    assert not kernelcheck("checked", [x], [x.shape], raise_exception=False)


def test_kernelcheck_finds_a_kernel_that_differs_from_run_to_run(register):
    calls = []

    def unsteady(x, out):
        calls.append(out)
        mg.get_device("cuda").kernels.fill(out, 1.0 + 1e-15 * len(calls))

    register("unsteady", cuda=unsteady, reference=add_one)
    with pytest.raises(KernelcheckError, match="output 0 of unsteady differs from run to run"):
        kernelcheck("unsteady", [np.zeros(1)], [(1,)], device="cuda")


def test_kernelcheck_of_built_in_kernels():
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    assert kernelcheck("relu", [x], [x.shape])
    assert kernelcheck("ge", [x, x], [np.empty(x.shape, bool)])
    assert kernelcheck("leaky_relu", [x], [x.shape], 0.1, device="cuda")
    with pytest.raises(ValueError, match="expected the name of a kernel, got 'nonsense'"):
        kernelcheck("nonsense", [x], [x.shape])


def test_kernelcheck_without_a_reference(register):
    register("undefined_kernel", cpu=plus_one)
    with pytest.raises(ValueError, match="registered without a reference"):
        kernelcheck("undefined_kernel", [np.ones(2)], [(2,)])


# -- the cache on disk ---------------------------------------------------------------------------------------------

USER = """
import sys
import numpy as np
import minigrad as mg
from helpers import plus
import settings
STEP = 1
def user_kernel(x, out):
    for i in range(x.size):
        out[i] = plus(x[i]) + STEP + settings.OFFSET
mg.register_kernel("user_kernel", cpu=user_kernel)
"""
RUN = """
import numpy as np
import minigrad as mg
import user
from minigrad.kernels.cpu.compile import compile_listeners
compiled = []
x, out = np.zeros(2, np.float32), np.empty(2, np.float32)
mg.cpu.kernels
compile_listeners.append(lambda event, name, signature: compiled.append(event))
mg.cpu.kernels.user_kernel(x, out)
print(out[0], "compiled" if compiled else "from disk")
"""


@pytest.fixture
def user(tmp_path):
    """A user's folder; call it to run a process that uses the kernel in it."""
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "helpers.py").write_text("import numba\n@numba.njit\ndef plus(x):\n    return x + 0\n")
    (tmp_path / "settings.py").write_text("OFFSET = 0\n")

    def run():
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "PYTHONDONTWRITEBYTECODE": "1",
                       "MINIGRAD_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


EDITS = [  # file, text, what it becomes, what the kernel then computes
    ("user.py", "plus(x[i]) + STEP", "plus(x[i]) + STEP + 4", "5.0"),
    ("helpers.py", "x + 0", "x + 2", "7.0"),
    ("settings.py", "OFFSET = 0", "OFFSET = 9", "16.0"),
]


@jit_is_on
def test_an_edit_of_the_users_sources_compiles_anew(user, tmp_path):
    assert user() == "1.0 compiled"
    assert user() == "1.0 from disk"
    for file, old, new, result in EDITS:
        path = tmp_path / file
        path.write_text(path.read_text().replace(old, new))
        assert user() == f"{result} compiled"
    assert user() == f"{result} from disk"
