"""Saving and loading: everything comes back, a failed save loses nothing, a bad file is named."""

import json
import os
import sys
import zipfile

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad import serialization


def equal(a, b):
    """Whether two nested objects have the same structure, types and numbers."""
    if isinstance(a, mg.Tensor) or isinstance(b, mg.Tensor):
        return type(a) is type(b) and equal(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and (a == b or a != a and b != b)


def test_everything_comes_back(tmp_path):
    path = tmp_path / "all.npz"
    obj = {
        "tensors": {"a": mg.randn(2, 3), "b": mg.tensor([1, 2]), "c": mg.tensor([True]), "d": mg.zeros(0, 4),
                    "e": mg.tensor(np.array(2.5)), "f": mg.zeros((), dtype="int64")},
        "arrays": [np.arange(6, dtype=np.uint8).reshape(2, 3), np.asfortranarray(np.eye(3)), np.array(["x", "yz"])],
        "numbers": (1, 2.5, -0.0, float("inf"), float("nan"), 2**70, True, None, "text with ü and \n"),
        "empty": [{}, [], (), ""],
        7: {"int key": 1}, True: "bool key", 0.5: "float key",
        "a/b": mg.ones(1), "a": {"b": mg.zeros(1)}, "back\\slash": mg.full((1,), 3.0), "": {"": mg.ones(2)},
        "structure.json": mg.ones(3), "nul\0": mg.ones(4), "structure": {"json": mg.ones(5)},
    }
    mg.save(obj, path)
    assert equal(obj, mg.load(path))
    assert os.listdir(tmp_path) == ["all.npz"]


@pytest.mark.parametrize("obj", [mg.ones(3), np.ones(2), 3, None, [], "text"], ids=str)
def test_a_single_object(tmp_path, obj):
    mg.save(obj, tmp_path / "one")
    assert equal(obj, mg.load(tmp_path / "one"))


def test_numpy_numbers_become_python_numbers(tmp_path):
    mg.save([np.float32(0.5), np.int64(3), np.bool_(True)], tmp_path / "n.npz")
    assert mg.load(tmp_path / "n.npz") == [0.5, 3, True]


def test_a_flat_state_dict_is_a_plain_npz(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    mg.save(model.state_dict(), tmp_path / "model.npz")
    archive = np.load(tmp_path / "model.npz")
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(archive[key], value.numpy())
    loaded = mg.load(str(tmp_path / "model.npz"))
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    other.load_state_dict(loaded)
    assert equal(dict(other.state_dict()), dict(model.state_dict()))
    assert all(type(value) is mg.Tensor and not value.requires_grad for value in loaded.values())


def test_parameters_are_saved_as_tensors(tmp_path):
    layer = nn.Linear(2, 2)
    mg.save({"w": layer.weight}, tmp_path / "p.npz")
    assert equal(mg.load(tmp_path / "p.npz")["w"], layer.weight.detach())


def test_loaded_tensors_can_be_written(tmp_path):
    mg.save({"w": mg.zeros(3)}, tmp_path / "w.npz")
    w = mg.load(tmp_path / "w.npz", device="cpu")["w"]
    w.add_(1.0)
    assert w.tolist() == [1, 1, 1]


class Interrupted(Exception):
    pass


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    mg.save({"w": mg.ones(3)}, path)

    def fail(*args, **kwargs):
        raise Interrupted

    monkeypatch.setattr(serialization.np.lib.format, "write_array", fail)
    with pytest.raises(Interrupted):
        mg.save({"w": mg.zeros(3)}, path)
    monkeypatch.undo()
    assert mg.load(path)["w"].tolist() == [1, 1, 1]
    assert os.listdir(tmp_path) == ["model.npz"]


@pytest.mark.parametrize(("obj", "sentence"), [
    ({"a": [1, {2, 3}]}, "save: expected tensors, .* got set at a/1"),
    ({"a": {"b": object()}}, "got object at a/b"),
    (lambda: 0, "got function at the top"),
    ({"x": np.array([None])}, "save: cannot store an array of Python objects at x"),
    ({"x": {(1, 2): 3}}, "save: expected keys to be strings or numbers, got tuple at x"),
])
def test_what_cannot_be_saved_is_named(tmp_path, obj, sentence):
    path = tmp_path / "bad.npz"
    with pytest.raises(TypeError, match=sentence):
        mg.save(obj, path)
    assert not path.exists()


def test_folders_that_do_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="save: the folder .*nowhere' does not exist"):
        mg.save({}, tmp_path / "nowhere" / "x.npz")
    with pytest.raises(FileNotFoundError, match="load: there is no file .*x.npz"):
        mg.load(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="load: expected a file, got the folder"):
        mg.load(tmp_path)


def test_truncated_files(tmp_path):
    """Cut anywhere, the sentence names the file; no other exception comes out."""
    path = tmp_path / "t.npz"
    mg.save({"w": mg.randn(50), "v": [mg.randn(3), 1]}, path)
    whole = path.read_bytes()
    for size in [0, 1, 2, 10, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="load: the file .*t.npz' (is truncated|was not written|is damaged)"):
            mg.load(path)


def test_flipped_bytes(tmp_path):
    """Every damaged byte of the arrays is noticed by the checksum."""
    path = tmp_path / "f.npz"
    mg.save({"w": mg.randn(40)}, path)
    whole = path.read_bytes()
    start = whole.index(b"\x93NUMPY")
    for position in range(start, start + 280, 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x20]) + whole[position + 1:])
        with pytest.raises(ValueError, match="load: the file .* is damaged"):
            mg.load(path)


def test_foreign_files(tmp_path):
    path = tmp_path / "foreign.npz"
    np.savez(path, a=np.ones(3))
    with pytest.raises(ValueError, match="was not written by minigrad.save"):
        mg.load(path)
    path.write_text("just text")
    with pytest.raises(ValueError, match="was not written by minigrad.save"):
        mg.load(path)
    for document in ("{", "[]", '{"format": "minigrad-99"}', '{"format": "minigrad-1", "content": {"tensor": "gone"}}',
                     '{"format": "minigrad-1", "content": {"code": "x"}}', '{"format": "minigrad-1"}',
                     '{"format": "minigrad-1", "content": {}}'):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("structure.json", document)
        with pytest.raises(ValueError, match="load: the file .*foreign.npz' (was not written|is damaged)"):
            mg.load(path)


def test_an_array_longer_than_its_header_says(tmp_path):
    path = tmp_path / "long.npz"
    mg.save({"w": mg.ones(3)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["w.npy"] += b"more"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="the array 'w' is longer than it says"):
        mg.load(path)


def test_pickles_in_a_file_are_not_opened(tmp_path):
    path = tmp_path / "pickle.npz"
    np.savez(path, w=np.array([{"a": 1}], dtype=object))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("structure.json", json.dumps({"format": "minigrad-1", "content": {"tensor": "w"}}))
    with pytest.raises(ValueError, match="is damaged: Object arrays cannot be loaded"):
        mg.load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    mg.save(1, tmp_path / "a.npz")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.npz").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_optimizer_state_comes_back(tmp_path):
    layer = nn.Linear(2, 2)
    optimizer = mg.optim.AdamW(layer.parameters(), lr=0.1)
    layer(mg.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"epoch": 3, "model": dict(layer.state_dict()), "optimizer": optimizer.state_dict()}
    mg.save(state, tmp_path / "checkpoint.npz")
    assert equal(mg.load(tmp_path / "checkpoint.npz"), state)
