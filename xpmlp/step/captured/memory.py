"""Where a captured step's parameters, statistics and slots stay, whatever is assigned to them.

A recording fixes addresses. What a step changes gets places of its own, which are written to and
never replaced. They are lent to the layers' and the optimizer's dicts (``xpmlp.named_arrays``): who
reads gets copies, and what was assigned or changed is copied in before the next replay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...backend import Array, array_namespace
from ...layers import Linear
from ...layers.base import Layer
from ...named_arrays import copies, is_lent, lend
from ..task import all_layers


class Replays:
    """How many replays have written to the places: all that who they are lent to knows of them.

    A layer that knew the places would be one of a cycle, and the device's memory be held until it
    is looked for.
    """

    steps = 0


class DeviceMemory:
    """The arrays of a model's layers.

    Parameters
    ----------
    model : Layer
    half : dtype or None
        Of the copies of linear layers' parameters that products read, if they are to be in half
        precision.

    Attributes
    ----------
    copies : dict of int to dict of str to array
        Those copies, by the layers' identity.
    replays : Replays
    """

    def __init__(self, model: Layer, half: Any):
        self.replays = Replays()
        self._model = model
        self._places: list[tuple[Layer, str, dict[str, Array]]] = []
        for layer in dict.fromkeys(all_layers(model)):
            for group in ("params", "state"):
                arrays = getattr(layer, group)
                if arrays:  # copies: a view of, say, a checkpoint's array is not ours to write to
                    self._places.append((layer, group, copies(arrays)))
        self._slots: tuple[Any, dict[str, list[Array]]] | None = None
        self.copies: dict[int, dict[str, Array]] = {
            id(layer): {name: cast(view, half) for name, view in views.items()}
            for layer, group, views in self._places
            if half is not None and type(layer) is Linear and group == "params"
        }

    def copies_by_name(self) -> dict[str, Array]:
        """The half-precision copies under the names of the model's parameters."""
        names = {}
        for prefix, layer in self._model.named_layers():
            for name, copy in self.copies.get(id(layer), {}).items():
                names[prefix + name] = copy
        return names

    def keep_slots(self, optimizer: Any, slots: Mapping[str, list[Array]]) -> None:
        """Lend an optimizer's slots as well, by the names of the parameters."""
        self._slots = optimizer, dict(slots)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, layers have the places themselves, to compute with and to write to."""
        lent = [owner.__dict__[group] for owner, group, _ in self._places]
        for owner, group, views in self._places:
            owner.__dict__[group] = dict(views)
        try:
            yield
        finally:
            for (owner, group, _), arrays in zip(self._places, lent, strict=True):
                owner.__dict__[group] = arrays

    def are_outgrown(self) -> bool:
        """Whether an array of another shape or type has been assigned."""
        for owner, group, views in self._places:
            arrays = owner.__dict__[group]
            if is_lent(arrays, self.replays):
                continue
            for name, view in views.items():
                current = arrays.get(name)
                if current is None or (current.shape, current.dtype) != (view.shape, view.dtype):
                    return True
        return False

    def take_over(self) -> None:
        """Copy in what was looked at or assigned since the last replay."""
        places = [lend(*place, self.replays, _copy) for place in self._places]
        if any(places):
            self._refresh_copies()
        if self._slots is not None:
            optimizer, slots = self._slots
            lend(optimizer, "state", slots, self.replays, _copy)

    def keep_state(self) -> None:
        """Running statistics that layers have made anew go to their places; is recorded."""
        for owner, group, views in self._places:
            made = owner.__dict__[group]
            for name, view in views.items() if group == "state" else ():
                if made[name] is not view:
                    view[...] = made[name]
                    made[name] = view

    def snapshot(self) -> list[Array]:
        """Copies of everything but the slots."""
        return [view.copy() for *_, views in self._places for view in views.values()]

    def restore(self, saved: list[Array]) -> None:
        """Take back what :meth:`snapshot` gave."""
        places = [view for *_, views in self._places for view in views.values()]
        for view, copy in zip(places, saved, strict=True):
            view[...] = copy
        self._refresh_copies()

    def _refresh_copies(self) -> None:
        for layer, group, views in self._places:
            for name, copy in self.copies.get(id(layer), {}).items() if group == "params" else ():
                copy[...] = cast(views[name], copy.dtype)


def cast(x: Array, dtype: Any) -> Array:
    """x itself if it is of that type."""
    return x if x.dtype == dtype else array_namespace(x).astype(x, dtype)


def _copy(name: str, values: Any, view: Any) -> None:
    """Values into a view, or several into a list of views; the optimizer's slots begin with 0."""
    if isinstance(view, list):
        for one, value in zip(view, values or (0.0,) * len(view), strict=True):
            one[...] = value
    else:
        view[...] = values
