"""minigrad.data: batches, augmentation, readers of good and bad files, and the download."""

import functools
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading

import numpy as np
import pytest

from minigrad import data
from minigrad.data import (
    DataError,
    DataLoader,
    TensorDataset,
    batches,
    compose,
    normalize,
    random_crop,
    random_horizontal_flip,
    read_idx,
)
from minigrad.data.cifar import read_cifar10
from minigrad.data.sets import IDX_FILES


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def idx(array, magic=None):
    """The bytes of an IDX file."""
    head = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return head + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


# -- mini-batches ------------------------------------------------------------------------------------------------


def test_batches_cover_the_data_once_and_keep_rows_together(rng):
    x = np.arange(10, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    y = np.arange(10)
    loader = batches(x, y, batch_size=4)
    seen = list(loader)
    assert [len(b.numpy()) for b, _ in seen] == [4, 4, 2] and len(loader) == 3
    labels = np.concatenate([b.numpy() for _, b in seen])
    assert labels.dtype == np.int64 and sorted(labels) == list(range(10)) and list(labels) != list(range(10))
    np.testing.assert_array_equal(np.concatenate([b.numpy() for b, _ in seen])[:, 0], labels)


def test_every_epoch_has_its_own_order_and_the_seed_decides_it():
    def epochs(seed, n=3):
        loader = batches(np.arange(50), batch_size=50, seed=seed)
        return [next(iter(loader))[0].numpy().tolist() for _ in range(n)]

    assert epochs(1) == epochs(1)
    first, second, third = epochs(1)
    assert first != second != third and epochs(2)[0] != first
    loader = batches(np.arange(50), batch_size=50, seed=1)
    loader.epoch = 2  # as after an interruption
    assert next(iter(loader))[0].numpy().tolist() == third


def test_without_shuffle_the_order_is_kept_and_drop_last_drops():
    loader = DataLoader((np.arange(7.0),), batch_size=3, drop_last=True)
    assert [b.numpy().tolist() for (b,) in loader] == [[0, 1, 2], [3, 4, 5]] and len(loader) == 2
    assert len(DataLoader(TensorDataset(np.arange(6.0)), 3)) == 2
    assert list(DataLoader(TensorDataset(np.zeros(2)), 3, drop_last=True)) == []


def test_an_empty_data_set_gives_no_batch():
    assert list(batches(np.zeros((0, 3), np.float32), batch_size=2)) == []


def test_two_iterations_at_once_do_not_disturb_each_other():
    loader = batches(np.arange(8), batch_size=2)
    one, two = iter(loader), iter(loader)
    mixed = [[next(one)[0], next(two)[0]] for _ in range(4)]
    for column in zip(*mixed, strict=True):
        assert sorted(np.concatenate([b.numpy() for b in column])) == list(range(8))


def test_any_indexable_object_is_a_data_set():
    class Squares:
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return np.full(2, i, np.float32), i * i

    (x, y), *_ = DataLoader(Squares(), batch_size=4)
    assert x.numpy().tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]] and y.numpy().tolist() == [0, 1, 4, 9]


def test_the_transform_gets_arrays_and_a_generator_that_depends_on_the_epoch():
    def add_noise(arrays, rng):
        (x,) = arrays
        return (x + rng.random(len(x)),)

    def epochs():
        loader = DataLoader((np.zeros(4),), batch_size=4, transform=add_noise, seed=3)
        return [next(iter(loader))[0].numpy() for _ in range(2)]

    first, second = epochs()
    assert np.all(first > 0) and not np.array_equal(first, second)
    np.testing.assert_array_equal(epochs()[1], second)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: TensorDataset(np.zeros(3), np.zeros(4)), r"same length, got lengths \[3, 4\]"),
    (lambda: TensorDataset(), "at least one array"),
    (lambda: TensorDataset(np.float32(1)), "first axis"),
    (lambda: batches(np.zeros(3), batch_size=0), "batch_size must be at least 1, got 0"),
    (lambda: batches(np.zeros(3), batch_size=1, seed=-1), "seed must not be negative"),
    (lambda: normalize(0, 0), "std must be positive"),
    (lambda: random_crop(-1), "padding"),
    (lambda: random_horizontal_flip(1.5), "between 0 and 1"),
])
def test_wrong_arguments_are_named(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# -- augmentation ------------------------------------------------------------------------------------------------


def test_normalize_per_channel_and_for_all(rng):
    x = rng.random((5, 2, 3, 4)).astype(np.float32)
    (out, y) = normalize((0.5, 0.2), (2.0, 4.0))((x, "labels"), rng)
    np.testing.assert_allclose(out[:, 1], (x[:, 1] - 0.2) / 4, rtol=1e-6)
    assert out.dtype == np.float32 and y == "labels"
    np.testing.assert_allclose(normalize(0.5, 2.0)((x,), rng)[0], (x - 0.5) / 2, rtol=1e-6)


def test_flip_mirrors_some_images_and_leaves_the_source_alone(rng):
    x = rng.random((40, 1, 3, 4)).astype(np.float32)
    before = x.copy()
    (out,) = random_horizontal_flip(0.5)((x,), rng)
    flipped = [np.array_equal(a, b[..., ::-1]) for a, b in zip(out, x, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(out, x, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True)) and 5 < sum(flipped) < 35
    np.testing.assert_array_equal(x, before)


def test_crop_shifts_each_image_as_a_whole(rng):
    x = rng.random((30, 2, 5, 6)).astype(np.float32) + 1
    (out,) = random_crop(2)((x,), rng)
    assert out.shape == x.shape and out.flags.c_contiguous
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    shifts = set()
    for image, source in zip(out, padded, strict=True):
        found = [(i, j) for i in range(5) for j in range(5) if np.array_equal(image, source[:, i:i + 5, j:j + 6])]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 8


def test_compose_applies_in_order(rng):
    (out,) = compose(lambda a, r: (a[0] + 1,), lambda a, r: (a[0] * 2,))((np.zeros(2),), rng)
    assert out.tolist() == [2, 2]


# -- IDX ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mnist_folder(tmp_path, rng):
    """A little MNIST, two of its files compressed."""
    for name, size, seed in (("train", 20, 1), ("t10k", 10, 2)):
        images = np.random.default_rng(seed).integers(0, 256, (size, 28, 28))
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(size) % 10))
    return tmp_path


