"""The work of one training step as it is recorded: loss, gradients and update, all in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, asarray_like, dtype_name
from ..errors import DTypeError
from ..layers.base import Layer
from ..losses import Loss, SoftmaxCrossEntropy
from ..ops import cuda_rules
from .blocks import Alone, Block, Part, group
from .metrics import are_classes, correct
from .places import Places, cast
from .rates import Rates


class RecordedWork:
    """What a step computes.

    Parameters
    ----------
    step : CapturedStep
    cuda : module
    recorder : object
        ``recorder.recording`` says whether the work is written down rather than done.
    places : Places
    half : dtype or None
        Of the activations, if they are to be in half precision.
    rates : Rates or None
        The optimizer's update; None if it is made outside of the recording.

    Attributes
    ----------
    scaler : object or None
        The factor on the loss with ``precision="fp16"``.
    """

    def __init__(
        self, step: Any, cuda: Any, recorder: Any, places: Places, half: Any, rates: Rates | None
    ):
        self._step, self._cuda, self._recorder = step, cuda, recorder
        self._half, self._rates = half, rates
        self._like = next(iter(step.model.params.values()))
        self._parts = _parts(step.model, cuda, places, half)
        self.scaler = cuda.LossScale() if step.precision == "fp16" else None
        self._bound = None
        if step.clip_norm is not None and rates is not None:
            bound = np.asarray(step.clip_norm, np.float64).reshape(-1)
            self._bound = asarray_like(bound, self._like)

    def gradients(self, x: Array, y: Array) -> tuple[Array, Array, Array | None, dict[str, Array]]:
        """The loss, the outputs, the hits, and every parameter's gradient in its own type."""
        step = self._step
        outputs = self._forward(x)
        value, dy, hits = self._loss(step.loss, outputs, y)
        if self.scaler is not None:
            dy = dy * self.scaler.scale
        self._backward(dy)
        params = step.model.params
        grads = {name: cast(grad, params[name].dtype) for name, grad in step.model.grads.items()}
        if step.penalty is not None:
            weights, population = step.model.weight_params, step.model.population
            value = value + step.penalty.forward(params, weights, population)
            for name, extra in step.penalty.backward(params, weights, population).items():
                if self.scaler is not None:
                    extra = extra * self.scaler.scale
                grads[name] = grads[name] + extra
        dense = {name: self._cuda.contiguous(grads[name]) for name in params}
        return value, outputs, hits, dense

    def update(self, grads: dict[str, Array], table: Any) -> None:
        """The optimizer's step, clipping and the loss's scale in it."""
        if self._rates is None:
            return
        flat, scaler = self._rates.flat, self.scaler
        if not self._recorder.recording:
            table.point_at(list(grads.values()))
        skip = inverse = None
        if scaler is not None:
            flat.find_nonfinite(table, scaler.found)
            skip, inverse = scaler.found, scaler.inverse
        factor = inverse
        if self._bound is not None:
            factor = flat.clip(table, self._bound, inverse)
        flat.tick(skip)
        flat.apply(table, factor, skip)
        if scaler is not None:
            scaler.adjust()

    def _forward(self, x: Array) -> Array:
        if x.dtype != self._like.dtype:
            raise DTypeError(
                f"`CapturedStep`: expected x of dtype {dtype_name(self._like.dtype)}, as the "
                f"parameters have, got {dtype_name(x.dtype)}; convert it with xpmlp.asarray(x, "
                f"dtype='{dtype_name(self._like.dtype)}')"
            )
        outputs = x if self._half is None else cast(x, self._half)
        for part in self._parts:
            outputs = part.forward(outputs)
        return cast(outputs, self._like.dtype)

    def _loss(self, loss: Loss, outputs: Array, y: Array) -> tuple[Array, Array, Array | None]:
        """The loss, its gradient and the hits."""
        fused = getattr(self._cuda, "cross_entropy", None)
        if fused is not None and type(loss) is SoftmaxCrossEntropy:
            options: dict[str, Any] = {
                "label_smoothing": loss.label_smoothing,
                "ignore_index": loss.ignore_index,
                "class_weights": loss.class_weights,
                "z_loss": loss.z_loss,
                "reduction": loss.reduction,
            }
            if not self._recorder.recording:
                loss.forward(outputs, y)  # checks the arguments; once is enough
            if cuda_rules.softmax_cross_entropy(outputs, y) is None:
                value, loss._gradient, hits = fused(outputs, y, **options)
                return value, loss.backward(), hits
        value = loss.forward(outputs, y)
        hits = correct(outputs, y) if are_classes(outputs, y) else None
        return value, loss.backward(), hits

    def _backward(self, dy: Any) -> None:
        if self._half is not None:
            dy = cast(dy, self._half)
        for number in range(len(self._parts) - 1, -1, -1):
            dy = self._parts[number].backward(dy, number > 0)


def _parts(model: Layer, cuda: Any, places: Places, half: Any) -> list[Part]:
    """The model's layers in groups that run as one, each with what it needs in half precision."""
    fused = cuda if getattr(cuda, "linear", None) is not None else None
    parts = group(model, fused)
    for part in parts:
        if isinstance(part, Block) and part.linear is not None:
            part.half = places.copies.get(id(part.linear), {})
        elif isinstance(part, Alone) and half is not None and part.layer.params:
            part.widened = "float32"
    return parts
