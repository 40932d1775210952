"""Where a compiled step keeps parameters, gradients and the optimizer's slots: in a few buffers.

The model and the optimizer show copies, made when somebody looks (see named_arrays.py), so that
nothing need be carried back and forth. What the user looked at or assigned in the meantime (loaded
parameters, say) is copied in before the next step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...backend import to_numpy
from ...communication import Communicator
from ...errors import ShapeError
from ...layers.base import Layer
from ...named_arrays import copies, lend
from ...optim import Optimizer


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like NumPy's, but beginning with a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    begin = -memory.__array_interface__["data"][0] % 64
    return memory[begin : begin + size].view(dtype).reshape(shape)


class StepMemory:
    """Buffers for a model's parameters, in the order of ``names``: weights first, then the others.

    Parameters
    ----------
    model : Layer
        Its parameters are replaced by copies in the buffers; the given arrays are never written to.
    optimizer : Optimizer, optional
        Its state as well.
    ranks : Communicator, optional
        Who sums gradients. All must make theirs at once.
    tail : int
        Room for so many numbers more behind the gradients, which ranks sum with them.

    Attributes
    ----------
    params, grads : array, shape (size,)
    summed : array, shape (size + tail,)
        The gradients and then the tail.
    slots : tuple of arrays, shape (size,)
        What the optimizer remembers.
    state : dict of str to array
        What layers keep but do not train.
    names : list of str
    offsets : dict of str to (int, int)
        Where a parameter begins, and its number of elements, padding included.
    weights_end : int
        Where the parameters begin that weight decay does not apply to.
    steps : int
        How often a program has written here.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer | None,
        dtype: np.dtype,
        ranks: Communicator | None = None,
        tail: int = 0,
    ):
        params, weights = model.params, model.weight_params
        self.names = [n for n in params if n in weights] + [n for n in params if n not in weights]
        self.offsets: dict[str, tuple[int, int]] = {}
        end = 0
        self._rows: dict[str, int] = {}
        for name in self.names:
            *lead, row = params[name].shape
            # Rows of large matrices begin with a cache line: no vector then straddles two, and two
            # cores that share a matrix by columns never write into one.
            row = _padded(row) if name in weights and row >= _WIDE else row
            size = math.prod(lead) * row
            self.offsets[name], self._rows[name] = (end, size), row
            end += _padded(size)
            if name in weights:
                self.weights_end = end
        self.size = end
        self.params = zeros((end,), dtype)
        summed = None if ranks is None else ranks.zeros(end + tail, dtype)
        self.summed = zeros((end + tail,), dtype) if summed is None else summed
        self.grads, self.tail = self.summed[:end], self.summed[end:]
        self.slots = tuple(zeros((end,), dtype) for _ in range(optimizer.slots if optimizer else 0))
        self._adjusted: np.ndarray | None = None
        self.state: dict[str, np.ndarray] = {}
        self.steps = 0
        self._places: list[tuple[Any, str, dict[str, Any]]] = []
        self._own_grads: list[tuple[Layer, Callable[[], dict[str, np.ndarray]]]] = []
        for prefix, layer in model.named_layers():
            shapes = {name: array.shape for name, array in layer.params.items()}
            for group, buffer in (("params", self.params), ("grads", self.grads)):
                views = {n: self.view(buffer, prefix + n, shape) for n, shape in shapes.items()}
                if group == "params" and views:
                    self._places.append((layer, group, views))
                elif group == "grads":
                    self._own_grads.append((layer, partial(copies, views)))
            state = {name: np.array(array, dtype) for name, array in layer.state.items()}
            self.state |= {prefix + name: array for name, array in state.items()}
            if state:
                self._places.append((layer, "state", state))
        if optimizer is not None:
            slots = {
                name: [self.view(slot, name, params[name].shape) for slot in self.slots]
                for name in self.names
            }
            self._places.append((optimizer, "state", slots))

    @property
    def dtype(self) -> np.dtype:
        """Of all buffers."""
        return self.params.dtype

    def parameter(self, name: str) -> np.ndarray:
        """A parameter's part of ``params``, flat."""
        begin, size = self.offsets[name]
        return self.params[begin : begin + size]

    def statistic(self, name: str) -> np.ndarray:
        """An array of ``state``."""
        return self.state[name]

    def row(self, name: str) -> int:
        """The distance between two rows of a parameter, in elements."""
        return self._rows[name]

    def matrix(self, name: str, members: int) -> tuple[int, int]:
        """Rows and columns of one member's part of a parameter, padding included."""
        size, row = self.offsets[name][1], self._rows[name]
        return size // (members * row), row

    def is_weight(self, name: str) -> bool:
        """Whether weight decay applies to a parameter."""
        return self.offsets[name][0] < self.weights_end

    def adjusted(self) -> np.ndarray:
        """A second buffer for gradients, shape (size,)."""
        if self._adjusted is None:
            self._adjusted = zeros((self.size,), self.params.dtype)
        return self._adjusted

    def view(self, buffer: np.ndarray, name: str, shape: Sequence[int]) -> np.ndarray:
        """A parameter's part of one of the buffers."""
        begin, size = self.offsets[name]
        padded = buffer[begin : begin + size].reshape((*shape[:-1], self._rows[name]))
        return padded[..., : shape[-1]]

    def adopt(self) -> None:
        """Copy in what was looked at or assigned since the last step."""
        for owner, group, views in self._places:
            lend(owner, group, views, self, _copy)
        for layer, take in self._own_grads:
            layer._grads = take


_LINE = 16  # elements that fill one or two cache lines
_WIDE = 64  # columns from which on rows are padded


def _padded(size: int) -> int:
    return -(-size // _LINE) * _LINE


def _copy(name: str, values: Any, view: Any) -> None:
    """Values into a view, or several into a list of views; the optimizer's slots begin with 0."""
    if isinstance(view, list):
        for position, one in enumerate(view):
            _copy(name, np.zeros(one.shape) if values is None else values[position], one)
        return
    values = to_numpy(values)
    if values.shape != view.shape:
        raise ShapeError(
            f"`TrainStep`: expected {name} to keep its shape {view.shape}, got {values.shape}; "
            "make a new TrainStep for another model"
        )
    view[...] = values
