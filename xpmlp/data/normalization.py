"""Shift and scale inputs to mean 0 and standard deviation 1, with numbers fitted once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, array_namespace, dtype_name, dtype_of
from ..errors import DataError, DTypeError, ShapeError
from ..options import FLAG
from .dataset import check_finite

_CHUNK_BYTES = 1 << 25  # float64 workspace of fit: 32 MiB at a time, whatever the data's size
FLOAT_NAMES = ("bfloat16", "float16", "float32", "float64")  # in order of precision


@dataclass(frozen=True, eq=False)
class Normalization:
    """The map ``y = (x - mean) / std``.

    Parameters
    ----------
    mean, std : array_like, shape () or broadcastable to one example
        Kept as float64. ``()`` serves every input; ``x.shape[1:]`` gives each feature its own.

    Raises
    ------
    DataError
        If a number is not finite or a standard deviation is not positive.
    """

    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        for field in ("mean", "std"):
            value = np.array(getattr(self, field), dtype=np.float64)
            value.setflags(write=False)
            object.__setattr__(self, field, value)
        finite = bool(np.isfinite(self.mean).all() and np.isfinite(self.std).all())
        if self.mean.shape != self.std.shape or not finite or not bool((self.std > 0).all()):
            raise DataError(
                "`Normalization`: expected finite means and positive standard deviations of one "
                f"shape, got shapes {self.mean.shape} and {self.std.shape} with "
                f"{'finite' if finite else 'NaN or infinite'} values; "
                "check the data's range, or fit again"
            )

    @classmethod
    def fit(cls, x: np.ndarray, per_feature: bool = True, center: bool = True) -> Normalization:
        """Mean and standard deviation of training inputs, accumulated in float64.

        ``std = √(Σ(x - mean)² / n)``. Where all values are equal the deviation is taken as 1, so
        that a constant column becomes 0 and nothing is divided by zero.

        Parameters
        ----------
        x : ndarray, shape (N, …)
            Training inputs, integers or floats.
        per_feature : bool
            True: one mean and deviation for each feature (right for tables). False: one pair for
            all of them (right for images, where pixels share a scale).
        center : bool
            False: the mean is taken as 0, and ``std = √(Σ x² / n)``. Zeros then stay exactly 0,
            right for images whose background is 0: a weight on a pixel that is always background
            gets a gradient of exactly 0, where a shifted background gives it rounding noise that
            Adam would blow up to full steps.

        Raises
        ------
        DataError
            If ``x`` is empty, holds NaN or infinity, or is so large that its variance is not
            finite.
        """
        per_feature = FLAG.check("Normalization.fit", "per_feature", per_feature)
        center = FLAG.check("Normalization.fit", "center", center)
        try:
            if isinstance(x, bytes | bytearray | memoryview):
                raise TypeError(f"{type(x).__name__}")
            x = np.asarray(x)
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"`Normalization.fit`: expected an array, got {error}") from error
        if x.dtype.kind not in "biuf":
            raise DataError(f"`Normalization.fit`: expected real numbers, got {x.dtype}")
        if x.ndim < 1 or x.size == 0:
            raise DataError(f"`Normalization.fit`: expected examples, got shape {x.shape}")
        check_finite(x, "Normalization.fit: x")
        axis = 0 if per_feature else None
        rows = max(1, _CHUNK_BYTES // (8 * max(1, x[0].size)))
        chunks = [x[i : i + rows] for i in range(0, len(x), rows)]
        count = len(x) if per_feature else x.size
        with np.errstate(over="ignore", invalid="ignore"):  # checked by the constructor
            mean = sum(c.astype(np.float64).sum(axis=axis) for c in chunks) / count
            mean = mean if center else np.zeros_like(mean)
            squares = sum(((c.astype(np.float64) - mean) ** 2).sum(axis=axis) for c in chunks)
            std = np.sqrt(squares / count)
        low, high = x.min(axis=axis), x.max(axis=axis)
        constant = low == high  # exact, where the rounded deviation of equal values may not be 0
        shift = np.where(constant, low, mean) if center else mean
        return cls(np.asarray(shift), np.where(constant, 1.0, std))

    def apply(self, x: Array, dtype: Any = None) -> Array:
        """Normalize an array of any supported library, on its own device.

        ``y = (x - mean) / std``, computed in the wider of the types of ``x`` and of the result
        (integers: in that of the result). ``x`` is not written to.

        Parameters
        ----------
        x : array, shape (…, N, …)
            Integers or floats.
        dtype : str or dtype, optional
            Float type of the result. Default: that of ``x``, for integers float32.

        Returns
        -------
        array, shape of ``x``
            Of the same library as ``x``.

        Raises
        ------
        ShapeError
            If the last axes of ``x`` do not fit the fitted features.
        DTypeError
            If ``x`` is neither integer nor float, or ``dtype`` no float type.
        """
        xp = array_namespace(x)
        name = float_name(dtype, xp, x)
        compute = max(name, dtype_name(x.dtype), key=_precision)
        wide = dtype_of(xp, compute)
        mean, std = self.arrays_for(x, compute)
        y = (xp.astype(x, wide, copy=False) - mean) / std
        return xp.astype(y, dtype_of(xp, name), copy=False)

    def undo(self, y: Array) -> Array:
        """Back to the units of before: ``x = y · std + mean``, for a regression's predictions.

        Parameters
        ----------
        y : array, shape (…, N, …)
            Integers or floats, of any supported library. Not written to.

        Returns
        -------
        array, shape of ``y``
            Of its float type; for integers float32.

        Raises
        ------
        ShapeError, DTypeError
            As :meth:`apply`.
        """
        xp = array_namespace(y)
        name = float_name(None, xp, y)
        mean, std = self.arrays_for(y, name)
        return xp.astype(y, dtype_of(xp, name), copy=False) * std + mean

    def arrays_for(self, x: Array, dtype: str) -> tuple[Any, Any]:
        """Mean and deviation where ``x`` is: Python floats if there is one of each.

        Parameters
        ----------
        x : array, shape (…, N, …)
            Decides library, device and, in the message, what does not fit.
        dtype : str
            Name of the float type.
        """
        if self.mean.ndim == 0:
            return float(self.mean), float(self.std)  # scalars take the type of the array
        features = tuple(x.shape[-self.mean.ndim :])
        if len(features) != self.mean.ndim or any(
            ours not in (1, theirs) for ours, theirs in zip(self.mean.shape, features, strict=True)
        ):
            raise ShapeError(
                f"`Normalization.apply`: expected x of shape (…, {self._shape_text()}), got "
                f"{tuple(x.shape)}; fit the normalization on inputs of the same shape"
            )
        xp = array_namespace(x)
        target = dtype_of(xp, dtype)
        # Narrow on the host: what has no float64 (JAX by default) then never meets one.
        host = np.float64 if dtype == "float64" else np.float32
        device = _device_of(x)
        both = (xp.asarray(v.astype(host), device=device) for v in (self.mean, self.std))
        mean, std = (xp.astype(v, target, copy=False) for v in both)
        return mean, std

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and floats, exact through JSON: ``{"mean": …, "std": …}``."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalization:
        """Undo :meth:`to_dict`.

        Raises
        ------
        DataError
            If ``mean`` or ``std`` is missing or not made of numbers.
        """
        try:
            mean = np.asarray(values["mean"], dtype=np.float64)
            std = np.asarray(values["std"], dtype=np.float64)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
            raise DataError(
                "`Normalization.from_dict`: expected numbers under 'mean' and 'std', got "
                f"{values!r:.80}; the file was not written by Normalization.to_dict"
            ) from error
        return cls(mean, std)

    def _shape_text(self) -> str:
        return ", ".join(str(n) for n in self.mean.shape)


def float_name(dtype: Any, xp: Any, x: Array) -> str:
    """The float type's name that ``dtype`` means for ``x``; None keeps floats, else float32."""
    name = dtype_name(x.dtype)
    if not (xp.isdtype(x.dtype, ("integral", "real floating", "bool"))):
        raise DTypeError(f"`x`: expected integers or floats, got {name}; convert it first")
    if dtype is None:
        return name if name in FLOAT_NAMES else "float32"
    return float_type_name(dtype)


def _precision(name: str) -> int:
    return FLOAT_NAMES.index(name) if name in FLOAT_NAMES else -1


def float_type_name(dtype: Any) -> str:
    """The plain name of a float dtype given as a name, a NumPy type or a library's own dtype."""
    if isinstance(dtype, str):
        name = dtype
    elif isinstance(dtype, type) and issubclass(dtype, np.generic):
        name = np.dtype(dtype).name
    else:
        name = dtype_name(dtype)
    if name not in FLOAT_NAMES:
        raise DTypeError(
            f"`dtype`: expected one of {', '.join(FLOAT_NAMES)}, got {dtype!r}; "
            "networks compute in floats"
        )
    return name


def _device_of(x: Array) -> Any:
    from array_api_compat import device

    return device(x)
