"""Arrays by name, such as a layer's parameters: a dict, wherever the arrays lie.

A compiled training step keeps them in memory of its own, and writes there at every step. Whoever
reads them gets copies, made when he looks: what was read stays what it was, and a step that nobody
looks at pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Memory(Protocol):
    """Where a step keeps arrays; ``steps`` counts how often it has written there."""

    steps: int


class NamedArrays(dict):
    """A dict that can be lent to a step's memory, and then shows what is there."""

    __slots__ = ("_memory", "_seen", "_views")

    def lend(self, memory: Memory, views: Mapping[str, Any], copy_in: Callable[..., None]) -> None:
        """From now on the values are in these views: what is here goes there.

        Parameters
        ----------
        memory : Memory
        views : mapping of str to array, or to a list of arrays
            Those of a memory, for the same names.
        copy_in : callable
            ``copy_in(name, value, view)``; the value is None where there is none of the name.
        """
        for name, view in views.items():
            copy_in(name, self.get(name), view)
            if name not in self:
                self[name] = _copy_of(view)
        lent: Any = self  # the same dict for whoever holds it, with other methods
        lent.__class__ = LentArrays
        self._memory, self._views, self._seen = memory, views, memory.steps


def copies(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Each copied."""
    return {name: array.copy() for name, array in arrays.items()}


def _copy_of(view: Any) -> Any:
    return tuple(one.copy() for one in view) if isinstance(view, list) else view.copy()


class LentArrays(NamedArrays):
    """Of a step's memory: copies, made at the first look after a step."""

    __slots__ = ()

    def is_untouched(self, memory: Memory) -> bool:
        """Whether the values are in that memory, and nobody has looked at them or changed them."""
        return self._memory is memory and self._seen != memory.steps

    def _look(self) -> None:
        steps = self._memory.steps
        if self._seen != steps:
            self._seen = steps
            for name, view in self._views.items():
                dict.__setitem__(self, name, _copy_of(view))

    def __reduce__(self) -> Any:
        return NamedArrays, (dict(self),)


def is_lent(arrays: Any, memory: Memory) -> bool:
    """Whether a dict's values are in a memory, and nobody has looked at them or changed them."""
    return arrays.__class__ is LentArrays and arrays.is_untouched(memory)


def lend(
    owner: Any, group: str, views: Mapping[str, Any], memory: Memory, copy_in: Callable[..., None]
) -> bool:
    """Lend an object's arrays to a memory, unless they are there still; whether that was needed.

    Parameters
    ----------
    owner : Layer or Optimizer
    group : str
        Which of its dicts.
    views, memory, copy_in
        As for :meth:`NamedArrays.lend`.
    """
    arrays = owner.__dict__[group]
    if is_lent(arrays, memory):
        return False
    if not isinstance(arrays, NamedArrays):  # another dict was assigned
        arrays = owner.__dict__[group] = NamedArrays(arrays)
    arrays.lend(memory, views, copy_in)
    return True


def _after_a_look(name: str) -> Callable:
    method = getattr(dict, name)

    def run(self: LentArrays, *args: Any, **kwargs: Any) -> Any:
        self._look()
        return method(self, *args, **kwargs)

    run.__name__ = name
    return run


# Whatever reads or changes values. That __iter__ is one of them makes dict(…) and ** ask too.
for _name in (
    *("__getitem__", "__setitem__", "__delitem__", "__iter__", "__eq__", "__ne__", "__repr__"),
    *("__or__", "__ror__", "__ior__", "get", "items", "values", "copy", "pop", "popitem"),
    *("setdefault", "update", "clear"),
):
    setattr(LentArrays, _name, _after_a_look(_name))
