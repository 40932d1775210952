"""A model in evaluation mode: its outputs for other data, and a loss of them.

``model.forward(x)`` is the definition. For NumPy arrays the same is done by a program made from the
model, as a training step is (compiled/), where that is possible.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, from_file
from ..errors import DataError, ShapeError
from ..layers import Conv2D
from ..layers.base import Layer
from ..layers.containers import is_sequential
from ..losses import Loss
from ..ops.dispatch import why_kernels_are_off
from ..ops.targets import check_weight
from .compiled import CompiledForward, NotCompiled
from .compiled.step import rows_of


class Scored(NamedTuple):
    """What a loss says of a batch.

    Attributes
    ----------
    outputs : array, shape (…, N, M)
    value : array or number, shape (…,)
        The loss.
    correct : integers, shape (…,), or None
        How many answers were right, where they are classes and were counted on the way.
    """

    outputs: Any
    value: Any
    correct: Any


class Evaluation:
    """A model's outputs with dropout off and running statistics, and a loss of them.

    Parameters
    ----------
    model : Layer
    loss : Loss, optional
        For :meth:`score`.

    Notes
    -----
    NumPy arrays go through compiled programs that the model keeps, which read its parameters where
    they are. The layers know nothing of it: a ``backward`` still belongs to the last ``forward``.
    Several threads may evaluate one model, each then with a program of its own.
    """

    def __init__(self, model: Layer, loss: Loss | None = None):
        self.model, self.loss = model, loss

    def outputs(self, x: Array) -> Array:
        """``model.forward(x)``: (N, M), or (P, N, M) for a population."""
        x = from_file(x)
        key, program = self._take(x)
        if isinstance(program, str):
            return self.model.forward(x)
        own = bool(program.lead) and x.ndim > 2  # one batch for each member
        rows, most = rows_of(self.model, x), program.most
        made = np.empty((*program.lead, rows, program.width), x.dtype)
        for begin in range(0, rows, most):  # so that what goes between layers stays in the cache
            end = min(begin + most, rows)
            found = program(x[:, begin:end] if own else x[begin:end], end - begin)
            if found is None:  # a code that there is not: the layer says which
                return self.model.forward(x)
            made[..., begin:end, :] = found
        self._keep(key, program)
        return made

    def score(self, x: Array, y: Array, weight: Array | None = None) -> Scored | None:
        """The loss of a batch, and outputs; None where there is no program for both.

        ``weight`` is what each row counts for in the loss, as for a
        :class:`~xpmlp.training.TrainStep`; answers are counted without it.

        Raises
        ------
        DataError
            For targets that the loss cannot take.
        """
        x, y = from_file(x), from_file(y)
        key, program = self._take(x, y, weight)
        loss: Any = self.loss
        if isinstance(program, str):
            return None
        outputs = program(x, rows_of(self.model, x), y, weight)
        if outputs is None:
            self.model.forward(x)
            loss.check_targets(y, program.width)  # looks again, and says where
            if weight is not None:
                check_weight("evaluate", weight)
            raise DataError("`evaluate`: expected targets that the loss can take; check them")
        found = Scored(outputs.copy(), program.value, program.correct)
        self._keep(key, program)
        return found

    def explain(self, x: Array, y: Array | None = None) -> str:
        """How such a batch is evaluated, with the loss if there are targets, and why."""
        key, program = self._take(from_file(x), from_file(y))
        if isinstance(program, str):
            return f"layer by layer ({program})"
        self._keep(key, program)
        return "compiled"

    # --- Programs: who runs one has taken it out, so that no two threads run the same -------------

    def _take(
        self, x: Array, y: Array | None = None, weight: Array | None = None
    ) -> tuple[tuple, CompiledForward | str]:
        """A program for such a batch, or why there is none; and where it is kept."""
        if any(array is not None and type(array) is not np.ndarray for array in (x, y, weight)):
            return (), "not NumPy arrays"
        if off := why_kernels_are_off():
            return (), off
        model, loss, shape = self.model, self.loss, x.shape
        own = 1 if model.population is None or len(shape) == 2 else 2
        if len(shape) <= own or x.size == 0:
            return (), f"a batch of shape {shape}"
        rows = shape[own - 1]
        if y is None:
            loss, rows = None, 1 << (rows - 1).bit_length()
            rows = min(rows, _most_rows(model, shape[own:])) if rows > _FEW else rows
        key = rows, own, shape[own:], x.dtype, *(() if y is None else (id(loss), y.shape, y.dtype))
        key += () if weight is None else (weight.shape, weight.dtype)
        found = vars(model).setdefault("_evaluations", {}).get(key)
        if isinstance(found, _Refusal) and found.loss is loss:
            return key, found.reason
        try:
            program = _pop(found)
            if program is None or program.is_stale(model):
                program = CompiledForward(model, x, rows, loss, y, weight)
        except NotCompiled as reason:
            program = str(reason)
            self._remember(key, _Refusal(program, loss))
        return key, program

    def _keep(self, key: tuple, program: CompiledForward) -> None:
        """Put a program back, unless it takes much memory; it is made in a millisecond."""
        if program.nbytes <= _KEPT:
            found = vars(self.model)["_evaluations"].get(key)
            if isinstance(found, list):
                found.append(program)
            else:
                self._remember(key, [program])

    def _remember(self, key: tuple, value: Any) -> None:
        kept = vars(self.model)["_evaluations"]
        if len(kept) >= _KINDS:
            kept.clear()
        kept[key] = value


_KINDS = 24  # of batches, that a model keeps programs for
_KEPT = 1 << 25  # bytes of a program's buffers up to which it is kept
_ELEMENTS = 1 << 21  # of all rows that go from one layer to the next at a time
_FEW = 64  # rows that are always computed at once


def _pop(programs: Any) -> CompiledForward | None:
    """One that nobody runs, if there is one."""
    try:
        return programs.pop() if isinstance(programs, list) else None
    except IndexError:
        return None


class _Refusal(NamedTuple):
    reason: str
    loss: Loss | None


def _most_rows(model: Layer, sample: tuple[int, ...]) -> int:
    """Rows of outputs computed at a time, a power of two."""
    widest = max((array.shape[-1] for array in model.params.values()), default=1)
    if is_sequential(model) and any(isinstance(each, Conv2D) for _, each in model.named_layers()):
        with contextlib.suppress(ShapeError):  # which the layers will tell
            widest = max(widest, *map(math.prod, _shapes(model, sample)))
    rows = _ELEMENTS // ((model.population or 1) * widest)
    return 1 << (max(rows, _FEW).bit_length() - 1)


def _shapes(model: Any, sample: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Of what goes from one layer to the next, of a sample."""
    yield sample
    for layer in model.layers:
        sample = layer.output_shape(sample)
        yield sample
