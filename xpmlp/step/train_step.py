"""One step of training: forward, loss, backward, update.

:meth:`TrainStep.by_layers` is the definition. For NumPy arrays the same is done by a program made
from the model at the first batch of each shape, where that is possible (compiled/), for CuPy
arrays by a recorded graph (captured/), for JAX arrays by a jitted function (jitted.py).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from ..backend import Array, from_file
from ..choices import Precision
from ..communication import Communicator, Share
from ..errors import BackendError, ConfigError
from ..layers.base import Layer
from ..losses import Loss
from ..metrics import as_rows, right_answers
from ..ops.dispatch import why_kernels_are_off
from ..optim import Optimizer
from ..optim.clipping import MAX_NORM
from ..penalties import Penalty
from .by_layers import by_layers, update
from .captured import CapturedStep
from .compiled import CompiledStep, NotCompiled, StepMemory, compile_step
from .jitted import JittedStep, NotJitted
from .task import Task
from .together import Figures, by_layers_together, share_of_batch, with_a_row


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
    precision : {None, "tf32", "bf16", "fp16"}
        On CuPy: what products are computed in; see :class:`~xpmlp.step.CapturedStep`. On NumPy
        ``"bf16"``, for a compiled step of a float32 model on processors that have AVX512-BF16:
        the products' factors are rounded to bfloat16, while sums, parameters and all else stay
        float32. Without it, BackendError.
    comm : Communicator, optional
        Other processes that make the same step, each on its share of a batch's rows.

    Attributes
    ----------
    outputs : array
        What the model gave in the last step, before the update.
    figures : Figures or None
        With ``comm``, what is known of the last step on all ranks.
    wish : bool
        With ``comm``, whether this rank would like to stop: told to all with the next step.
    correct : integer, shape () or (P,), or None
        How many answers of the last batch were right, where they are classes or yes/no; None for
        numbers. Ask before the next step.

    Notes
    -----
    Spelled out, a step is::

        outputs = model.forward(x, training=True)
        value = loss.forward(outputs, y)
        model.backward(loss.backward())
        model.params = optimizer.update(model.params, model.grads, model.weight_params)

    The steps of sequences, outputs (N, T, M), are rows like any others to the loss. A copy, or what
    a pickle gives, has model, loss and optimizer of its own and is compiled anew.
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        optimizer: Optimizer,
        *,
        penalty: Penalty | None = None,
        clip_norm: float | None = None,
        precision: Precision | None = None,
        comm: Communicator | None = None,
    ):
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.penalty = penalty
        self.clip_norm = (
            None if clip_norm is None else MAX_NORM.check("TrainStep", "clip_norm", clip_norm)
        )
        self.precision: Precision | None = precision
        self.comm = comm if comm is None or comm.size > 1 else None
        self.figures: Figures | None = None
        self.wish = False
        self._outputs: Any = None
        self._outputs_lent = False  # whether the next step may overwrite them
        self._targets: Any = None
        self._hits: Any = None
        self._captured: CapturedStep | None = None
        self._loss_scale: Any = None
        self._jitted: JittedStep | str | None = None
        self._memory: StepMemory | None = None
        self._programs: dict[tuple, CompiledStep | str] = {}
        self._made_of: Task | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled is for this process, and for these very arrays.
        made = (
            "comm",
            "figures",
            "_outputs",
            "_targets",
            "_hits",
            "_captured",
            "_jitted",
            "_memory",
            "_made_of",
        )
        return vars(self) | dict.fromkeys(made) | {"_programs": {}}

    @property
    def correct(self) -> Any:
        """Counted on the way where that costs nothing, else when asked for."""
        ignored = getattr(self.loss, "ignore_index", None)
        if self._outputs is None:
            return None
        if self.figures is not None:
            return self.figures.correct
        if (
            self._hits is not None
            and not 0 <= (-1 if ignored is None else ignored) < (self._outputs.shape[-1])
        ):
            return self._hits
        outputs, targets = as_rows(self._outputs, self._targets, self.model.population)
        return right_answers(self.loss, outputs, targets)

    def __call__(
        self, x: Array, y: Array, weight: Array | None = None, *, share: Share | None = None
    ) -> Array:
        """Train on x (N, …) and targets y; the loss before the update, still on the device.

        Parameters
        ----------
        x, y : array
            With ``comm``, this rank's rows of the batch, behind those of the ranks before; there
            may be none.
        weight : array, shape (N,) or (P, N), optional
            What each row counts for, at least 0: see :meth:`Loss.weighted
            <xpmlp.losses.Loss.weighted>`. On CuPy such a step is not captured.
        share : Share, optional
            With ``comm``, which rows of the batch these are. Else the ranks ask each other.

        Returns
        -------
        array, shape () or (P,)
            Reading it (``float(loss)``) waits for the device; collect it and read it later.
        """
        if self.optimizer._owner is not weakref.ref(self.model):
            self.optimizer.claim(self.model)
        if self.comm is not None:
            return self._together(x, y, weight, share or self._share(x))
        if type(x) is not np.ndarray:  # asked first: the smallest steps take microseconds
            x = from_file(x)
            if array_api_compat.is_cupy_array(x):
                return self._by_graph(x, y, weight)
            if array_api_compat.is_jax_array(x):
                return self._by_jax(x, y, weight)
        if type(y) is not np.ndarray:
            y = from_file(y)
        program = self._program(x, y, weight)
        if isinstance(program, str):
            self._refuse_precision(f"{type(x).__name__} ({program})")
            return self.by_layers(x, y, weight)
        value = program(x, y, weight)
        self._outputs, self._outputs_lent, self._targets = program.outputs, True, y
        self._hits = program.correct
        return value if program.updates else update(self.task, value)

    def _together(self, x: Array, y: Array, weight: Array | None, share: Share) -> Array:
        """The step of several ranks: what one process would do with all rows."""
        if self.precision is not None:
            raise ConfigError(
                f"`TrainStep`: expected no precision for several ranks, got {self.precision!r}"
            )
        if not share.rows or type(x) is not np.ndarray or type(y) is not np.ndarray:
            x, y, weight = self._with_a_row(x, y, weight, share)
        if weight is None and array_api_compat.is_cupy_array(x):
            captured = self._capture()
            self.figures = captured.together(x, y, share, self.wish)
            self._outputs, self._outputs_lent = captured.outputs[..., : share.rows, :], True
            return self.figures.value
        program = self._program(x, y, weight, share)
        if isinstance(program, str):
            given = x, y, weight, share, self.wish
            self.figures, self._outputs = by_layers_together(self.task, *given)
            self._outputs_lent = False
            return self.figures.value
        assert program.summed is not None
        program.summed.wish = self.wish
        value = program(x, y, weight)
        self.figures = program.summed.figures
        self._outputs, self._outputs_lent = program.outputs[..., : share.rows, :], True
        return value if program.updates else update(self.task, value)

    def _explain_together(self, x: Array, y: Array, weight: Array | None) -> str:
        share = self._share(x)
        x, y, weight = self._with_a_row(x, y, weight, share)
        if weight is None and array_api_compat.is_cupy_array(x):
            return self._capture().explain(x, y, share)
        program = self._program(x, y, weight, share)
        return f"layer by layer ({program})" if isinstance(program, str) else "compiled"

    @staticmethod
    def _with_a_row(*arrays: Any) -> tuple[Any, Any, Any]:
        *batch, share = arrays
        x, y, weight = (None if a is None else with_a_row(from_file(a), share) for a in batch)
        return x, y, weight

    def _share(self, x: Array) -> Share:
        assert self.comm is not None
        return share_of_batch(x, self.model.population, self.comm)

    @property
    def outputs(self) -> Any:
        """What the model gave in the last step; copied at the first look."""
        if self._outputs_lent and self._outputs is not None:
            self._outputs, self._outputs_lent = self._outputs.copy(), False
        return self._outputs

    @property
    def lent_outputs(self) -> Any:
        """The outputs without a copy, for as long as there is no next step."""
        return self._outputs

    def run_epoch(
        self, batches: Any, number: int, stopped: Callable[[], bool]
    ) -> tuple[Array, Array | None]:
        """All batches of data on a device: see :meth:`CapturedStep.run_epoch`."""
        self.optimizer.claim(self.model)
        captured = self._capture()
        losses, hits = captured.run_epoch(batches, number, stopped)
        self._outputs, self._outputs_lent = captured.outputs, True
        self._hits = captured.correct
        return losses, hits

    def explain(self, x: Array, y: Array, weight: Array | None = None) -> str:
        """How a step on such a batch runs, and why, in one line."""
        if self.comm is not None:
            return f"{self._explain_together(x, y, weight)}, summed over {self.comm.size} ranks"
        if array_api_compat.is_cupy_array(x):
            if weight is not None:
                return f"layer by layer ({_NOT_CAPTURED})"
            return self._capture().explain(x, y)
        if array_api_compat.is_jax_array(x):
            jitted = self._jit()
            return f"layer by layer ({jitted})" if isinstance(jitted, str) else "jitted"
        program = self._program(from_file(x), from_file(y), weight)
        if isinstance(program, str):
            self._refuse_precision(f"{type(x).__name__} ({program})")
            return f"layer by layer ({program})"
        return "compiled" if program.updates else "compiled, but for the update"

    @property
    def loss_scale(self) -> Any:
        """Of :class:`~xpmlp.step.CapturedStep`, to go on with in another step."""
        return self._loss_scale if self._captured is None else self._captured.loss_scale

    @loss_scale.setter
    def loss_scale(self, values: Any) -> None:
        self._loss_scale = values
        if self._captured is not None:
            self._captured.loss_scale = values

    def settle(self) -> None:
        """Count only updates that were made (``precision="fp16"`` skips some): once an epoch."""
        if self._captured is not None:
            self._captured.settle()

    def by_layers(self, x: Array, y: Array, weight: Array | None = None) -> Array:
        """The same step, layer by layer: works for every layer, loss and array library.

        A batch that is refused leaves everything as it was.
        """
        self.optimizer.claim(self.model)
        value, self._outputs = by_layers(self.task, x, y, weight)
        self._outputs_lent, self._targets, self._hits = False, y, None
        return value

    @property
    def task(self) -> Task:
        """What it is made of now."""
        parts = self.model, self.loss, self.optimizer, self.penalty, self.clip_norm
        return Task(*parts, self.precision)

    def _capture(self) -> CapturedStep:
        if self._captured is None:
            self._captured = CapturedStep(
                self.model,
                self.loss,
                self.optimizer,
                penalty=self.penalty,
                clip_norm=self.clip_norm,
                precision=self.precision,
            )
            self._captured.loss_scale = self._loss_scale
        return self._captured

    def _by_graph(self, x: Array, y: Array, weight: Array | None) -> Array:
        if weight is not None:
            self._refuse_precision(_NOT_CAPTURED)
            return self.by_layers(x, y, weight)
        captured = self._capture()
        value = captured(x, y)
        self._outputs, self._outputs_lent, self._targets = captured.outputs, True, y
        self._hits = None if captured.correct is None else captured.correct.copy()
        return value

    def _by_jax(self, x: Array, y: Array, weight: Array | None) -> Array:
        """One jitted function; layer by layer where it cannot be traced, from then on."""
        jitted = self._jit()
        if not isinstance(jitted, str):
            try:
                value = jitted(x, y, weight)
            except NotJitted as reason:
                self._jitted = str(reason)
            else:
                self._outputs, self._outputs_lent = jitted.outputs, False
                self._targets, self._hits = y, None
                return value
        return self.by_layers(x, y, weight)

    def _jit(self) -> JittedStep | str:
        """The jitted step, or why there is none."""
        if off := why_kernels_are_off():
            return off
        self._refuse_precision("JAX arrays")
        task = self._task_now()
        jitted = self._jitted
        if jitted is None or (isinstance(jitted, JittedStep) and jitted.is_stale()):
            try:
                jitted = JittedStep(task)
            except NotJitted as reason:
                jitted = str(reason)
            self._jitted = jitted
        return jitted

    def _program(
        self, x: Array, y: Array, weight: Array | None = None, share: Share | None = None
    ) -> CompiledStep | str:
        """The program for such a batch, or why there is none."""
        if type(x) is not np.ndarray or type(y) is not np.ndarray:
            return "not NumPy arrays"
        if off := why_kernels_are_off():
            return off
        task = self._task_now()
        shape = x.shape, x.dtype, y.shape, y.dtype, share
        if weight is not None:
            if type(weight) is not np.ndarray:
                return "not NumPy arrays"
            shape += weight.shape, weight.dtype
        program = self._programs.get(shape)
        if program is None or (not isinstance(program, str) and program.is_stale()):
            if len(self._programs) >= _SHAPES:
                self._programs.clear()
            try:
                program, self._memory = compile_step(task, self._memory, x, y, weight, share)
            except NotCompiled as reason:
                program = str(reason)
            self._programs[shape] = program
        return program

    def _task_now(self) -> Task:
        """What it is made of; lets go of all that was made of other parts."""
        task = self._made_of
        if task is None or not task.is_made_of(self):
            task = self._made_of = self.task
            self._memory = self._jitted = None
            self._programs.clear()
        return task

    def _refuse_precision(self, got: str) -> None:
        if self.precision is not None:
            raise BackendError(
                f"`TrainStep`: expected CuPy arrays, or a compiled step, for precision="
                f"{self.precision!r}, got {got}; set XPMLP_BACKEND=cupy, or leave precision out"
            )


_NOT_CAPTURED = "weights of rows are not captured"
_SHAPES = 8  # programs kept, each with its buffers; more shapes than that take turns
