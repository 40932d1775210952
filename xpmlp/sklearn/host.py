"""Where estimators compute, and data as scikit-learn's own checks can look at them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from sklearn import get_config

from ..backend import array_namespace, asarray_like, get_backend, is_array, to_numpy, use_backend
from ..errors import DTypeError

_NO_NUMBERS = {"M": "dates", "m": "times", "V": "records"}


def on_place(backend: str | None, device: str | None) -> AbstractContextManager[Any]:
    """Inside of ``with``, new arrays are of this library and device; None for the current ones."""
    if backend is None and device is None:
        return nullcontext()
    return use_backend(backend or get_backend().name, device)


def as_given(X: Any, values: np.ndarray) -> Any:
    """Predictions as an array of the library, and on the device, that X is of.

    Where scikit-learn has been told to keep to it (``array_api_dispatch``) and the library can hold
    them: text stays NumPy's.
    """
    plain = not is_array(X) or isinstance(X, np.ndarray) or values.dtype.kind not in "biuf"
    if plain or not get_config()["array_api_dispatch"]:
        return values
    # Numbers are of the type of X; labels, which are whole, stay what they are.
    floating = array_namespace(X).isdtype(X.dtype, "real floating")
    return asarray_like(values, X, keep_dtype=not floating or values.dtype.kind != "f")


def numbers_on_host(estimator: Any, name: str, values: Any) -> Any:
    """Arrays of other libraries as NumPy's; anything else as it is.

    Raises
    ------
    DTypeError
        For what scikit-learn would take for numbers though it is none: dates, times, records, and
        numbers that are masked out.
    """
    if is_array(values):
        values = to_numpy(values)
    dtypes = [*getattr(values, "dtypes", ())] if hasattr(values, "columns") else []
    kinds = [getattr(dtype, "kind", "") for dtype in (getattr(values, "dtype", None), *dtypes)]
    found = next((_NO_NUMBERS[kind] for kind in kinds if kind in _NO_NUMBERS), None)
    if np.ma.is_masked(values):
        found = "numbers that are masked out"
    if found is not None:
        raise DTypeError(
            f"`{type(estimator).__name__}`: expected {name} as numbers, got {found}; make numbers "
            "of them first"
        )
    return values
