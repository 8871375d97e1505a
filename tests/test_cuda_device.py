"""The CUDA device as users meet it: moving, mixing, refusing."""

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

import minigrad as mg


def test_names():
    x = mg.ones(2, 3, device="cuda")
    assert str(x.device) == "cuda" and x.device is mg.zeros(1, device="cuda:0").device
    assert x.device == "cuda" and x.device != "cpu"
    assert repr(x).endswith("device='cuda')")


VALUES = [np.arange(6.0).reshape(2, 3), np.array(3), np.array([True, False]), np.zeros((0, 2))]


@pytest.mark.parametrize("values", VALUES)
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
    with pytest.raises(ValueError, match="nll_loss: expected all tensors on one device, got cuda and cpu"):
        mg.nll_loss(mg.ones(2, 3, device="cuda"), mg.tensor([0, 1]))
    with pytest.raises(ValueError, match="backward: expected a gradient on cpu, got one on cuda"):
        mg.ones(2, requires_grad=True).exp().backward(x)
    leaf = mg.ones(2, requires_grad=True)
    leaf.register_hook(lambda grad: x)
    with pytest.raises(ValueError, match="hook: expected a gradient on cpu, got one on cuda"):
        leaf.sum().backward()
    leaf.grad = x
    with pytest.raises(ValueError, match="SGD: expected the gradient of a parameter on cpu there too, got one on cuda"):
        mg.optim.SGD([leaf], lr=0.1).step()
    with pytest.raises(ValueError, match="expected a tensor on cuda, got one on cpu"):
        x.copy_(y)
    with pytest.raises(ValueError, match="batch_norm: .*one device, got cuda and running statistics on cpu"):
        mg.functional.batch_norm(mg.ones(3, 2, device="cuda"), mg.zeros(2), mg.ones(2), training=True)
    model = mg.layers.Linear(2, 2)
    with pytest.raises(ValueError, match="one device"):
        model(mg.ones(1, 2, device="cuda"))


def test_a_step_is_captured_on_one_device():
    """What a recorder does not listen to would be missing from every later step."""
    x = mg.ones(3, device="cuda", requires_grad=True)
    optimizer = mg.optim.SGD([x], lr=0.1)

    def step(*inputs):
        optimizer.zero_grad()
        (x * x).sum().backward()
        optimizer.step()

    refused = "capture: the step computes on cuda, and what is recorded is its work on cpu.*give it an input on"
    with pytest.raises(RuntimeError, match=refused):
        mg.capture(step)()
    with pytest.raises(RuntimeError, match=refused):
        mg.capture(step)(mg.ones(1))
    with pytest.raises(RuntimeError, match="capture: the step computes on cpu, and what is recorded .* on cuda"):
        mg.capture(lambda x: mg.ones(3) * 2)(x.detach())
    with pytest.raises(RuntimeError, match="capture: expected inputs on one device, got cuda and cpu"):
        mg.capture(step)(mg.ones(1, device="cuda"), mg.ones(1))
    captured = mg.capture(step)
    for _ in range(3):
        captured(mg.ones(1, device="cuda"))
    np.testing.assert_allclose(x.numpy(), 0.8**3, rtol=1e-6)
    assert (mg.ones(3) * 2).tolist() == [2, 2, 2]  # afterwards both compute as before


def test_random_numbers_are_those_of_the_cpu():
    mg.manual_seed(7)
    here = mg.rand(10).numpy()
    mg.manual_seed(7)
    np.testing.assert_array_equal(mg.rand(10, device="cuda").numpy(), here)


def test_more_elements_than_kernels_count():
    """Kernels count in int32; ctypes would cut a larger number without a word."""
    device = mg.get_device("cuda")
    with pytest.raises(ValueError, match=r"cuda: expected fewer than 2147475456 elements, got .* \(2147"):
        device.empty((2**31,), bool)


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
    clean = {k: v for k, v in os.environ.items() if k != "MINIGRAD_CUDA"} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean)


def test_without_a_gpu():
    """One sentence that says what is missing and what to do instead."""
    done = outside("""
import minigrad as mg
try:
    mg.zeros(1, device="cuda")
except RuntimeError as error:
    print(error)
else:
    print("a GPU")
""")
    said = done.stdout.strip()
    if said == "a GPU":
        pytest.skip("there is a GPU")
    assert said.startswith("cuda: ") and "MINIGRAD_CUDA=emulate" in said and "\n" not in said, done


def test_command_line_refuses():
    done = outside("import sys; from minigrad.cli import main; sys.exit(main(['train', '--device', 'cuda']))")
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.returncode == 2 and "--device: cuda: " in done.stderr and "Traceback" not in done.stderr


