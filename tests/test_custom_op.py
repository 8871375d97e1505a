"""examples/custom_op.py: an op from outside the package, its kernels, gradients, a net with it."""

import contextlib
import copy
import importlib.util
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F
from minigrad import layers as nn
from minigrad.kernels.cuda import toolkit
from minigrad.testing import gradcheck, gradgradcheck, kernelcheck

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def load(name):
    """A script of examples/ as a module; it finds its neighbours, as if it had been started."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


kernels = load("custom_op_kernels")
example = load("custom_op")


def arrays(n=100, dtype=np.float32, seed=0):
    x, grad = np.random.default_rng(seed).standard_normal((2, n)).astype(dtype)
    return x, np.array([1.5], dtype), grad


# -- the example ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_example_runs(device, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["custom_op.py", "--device", device, "--quick"])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        example.main()
    lines = printed.getvalue().splitlines()
    assert lines[0] == "kernels and gradients of both orders are right" and len(lines) == 4
    assert float(lines[1].split()[-1]) < 1e-6


def test_example_as_a_script_is_short():
    done = subprocess.run([sys.executable, EXAMPLES / "custom_op.py", "--help"], capture_output=True, text=True,
                          cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120)
    assert done.returncode == 0 and "swish" in done.stdout, done.stderr
    assert (EXAMPLES / "custom_op.py").read_text("utf-8").count("\n") < 120


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 7, 1000])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_kernels_are_the_definition(device, n, dtype):
    x, beta, grad = arrays(n if device == "cpu" else min(n, 40), dtype)
    assert kernelcheck("swish_forward", [x, beta], [x.shape], device=device)
    assert kernelcheck("swish_grad", [x, beta, grad], [x.shape, x.shape], device=device)


@pytest.mark.skipif(not toolkit.HAS_COMPILER, reason="numba-cuda and cuda-core are not installed")
@pytest.mark.parametrize("name", ["forward", "gradient"])
def test_cuda_kernels_compile_for_a_gpu(name):
    from minigrad.kernels.cuda.compile import compile_kernel, ptx_of

    kernel = kernels.cuda_kernels()[name]
    pointers = len(kernel.parameters) - 1
    key = (np.dtype(np.float32),) * pointers
    assert compile_kernel(kernel, key, (8, 0)).cubin and ".f64" not in ptx_of(kernel, key)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gradients(device):
    inputs = [mg.tensor(np.random.default_rng(1).standard_normal(shape), device=device, requires_grad=True)
              for shape in ((3, 2), (1,))]
    assert gradcheck(example.Swish.apply, inputs, elementwise=True)
    assert gradgradcheck(example.Swish.apply, inputs)


def test_equals_the_composition_of_primitives():
    x, beta, grad = (mg.tensor(a, requires_grad=True) for a in arrays(dtype=np.float64))
    found = mg.grad(example.Swish.apply(x, beta), [x, beta], grad)
    wanted = mg.grad(x * mg.sigmoid(beta * x), [x, beta], grad)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)


def trained(device="cpu", captured=False, steps=4):
    """The parameters of a net with the layer after some steps."""
    mg.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), example.SwishLayer(), nn.Linear(5, 3)).to(device)
    optimizer = mg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    call = mg.capture(step) if captured else step
    rng = np.random.default_rng(2)
    losses = []
    for _ in range(steps):
        x, y = rng.standard_normal((4, 6), dtype=np.float32), rng.integers(0, 3, 4)
        losses.append(call(mg.tensor(x, device=device), mg.tensor(y, device=device)).numpy())
    if captured:
        assert {"swish_forward", "swish_grad"} <= set(call.recordings[0].launches) and len(call.recordings) == 1
    return [p.numpy().copy() for p in model.parameters()] + losses


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_captured_equals_uncaptured_bit_for_bit(device):
    for a, b in zip(trained(device, captured=True), trained(device), strict=True):
        assert a.tobytes() == b.tobytes()


def test_emulated_cuda_equals_cpu():
    for a, b in zip(trained("cuda"), trained(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_saved_and_loaded(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), example.SwishLayer())
    with mg.no_grad():
        model[1].beta.data[:] = 1.75
    mg.save(model.state_dict(), tmp_path / "model.npz")
    other = nn.Sequential(nn.Linear(3, 2), example.SwishLayer())
    other.load_state_dict(mg.load(tmp_path / "model.npz"))
    x = mg.randn(4, 3)
    assert float(other[1].beta) == 1.75 and other(x).numpy().tobytes() == model(x).numpy().tobytes()
    assert copy.deepcopy(model)(x).numpy().tobytes() == model(x).numpy().tobytes()


def test_two_threads_at_once():
    x, beta, grad = (mg.tensor(a, requires_grad=True) for a in arrays(5000))
    wanted = [g.numpy() for g in mg.grad(example.Swish.apply(x, beta), [x, beta], grad)]
    wrong = []

    def work():
        for _ in range(100):
            found = mg.grad(example.Swish.apply(x, beta), [x, beta], grad)
            if any(a.numpy().tobytes() != b.tobytes() for a, b in zip(found, wanted, strict=True)):
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_trace_sees_the_kernels():
    x, beta, _ = (mg.tensor(a, requires_grad=True) for a in arrays())
    with mg.study.trace() as traced:
        example.Swish.apply(x, beta).sum().backward()
    found = {launch.kernel: launch for launch in traced.launches}
    assert found["swish_forward"].op == "swish" and found["swish_forward"].bytes == 4 * (100 + 1 + 100)
    assert found["swish_grad"].phase == "backward" and found["swish_grad"].flops is None
