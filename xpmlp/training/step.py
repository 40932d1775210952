"""One step of training: forward, loss, backward, update."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..layers import Sequential
from ..layers.base import Layer
from ..losses import Loss
from ..optim import Optimizer, clip_by_global_norm
from ..penalties import Penalty


class TrainStep:
    """``loss = step(x, y)``: train a model on one batch.

    Parameters
    ----------
    model : Layer
        Its parameters are replaced by the updated ones.
    loss : Loss
    optimizer : Optimizer
    penalty : Penalty, optional
        Added to the loss and to the gradients.
    clip_norm : float, optional
        Scale the gradients down so that their global norm is at most this (for a population, each
        member's own norm).

    Attributes
    ----------
    outputs : array
        What the model gave in the last step, before the update.

    Notes
    -----
    Spelled out, a step is::

        outputs = model.forward(x, training=True)
        value = loss.forward(outputs, y)
        model.backward(loss.backward())
        model.params = optimizer.update(model.params, model.grads, model.weight_params)
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        optimizer: Optimizer,
        *,
        penalty: Penalty | None = None,
        clip_norm: float | None = None,
    ):
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.penalty = penalty
        self.clip_norm = clip_norm
        self.outputs: Any = None

    def __call__(self, x: Array, y: Array) -> Array:
        """Train on x (N, …) and targets y; the loss before the update, still on the device.

        Returns
        -------
        array, shape () or (P,)
            Reading it (``float(loss)``) waits for the device; collect it and read it later.
        """
        model = self.model
        self.outputs = model.forward(x, training=True)
        value = self.loss.forward(self.outputs, y)
        if isinstance(model, Sequential):
            model.backward(self.loss.backward(), input_grad=False)
        else:
            model.backward(self.loss.backward())
        params, grads, weights = model.params, model.grads, model.weight_params
        if self.penalty is not None:
            value = value + self.penalty.forward(params, weights, model.population)
            extra = self.penalty.backward(params, weights, model.population)
            grads = {n: g + extra[n] if n in extra else g for n, g in grads.items()}
        if self.clip_norm is not None:
            grads = clip_by_global_norm(grads, self.clip_norm, model.population)
        model.params = self.optimizer.update(params, grads, weights)
        return value
