"""The CUDA device as users meet it: moving, mixing, refusing."""

import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg


def test_names():
    x = mg.ones(2, 3, device="cuda")
    assert str(x.device) == "cuda" and x.device is mg.zeros(1, device="cuda:0").device
    assert x.device == "cuda" and x.device != "cpu"
    assert repr(x).endswith("device='cuda')")


@pytest.mark.parametrize("values", [np.arange(6.0).reshape(2, 3), np.array(3), np.array([True, False]), np.zeros((0, 2))])
def test_there_and_back(values):
    x = mg.tensor(values)
    y = x.to("cuda")
    assert y.shape == x.shape and y.dtype == x.dtype and y.to("cuda") is y
    np.testing.assert_array_equal(y.to("cpu").numpy(), values)
    assert y.tolist() == x.tolist()


def test_numpy_is_a_copy():
    x = mg.zeros(3, device="cuda")
    x.numpy()[:] = 1
    np.testing.assert_array_equal(x.numpy(), 0)


def test_moving_passes_gradients():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    y = (x.to("cuda") * 3).to("cpu") * x
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 6 * x.numpy())
    assert str(x.grad.device) == "cpu"


def test_mixing_is_refused():
    x, y = mg.ones(2, device="cuda"), mg.ones(2)
    with pytest.raises(ValueError, match="add: expected all tensors on one device, got cuda and cpu"):
        x + y
    with pytest.raises(ValueError, match="expected a tensor on cuda, got one on cpu"):
        x.copy_(y)
    model = mg.layers.Linear(2, 2)
    with pytest.raises(ValueError, match="one device"):
        model(mg.ones(1, 2, device="cuda"))


def test_random_numbers_are_those_of_the_cpu():
    mg.manual_seed(7)
    here = mg.rand(10).numpy()
    mg.manual_seed(7)
    np.testing.assert_array_equal(mg.rand(10, device="cuda").numpy(), here)


def test_in_place_and_indexing():
    x = mg.tensor(np.arange(12.0).reshape(3, 4), device="cuda")
    x[1] = -1.0
    x[:, 2:] += 10.0
    wanted = np.arange(12.0).reshape(3, 4)
    wanted[1] = -1
    wanted[:, 2:] += 10
    np.testing.assert_array_equal(x.numpy(), wanted)
    np.testing.assert_array_equal(x[[2, 0]].numpy(), wanted[[2, 0]])
    np.testing.assert_array_equal(x[x > 5].numpy(), wanted[wanted > 5])


def test_save_and_load(tmp_path):
    x = mg.tensor([1.0, 2.0], device="cuda")
    mg.save({"x": x}, tmp_path / "x.npz")
    assert str(mg.load(tmp_path / "x.npz")["x"].device) == "cpu"
    loaded = mg.load(tmp_path / "x.npz", device="cuda")["x"]
    assert str(loaded.device) == "cuda" and loaded.tolist() == [1.0, 2.0]


def outside(code, **environment):
    """What a fresh interpreter without a GPU says."""
    import os

    clean = {k: v for k, v in os.environ.items() if k != "MINIGRAD_CUDA"} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean)


def test_without_a_gpu():
    """One sentence that says what is missing and what to do instead."""
    done = outside("import minigrad as mg\ntry:\n    mg.zeros(1, device='cuda')\nexcept RuntimeError as e:\n    print(e)\n"
                   "else:\n    print('a GPU')")
    said = done.stdout.strip()
    if said == "a GPU":
        pytest.skip("there is a GPU")
    assert said.startswith("cuda: ") and "MINIGRAD_CUDA=emulate" in said and "\n" not in said, done


def test_command_line_refuses():
    done = outside("import sys\nfrom minigrad.cli import main\nsys.exit(main(['train', '--device', 'cuda', '--epochs', '1']))")
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.returncode == 2 and "--device: cuda: " in done.stderr and "Traceback" not in done.stderr
