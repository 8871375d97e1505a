"""Data sets, mini-batches and augmentation."""

from minigrad.data.download import data_folder, download
from minigrad.data.errors import DataError
from minigrad.data.idx import read_idx
from minigrad.data.loader import DataLoader, TensorDataset, batches
from minigrad.data.sets import LOADERS, ImageData, cifar10, digits, fashion_mnist, load, mnist
from minigrad.data.transforms import compose, normalize, random_crop, random_horizontal_flip

__all__ = [
    "LOADERS", "DataError", "DataLoader", "ImageData", "TensorDataset", "batches", "cifar10", "compose", "data_folder",
    "digits", "download", "fashion_mnist", "load", "mnist", "normalize", "random_crop", "random_horizontal_flip",
    "read_idx",
]
