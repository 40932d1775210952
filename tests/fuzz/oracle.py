"""What counts as sensible, and whether a call that was accepted gave what it stands for.

An argument's *plain* form is what its documentation asks for: a float, an int, a bool, a text, an
array in row-major order of a usual dtype. Others stand for a plain one:

- for a float, any real number: int, NumPy's scalars, an array without axes of any library; where
  a member of a population may have its own, also a sequence of them;
- for an integer, any ``numbers.Integral``, or an array of integers without axes of a library that
  is not NumPy's; 2.0 is none;
- for True and False, 0 and 1;
- for a text, ``np.str_``;
- for an array, one of real numbers (integers and truth values are numbers) of any dtype, layout,
  order of bytes and library, nested lists, a data frame of numbers; masked numbers are none;
- for a sequence of integers, any sequence of ``numbers.Integral``.

Nothing else does: True is no number where one number is asked for, "0.5" is a text, and so are
bytes and numbers written in an array of text, but for estimators, where scikit-learn's rules hold.
An op that takes floats takes no complex ones, and None is for arguments whose default it is.

Sensible is an error, or the result that the plain form gives. What is accepted without standing
for something plain is *nonsense*, but for

- arguments that the call has no use for (``UNUSED``): the result is that of the usual one;
- arguments that are documented to have further kinds (``ALSO``);
- ``score``, which is scikit-learn's own, and ``explain``, which looks at no values.

The values of arrays that an op is given are looked at where that costs nothing beside it. Where
sums of squares are negative (``v``, ``squares``, ``batch_norm_backward``'s ``var``), which those
ops themselves have returned, the answer is NaN.
"""

from __future__ import annotations

import functools
import inspect
import pathlib
import sys
import types
from numbers import Integral, Real
from typing import Any

import numpy as np

NONE = object()
"""There is no plain form."""

# Arguments whose documentation has further kinds, as far as the values thrown are of them.
ALSO: dict[str, tuple[type, ...]] = {
    "init": (float, int),  # a standard deviation
    "random_state": (np.random.RandomState, np.random.Generator),
    "then": (
        types.NoneType,
        types.FunctionType,
        functools.partial,
        type(print),
    ),  # a function of the step
    "dtype": (type, np.dtype),
    "dim": (types.NoneType,),
    "hidden_layer_sizes": (int,),
    "seed": (types.NoneType, list, tuple, range, np.ndarray),  # of a population
    "validation": (type(None),),
    "path": (str, pathlib.PosixPath, np.str_),
}
_OF_MEMBERS = ("lr", "momentum", "beta1", "beta2", "p", "dropout", "strength", "max_norm")
_OF_OPS = ("p", "lr", "momentum", "gain", "gain1", "gain2", "correction1", "correction2")
_OF_OPS += "ahead", "adaptive", "keep"
_BROADCAST = (*_OF_OPS, "mean", "std")
_ESTIMATORS = ("MLP", "classifier.", "regressor.")


def is_own_result(name: str, changed: str) -> bool:
    """Whether an op takes back what it has returned, or a function's number is its own affair."""
    of_training = (name, changed) == ("ops.batch_norm_backward", "var")
    return of_training or changed in ("v", "squares", "largest", "changes", "then")


def is_unused(name: str, changed: str) -> bool:
    """Whether the call has no use for the argument."""
    return (
        name == "explain"
        or (name.endswith(".score") and changed == "y")
        or (name, changed) in (("ops.gather_rows", "out"), ("ops.linear_backward", "y"))
        or (name.endswith("_backward") and "norm" not in name and changed in ("x", "y"))
    )


