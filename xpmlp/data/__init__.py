"""Data sets: known ones, tables from files, and minibatches of them on any backend."""

from .cifar10 import load_cifar10
from .dataset import Dataset
from .digits import load_digits
from .features import load_features
from .load import DATASET_NAMES, load_dataset
from .loader import Batches
from .mnist import load_fashion_mnist, load_mnist
from .normalization import Normalization
from .tables import load_table

__all__ = [
    "DATASET_NAMES",
    "Batches",
    "Dataset",
    "Normalization",
    "load_cifar10",
    "load_dataset",
    "load_digits",
    "load_fashion_mnist",
    "load_features",
    "load_mnist",
    "load_table",
]
