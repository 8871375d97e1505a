"""minigrad.study.source: an op from its formula down to the machine code."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad.function import Function
from minigrad.kernels.cpu import compile
from minigrad.kernels.cuda import kernel as cuda_kernel
from minigrad.kernels.cuda.toolkit import HAS_COMPILER
from minigrad.study import cuda_code, source
from minigrad.study.kernel_names import KERNELS
from minigrad.study.sources import KernelSource
from minigrad.study.texts import definition

needs_jit = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def test_four_ways_to_name_an_op():
    y = mg.relu(mg.tensor([1.0], requires_grad=True))
    for op in ("relu", mg.relu, F.relu, y.fn.__class__, y):
        found = source(op)
        assert found.name == "relu" and found.formula == "y = max(x, 0);  dy/dx = 1 where y > 0"
        assert [kernel.name for kernel in found.kernels] == ["relu", "relu_grad"]
        assert "def forward" in found.function and "def backward" in found.function
        assert "class ReluGrad" in found.gradients
    assert repr(found) == "<source of relu: relu, relu_grad>"


def test_of_an_output_among_several():
    x = mg.tensor(np.ones((2, 3)), requires_grad=True)
    largest = x.max(1)
    assert source(largest).name == "max"
    assert source(F.batch_norm(x, training=True)).name == "batch_norm"


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_has_its_texts(name):
    kernel = KernelSource(name)
    assert kernel.reference.startswith("# kernels/reference/") and len(kernel.reference.splitlines()) > 1
    assert kernel.njit.startswith("# kernels/cpu/") and kernel.njit.count("def ") >= 1
    assert definition("cuda", name).startswith("# kernels/cuda/")
    assert not kernel.why_no_machine or numba.config.DISABLE_JIT


def test_names_that_two_files_define():
    """`add` is a kernel in one file and an atomic operation in another."""
    assert KernelSource("add").njit.startswith("# kernels/cpu/elementwise.py")


def test_what_captured_names_stand_for():
    text = KernelSource("relu").njit
    assert ", where f = _relu" in text and "def _relu(x):" in text
    assert 'tanh = unary("tanh"' not in KernelSource("gelu_tanh").njit  # another kernel, of the name that it calls


def test_a_composition():
    found = source(F.binary_cross_entropy_with_logits)
    assert found.name == "binary_cross_entropy_with_logits"
    assert found.formula.endswith("A composition of add, neg, mul, sub, softplus, sum.")
    assert {"softplus", "softplus_grad", "mul", "sum"} <= {kernel.name for kernel in found.kernels}
    assert "def binary_cross" in found.function and "class Softplus(" in found.function
    assert [kernel.name for kernel in source("argmax").kernels] == ["argmax", "argmin"]


@needs_jit
def test_machine_code():
    (kernel, _) = source("relu").kernels
    assert "define" in kernel.llvm and "relu:" in kernel.assembly
    assert sum(kernel.vector_counts.values()) > 4 and kernel.lines
    assert kernel.machine.signature == "float32[:], float32[:]"


@needs_jit
def test_the_overview():
    text = str(source("relu"))
    for part in ("== Function", "== its gradient", "== relu: reference", "== relu: njit", "vector instructions: ",
                 "== relu: machine code for float32[:], float32[:]", "== relu_grad: numba.cuda", "in a loop of "):
        assert part in text
    assert len(text.splitlines()) < 250
    assert "&gt;" in source("relu")._repr_html_()


def test_show():
    found = source("relu")
    assert "class Relu" in found.show("function") and "class ReluGrad" in found.show("gradients")
    assert "def relu(x, out)" in found.show("reference")
    assert "def relu_grad" in found.show("reference", "relu_grad")
    if not numba.config.DISABLE_JIT:
        assert "in a loop of" in found.show("lines") and "relu:" in found.show("assembly")
    with pytest.raises(ValueError, match="show: expected function, gradients, .* got 'binary'"):
        found.show("binary")
    with pytest.raises(ValueError, match=r"show: expected a kernel of relu \(relu, relu_grad\), got 'gelu'"):
        found.show("njit", "gelu")
    with pytest.raises(ValueError, match="show: no kernel of reshape"):
        source("reshape").show("njit")


def test_wrong_names():
    with pytest.raises(ValueError, match="source: no op is called 'softmx'; did you mean 'softmax'"):
        source("softmx")
    with pytest.raises(ValueError, match="source: no op is called 'qqqqq'$"):
        source("qqqqq")
    with pytest.raises(ValueError, match="source: no op is called 'repeated_pass'"):  # it stands for several
        source("repeated_pass")
    with pytest.raises(TypeError, match="source: expected an op's name, .* got int"):
        source(3)
    with pytest.raises(ValueError, match="source: no recorded op made this tensor"):
        source(mg.tensor([1.0]))


def thrice(x, out):
    for i in range(x.size):
        out[i] = 3.0 * x[i]


def thrice_in_numpy(x, out):
    out[...] = 3 * x


class Thrice(Function):
    """y = 3 x"""

    def forward(self, x):
        out = self.device.empty(x.shape, x.dtype)
        self.device.kernels.study_thrice(x.ravel(), out.ravel())
        return out

    def backward(self, grad):
        return (grad * 3.0,)


def test_an_op_of_ones_own():
    mg.register_kernel("study_thrice", cpu=thrice, reference=thrice_in_numpy)
    found = source(Thrice)
    assert found.name == "thrice" and found.gradients == ""
    (kernel,) = found.kernels
    assert kernel.name == "study_thrice" and "3.0 * x[i]" in kernel.njit and "3 * x" in kernel.reference
    assert "project's own" in kernel.why_not and kernel.ptx is None and found.show("ptx") == kernel.why_not
    if not numba.config.DISABLE_JIT:
        assert "has not been called yet" in kernel.why_no_machine and kernel.llvm is None
        assert "has not been called yet" in found.show("llvm") and "has not been called yet" in str(found)
    Thrice.apply(mg.tensor(np.ones(4, np.float32)))
    if not numba.config.DISABLE_JIT:
        (kernel,) = source("thrice").kernels
        assert any("3.0 * x[i]" in line.text for line in kernel.lines)


def test_without_a_file():
    names = {"Function": Function}
    exec('class Typed(Function):\n    """y = x"""\n    def forward(self, x):\n        return x\n', names)
    found = source(names["Typed"])
    assert found.formula == "y = x" and found.kernels == [] and "cannot be read" in found.function


@pytest.mark.skipif(not HAS_COMPILER, reason="numba-cuda and cuda-core are not installed")
def test_cuda(monkeypatch):
    monkeypatch.setattr(cuda_kernel.backend, "prepare", cuda_kernel.backend.prepare)  # it is listened to from now on
    for one in cuda_kernel.KERNELS:
        monkeypatch.setattr(one, "_ready", {})
    host, kernels, why_not = cuda_code._look("relu")
    ((name, text, types, ptx, sass, registers, shared, spills, older, older_spills),) = kernels
    assert 0 < older < 256 and older_spills == 0
    assert why_not == "" and "lambda x: T(0) if x <= T(0) else x" in host
    assert name == "relu" and "thread_index()" in text and types == "float32"
    assert ".entry" in ptx and 0 < registers < 256 and shared == spills == 0
    assert sass is None or "EXIT" in sass


def test_cuda_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    asked, heard = [], []
    run = subprocess.run
    monkeypatch.setattr(compile, "compile_listeners", [lambda event, name, _: heard.append((event, name))])

    def counted(*arguments, **options):
        asked.append(arguments)
        return run(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    cuda_code.cuda_code.cache_clear()
    try:
        kernel = KernelSource("neg")
        assert kernel.cuda and heard == [("start", "neg (CUDA, to be read)"), ("end", "neg (CUDA, to be read)")]
        assert "lambda x: -x" in kernel.cuda and "thread_index()" in kernel.cuda
        assert (kernel.ptx is None) == (not HAS_COMPILER) == bool(kernel.why_not and "compiler" in kernel.why_not)
        if HAS_COMPILER:
            assert ".entry" in kernel.ptx and kernel.registers > 0
            cuda_code.cuda_code.cache_clear()
            assert KernelSource("neg").ptx == kernel.ptx and len(asked) == 1  # from the disk
    finally:
        cuda_code.cuda_code.cache_clear()


def test_where_the_cuda_kernels_cannot_be_imported(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "false")
    cuda_code.cuda_code.cache_clear()
    try:
        kernel = KernelSource("sqrt")
        assert kernel.why_not == "the CUDA kernels could not be looked at: no message"
        assert kernel.cuda.startswith("# kernels/cuda/elementwise.py") and kernel.registers is None
    finally:
        cuda_code.cuda_code.cache_clear()


@pytest.mark.parametrize("setting, expected", [
    ("NUMBA_DISABLE_JIT", "relu is not compiled here"), ("NUMBA_DEBUGINFO", "machine code is looked at without"),
])
def test_settings_of_numba_without_machine_code(setting, expected, tmp_path):
    code = ("import minigrad as mg; k = mg.study.source('relu').kernels[0]; print(k.llvm, k.vector_counts, k.lines); "
            "print(k.why_no_machine); print(k.njit); print(mg.relu(mg.tensor([1.0, -1.0])))")
    settings = {**os.environ, setting: "1", "MINIGRAD_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"None {{}} []\n{expected}") and "# kernels/cpu/" in done.stdout
    assert "tensor([1., 0.])" in done.stdout
