"""What a recording adds where a batch is divided among several ranks: sums inside of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import Array, to_numpy
from ...communication import Share
from ...layers.base import Layer
from ...losses import Loss
from ..task import all_layers
from ..together import Figures, Sums, own_memory, tail_size


class SharedStep:
    """The sum between backward and update of one recording: of gradients, and of what ranks tell.

    Parameters
    ----------
    model, loss
    share : Share
    cuda : module
    like : array
        Of the parameters' type, in which figures are summed too.
    """

    def __init__(self, model: Layer, loss: Loss, share: Share, cuda: Any, like: Array):
        self.share, self._model = share, model
        self._sums = Sums(loss, model.population, share, weighted=False)
        self._members = model.population or 1
        size = tail_size(model.population)
        # What this rank tells, but for loss and hits, which each step writes; and what all tell.
        self._own, self._tail = cuda.empty((size,), like.dtype), cuda.empty((size,), like.dtype)
        self._wish: bool | None = None

    def begin(self, outputs: Array, targets: Array) -> None:
        """Note what a rank tells of every such batch: from a rehearsal, since it asks the host."""
        own = np.zeros(self._own.size, self._own.dtype)
        self._sums.tell(own, 0.0, outputs, targets)
        self._own.set(own)
        self._wish = False

    def weigh(self, dy: Array) -> Array:
        """The outputs' gradient, of the batch's loss in place of that of this rank's rows."""
        return dy * self._sums.part

    def told(self, loss: Any, hits: Any) -> None:
        """Have loss and hits written where they are summed."""
        self._tail[...] = self._own
        loss.out = self._place(0, loss.shape)
        loss.scale *= self._sums.part
        if hits is not None:
            hits.out = self._place(1, hits.shape)

    def sum(self, loss: Any) -> Array:
        """Gradients become those of the batch, in their places; gives its loss, without penalty."""
        layers = list(dict.fromkeys(all_layers(self._model)))
        grads = own_memory([grad for layer in layers for grad in layer.grads.values()])
        if not self.share.rows:
            self._tail[...] = self._own
            for grad in grads:
                grad[...] = 0.0
        self.share.ranks.allreduce_each([*grads, self._tail])
        summed = iter(grads)
        for layer in layers:
            layer.grads = {name: next(summed) for name in layer.grads}
        return self._place(0, loss.shape)

    def wish(self, wish: bool) -> None:
        """Whether this rank would like to stop; travels where it has changed."""
        if wish != self._wish:
            self._own[-1:].set(np.array([wish], self._own.dtype))
            self._wish = wish

    def figures(self) -> Figures:
        """What all ranks know of the last step; waits for the device."""
        return self._sums.read(to_numpy(self._tail))

    def _place(self, row: int, shape: tuple[int, ...]) -> Array:
        return self._tail[row * self._members : (row + 1) * self._members].reshape(shape)
