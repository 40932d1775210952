"""What the candidates of a search have in common: equal arrays are one, and seen through once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.sparse_rows import is_sparse

_LOOKED_AT = 16  # rows, before all of them are compared


class InCommon:
    """Arrays, and what has been found about them.

    A search slices the same folds for each of its candidates anew. Here, equal slices become one
    array, so that memory holds each fold once.
    """

    def __init__(self) -> None:
        self._alike: dict[Any, list[Any]] = {}
        self._kept: dict[int, Any] = {}
        self._found: dict[Any, Any] = {}
        self._numbers: dict[tuple[int, ...], int] = {}

    def same(self, value: Any) -> Any:
        """The first array that was equal to this one; what is no array, as it is."""
        if id(value) in self._kept or not (isinstance(value, np.ndarray) or is_sparse(value)):
            return value
        alike = self._alike.setdefault(_at_a_glance(value), [])
        for earlier in alike:
            if all(map(np.array_equal, _parts(earlier), _parts(value))):
                return earlier
        alike.append(value)
        self._kept[id(value)] = value
        return value

    def number_of(self, *arrays: Any) -> int:
        """A number that equal arrays have in common."""
        key = tuple(id(self.same(array)) for array in arrays)
        return self._numbers.setdefault(key, len(self._numbers))

    def once(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """``function(*arguments, **options)``, from an earlier call where all are the same."""
        arguments = tuple(self.same(argument) for argument in arguments)
        names = [id(own) if id(own) in self._kept else repr(own) for own in arguments]
        key = function, *names, repr(options)
        if key not in self._found:
            self._found[key] = function(*arguments, **options)
        return self._found[key]


def _at_a_glance(value: Any) -> Any:
    """Equal for equal arrays, and seldom for others."""
    first, *_ = _parts(value)
    some = first[:: max(1, len(first) // _LOOKED_AT)] if first.ndim else first
    return value.shape, value.dtype, first.shape, some.tobytes()


def _parts(value: Any) -> tuple[np.ndarray, ...]:
    return (value.data, value.indices, value.indptr) if is_sparse(value) else (value,)