@pytest.mark.parametrize("load", [data.mnist, data.fashion_mnist])
def test_mnist_is_read_and_standardised(mnist_folder, load):
    found = load(mnist_folder)
    assert found.x_train.shape == (20, 1, 28, 28) and found.x_test.shape == (10, 1, 28, 28)
    assert found.x_train.dtype == np.float32 and found.y_train.dtype == np.int64
    assert found.y_train.tolist() == [i % 10 for i in range(20)] and len(found.classes) == 10
    pixels = np.random.default_rng(1).integers(0, 256, (20, 28, 28)) / 255
    mean, std = (0.1307, 0.3081) if load is data.mnist else (0.2860, 0.3530)
    np.testing.assert_allclose(found.x_train[:, 0], (pixels - mean) / std, atol=1e-5)
    assert "20 training and 10 test images" in repr(found)


def test_torchvision_folder_and_dotted_names_are_found(mnist_folder, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in list(mnist_folder.glob("*ubyte*")):
        path.rename(raw / path.name.replace("-idx", ".idx"))
    assert len(data.mnist(tmp_path).x_test) == 10


GOOD = idx(np.arange(12).reshape(3, 2, 2))


@pytest.mark.parametrize(("content", "sentence"), [
    (b"", "expected an IDX file, got 0 bytes"),
    (GOOD[:3], "got 3 bytes"),
    (GOOD[:10], "ends inside its header"),
    (GOOD[:-1], r"promises 12 values of shape \(3, 2, 2\), the file holds only 11"),
    (GOOD + b"x", "the file holds more"),
    (b"\x00\x00\x08\x01" + GOOD[4:], "magic number 00000803 of an IDX file of 3-dimensional uint8, got 00000801"),
    (b"\x00\x00\x0d\x03" + GOOD[4:], "magic number"),
    (b"PK\x03\x04" + GOOD[4:], "magic number"),
    (gzip.compress(GOOD)[:-12], "damaged or cut off"),
    (gzip.compress(GOOD)[:15], "damaged or cut off"),
    (gzip.compress(GOOD)[:-8] + b"12345678", "damaged or cut off"),
    (b"\x1f\x8b" + GOOD, "damaged or cut off"),
    (b"\0\0\x08\x03" + b"\xff" * 12, "promises"),
])
def test_a_bad_idx_file_gives_one_sentence_that_names_it(tmp_path, content, sentence):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_good_idx_file_is_read_plain_and_compressed(tmp_path):
    for content in (GOOD, gzip.compress(GOOD)):
        (tmp_path / "f").write_bytes(content)
        np.testing.assert_array_equal(read_idx(tmp_path / "f", 3), np.arange(12).reshape(3, 2, 2))


def test_missing_files_and_folders_are_named(mnist_folder, tmp_path):
    with pytest.raises(DataError, match="mnist: the folder .*nowhere does not exist"):
        data.mnist(tmp_path / "nowhere")
    (mnist_folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"expected the file t10k-labels-idx1-ubyte\.gz or t10k-labels-idx1-ubyte"):
        data.mnist(mnist_folder)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path, 3)


