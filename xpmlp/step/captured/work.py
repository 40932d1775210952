"""The work of one training step as it is recorded: loss, gradients and update, all in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backend import Array, array_namespace, asarray_like
from ...layers.base import Layer
from ...losses import Loss, SoftmaxCrossEntropy
from ...metrics import as_rows, right
from ...ops import cuda_rules
from .counters import Counters
from .fused_layers import Alone, Block, Part, group
from .memory import DeviceMemory, cast
from .optimizer import DeviceOptimizer
from .shared import SharedStep


@dataclass(eq=False)
class StepResult:
    """What a step has made; each gradient dense, in its own type or in half precision."""

    outputs: Array
    value: Array
    correct: Array | None
    grads: dict[str, Array]


class RecordedWork:
    """What a step computes.

    Parameters
    ----------
    step : CapturedStep
    cuda : module
    recorder : object
        A ``Recorder``.
    numbers : Counters
    places : DeviceMemory
    half : dtype or None
        Of the activations, if they are to be in half precision.
    rates : DeviceOptimizer or None
        The optimizer's update; None if it is made outside of the recording.

    Attributes
    ----------
    scaler : object or None
        The factor on the loss with ``precision="fp16"``.
    """

    def __init__(
        self,
        step: Any,
        cuda: Any,
        recorder: Any,
        numbers: Counters,
        places: DeviceMemory,
        half: Any,
        rates: DeviceOptimizer | None,
    ):
        self._step, self._cuda, self._recorder, self._numbers = step, cuda, recorder, numbers
        self._half, self._rates = half, rates
        self._like = next(iter(step.model.params.values()))
        self._parts = _parts(step.model, cuda, places, half)
        self.scaler = cuda.LossScale() if step.precision == "fp16" else None
        self._bound = None
        if step.clip_norm is not None and rates is not None:
            bound = np.asarray(step.clip_norm, np.float64).reshape(-1)
            self._bound = asarray_like(bound, self._like)

    def step(
        self, x: Array, y: Array, goes_to: Callable[..., None], shared: SharedStep | None = None
    ) -> StepResult:
        """Loss, gradients and update; all sums over the batch are made by one kernel.

        Parameters
        ----------
        x, y : array
            x in half precision where activations are.
        goes_to : callable
            ``goes_to(loss, hits)`` says where both sums are to be written; ``hits`` may be None.
        shared : SharedStep, optional
            What is summed with other ranks.
        """
        step, sums = self._step, []
        outputs = self._forward(x)
        rows, targets = as_rows(outputs, y, step.model.population)
        loss, dy, hits = self._loss(step.loss, rows, targets)
        if shared is not None:
            if not self._recorder.recording:
                shared.begin(rows, targets)
            dy = shared.weigh(dy)
        if rows is not outputs:
            dy = array_namespace(dy).reshape(dy, outputs.shape)
        self._backward(dy, sums)
        params, weights = step.model.params, step.model.weight_params
        extra = None
        if step.penalty is not None:
            extra = step.penalty.forward(params, weights, step.model.independent)
        if shared is None:
            loss.extra = extra
            goes_to(loss, hits)
        else:
            shared.told(loss, hits)
        flat = None if self._rates is None else self._rates.flat
        self._cuda.finish(
            [loss, *([] if hits is None else [hits]), *sums],
            send=self._recorder.send,
            slot=self._numbers.batch,
            flat=flat if self.scaler is None else None,
        )
        value = loss.out if shared is None else _plus(shared.sum(loss), extra)
        grads = dict(step.model.grads)
        if step.penalty is not None:
            for name, extra in step.penalty.backward(
                params, weights, step.model.independent
            ).items():
                if self.scaler is not None:
                    extra = extra * self.scaler.scale
                grads[name] = cast(grads[name], extra.dtype) + extra
        grads = {name: self._cuda.contiguous(grads[name]) for name in params}
        if flat is None:
            grads = {name: cast(grad, params[name].dtype) for name, grad in grads.items()}
            self._numbers.counters.advance()
        else:
            self._update(flat, list(grads.values()))
        return StepResult(outputs, value, None if hits is None else hits.out, grads)

    def _update(self, flat: Any, grads: list[Array]) -> None:
        """The optimizer's step, clipping and the loss's scale in it."""
        scaler, table = self.scaler, flat.table(grads, self._recorder.send)
        skip = inverse = None
        if scaler is not None:
            flat.find_nonfinite(table, scaler.found)
            skip, inverse = scaler.found, scaler.inverse
        factor = inverse
        if self._bound is not None:
            factor = flat.clip(table, self._bound, inverse)
        if scaler is not None:
            flat.tick(skip)  # only now: a step whose gradients have overflowed does not count
        flat.apply(table, factor, skip, self._numbers.counters)
        if scaler is not None:
            scaler.adjust()

    def _forward(self, x: Array) -> Array:
        outputs = x
        for part in self._parts:
            outputs = part.forward(outputs)
        return outputs

    def _loss(self, loss: Loss, outputs: Array, y: Array) -> tuple[Any, Array, Any]:
        """The loss, its gradient, scaled where there is a scale, and the hits."""
        scale = None if self.scaler is None else self.scaler.scale
        fused = getattr(self._cuda, "cross_entropy", None)
        if fused is not None and type(loss) is SoftmaxCrossEntropy:
            if not self._recorder.recording:
                loss.forward(cast(outputs, self._like.dtype), y)  # checks; once is enough
            if cuda_rules.softmax_cross_entropy(outputs, y) is not None:
                outputs = cast(outputs, self._like.dtype)
            if cuda_rules.softmax_cross_entropy(outputs, y) is None:
                value, loss._gradient, hits = fused(
                    outputs,
                    y,
                    label_smoothing=loss.label_smoothing,
                    ignore_index=loss.ignore_index,
                    class_weights=loss.class_weights,
                    z_loss=loss.z_loss,
                    reduction=loss.reduction,
                    loss_scale=scale,
                )
                if hits is None:  # of probabilities
                    hits = self._hits(loss, outputs, y)
                return value, loss._gradient, hits
        outputs = cast(outputs, self._like.dtype)
        value = self._sum(loss.forward(outputs, y))
        dy = loss.backward() if scale is None else loss.backward() * scale
        return value, dy, self._hits(loss, outputs, y)

    def _hits(self, loss: Loss, outputs: Array, y: Array) -> Any:
        """How many answers are right; None where they are numbers."""
        found, lead = right(loss, outputs, y), tuple(outputs.shape[:-2])
        if found is None:
            return None
        by_answers = array_namespace(found).reshape(found, (math.prod(lead), -1)).T
        return self._cuda.Sum(by_answers, lead)

    def _sum(self, value: Array) -> Any:
        """A loss that is a sum already."""
        return self._cuda.Sum(array_namespace(value).reshape(value, (1, -1)), tuple(value.shape))

    def _backward(self, dy: Any, sums: list) -> None:
        if self._half is not None:
            dy = cast(dy, self._half)
        for number in range(len(self._parts) - 1, -1, -1):
            dy = self._parts[number].backward(dy, number > 0, self._recorder, sums)
        self._recorder.join()


def _plus(value: Array, extra: Array | None) -> Array:
    """A loss where nothing is summed any more, with its penalty."""
    return value.copy() if extra is None else value + extra


def _parts(model: Layer, cuda: Any, places: DeviceMemory, half: Any) -> list[Part]:
    """The model's layers in groups that run as one, each with what it needs in half precision."""
    fused = cuda if getattr(cuda, "linear", None) is not None else None
    parts = group(model, fused)
    for part in parts:
        if isinstance(part, Block) and part.linear is not None:
            part.half = places.copies.get(id(part.linear), {})
        elif isinstance(part, Alone) and half is not None and part.layer.params:
            part.widened = "float32"
    return parts
