"""The same seed gives the same bits: on every run, on one thread and on two."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import minigrad as mg
from minigrad import ops
from minigrad.random import default_generator

ROOT = Path(mg.__file__).parent.parent
THREADS = [1, 2] if numba.config.NUMBA_NUM_THREADS >= 2 and not numba.config.DISABLE_JIT else [1, 1]


def digest(arrays):
    """A fingerprint of the bits of some arrays."""
    found = hashlib.sha256()
    for a in arrays:
        found.update(np.ascontiguousarray(a).tobytes())
    return found.hexdigest()


def train(steps=3, batch=32, size=16):
    """Some steps of a small net with convolution, batch norm, pooling and dropout; returns all its arrays."""
    mg.manual_seed(1)
    if numba.config.DISABLE_JIT:
        batch, size = 4, 8
    x = mg.randn(batch, 3, size, size)
    target = mg.tensor(np.arange(batch) % 10)
    w1, w2 = mg.randn(16, 3, 3, 3) * 0.2, mg.randn(32, 16, 3, 3) * 0.1
    linear, bias = mg.randn(10, 32 * (size // 4) ** 2) * 0.05, mg.zeros(10)
    norms = [mg.ones(16), mg.zeros(16), mg.ones(32), mg.zeros(32)]
    parameters = [w1, w2, linear, bias, *norms]
    statistics = [mg.zeros(16), mg.ones(16), mg.zeros(32), mg.ones(32)]
    for p in parameters:
        p.requires_grad_()
    losses = []
    for _ in range(steps):
        y = ops.conv2d(x, w1, padding=1)
        y = ops.relu(ops.batch_norm(y, *statistics[:2], *norms[:2], training=True))
        y = ops.max_pool2d(y, 2)
        y = ops.conv2d(y, w2, padding=1)
        y = ops.gelu(ops.batch_norm(y, *statistics[2:], *norms[2:], training=True))
        y = ops.dropout(ops.avg_pool2d(y, 2).flatten(1), 0.3)
        loss = ops.cross_entropy(ops.linear(y, linear, bias), target, label_smoothing=0.1)
        loss.backward()
        losses.append(loss.item())
        with mg.no_grad():
            for p in parameters:
                p.sub_(p.grad * 0.05)
                p.grad = None
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    return [p.numpy() for p in (*parameters, *statistics)]


@pytest.fixture
def threads():
    """Sets the number of threads, and sets it back."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


def on_each(threads, compute):
    """The fingerprints of what `compute` returns on one and on two threads."""
    found = []
    for count in THREADS:
        threads(count)
        found.append(digest(compute()))
    return found


def test_training(threads):
    one, two = on_each(threads, train)
    assert one == two


def test_the_seed_matters():
    """The fingerprints would notice."""
    a = mg.randn(100, generator=mg.Generator(1)).numpy()
    assert digest([a]) != digest([mg.randn(100, generator=mg.Generator(2)).numpy()])
    assert digest([a]) != digest([np.nextafter(a, 0)])


def test_training_in_another_process():
    """Not even the process matters."""
    code = "import sys; sys.path.insert(0, 'tests'); import test_determinism as t; print(t.digest(t.train()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(train())


def test_random_numbers(threads):
    """A draw depends on the seed and on how much was drawn before, not on threads."""

    def draw():
        mg.manual_seed(4)
        n = 100_003 if not numba.config.DISABLE_JIT else 1003
        x = mg.randn(n)
        return [
            x.numpy(),
            mg.rand(n, dtype="float64").numpy(),
            ops.dropout(x, 0.4).numpy(),
            default_generator.get_state(),
        ]

    one, two = on_each(threads, draw)
    assert one == two


REDUCTIONS = {
    "sum": lambda x: ops.sum(x),
    "sum 0": lambda x: ops.sum(x, 0),
    "mean 1": lambda x: ops.mean(x, 1),
    "var": lambda x: ops.var(x),
    "logsumexp": lambda x: ops.logsumexp(x, 0),
    "softmax": lambda x: ops.softmax(x, 1),
    "matmul": lambda x: ops.matmul(x.T, x),
    "product over many rows": lambda x: ops.matmul(x.T, x[:, :3]),
    "layer_norm": lambda x: ops.layer_norm(x, x.shape[1]),
    "embedding": lambda x: ops.embedding(mg.tensor(np.arange(5000) % 7), x[:7]),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_and_their_gradients(name, threads):
    """Sums are taken over fixed blocks in a fixed order, forward and backward."""

    def compute():
        n = 1201 if not numba.config.DISABLE_JIT else 31
        x = mg.randn(n, 130 if n > 100 else 13, generator=mg.Generator(2), requires_grad=True)
        y = REDUCTIONS[name](x)
        (g,) = mg.grad(y, x, mg.randn(*y.shape, generator=mg.Generator(3)))
        return y.numpy(), g.numpy()

    one, two = on_each(threads, compute)
    assert one == two