@pytest.mark.parametrize(("labels", "sentence"), [
    (np.full(20, 10), "expected labels from 0 to 9, got 10"),
    (np.arange(19) % 10, r"one label for each of 20 images, got shape \(19,\)"),
])
def test_labels_that_do_not_fit_are_refused(mnist_folder, labels, sentence):
    (mnist_folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(DataError, match=sentence) as caught:
        data.mnist(mnist_folder)
    assert "train-labels-idx1-ubyte" in str(caught.value)


def test_load_knows_the_names():
    with pytest.raises(DataError, match="expected one of digits, mnist, fashion-mnist, cifar10, got 'imagenet'"):
        data.load("imagenet")
    with pytest.raises(DataError, match="takes no folder"):
        data.load("digits", "somewhere")


def test_digits_are_split_once_and_for_all():
    found = data.digits()
    assert found.x_train.shape == (1442, 1, 8, 8) and found.x_test.shape == (355, 1, 8, 8)
    assert found.x_train.dtype == np.float32
    assert abs(found.x_train.mean()) < 0.01 and abs(found.x_train.std() - 1) < 0.01
    assert np.bincount(found.y_test).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    np.testing.assert_array_equal(found.x_test, data.digits().x_test)
    test = {image.tobytes() for image in found.x_test}
    assert not test & {image.tobytes() for image in found.x_train}


# -- CIFAR-10 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(rng):
    """Six little batches: name to (images, labels)."""
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    return {name: (rng.integers(0, 256, (4, 3, 32, 32), np.uint8), rng.integers(0, 10, 4)) for name in names}


def binary(images, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), images.reshape(len(images), -1)], 1).tobytes()


def pickled(images, labels, protocol=2):
    batch = {"data": images.reshape(len(images), -1), "labels": labels.tolist(), "batch_label": "a"}
    return pickle.dumps(batch, protocol)


