"""MNIST and Fashion-MNIST: 70,000 grey images of 28x28 pixels in ten classes, in idx files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .download import RemoteFile
from .fetch import fetch
from .idx import read_idx

_PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


@dataclass(frozen=True)
class _Variant:
    """One data set in MNIST's format."""

    title: str
    folder: str
    subfolders: tuple[str, ...]
    classes: tuple[str, ...]
    source: str
    remotes: tuple[RemoteFile, ...]
    test_labels: str  # SHA-256 of the test labels' bytes: tells data sets of one format apart


def _remotes(
    mirrors: tuple[str, ...], sums: tuple[str, ...], sizes: tuple[int, ...]
) -> tuple[RemoteFile, ...]:
    names = [f"{part}-ubyte.gz" for part in _PARTS]
    return tuple(
        RemoteFile(name, f"sha256:{digest}", size, tuple(f"{m}/{name}" for m in mirrors))
        for name, digest, size in zip(names, sums, sizes, strict=True)
    )


_MNIST = _Variant(
    title="MNIST",
    folder="mnist",
    subfolders=("mnist", "MNIST/raw", ""),
    classes=tuple("0123456789"),
    source=(
        "MNIST, Y. LeCun, C. Cortes, C. J. C. Burges, 1998 (LeCun et al., Gradient-based learning "
        "applied to document recognition, Proc. IEEE 86, 1998)"
    ),
    remotes=_remotes(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        (9912422, 28881, 1648877, 4542),
    ),
    test_labels="ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
)

_FASHION = _Variant(
    title="Fashion-MNIST",
    folder="fashion-mnist",
    subfolders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", ""),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    source=(
        "Fashion-MNIST, Copyright (c) 2017 Zalando SE, MIT licence (Xiao, Rasul, Vollgraf: "
        "Fashion-MNIST, arXiv:1708.07747)"
    ),
    remotes=_remotes(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        (26421880, 29515, 4422102, 5148),
    ),
    test_labels="3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
)
_VARIANTS = (_MNIST, _FASHION)


def load_mnist(data_dir: str | Path | None = None, *, download: bool = True) -> Dataset:
    """MNIST's handwritten digits: 60,000 images to train on, 10,000 to test on.

    Looked for in ``data_dir``, the folder in ``XPMLP_DATA`` and the user's cache, in each in
    ``mnist/``, ``MNIST/raw/`` and directly, as ``train-images-idx3-ubyte.gz`` (or without ``.gz``)
    and so on; else downloaded.

    Parameters
    ----------
    data_dir : path, optional
        A folder to look into first; with ``download=False`` the only one.
    download : bool
        Whether to fetch the files if they are nowhere (11 MB).

    Returns
    -------
    Dataset
        ``x`` uint8 ``(N, 28, 28)``, 0 (paper) to 255 (ink); ``y`` int64 ``(N,)``; classes 0 to 9.

    Raises
    ------
    DataError
        If files are missing, damaged, mislabelled or of another data set.
    """
    return _load(_MNIST, data_dir, download)


def load_fashion_mnist(data_dir: str | Path | None = None, *, download: bool = True) -> Dataset:
    """Fashion-MNIST: pictures of clothes in MNIST's format, 60,000 to train on, 10,000 to test on.

    Looked for like MNIST (:func:`load_mnist`), in ``fashion-mnist/``, ``fashion_mnist/``,
    ``FashionMNIST/raw/`` and directly.

    Parameters
    ----------
    data_dir : path, optional
        A folder to look into first; with ``download=False`` the only one.
    download : bool
        Whether to fetch the files if they are nowhere (31 MB).

    Returns
    -------
    Dataset
        ``x`` uint8 ``(N, 28, 28)``; ``y`` int64 ``(N,)``; ten classes from T-shirt to ankle boot.

    Raises
    ------
    DataError
        If files are missing, damaged, mislabelled or of another data set.
    """
    return _load(_FASHION, data_dir, download)


def _load(variant: _Variant, data_dir: str | Path | None, download: bool) -> Dataset:
    paths = fetch(
        variant.title,
        variant.folder,
        variant.remotes,
        lambda root: _find(root, variant),
        data_dir=data_dir,
        allow_download=download,
    )
    x_train, y_train = _read_part(paths[0], paths[1], len(variant.classes))
    x_test, y_test = _read_part(paths[2], paths[3], len(variant.classes))
    _check_not_another(variant, paths[3], y_test)
    return Dataset(
        name=variant.folder,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=variant.classes,
        features=None,
        source=variant.source,
    )


def _find(root: Path, variant: _Variant) -> tuple[Path, ...] | None:
    """All four files from one folder under ``root``, or None."""
    for sub in variant.subfolders:
        found = [_find_part(root / sub, part) for part in _PARTS]
        if all(found):
            return tuple(path for path in found if path is not None)
    return None


def _find_part(folder: Path, part: str) -> Path | None:
    dotted = ".idx".join(part.rsplit("-idx", 1))  # some unpackers name them train-images.idx3-ubyte
    for name in (f"{part}-ubyte.gz", f"{part}-ubyte", f"{dotted}-ubyte.gz", f"{dotted}-ubyte"):
        if (folder / name).is_file():
            return folder / name
    return None


def _read_part(images: Path, labels: Path, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = read_idx(images, ndim=3), read_idx(labels, ndim=1)
    if x.shape[1:] != (28, 28) or x.dtype != np.uint8:
        raise DataError(
            f"`{images}`: expected uint8 images of shape (N, 28, 28), got {x.dtype} {x.shape}; "
            "this is another data set's file"
        )
    if len(x) != len(y) or len(x) == 0:
        raise DataError(
            f"`{labels}`: expected one label for each of the {len(x)} images in {images.name}, "
            f"got {len(y)}; the two files do not belong together"
        )
    if y.dtype != np.uint8 or y.max() >= n_classes:
        raise DataError(
            f"`{labels}`: expected uint8 labels in 0…{n_classes - 1}, got {y.dtype} up to "
            f"{y.max()}; this is another data set's file"
        )
    return x, y.astype(np.int64)


def _check_not_another(variant: _Variant, path: Path, y_test: np.ndarray) -> None:
    """Both data sets use the same file names: tell them apart by their test labels."""
    digest = hashlib.sha256(y_test.astype(np.uint8).tobytes()).hexdigest()
    for other in _VARIANTS:
        if other is not variant and digest == other.test_labels:
            raise DataError(
                f"`{path}`: expected {variant.title}, got {other.title}, whose files have the same "
                f"names; put {variant.title}'s in a folder named {variant.folder}"
            )
