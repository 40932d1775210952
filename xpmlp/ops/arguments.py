"""What stands between a user's arguments and an op: arrays of real numbers, numbers in bounds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numpy as np

from ..backend import array_namespace, dtype_name, is_array
from ..errors import DTypeError, ShapeError, XpmlpError
from ..options import FLAG, Flag, Number
from .dispatch import give_up, is_compilers, without_kernels

_FLOATS = ("float",)
_REALS = ("float", "int", "bool")
_passed: dict[tuple[str, ...], set[Any]] = {_FLOATS: set(), _REALS: set()}  # NumPy's dtypes
_LOOK_THEMSELVES = {"softmax_cross_entropy"}  # once for arguments that are alike
_OF_ALL_NUMBERS = {"gather_rows", "embedding", "embedding_backward", *_LOOK_THEMSELVES}
# The other ops compute with floats alone.
_OF_ONE_SHAPE = ("activations", "softmax")  # modules whose ops have arrays of one shape
_OF_LIBRARIES = (RuntimeError, NotImplementedError)  # torch's; what derives from them is no words
_OF_ARGUMENTS = (TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


_SHARE = Number("(0, 1]", each_member=True)
NUMBERS: dict[str, Number | Flag] = {
    "eps": Number("[1e-37, inf)"),  # what is smaller would be 0 in float32, and 0 / 0 then NaN
    "normalization.eps": Number("[0, inf)"),
    "lr": Number(each_member=True),
    "ahead": Number(each_member=True),
    "adaptive": Number(each_member=True),
    "momentum": Number("[0, 1)", each_member=True),
    "keep": Number("[0, 1)", each_member=True),
    "gain": _SHARE,
    "gain1": _SHARE,
    "gain2": _SHARE,
    "correction1": _SHARE,
    "correction2": _SHARE,
    "mean": Number(optional=True, each_member=True),
    "std": Number("(0, inf)", optional=True, each_member=True),
    "slope": Number(),
    "alpha": Number(),
    "axis": Number(whole=True),
    "steps": Number("[0, 1000]", whole=True),
    "nesterov": FLAG,
    "count_padding": FLAG,
    "input_grad": FLAG,
}
"""What an argument that is no array may be: by the module of the op and its name, or by its name.