def check(found, cifar):
    x_train, y_train, x_test, y_test = found
    np.testing.assert_array_equal(x_train, np.concatenate([cifar[f"data_batch_{i}"][0] for i in range(1, 6)]))
    np.testing.assert_array_equal(y_train, np.concatenate([cifar[f"data_batch_{i}"][1] for i in range(1, 6)]))
    np.testing.assert_array_equal(x_test, cifar["test_batch"][0])
    np.testing.assert_array_equal(y_test, cifar["test_batch"][1])
    assert y_train.dtype == y_test.dtype == np.int64


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin"])
def test_cifar_binary(tmp_path, cifar, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, batch in cifar.items():
        (tmp_path / folder / f"{name}.bin").write_bytes(binary(*batch))
    check(read_cifar10(tmp_path), cifar)


def test_cifar_archive(tmp_path, cifar):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, batch in cifar.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            content = binary(*batch)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    check(read_cifar10(tmp_path), cifar)
    check(read_cifar10(tmp_path / "cifar-10-binary.tar.gz"), cifar)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_cifar_pickled(tmp_path, cifar, protocol):
    for name, batch in cifar.items():
        (tmp_path / name).write_bytes(pickled(*batch, protocol))
    check(read_cifar10(tmp_path), cifar)


def test_cifar_npz(tmp_path, cifar):
    x, y = cifar["test_batch"]
    np.savez(tmp_path / "cifar10_part.npz", x_train=x, y_train=y.astype(np.uint8), x_test=x[:2], y_test=y[:2])
    found = data.cifar10(tmp_path)
    assert found.x_train.dtype == np.float32 and found.x_train.shape == (4, 3, 32, 32) and len(found.x_test) == 2
    assert found.y_train.dtype == np.int64
    np.testing.assert_allclose(found.x_train[:, 2], (x[:, 2] / 255 - 0.4465) / 0.2616, atol=1e-5)
    assert len(data.cifar10(tmp_path / "cifar10_part.npz").y_test) == 2


class Evil:
    """What a pickle may do when it is read carelessly."""

    def __reduce__(self):
        return print, ("the pickle ran code",)


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("test_batch.bin", b"x" * 3000, "expected a multiple of 3073 bytes"),
    ("test_batch.bin", b"", "got 0"),
    ("test_batch", pickle.dumps(Evil()), "print is not allowed"),
    ("test_batch", pickle.dumps({"data": 1}), "pickled by Python"),
    ("test_batch", b"garbage", "pickled by Python"),
    ("test_batch", pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [1, 2]}), "expected uint8 data of"),
    ("cifar10.npz", b"garbage", "expected an .npz file"),
    ("cifar-10-binary.tar.gz", b"garbage", "expected the archive"),
    ("nothing", b"", "found none of them"),
])
def test_bad_cifar_files_give_one_sentence(tmp_path, cifar, capsys, name, content, sentence):
    for good, batch in cifar.items():
        if name.startswith("test_batch"):
            whole = binary(*batch) if name.endswith(".bin") else pickled(*batch)
            (tmp_path / f"{good}{'.bin' if name.endswith('.bin') else ''}").write_bytes(whole)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        data.cifar10(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_cut_off_npz_is_a_sentence_too(tmp_path, cifar):
    x, y = cifar["test_batch"]
    whole = io.BytesIO()
    np.savez_compressed(whole, x_train=x, y_train=y, x_test=x, y_test=y)
    for content in (whole.getvalue()[:5000], whole.getvalue()[:2000] + bytes(500) + whole.getvalue()[2500:]):
        (tmp_path / "cifar10.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"cifar10\.npz: expected an \.npz file"):
            data.cifar10(tmp_path)


def test_an_npz_with_a_wrong_shape_or_label_is_refused(tmp_path, cifar):
    x, y = cifar["test_batch"]
    np.savez(tmp_path / "cifar10.npz", x_train=x.astype(np.float32), y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match="x_train expects uint8 of shape"):
        data.cifar10(tmp_path)
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x, y_test=y - 20)
    with pytest.raises(DataError, match="the test set: expected labels from 0 to 9, got -"):
        data.cifar10(tmp_path)


# -- download ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """A web server of this machine over a folder; yields the folder, its address and the paths asked for."""
    pytest.importorskip("pooch", reason="downloads need pooch")
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{web.server_port}/", asked
        web.shutdown()
        thread.join()


class Recorder:
    """A progress bar that remembers."""

    total = done = 0
    closed = False

    def update(self, n):
        self.done += n

    def reset(self):
        self.done = 0

    def close(self):
        self.closed = True


def test_download_checks_caches_and_reports_progress(server, tmp_path):
    folder, url, asked = server
    content = bytes(range(256)) * 100
    (folder / "file.bin").write_bytes(content)
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    progress = Recorder()
    path = data.download(f"{url}file.bin", checksum, tmp_path / "cache", progress)
    assert path.read_bytes() == content and progress.total == progress.done == len(content) and progress.closed
    assert data.download(f"{url}file.bin", checksum, tmp_path / "cache") == path and asked == ["/file.bin"]
    path.write_bytes(b"damaged")  # by whatever happens to a cache
    assert data.download(f"{url}file.bin", checksum, tmp_path / "cache").read_bytes() == content


def test_a_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    folder, url, _ = server
    (folder / "file.bin").write_bytes(b"not what was promised")
    with pytest.raises(DataError, match=r"file\.bin: what http.* sent does not have the checksum md5:000"):
        data.download(f"{url}file.bin", f"md5:{'0' * 32}", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_download_that_fails_says_what_to_do(server, tmp_path):
    _, url, _ = server
    for address in (f"{url}missing.bin", "http://127.0.0.1:9/missing.bin"):
        with pytest.raises(DataError, match=r"missing\.bin: cannot be fetched .* folder that holds the") as caught:
            data.download(address, f"md5:{'0' * 32}", tmp_path / "cache")
        assert "\n" not in str(caught.value)


def test_mnist_is_downloaded_once(server, mnist_folder, tmp_path, monkeypatch):
    folder, url, asked = server
    checksums = []
    for name in IDX_FILES:
        plain, packed = mnist_folder / name, mnist_folder / f"{name}.gz"
        content = packed.read_bytes() if packed.exists() else gzip.compress(plain.read_bytes())
        (folder / f"{name}.gz").write_bytes(content)
        checksums.append(hashlib.md5(content).hexdigest())
    monkeypatch.setattr(data.sets, "MNIST_URL", url)
    monkeypatch.setattr(data.sets, "MNIST_MD5", checksums)
    monkeypatch.setenv("MINIGRAD_DATA_DIR", str(tmp_path / "cache"))
    for _ in range(2):
        assert len(data.mnist().x_train) == 20
    assert len(asked) == 4 and (tmp_path / "cache" / "mnist" / f"{IDX_FILES[0]}.gz").exists()


def test_without_pooch_the_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    monkeypatch.setenv("MINIGRAD_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="needs pooch: pip install pooch"):
        data.mnist()


def test_the_real_checksums_are_those_of_the_published_files():
    """Against the real files where they are at hand."""
    from pathlib import Path

    folder = Path(__file__).parent.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared/data with the real data sets")
    for name, checksums in (("mnist", data.sets.MNIST_MD5), ("fashion-mnist", data.sets.FASHION_MNIST_MD5)):
        for file, checksum in zip(IDX_FILES, checksums, strict=True):
            assert hashlib.md5((folder / name / f"{file}.gz").read_bytes()).hexdigest() == checksum
