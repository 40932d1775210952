"""Where a captured step's parameters and running statistics stay, whatever is assigned to them.

A recording fixes addresses. The layers' arrays get places of their own, which are written to and
never replaced; what somebody puts in their stead is copied in before the next replay.
"""

from __future__ import annotations

from typing import Any

from ...backend import Array, array_namespace
from ...layers import Linear
from ...layers.base import Layer
from ..task import all_layers


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
    """

    def __init__(self, model: Layer, half: Any):
        self._model, self._layers = model, list(dict.fromkeys(all_layers(model)))
        self._held: list[tuple[Layer, str, str, Array]] = []
        for layer in self._layers:
            for group in ("params", "state"):
                arrays = getattr(layer, group)
                for name, array in arrays.items():
                    # Of its own: a view of, say, a checkpoint's array is not ours to write to.
                    arrays[name] = array.copy()
                    self._held.append((layer, group, name, arrays[name]))
        linears = [layer for layer in self._layers if half is not None and type(layer) is Linear]
        self.copies: dict[int, dict[str, Array]] = {
            id(layer): {name: cast(array, half) for name, array in layer.params.items()}
            for layer in linears
        }

    def copies_by_name(self) -> dict[str, Array]:
        """The half-precision copies under the names of the model's parameters."""
        names = {}
        for prefix, layer in self._model.named_layers():
            for name, copy in self.copies.get(id(layer), {}).items():
                names[prefix + name] = copy
        return names

    def are_outgrown(self) -> bool:
        """Whether an array of another shape or type has been assigned."""
        for layer, group, name, array in self._held:
            current = getattr(layer, group).get(name)
            if current is not array and (
                current is None or current.shape != array.shape or current.dtype != array.dtype
            ):
                return True
        return False

    def take_over(self) -> None:
        """Copy in what was assigned from outside."""
        changed = False
        for layer, group, name, array in self._held:
            arrays = getattr(layer, group)
            if arrays[name] is not array:
                array[...] = arrays[name]
                arrays[name] = array
                changed = True
        if changed:
            self._refresh_copies()

    def keep_state(self) -> None:
        """Running statistics that layers have made anew go to their places; is recorded."""
        for layer, group, name, array in self._held:
            if group == "state" and layer.state[name] is not array:
                array[...] = layer.state[name]
                layer.state[name] = array

    def snapshot(self) -> list[Array]:
        """Copies of everything."""
        return [array.copy() for *_, array in self._held]

    def restore(self, saved: list[Array]) -> None:
        """Take back what :meth:`snapshot` gave."""
        for (layer, group, name, array), copy in zip(self._held, saved, strict=True):
            array[...] = copy
            getattr(layer, group)[name] = array
        self._refresh_copies()

    def _refresh_copies(self) -> None:
        for layer in self._layers:
            for name, copy in self.copies.get(id(layer), {}).items():
                copy[...] = cast(layer.params[name], copy.dtype)


def cast(x: Array, dtype: Any) -> Array:
    """x itself if it is of that type."""
    return x if x.dtype == dtype else array_namespace(x).astype(x, dtype)
