"""A model's outputs in evaluation mode, and a loss of them, as one call of compiled code.

The same lowering as a training step's, without what comes after the forward: dropout is off, and
batch normalization goes by its running statistics. Nothing is compiled for it that a step has not.
Parameters are read where the model has them: what was changed or replaced between two calls counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...layers import Residual, Sequential
from ...layers.base import Layer
from ...losses import Loss
from .later import Address, Rows
from .losses import lower_loss
from .program import NotCompiled, Program
from .step import check_arrays, compiling, given_batch, lower_model


class CompiledForward:
    """``model.forward(x)`` for batches that are alike, but for how many rows they have.

    Parameters
    ----------
    model : Layer
    x : array
        Such a batch.
    rows : int
        The most rows that a batch may have.
    loss : Loss, optional
        Is computed as well; then all batches have so many rows.
    y : array, optional
        Targets for the loss.
    weight : array, optional
        Of its rows.

    Raises
    ------
    NotCompiled
        If something in it has no instructions.

    Attributes
    ----------
    most : int
        Rows.
    width : int
        M.
    lead : tuple of int
        () or (P,).
    nbytes : int
        Of its buffers.

    Notes
    -----
    It has buffers of its own, so that two threads must not run one at the same time.
    """

    def __init__(
        self,
        model: Layer,
        x: np.ndarray,
        rows: int,
        loss: Loss | None = None,
        y: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ):
        check_arrays(model, x)
        self._parts = list(_parts(model))
        self._arrays: Any = ModelArrays(model, x.dtype)
        P, most = model.population, Rows(rows) if loss is None else rows
        program = Program(P, most, given_batch(model, x, most), self._arrays, training=False)
        with compiling():
            outputs, array, _ = lower_model(program, model)
            self._value = program.buffer(program.members)
            if loss is not None and y is not None:
                lower_loss(program, loss, outputs, y, self._value, weight)
        self.most, self.width, self.nbytes = rows, outputs.features, program.nbytes
        self.lead = () if P is None else (P,)
        self._program, self._outputs = program, array.reshape(-1)
        self._sizes = [(row, i, size) for row, i, size in program.later if isinstance(size, Rows)]
        self._rows = rows
        self._arrays.bind(program.later)
        if not self._arrays.are_found():
            raise NotCompiled("parameters are not all plain arrays of the batch's type")

    def is_stale(self, model: Layer) -> bool:
        """Whether layers, or options that it was made with, have changed.

        Raises
        ------
        NotCompiled
            If they cannot be compiled any more.
        """
        return (
            self._program.is_stale()
            or list(_parts(model)) != self._parts
            or not self._arrays.are_found()
        )

    def __call__(
        self,
        x: np.ndarray,
        rows: int,
        y: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ) -> np.ndarray | None:
        """The outputs of a batch with so many rows, (N, M) or (P, N, M), until the next call.

        None where the batch or the targets cannot be. :attr:`value` and :attr:`correct` are then
        the loss's.
        """
        if rows != self._rows:
            for row, place, size in self._sizes:
                row[place] = size.each * rows
            self._rows = rows
        if self._program.run(x, y, weight):
            return None
        shape = *self.lead, rows, self.width
        return self._outputs[: math.prod(shape)].reshape(shape)

    @property
    def value(self) -> Any:
        """The loss of the last batch, a number or (P,)."""
        return self._value.copy() if self.lead else self._value[0]

    @property
    def correct(self) -> Any:
        """For class numbers, in how many rows the largest output was at the class; else None."""
        hits = self._program.hits
        if hits is None:
            return None
        return hits.copy() if self.lead else hits[0]


class ModelArrays:
    """The parameters and statistics of a model, for a program that reads them where they are.

    In place of :class:`~xpmlp.step.compiled.StepMemory`.
    """

    def __init__(self, model: Layer, dtype: np.dtype):
        self.dtype = dtype
        self._owners: dict[str, tuple[Layer, str, str]] = {
            prefix + name: (layer, group, name)
            for prefix, layer in model.named_layers()
            for group in ("params", "state")
            for name in getattr(layer, group)
        }
        self._shapes = {name: self._now(name).shape for name in self._owners}
        self._places: dict[str, list[tuple[np.ndarray, int, int]]] = {}
        self._read: dict[str, tuple[Any, np.ndarray]] = {}

    def parameter(self, name: str) -> Address:
        """A parameter's place, for an instruction's record."""
        return Address(name)

    statistic = parameter

    def row(self, name: str) -> int:
        """The distance between two rows of a parameter, in elements."""
        return self._shapes[name][-1]

    def bind(self, later: list[tuple[np.ndarray, int, Any]]) -> None:
        """Places in records, of which :meth:`are_found` is to write the addresses."""
        for row, place, address in later:
            if isinstance(address, Address):
                begin = address.first * self.dtype.itemsize
                self._places.setdefault(address.name, []).append((row, place, begin))

    def are_found(self) -> bool:
        """Write where the arrays are now; False if one is of another shape, type or library."""
        for name, places in self._places.items():
            array = self._now(name)
            known = self._read.get(name)
            if known is not None and known[0] is array and known[1] is array:
                continue
            if type(array) is not np.ndarray or array.shape != self._shapes[name]:
                return False
            if array.dtype != self.dtype:
                return False
            plain = array
            if not (array.flags.c_contiguous and array.flags.aligned):
                plain = np.ascontiguousarray(array)  # anew each time: it may be written to
            self._read[name] = array, plain
            address = plain.__array_interface__["data"][0]
            for row, place, begin in places:
                row[place] = address + begin
        return True

    def _now(self, name: str) -> Any:
        layer, group, own = self._owners[name]
        return getattr(layer, group).get(own)


def _parts(layer: Layer) -> Iterator[Any]:
    """All layers in their order, and of containers what and how large they are."""
    if "forward" in vars(layer):
        raise NotCompiled(f"somebody has given {type(layer).__name__} another forward")
    if not isinstance(layer, Sequential | Residual):
        yield layer
        return
    inner = tuple(layer.children.values())
    if inner != (layer.layers if isinstance(layer, Sequential) else (layer.inner,)):
        raise NotCompiled(f"{type(layer).__name__} runs other layers than its children")
    yield type(layer), len(inner)
    for each in inner:
        yield from _parts(each)
