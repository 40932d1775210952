"""What stands between a user's arguments and an op: they are arrays of real numbers, or named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numpy as np

from ..backend import array_namespace, dtype_name
from ..errors import DTypeError, ShapeError, XpmlpError
from .dispatch import give_up, is_compilers, without_kernels

_real: set[Any] = set()  # dtypes that have passed
_LOOK_THEMSELVES = {"softmax_cross_entropy"}  # once for arguments that are alike
_OF_ARGUMENTS = (TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def checked(op: Callable) -> Callable:
    """The op, with an error that names it and the argument for what it cannot take.

    Of what is right, only the dtypes are looked at; the rest is when something has gone wrong.
    """
    if op.__name__ in _LOOK_THEMSELVES:
        return named(op)
    arrays = [p for p in inspect.signature(op).parameters.values() if _takes_array(p)]
    count, required = len(arrays), sum(p.default is p.empty for p in arrays)

    @wraps(op)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            for array in args[:required]:
                if type(array) is not np.ndarray or array.dtype not in _real:
                    look(array)
            for array in args[required:count]:
                if array is not None:
                    look(array)
            return op(*args, **kwargs)
        except Exception as error:
            if is_compilers(error):
                return _by_reference(op, args, kwargs, error)
            _explain(op, args, kwargs, error)
            raise

    return run


def _takes_array(parameter: inspect.Parameter) -> bool:
    """An op's arrays come first, and may be given by position."""
    keyword = parameter.kind is parameter.KEYWORD_ONLY
    return str(parameter.annotation).startswith("Array") and not keyword


def named(op: Callable) -> Callable:
    """The op, with :func:`checked`'s errors where it fails; what is right costs nothing more."""

    @wraps(op)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return op(*args, **kwargs)
        except Exception as error:
            if is_compilers(error):
                return _by_reference(op, args, kwargs, error)
            _explain(op, args, kwargs, error)
            raise

    return run


def _by_reference(op: Callable, args: tuple, kwargs: dict[str, Any], error: Exception) -> Any:
    """What the reference gives, where numba failed; if it fails too, the arguments are to blame."""
    try:
        with without_kernels():
            result = op(*args, **kwargs)
    except Exception as own:
        _explain(op, args, kwargs, own)
        raise
    give_up(error, None if isinstance(error, ImportError) else op.__name__)
    return result


def look(array: Any) -> None:
    """Raise TypeError for an array of anything but real numbers."""
    if type(array) is np.ndarray:
        real = array.dtype in _real or _is_real(np.ndarray, array.dtype)
        if real:
            _real.add(array.dtype)
    else:
        real = _is_real(type(array), array.dtype)
    if not real:
        raise TypeError(f"{dtype_name(array.dtype)} is no dtype of real numbers")


@cache
def _is_real(kind: type, dtype: Any) -> bool:
    # By the array's type as well: dtypes of two libraries may not like to be compared. And by a
    # cache, not a dict of ours, which torch.compile would not like to see changed.
    return any(word in dtype_name(dtype) for word in ("float", "int", "bool"))


def _explain(op: Callable, args: tuple, kwargs: dict[str, Any], error: Exception) -> None:
    """Raise an error in words, if the arguments are what is wrong, and nobody has said so."""
    if isinstance(error, XpmlpError) and f"`{op.__name__}`" in str(error):
        return
    signature = inspect.signature(op)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return  # not called as an op is: Python's own words name the argument
    for name, value in given.items():
        parameter = signature.parameters[name]
        optional = "None" in str(parameter.annotation)
        if not _takes_array(parameter) or (value is None and optional):
            continue
        try:
            array_namespace(value)  # refuses what is of no known library
            good = _is_real(type(value), getattr(value, "dtype", ""))  # a list has none
        except (DTypeError, AttributeError, ValueError):
            good = False
        if not good:
            dtype = getattr(value, "dtype", None)
            what = type(value).__name__ if dtype is None else dtype_name(dtype)
            raise DTypeError(
                f"`{op.__name__}`: expected {name} as an array of real numbers, got {what}; "
                f"convert it, for example with xpmlp.asarray({name}, dtype='float32')"
            ) from error
    if isinstance(error, XpmlpError):
        return
    from_numba = type(error).__module__.startswith("numba")
    if from_numba or isinstance(error, _OF_ARGUMENTS) or type(error) is RuntimeError:
        found = DTypeError if isinstance(error, TypeError) or from_numba else ShapeError
        what = ", ".join(f"{name} {_in_words(value)}" for name, value in given.items())
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise found(
            f"`{op.__name__}`: expected arguments that fit together, got {what} ({reason})"
        ) from error


def _in_words(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{dtype_name(value.dtype)} {tuple(value.shape)}"
    return repr(value)[:40]
