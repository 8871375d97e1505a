"""The data sets: standardised float32 images of shape (N, C, H, W) and int64 labels of shape (N,)."""

import dataclasses
from pathlib import Path

import numpy as np

from minigrad.data.cifar import ARCHIVE, read_cifar10
from minigrad.data.download import data_folder, download
from minigrad.data.errors import DataError
from minigrad.data.idx import read_idx

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CIFAR10_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MNIST_MD5 = ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
             "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c")
FASHION_MNIST_MD5 = ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                     "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310")

# Mean and standard deviation of the training images, pixels scaled to 0...1 (computed from the files; per channel).
DIGITS_MOMENTS = ((0.3053,), (0.3760,))
MNIST_MOMENTS = ((0.1307,), (0.3081,))
FASHION_MNIST_MOMENTS = ((0.2860,), (0.3530,))
CIFAR10_MOMENTS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))

NUMERALS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set of images with its fixed split.

    Attributes
    ----------
    name : str
    x_train, x_test : numpy.ndarray
        Images, float32, shape (N, C, H, W), standardised with the training set's mean and deviation.
    y_train, y_test : numpy.ndarray
        Labels, int64, shape (N,), from 0 to ``len(classes) - 1``.
    classes : tuple of str
        The name of each label.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]

    def __repr__(self):
        return (f"ImageData({self.name!r}, {len(self.x_train)} training and {len(self.x_test)} test images of shape "
                f"{self.x_train.shape[1:]}, {len(self.classes)} classes)")


def digits():
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn; no download.

    One fifth of each class, drawn once with a fixed seed, is the test set (357 images).

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits: the data set comes with scikit-learn: pip install scikit-learn") from error
    source = load_digits()
    images, labels = source.images[:, None], source.target.astype(np.int64)
    rng = np.random.default_rng(0)
    test = np.zeros(len(labels), bool)
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        test[members[:len(members) // 5]] = True
    images = _standardise(images, 16, DIGITS_MOMENTS)
    return ImageData("digits", images[~test], labels[~test], images[test], labels[test], NUMERALS)


def mnist(folder=None):
    """MNIST: 60,000 + 10,000 handwritten digits of 28x28 pixels.

    Parameters
    ----------
    folder : str or Path, optional
        Where the four IDX files are, plain or with ``.gz``. If left out they are downloaded once.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    return _idx_data("mnist", folder, MNIST_URL, MNIST_MD5, MNIST_MOMENTS, NUMERALS)


def fashion_mnist(folder=None):
    """Fashion-MNIST: 60,000 + 10,000 pictures of clothes of 28x28 pixels, a harder drop-in for MNIST.

    Parameters
    ----------
    folder : str or Path, optional
        Where the four IDX files are, plain or with ``.gz``. If left out they are downloaded once.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747.
    """
    return _idx_data("fashion-mnist", folder, FASHION_MNIST_URL, FASHION_MNIST_MD5, FASHION_MNIST_MOMENTS, CLOTHES)


def cifar10(folder=None):
    """CIFAR-10: 50,000 + 10,000 photographs of 32x32 pixels and three channels.

    Parameters
    ----------
    folder : str or Path, optional
        Where the set is: binary or pickled batches, the binary archive, or an .npz file of the arrays ``x_train``,
        ``y_train``, ``x_test`` and ``y_test`` (which may be a part of the set). If left out, it is downloaded once.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    if folder is None:
        folder = download(CIFAR10_URL, f"md5:{CIFAR10_MD5}", data_folder() / "cifar10")
    x_train, y_train, x_test, y_test = read_cifar10(_existing(folder, "cifar10"))
    for part, x, y in (("training", x_train, y_train), ("test", x_test, y_test)):
        _check_labels(f"{folder}: the {part} set", x, y, CIFAR10_CLASSES)
    return ImageData("cifar10", _standardise(x_train, 255, CIFAR10_MOMENTS), y_train,
                     _standardise(x_test, 255, CIFAR10_MOMENTS), y_test, CIFAR10_CLASSES)


LOADERS = {"digits": digits, "mnist": mnist, "fashion-mnist": fashion_mnist, "cifar10": cifar10}


def load(name, folder=None):
    """The data set of the given name: ``digits``, ``mnist``, ``fashion-mnist`` or ``cifar10``."""
    if name not in LOADERS:
        raise DataError(f"load: expected one of {', '.join(LOADERS)}, got {name!r}")
    if name == "digits":
        if folder is not None:
            raise DataError(f"digits: the data set comes with scikit-learn and takes no folder, got {folder}")
        return digits()
    return LOADERS[name](folder)


def _idx_data(name, folder, url, md5, moments, classes):
    if folder is None:
        folder = data_folder() / name
        paths = [download(f"{url}{file}.gz", f"md5:{checksum}", folder)
                 for file, checksum in zip(IDX_FILES, md5, strict=True)]
    else:
        folder = _existing(folder, name)
        paths = [_find(folder, file) for file in IDX_FILES]
    x_train, y_train, x_test, y_test = (read_idx(path, 3 if "images" in path.name else 1) for path in paths)
    for x, y, path in ((x_train, y_train, paths[1]), (x_test, y_test, paths[3])):
        _check_labels(path, x, y, classes)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{paths[2]}: expected images of {x_train.shape[1:]} pixels as in training, got "
                        f"{x_test.shape[1:]}")
    return ImageData(name, _standardise(x_train[:, None], 255, moments), y_train.astype(np.int64),
                     _standardise(x_test[:, None], 255, moments), y_test.astype(np.int64), classes)


def _existing(folder, name):
    folder = Path(folder)
    if not folder.exists():
        raise DataError(f"{name}: the folder {folder} does not exist")
    return folder


def _find(folder, name):
    """The file under one of the spellings that are found in the wild."""
    dotted = name.replace("-idx", ".idx")
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "FashionMNIST" / "raw"):
        for spelling in (f"{name}.gz", name, f"{dotted}.gz", dotted):
            if (place / spelling).is_file():
                return place / spelling
    raise DataError(f"{folder}: expected the file {name}.gz or {name}, found neither")


def _check_labels(where, images, labels, classes):
    if labels.shape != (len(images),):
        raise DataError(f"{where}: expected one label for each of {len(images)} images, got shape {labels.shape}")
    if not len(labels):
        raise DataError(f"{where}: expected at least one image, got none")
    if labels.min() < 0 or labels.max() >= len(classes):
        wrong = int(labels[(labels < 0) | (labels >= len(classes))][0])
        raise DataError(f"{where}: expected labels from 0 to {len(classes) - 1}, got {wrong}")


def _standardise(images, largest, moments):
    """(pixel / largest - mean) / std for each channel, in one float32 array."""
    mean, std = (np.asarray(value, np.float32).reshape(-1, 1, 1) for value in moments)
    out = images.astype(np.float32)
    out *= 1 / (largest * std)
    out -= mean / std
    return out
