"""A training step on NumPy arrays as one call of compiled code, with buffers made once.

The model's layers are read once for each shape of batch and written down as a tape of instructions
(:mod:`xpmlp.kernels.numba.tape`): products with bias, rectifier and gate inside, the loss with its
gradient, the updates in place. Running it asks for no memory. The layers, their gradients and the
optimizer see views of its buffers and never know.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import DataError
from ..layers import Flatten, Linear
from ..layers.base import Layer
from ..losses import Loss
from ..ops import numba_rules
from ..ops.dispatch import kernels_are_off
from ..optim import Optimizer
from .lowering import LOSSES, can_update, in_order, lower_layers, lower_update
from .memory import StepMemory
from .program import Activation, NotCompiled, Program

_DTYPES = (np.dtype("float32"), np.dtype("float64"))


class CompiledStep:
    """Forward, loss, backward and, if the optimizer can, update, for batches of one shape.

    Parameters
    ----------
    model, loss, optimizer
    memory : StepMemory
        Shared by the programs for other shapes.
    x, y : array
        A batch of the shapes and dtypes that it is for.

    Raises
    ------
    NotCompiled
        If something in it has no instructions.

    Attributes
    ----------
    outputs : array, shape (N, M) or (P, N, M)
        Overwritten by the next step.
    correct : int64, or array of int64 of shape (P,), or None
        For class numbers: in how many rows the largest output was at the class.
    updates : bool
        Whether it updates the parameters too.
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        optimizer: Optimizer | None,
        memory: StepMemory,
        x: np.ndarray,
        y: np.ndarray,
    ):
        P = model.population
        rows = x.shape[0] if P is None or x.ndim == 2 else x.shape[1]
        features = _features(model, x)
        batch = 0 if P is None or x.ndim == 2 else rows * features
        program = Program(P, rows, Activation(None, features, batch), memory)
        lower_loss = LOSSES.get(type(loss))
        if lower_loss is None:
            raise NotCompiled(f"there are no instructions for {type(loss).__name__}")
        outputs, append_backward = lower_layers(program, model)
        if outputs.array is None:
            raise NotCompiled("no layer computes anything")
        self._value = program.buffer(P or 1)
        gradient = lower_loss(program, loss, outputs, y, self._value)
        append_backward(gradient)
        self.updates = optimizer is not None
        if optimizer is not None:
            lower_update(program, optimizer)
        self.outputs = outputs.array if P is not None else outputs.array[0]
        self._gradient = gradient if P is not None else gradient[0]
        self._loss, self._memory, self._program = loss, memory, program
        self.correct: Any = None
        self._hits = program.hits
        self._classes, self._single = outputs.features, P is None

    def is_stale(self) -> bool:
        """Whether an option that it was made with has changed."""
        return self._program.is_stale()

    def __call__(self, x: np.ndarray, y: np.ndarray) -> Any:
        """The loss of the batch, a number or (P,), after which everything is updated."""
        self._memory.adopt()
        if self._program.run(x, y):
            self._refuse_labels(y)
        self._loss._gradient = self._gradient
        if self._hits is not None:
            self.correct = self._hits[0] if self._single else self._hits.copy()
        return self._value[0] if self._single else self._value.copy()

    def _refuse_labels(self, y: np.ndarray) -> None:
        ignored = getattr(self._loss, "ignore_index", None)
        wrong = (y < 0) | (y >= self._classes)
        if ignored is not None:
            wrong &= y != ignored
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"`TrainStep`: expected class numbers in 0…{self._classes - 1}, got {y.flat[row]} in "
            f"row {row}; check the labels, or name it as ignore_index"
        )


def compile_step(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer | None,
    memory: StepMemory | None,
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[CompiledStep, StepMemory]:
    """A step for batches like (x, y), and the memory it works in.

    With an optimizer that has no instructions, the step leaves the update to the caller.

    Raises
    ------
    NotCompiled
        With the reason.
    """
    if kernels_are_off():
        raise NotCompiled("XPMLP_KERNELS=off")
    if not numba_rules.installed():
        raise NotCompiled(numba_rules.MISSING)
    dtypes = {array.dtype for array in model.params.values()}
    if len(dtypes) != 1 or not dtypes <= set(_DTYPES) or x.dtype not in dtypes:
        raise NotCompiled("parameters and batch are not all float32 or all float64")
    if optimizer is not None and not can_update(optimizer):
        optimizer = None
    if memory is None:
        memory = StepMemory(model, optimizer, x.dtype)
    step = CompiledStep(model, loss, optimizer, memory, x, y)
    for _, layer in in_order(model):
        layer._saved = None  # what an earlier forward left must not be taken for this step's
    return step, memory


def _features(model: Layer, x: np.ndarray) -> int:
    """How many numbers a sample has, where the layers see it as one row of them."""
    P, shape = model.population, x.shape
    own = 1 if P is None or x.ndim == 2 else 2
    if x.ndim < own + 1 or x.size == 0 or (own == 2 and shape[0] != P):
        raise NotCompiled(f"a batch of shape {shape}")
    features = math.prod(shape[own:])
    if x.ndim > own + 1:
        first = next((layer for _, layer in in_order(model)), None)
        flattens = isinstance(first, Flatten) and first._joined(shape) == (*shape[:own], features)
        if isinstance(first, Linear):
            flattens = first.W.shape[-2] == features != shape[-1]
        if not flattens:
            raise NotCompiled(f"a batch of shape {shape}, which the first layer keeps")
    return features
