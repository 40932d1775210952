"""One name for every data set: a known one, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..files import expanded
from .cifar10 import load_cifar10
from .dataset import Dataset
from .digits import load_digits
from .mnist import load_fashion_mnist, load_mnist
from .tables import ENDINGS, load_table

_FETCHED = {
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
}
DATASET_NAMES = ("digits", *_FETCHED)


def load_dataset(
    name_or_path: str | Path,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    **table_options: Any,
) -> Dataset:
    """Load a data set by name, or a table by its path.

    Parameters
    ----------
    name_or_path : str or path
        ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``, or a file with a table or arrays.
    data_dir : path, optional
        A folder to look into first, for data sets with names.
    download : bool
        Whether files that are nowhere may be fetched.
    **table_options
        Those of :func:`~xpmlp.data.load_table`, such as ``target``, for files.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the name is unknown (the valid ones are listed), or the data cannot be used.
    ConfigError
        If table options are given for a data set with a name.
    """
    name = str(name_or_path)
    if name == "-":
        return load_table(name, **table_options)
    known = name.lower().replace("_", "-")
    known = {"fashionmnist": "fashion-mnist", "cifar-10": "cifar10"}.get(known, known)
    if known in DATASET_NAMES:
        given = sorted(key for key, value in table_options.items() if value is not None)
        if given:
            raise ConfigError(
                f"`{known}`: expected no table options, got {', '.join(given)}; they are for files"
            )
        if known == "digits":
            return load_digits()
        return _FETCHED[known](data_dir, download=download)
    path = expanded(name_or_path)
    if path.suffix.lower() not in ENDINGS and not path.exists():
        raise DataError(
            f"`dataset`: expected one of {', '.join(DATASET_NAMES)}, or a file ending in "
            f"{', '.join(ENDINGS)}, got {name!r}"
        )
    return load_table(path, **table_options)
