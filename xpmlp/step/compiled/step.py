"""A training step on NumPy arrays as one call of compiled code, with buffers made once.

The model's layers are read once for each shape of batch and written down as a tape of instructions
(:mod:`xpmlp.kernels.numba.tape`): products with bias, rectifier and gate inside, the loss with its
gradient, the updates in place. Running it asks for no memory. The layers, their gradients and the
optimizer see views of its buffers and never know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...communication import Share
from ...errors import DataError
from ...layers import Flatten, Linear, Sequential, SharedLinear, Unflatten
from ...layers.base import Layer
from ...ops import numba_rules
from ...ops.dispatch import give_up, is_compilers
from ...ops.targets import check_weight
from ..task import Task
from ..together import Sums, tail_size
from .images import LAYERS as IMAGES
from .layers import lower_layer
from .losses import lower_loss
from .memory import StepMemory
from .precision import product_of
from .program import Activation, Backward, NotCompiled, Program
from .shared import SummedStep, weigh_gradient
from .updates import can_update, lower_update

_DTYPES = (np.dtype("float32"), np.dtype("float64"))


class CompiledStep:
    """Forward, loss, backward and, if the optimizer can, update, for batches of one shape.

    Parameters
    ----------
    task : Task
        Without an optimizer, there is no update.
    memory : StepMemory
        Shared by the programs for other shapes.
    x, y, weight : array
        A batch of the shapes and dtypes that it is for; without weights, it has none.
    share : Share, optional
        Of a batch that is divided among several ranks, what x is.

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
    summed : SummedStep or None
        The sum over the ranks.
    """

    def __init__(
        self,
        task: Task,
        memory: StepMemory,
        x: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray | None = None,
        share: Share | None = None,
    ):
        model, P = task.model, task.model.population
        rows = rows_of(model, x)
        batch, multiply = given_batch(model, x, rows), product_of(task.precision, memory.dtype)
        program = Program(P, rows, batch, memory, share=share, multiply=multiply)
        outputs, array, append_backward = lower_model(program, model)
        self._value = program.buffer(P or 1)
        gradient = lower_loss(program, task.loss, outputs, y, self._value, weight)
        self.outputs = array if P is not None else array[0]
        self.summed: SummedStep | None = None
        sums = None if share is None else Sums(task.loss, P, share, weight is not None)
        if sums is not None:
            weigh_gradient(program, sums, gradient, self.outputs)
        with program.holding(gradient):  # the loss gives it out
            append_backward(program.gate(gradient, outputs), False)
        if sums is not None:
            self.summed = SummedStep(program, sums, self._value, self.outputs)
        self.updates = task.optimizer is not None
        if self.updates:
            lower_update(program, task, self._value)
        self._gradient = gradient if P is not None else gradient[0]
        self._loss, self._memory, self._program = task.loss, memory, program
        self.correct: Any = None
        self._hits = program.hits
        self._classes, self._single = outputs.features, P is None

    def is_stale(self) -> bool:
        """Whether an option that it was made with has changed."""
        return self._program.is_stale()

    def __call__(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
        """The loss of the batch, a number or (P,), after which everything is updated."""
        self._memory.adopt()
        if self._program.run(x, y, weight):
            for look in self._program.looks:
                look(x)
            self._loss.check_targets(y, self._classes)  # looks again, and says where
            if weight is not None:
                check_weight("TrainStep", weight)
            raise DataError("`TrainStep`: expected targets that the loss can take; check them")
        self._memory.steps += 1
        self._loss._gradient = self._gradient.copy
        if self._hits is not None:
            self.correct = self._hits[0] if self._single else self._hits.copy()
        return self._value[0] if self._single else self._value.copy()


def compile_step(
    task: Task,
    memory: StepMemory | None,
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None = None,
    share: Share | None = None,
) -> tuple[CompiledStep, StepMemory]:
    """A step for batches like (x, y), and the memory it works in.

    With an optimizer or a penalty that has no instructions, the step leaves the update to the
    caller, penalty and clipping with it.

    Raises
    ------
    NotCompiled
        With the reason.
    """
    check_arrays(task.model, x)
    model, optimizer = task.model, task.optimizer
    updating = task if can_update(task) else task._replace(optimizer=None)
    if memory is None:
        if optimizer.state:
            optimizer.check_memory(model.params)
        ranks, tail = (None, 0) if share is None else (share.ranks, tail_size(model.population))
        memory = StepMemory(model, updating.optimizer, x.dtype, ranks, tail)
    with compiling():
        step = CompiledStep(updating, memory, x, y, weight, share)
    for _, layer in model.named_layers():
        layer._saved = None  # what an earlier forward left must not be taken for this step's
    return step, memory


def check_arrays(model: Layer, x: np.ndarray) -> None:
    """Raise NotCompiled where kernels cannot run, or are not made for such numbers."""
    if not numba_rules.installed():
        raise NotCompiled(numba_rules.MISSING)
    dtypes = {array.dtype for array in model.params.values()}
    if len(dtypes) != 1 or not dtypes <= set(_DTYPES) or x.dtype not in dtypes:
        raise NotCompiled("parameters and batch are not all float32 or all float64")


@contextmanager
def compiling() -> Iterator[None]:
    """Raise NotCompiled where the compiler cannot do its work."""
    try:
        yield
    except Exception as error:
        if not is_compilers(error):
            raise
        raise NotCompiled(give_up(error)) from error


def lower_model(program: Program, model: Layer) -> tuple[Activation, np.ndarray, Backward]:
    """All of a model: its outputs, one row a sample, their array, and what appends its backward."""
    outputs, append_backward = lower_layer(program, "", model, program.x)
    if outputs.array is None:
        raise NotCompiled("no layer computes anything")
    if outputs.axes:
        raise NotCompiled("the outputs of a sample have several axes")
    return outputs, outputs.array, append_backward


def rows_of(model: Layer, x: np.ndarray) -> int:
    """N, of a batch for one network, for all members, or of one for each."""
    return x.shape[0] if model.population is None or x.ndim == 2 else x.shape[1]


def given_batch(model: Layer, x: np.ndarray, rows: int) -> Activation:
    """Such a batch as the layers see it.

    Raises
    ------
    NotCompiled
        If it is not rows of numbers to them.
    """
    features = _features(model, x)
    shared = model.population is None or x.ndim == 2
    axes = x.shape[-3:] if x.ndim > 3 and type(_first(model)) in IMAGES else ()
    return Activation(None, features, 0 if shared else rows * features, axes=axes)


def _first(model: Layer) -> Layer:
    """The layer that a batch comes to."""
    while isinstance(model, Sequential) and model.layers:
        model = model.layers[0]
    return model


def _features(model: Layer, x: np.ndarray) -> int:
    """How many numbers a sample has, where the layers see it as one row of them."""
    P, shape = model.population, x.shape
    own = 1 if P is None or x.ndim == 2 else 2
    if x.ndim < own + 1 or x.size == 0 or (own == 2 and shape[0] != P):
        raise NotCompiled(f"a batch of shape {shape}")
    features = math.prod(shape[own:])
    if x.ndim > own + 1:
        first = _first(model)
        flattens = isinstance(first, Flatten) and first._joined(shape) == (*shape[:own], features)
        if isinstance(first, Linear | SharedLinear):
            flattens = first.W.shape[-2] == features != shape[-1]
        if isinstance(first, Unflatten):
            flattens = math.prod(first.shape) == features
        flattens |= type(first) in IMAGES and x.ndim == own + 3
        if not flattens:
            raise NotCompiled(f"a batch of shape {shape}, which the first layer keeps")
    return features