def plain(name: str, changed: str, value: Any, usual: Any) -> Any:
    """What a value stands for where ``usual`` works, or ``NONE``."""
    if isinstance(usual, np.ndarray):
        return _plain_array(value, usual.dtype, texts=name.startswith(_ESTIMATORS))
    if (name, changed) == ("MLPClassifier", "y"):
        return value  # labels may be anything
    several = changed in (_BROADCAST if name.startswith("ops.") else _OF_MEMBERS)
    if isinstance(usual, float) and several and np.ndim(_host(value)) > 0:
        return _plain_array(value, np.dtype("f8"))
    if isinstance(usual, bool):
        whole = isinstance(value, Integral | np.bool_) and value in (0, 1)
        return bool(value) if whole else NONE
    if isinstance(usual, int):
        other = not isinstance(value, np.ndarray) and getattr(value, "ndim", 1) == 0
        fits = _is_whole(value) or (other and "int" in str(value.dtype))
        return int(value) if fits else NONE
    if isinstance(usual, float):
        if isinstance(value, Real) and not isinstance(value, bool):
            return float(value) if abs(value) <= sys.float_info.max else NONE
        number = _plain_array(value, np.dtype("f8"), lists=False)
        if number is NONE or number.ndim or np.asarray(_host(value)).dtype.kind == "b":
            return NONE
        return float(number)
    if isinstance(usual, str):
        return str(value) if isinstance(value, str) else NONE
    if isinstance(usual, list | tuple) and usual and all(type(one) is int for one in usual):
        parts = list(value) if isinstance(value, list | tuple | range | np.ndarray) else [None]
        return [int(one) for one in parts] if all(map(_is_whole, parts)) else NONE
    return NONE


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _host(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().to_dense().resolve_conj().resolve_neg()
        return value.float() if "bfloat" in str(value.dtype) else value
    return value


def _plain_array(value: Any, dtype: np.dtype, lists: bool = True, texts: bool = False) -> Any:
    if isinstance(value, str | bytes | bytearray) or value is None:
        return NONE
    if isinstance(value, list | tuple | range) and not lists:
        return NONE
    try:
        array = np.asarray(_host(value))
        array = array.astype(float) if texts and array.dtype.kind in "OUS" else array
    except Exception:
        return NONE
    if np.ma.is_masked(value) or array.dtype.kind not in "biuf":
        return NONE
    if array.dtype.kind == "f" or dtype.kind == "f":
        array = array.astype(dtype if dtype.kind == "f" else np.float32)
    else:
        array = array.astype(np.int64)
    return np.ascontiguousarray(array).reshape(array.shape)


def is_plain(value: Any, form: Any) -> bool:
    """Whether a value is the plain form itself."""
    if isinstance(form, np.ndarray):
        return type(value) is np.ndarray and value.dtype == form.dtype and value.flags.c_contiguous
    return type(value) is type(form)


def may_be(value: Any, name: str, function: Any, usual: Any) -> bool:
    """Whether it is of a further kind that the argument is documented to have."""
    if usual is None or repr(value) == repr(usual) or getattr(value, "is_meta", False):
        return True
    if not isinstance(usual, np.ndarray | float | str) and type(value) is type(usual):
        return True  # another object of the kind
    if value is None and _default(function, name) is None:
        return True
    return type(value) in ALSO.get(name, ())


def _default(function: Any, name: str) -> Any:
    try:
        return inspect.signature(function).parameters[name].default
    except (ValueError, TypeError, KeyError):
        return inspect.Parameter.empty


def same(first: Any, second: Any, tolerance: float) -> bool:
    """Whether two results are the same, as far as can be seen."""
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        pairs = zip(first, second, strict=False)
        return len(first) == len(second) and all(same(a, b, tolerance) for a, b in pairs)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            same(first[key], second[key], tolerance)
            for key in first
            if "second" not in str(key)  # seconds of a history
        )
    if hasattr(first, "coefs_"):
        return same(first.coefs_, second.coefs_, tolerance)
    try:
        a, b = np.asarray(_host(first)), np.asarray(_host(second))
        if a.dtype.kind not in "biuf" or b.dtype.kind not in "biuf":
            return type(first) is type(second)
    except Exception:
        return type(first) is type(second)
    if a.shape != b.shape:
        return False
    return np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def tolerance_of(value: Any) -> float:
    """How far a result may be off for the digits that a value's dtype has."""
    dtype = str(getattr(value, "dtype", ""))
    return 0.05 if "16" in dtype or "8" in dtype else 1e-3