``each_member``: or an array of such numbers that broadcasts over the op's.
"""


def checked(op: Callable) -> Callable:
    """The op, with an error that names it and the argument for what it cannot take.

    Of what is right, only the dtypes of arrays and the bounds of numbers are looked at; the rest
    is when something has gone wrong.
    """
    if op.__name__ in _LOOK_THEMSELVES:
        return named(op)
    parameters = inspect.signature(op).parameters.values()
    arrays = [p for p in parameters if _takes_array(p)]
    count, required = len(arrays), sum(p.default is p.empty for p in arrays)
    others = [p.name for p in parameters if p not in arrays]
    module = op.__module__.rpartition(".")[2]
    declared = {name: NUMBERS.get(f"{module}.{name}") or NUMBERS.get(name) for name in others}
    usual = {name: _usual(option) for name, option in declared.items() if option is not None}
    look_at = usual | {p.name: (None, 0, 0) for p in arrays}
    kinds = _REALS if op.__name__ in _OF_ALL_NUMBERS else _FLOATS
    passed = _passed[kinds]
    alike = [p.name for p in arrays] if module in _OF_ONE_SHAPE and count > 1 else []

    @wraps(op)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            for array in args[:required]:
                if type(array) is not np.ndarray or array.dtype not in passed:
                    look(array, kinds)
            for array in args[required:count]:
                if array is not None:
                    look(array, kinds)
            if len(args) > count:
                for place, name in enumerate(others[: len(args) - count], count):
                    if name in usual:
                        value, (kind, low, high) = args[place], usual[name]
                        if type(value) is not kind or not low <= value <= high:
                            number = _number(op, name, declared[name], value)
                            args = (*args[:place], number, *args[place + 1 :])
            for name, value in kwargs.items():
                if name in look_at:
                    kind, low, high = look_at[name]
                    if kind is None:
                        if value is not None:
                            look(value, kinds)
                    elif type(value) is not kind or not low <= value <= high:
                        kwargs[name] = _number(op, name, declared[name], value)
            if alike:
                _check_alike(op, dict(zip(alike, args, strict=False)) | kwargs, alike)
            return op(*args, **kwargs)
        except Exception as error:
            if is_compilers(error):
                return _by_reference(op, args, kwargs, error)
            _explain(op, args, kwargs, error)
            raise

    return run


def _check_alike(op: Callable, given: dict[str, Any], names: list[str]) -> None:
    shapes = {name: tuple(given[name].shape) for name in names if name in given}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if shape != first:
            raise ShapeError(f"`{op.__name__}`: expected {name} of shape {first}, got {shape}")


def _usual(option: Number | Flag) -> tuple[type, float, float]:
    """What it mostly is, which takes no time to see: of this very type, from here to there."""
    if isinstance(option, Flag):
        return bool, False, True
    return int if option.whole else float, *option.extremes


def _number(op: Callable, name: str, option: Any, value: Any) -> Any:
    """The number to compute with, or an array of them; on a device no values are looked at."""
    of_arrays = isinstance(option, Number) and option.each_member
    if of_arrays and isinstance(value, np.ndarray) and value.ndim and is_array(value):
        for extreme in (value.min(), value.max()) if value.size else ():
            option.check(op.__name__, name, extreme)
        return value
    if is_array(value) and not isinstance(value, np.ndarray | np.generic):
        kind = "int" if getattr(option, "whole", False) else ""
        if isinstance(option, Number) and kind in dtype_name(value.dtype):
            return value
    number = option.check(op.__name__, name, value)
    if isinstance(number, np.ndarray):
        raise DTypeError(
            f"`{op.__name__}`: expected {name} as a number or an array, got {type(value).__name__}"
        )
    return number


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


def look(array: Any, kinds: tuple[str, ...] = _REALS) -> None:
    """Raise TypeError for an array of anything but numbers of these kinds."""
    if type(array) is np.ndarray:
        fits = array.dtype in _passed[kinds] or _is_of(kinds, np.ndarray, array.dtype)
        if fits:
            _passed[kinds].add(array.dtype)
    else:
        fits = _is_of(kinds, type(array), array.dtype)
    if not fits:
        raise TypeError(f"{dtype_name(array.dtype)}, expected {_words(kinds)}")


@cache
def _is_of(kinds: tuple[str, ...], array: type, dtype: Any) -> bool:
    # By the array's type as well: dtypes of two libraries may not like to be compared. And by a
    # cache, not a dict of ours, which torch.compile would not like to see changed.
    return any(kind in dtype_name(dtype) for kind in kinds)


def _words(kinds: tuple[str, ...]) -> str:
    return "a floating dtype" if kinds is _FLOATS else "real numbers"


def _explain(op: Callable, args: tuple, kwargs: dict[str, Any], error: Exception) -> None:
    """Raise an error in words, if the arguments are what is wrong, and nobody has said so."""
    if isinstance(error, XpmlpError) and f"`{op.__name__}`" in str(error):
        return
    signature = inspect.signature(op)
    kinds = _REALS if op.__name__ in _OF_ALL_NUMBERS else _FLOATS
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
            good = _is_of(kinds, type(value), getattr(value, "dtype", ""))  # a list has none
        except (DTypeError, AttributeError, ValueError):
            good = False
        if not good:
            dtype = getattr(value, "dtype", None)
            of_dtype = dtype is not None and not _is_of(kinds, type(value), dtype)
            what = dtype_name(dtype) if of_dtype else f"a {type(value).__name__}"
            raise DTypeError(
                f"`{op.__name__}`: expected {name} as an array of {_words(kinds)}, got {what}; "
                f"convert it, for example with xpmlp.asarray({name}, dtype='float32')"
            ) from error
    if isinstance(error, XpmlpError):
        return
    from_numba = type(error).__module__.startswith("numba")
    if from_numba or isinstance(error, _OF_ARGUMENTS) or type(error) in _OF_LIBRARIES:
        found = DTypeError if isinstance(error, TypeError) or from_numba else ShapeError
        what = ", ".join(f"{name} {_in_words(value)}" for name, value in given.items())
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise found(
            f"`{op.__name__}`: expected arguments that fit together, got {what} ({reason})"
        ) from error


def _in_words(value: Any) -> str:
    if is_array(value):
        return f"{dtype_name(value.dtype)} {tuple(value.shape)}"
    return repr(value)[:40]
