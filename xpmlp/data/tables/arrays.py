"""Arrays from NPZ files: inputs and targets as they were saved, divided here or already."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...choices import TargetKind
from ...errors import DataError
from ...files import reading
from ...npz import npz_names, read_npz
from ..dataset import Dataset, check_finite
from ..splits import part_size, split_rows
from ..targets import encode_targets
from .columns import listed
from .formats import check_cells

_LAYOUTS = (
    "either x and y (divided into training and test part here), "
    "or x_train, y_train, x_test and y_test"
)
# What others call inputs and targets; lower case.
_X = ("x", "data", "inputs", "features", "arr_0")
_Y = ("y", "target", "targets", "label", "labels", "arr_1")
_PARTS = {
    "x_train": ("x_train", "train_x", "train_images", "train_data"),
    "y_train": ("y_train", "train_y", "train_labels", "train_targets"),
    "x_test": ("x_test", "test_x", "test_images", "test_data"),
    "y_test": ("y_test", "test_y", "test_labels", "test_targets"),
}


def load_arrays(
    path: Path, content: bytes, task: TargetKind | None, test_fraction: float, seed: int
) -> Dataset:
    """A data set from an NPZ file's content; see :func:`~xpmlp.data.load_table`."""
    arrays = read_arrays(str(path), content)
    if "x_train" not in arrays:
        x, y = arrays["x"], arrays["y"]
        _check_pair(path, "x", x, "y", y)
        y, classes = encode_targets(y, f"{path}: y", task)
        held = part_size(test_fraction, len(x), "test_fraction")
        kept, test = split_rows(len(x), held, seed=seed, labels=None if classes is None else y)
        return Dataset(path.stem, x[kept], y[kept], x[test], y[test], classes, None, str(path))
    x_train, x_test = arrays["x_train"], arrays["x_test"]
    y_train, y_test = arrays["y_train"], arrays["y_test"]
    _check_pair(path, "x_train", x_train, "y_train", y_train)
    _check_pair(path, "x_test", x_test, "y_test", y_test)
    if y_train.shape[1:] != y_test.shape[1:] or y_train.dtype.kind != y_test.dtype.kind:
        raise DataError(
            f"`{path}`: expected y_train and y_test of one kind, got {y_train.dtype} "
            f"{y_train.shape} and {y_test.dtype} {y_test.shape}; save both in the same form"
        )
    # One coding for both parts; a class that only the test part has is still a class.
    y, classes = encode_targets(np.concatenate([y_train, y_test]), f"{path}: y_train, y_test", task)
    cut = len(y_train)
    return Dataset(path.stem, x_train, y[:cut], x_test, y[cut:], classes, None, str(path))


def read_arrays(where: str, content: bytes, inputs_only: bool = False) -> dict[str, np.ndarray]:
    """``x`` and ``y``, or the four arrays of training and test part, under these names.

    Parameters
    ----------
    where : str
        The file, for messages.
    content : bytes
    inputs_only : bool
        Whether ``x`` is enough.

    Raises
    ------
    DataError
        If it is no NPZ file, or its arrays have other names.
    """
    fix = "write it again with numpy.savez_compressed"
    with reading(where, "an NPZ archive", fix, DataError):
        names = npz_names(content)
        found = _named({name.lower(): name for name in names}, inputs_only)
        if found is None:
            raise DataError(
                f"`{where}`: expected "
                + ("an array named x" if inputs_only else f"the arrays {_LAYOUTS}")
                + f", got {listed(sorted(names)) or 'none'}; {fix} under these names"
            )
        arrays = read_npz(content, found.values())
        arrays = {name: arrays[key] for name, key in found.items()}
    for array in arrays.values():
        check_cells(len(array) if array.ndim else 0, 1, content, where, "there are too many rows")
    for name, array in arrays.items():  # one column of targets is one target
        if name.startswith("y") and array.ndim == 2 and array.shape[1] == 1:
            arrays[name] = array[:, 0]
    return arrays


def _named(keys: dict[str, str], inputs_only: bool) -> dict[str, str] | None:
    parts = {
        name: next((keys[other] for other in others if other in keys), None)
        for name, others in _PARTS.items()
    }
    if all(parts.values()) and not inputs_only:
        return {name: str(key) for name, key in parts.items()}
    x = next((keys[name] for name in _X if name in keys), None)
    y = next((keys[name] for name in _Y if name in keys), None)
    if inputs_only:
        return None if x is None else {"x": x}
    return None if x is None or y is None else {"x": x, "y": y}


def _check_pair(path: Path, x_name: str, x: np.ndarray, y_name: str, y: np.ndarray) -> None:
    """What has to hold before rows can be divided; the rest is checked by Dataset."""
    if x.ndim < 2 or y.ndim not in (1, 2) or len(x) != len(y) or len(x) == 0:
        raise DataError(
            f"`{path}`: expected {x_name} of shape (N, …) and {y_name} of shape (N,) or (N, M) "
            f"with the same N ≥ 1, got {x.shape} and {y.shape}; check what was saved"
        )
    if x.dtype.kind not in "buif":
        raise DataError(
            f"`{path}`: expected numbers in {x_name}, got dtype {x.dtype}; encode them first"
        )
    check_finite(x, f"{path}: {x_name}")
