"""What targets may be: class numbers that exist, shares that are probabilities; and weights.

Whoever calls these has made sure that looking is free: see :func:`xpmlp.backend.on_host`. Shapes
and dtypes are checked where they are used, always.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, array_namespace, dtype_name, on_host, to_numpy
from ..errors import DataError, DTypeError, ShapeError


def is_class_numbers(targets: Array) -> bool:
    """Whether the targets are integers."""
    dtype = targets.dtype  # at every step: NumPy would put the dtype's name together anew
    return dtype.kind in "iu" if isinstance(dtype, np.dtype) else "int" in dtype_name(dtype)


def check_weight(where: str, weight: Any, shape: tuple[int, ...] | None = None) -> None:
    """Raise unless they are weights of rows (…, N): numbers, none negative; looked at on the host.

    Parameters
    ----------
    where : str
        Of the error message.
    weight : array
    shape : tuple of int, optional
        (…, N), which (N,) goes with too.

    Raises
    ------
    ShapeError, DTypeError, DataError
    """
    kind = dtype_name(weight.dtype) if hasattr(weight, "dtype") else type(weight).__name__
    if not any(number in kind for number in ("int", "float", "bool")):
        raise DTypeError(f"`{where}`: expected weights as an array of real numbers, got {kind}")
    if shape is not None and tuple(weight.shape) not in (shape, shape[-1:]):
        raise ShapeError(
            f"`{where}`: expected a weight for each row, of shape {shape[-1:]}"
            + (f" or {shape}" if len(shape) > 1 else "")
            + f", got {tuple(weight.shape)}"
        )
    if on_host(weight):
        xp = array_namespace(weight)
        if "float" in kind and not bool(xp.all(xp.isfinite(weight))):
            raise DataError(f"`{where}`: expected finite weights, got NaN or infinity among them")
        if bool(xp.any(weight < 0)):
            raise DataError(
                f"`{where}`: expected weights of at least 0, got {float(xp.min(weight))}"
            )


def check_classes(
    where: str,
    targets: Array,
    classes: int,
    ignored: int | None = None,
    name: str = "class numbers",
) -> None:
    """Raise DataError for a class number outside of 0 … C−1 that is not the ignored one."""
    numbers = to_numpy(targets)
    if numbers.size == 0 or (numbers.min() >= 0 and numbers.max() < classes):
        return
    wrong = (numbers < 0) | (numbers >= classes)
    if ignored is not None:
        wrong &= numbers != ignored
    if wrong.any():
        losses = ("softmaxcrossentropy", "nll", "multiclasshinge")
        can_ignore = where.lower().replace("_", "") in losses
        hint = ", or name it as ignore_index" if can_ignore else ""
        _refuse(where, f"{name} in 0…{classes - 1}", numbers, wrong, "them" + hint)


def check_shares(where: str, targets: Array, name: str = "targets", most: float = np.inf) -> None:
    """Raise DataError for numbers outside of 0 … most, NaN among them."""
    numbers = to_numpy(targets)
    if numbers.size == 0 or (numbers.min() >= 0.0 and numbers.max() <= most):
        return
    wanted = f"{name} in [0, {most:g}]" if np.isfinite(most) else f"{name} ≥ 0"
    _refuse(where, wanted, numbers, ~((numbers >= 0.0) & (numbers <= most)), "them")


def _refuse(where: str, wanted: str, numbers: np.ndarray, wrong: np.ndarray, what: str) -> Any:
    row = np.argwhere(wrong)[0]
    place = row[0] if len(row) == 1 else tuple(int(i) for i in row)
    raise DataError(
        f"`{where}`: expected {wanted}, got {numbers[tuple(row)]} in row {place} "
        f"({int(wrong.sum())} such in all); check {what}"
    )