def test_dlpack_of_the_device():
    """NumPy reads the emulator's memory, which is the host's, without a copy; and it is given back."""
    x = mg.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda")
    view = np.from_dlpack(x)
    np.testing.assert_array_equal(view, [[1, 2], [3, 4]])
    x.fill_(5.0)
    np.testing.assert_array_equal(view, 5)
    from minigrad.kernels.cuda import dlpack

    assert len(dlpack._exported) == 1
    del x
    np.testing.assert_array_equal(view, 5)
    del view
    gc.collect()
    assert dlpack._exported == {}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_dlpack_to_the_device(dtype):
    """An array of another library's (NumPy's here) is used in place, and told when it is no longer needed."""
    from minigrad.kernels.cuda import dlpack

    values = np.ones((2, 3), dtype)
    before = sys.getrefcount(values)
    array = dlpack.take(values.__dlpack__())
    assert array.shape == (2, 3) and array.dtype == dtype and sys.getrefcount(values) > before
    y = mg.Tensor(array, mg.get_device("cuda"))
    y.fill_(0)
    np.testing.assert_array_equal(values, 0)
    del y, array
    gc.collect()
    assert sys.getrefcount(values) == before


def test_dlpack_refuses():
    from minigrad.kernels.cuda import dlpack

    with pytest.raises(ValueError, match="C order"):
        dlpack.take(np.ones((2, 3)).T.__dlpack__())
    with pytest.raises(ValueError, match="float32, float64, int64 or bool"):
        dlpack.take(np.ones(3, np.float16).__dlpack__())
    with pytest.raises(ValueError, match="float32, float64, int64 or bool, got DLPack's type 0 of 32 bits"):
        dlpack.take(np.ones(3, np.int32).__dlpack__())
    x = mg.ones(2, device="cuda")
    with pytest.raises(BufferError, match=r"dlpack: .*clone\(\)"):
        x.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="dlpack: .*to another device"):
        x.__dlpack__(dl_device=(7, 0))
    x.__dlpack__(copy=False, dl_device=x.__dlpack_device__(), max_version=(1, 0))
    with pytest.raises(RuntimeError, match="detach"):
        np.from_dlpack(mg.ones(2, device="cuda", requires_grad=True))


def test_dlpack_of_a_part():
    """Kernels choose 128-bit loads by the offset, so it has to tell where another library's array really begins."""
    from minigrad.kernels.cuda import dlpack

    values = np.arange(9, dtype=np.float32)[1:]
    array = dlpack.take(values.__dlpack__())
    assert array.address == values.ctypes.data and array.offset % 16 == values.ctypes.data % 16 != 0
    y = mg.Tensor(array, mg.get_device("cuda"))
    np.testing.assert_array_equal((y + 1).numpy(), values + 1)


def test_foreign_memory_goes_back_when_it_is_no_longer_read(monkeypatch):
    """The other library may use it again at once, and on a stream that knows nothing of ours."""
    from minigrad.kernels.cuda import dlpack, memory

    values, counts = np.ones(3), []
    before = sys.getrefcount(values)
    monkeypatch.setattr(memory, "synchronize", lambda: counts.append(sys.getrefcount(values) - before))
    array = dlpack.take(values.__dlpack__())
    kept = sys.getrefcount(values) - before
    del array
    assert counts == [kept] and kept > 0 and sys.getrefcount(values) == before


def test_memory_handed_over_goes_back_when_others_have_read_it(monkeypatch):
    """It goes back in the order of our stream, and the other library may read it in one of its own."""
    from minigrad.kernels.cuda import memory

    x = mg.ones(4, device="cuda")
    alive, found = weakref.ref(x.data.memory), []
    monkeypatch.setattr(memory.backend, "wait_for_all", lambda: found.append(alive() is not None), raising=False)
    view = np.from_dlpack(x)
    del x
    assert found == [] and view.tolist() == [1, 1, 1, 1]
    del view
    gc.collect()
    assert found == [True] and alive() is None


def test_unused_capsule_is_dropped():
    from minigrad.kernels.cuda import dlpack

    x = mg.ones(4, device="cuda")
    capsule = x.__dlpack__()
    assert len(dlpack._exported) == 1
    del capsule
    assert dlpack._exported == {}


def test_dlpack_on_the_cpu():
    values = np.arange(3.0)
    x = mg.from_dlpack(values)
    x.fill_(7.0)
    np.testing.assert_array_equal(values, 7)
    assert np.from_dlpack(x).ctypes.data == values.ctypes.data
    with pytest.raises(TypeError, match="from_dlpack: expected an array with __dlpack__, got list"):
        mg.from_dlpack([1.0])
    with pytest.raises(ValueError, match="from_dlpack: expected a writable array.*float16"):
        mg.from_dlpack(np.ones(3, np.float16))


def test_array_interface():
    x = mg.tensor([1.0, 2.0], device="cuda")
    interface = x.__cuda_array_interface__
    assert interface["shape"] == (2,) and interface["typestr"] == "<f4" and interface["version"] == 3
    assert interface["data"] == (x.data.address, False)
    assert not hasattr(mg.ones(2), "__cuda_array_interface__")
