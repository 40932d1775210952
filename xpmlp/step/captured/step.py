"""A training step on CuPy arrays, recorded once for each shape of batch and replayed as one graph.

Forward, loss, backward and update are rehearsed, undone, and recorded into a CUDA graph. A replay
costs one launch. For that, nothing a step changes may move in memory or be fixed at the time of
recording: parameters, optimizer slots and running statistics are written in place, the number of
the step and the learning rate are read from the device, and so are the steps of dropout masks.

Whatever cannot be recorded runs layer by layer, and :meth:`CapturedStep.explain` says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, get_args
from weakref import WeakKeyDictionary

import array_api_compat
import numpy as np

from ...backend import Array, dtype_name
from ...choices import Precision
from ...communication import Share
from ...errors import BackendError, ConfigError, DTypeError, OutOfMemoryError
from ...layers import Sequential
from ...layers.base import Layer
from ...losses import Loss
from ...metrics import as_rows, right_answers
from ...ops.dispatch import load_kernels, why_kernels_are_off
from ...ops.shapes import check_choice
from ...optim import Optimizer
from ...penalties import Penalty
from ..by_layers import by_layers
from ..task import Task
from ..together import Figures, by_layers_together
from .memory import cast
from .optimizer import flat_kind
from .recordings import History, NotCaptured, Recording, Recordings

PRECISIONS = (None, *get_args(Precision))


class CapturedStep:
    """``loss = step(x, y)``, replayed.

    Parameters
    ----------
    model, loss, optimizer, penalty, clip_norm
        As in :class:`~xpmlp.training.TrainStep`.
    precision : {None, "tf32", "bf16", "fp16"}
        What products are computed in; sums are float32 in any case. None: the parameters' own type.
        ``"tf32"`` rounds the products' operands. With ``"bf16"`` and ``"fp16"`` activations are
        half precision too, while parameters, their updates, normalizations and the loss stay
        float32; ``"fp16"`` scales the loss so that gradients do not vanish, and skips an update
        whose gradients overflow.
    cuda : module, optional
        What is needed of CUDA; tests put their own here.

    Attributes
    ----------
    outputs : array
        What the model gave in the last step, before the update; with ``precision`` ``"bf16"`` or
        ``"fp16"`` in that type. The next step overwrites it.
    correct : array of int32, shape () or (P,), or None
        For class numbers: how many rows of the last batch had their largest output at their class.
        The next step overwrites it.

    Raises
    ------
    DTypeError
        If the parameters are not float32 but a precision is asked for.
    ConfigError
        If the device cannot compute in that precision, or the model is not made of plain layers.
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        optimizer: Optimizer,
        *,
        penalty: Penalty | None = None,
        clip_norm: Any = None,
        precision: Precision | None = None,
        cuda: Any = None,
    ):
        check_choice("CapturedStep", "precision", precision, PRECISIONS)
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.penalty, self.clip_norm, self.precision = penalty, clip_norm, precision
        self.outputs: Any = None
        self.correct: Any = None
        self._cuda = load_kernels("cuda", "graph") if cuda is None else cuda
        self._recordings: Recordings | None = None
        self._loss_scale: Any = None  # for the next recordings
        self._failed: dict[tuple, str] = {}
        self._histories: WeakKeyDictionary[Any, History] = WeakKeyDictionary()
        _check_precision(precision, model, self._cuda)

    def __call__(self, x: Array, y: Array) -> Array:
        """Train on x (N, …) and targets y; the loss before the update, still on the device."""
        recording = self._recording(x, y)
        if isinstance(recording, str):
            return self._by_layers(x, y)
        recording.x[...] = cast(x, recording.x.dtype)
        recording.y[...] = y
        self._replay(recording)
        self.correct = recording.correct
        return recording.value.copy()

    def run_epoch(
        self, batches: Any, number: int = 0, stopped: Callable[[], bool] = lambda: False
    ) -> tuple[Array, Array | None]:
        """All batches of a resident data set once; nothing but launches comes from the host.

        Parameters
        ----------
        batches : xpmlp.data.resident.ResidentBatches
        number : int
            Which epoch, for the order of the rows.
        stopped : callable
            Asked after each step: whether to leave out the rest of the epoch.

        Returns
        -------
        losses : array, shape (steps,) or (steps, P)
            Of the steps made, on the device.
        hits : array of int32 of that shape, or None
            Rows with their largest output at their class.
        """
        made = 0
        for index, rows in enumerate(batches.sizes()):
            place = number * len(batches) + index
            with self._explained_memory("the batches of"):
                x, y = batches.like(rows)
            recording = self._recording(x, y, batches, place)
            if isinstance(recording, str):
                value = self._by_layers(*batches.batch(number, index))
                found = self.correct
                shape = None if found is None else tuple(found.shape)
                history = self.history(batches, tuple(value.shape), shape)
                history.losses[index, ...] = value
                if history.hits is not None:
                    history.hits[index, ...] = found
            else:
                self._replay(recording, place)
            made += 1
            if stopped():
                break
        history = self._histories[batches]
        hits = None if history.hits is None else history.hits[:made, ...].copy()
        self.correct = None if hits is None else hits[made - 1, ...]
        return history.losses[:made, ...].copy(), hits

    def history(
        self, batches: Any, loss_shape: tuple[int, ...], hits_shape: tuple[int, ...] | None
    ) -> History:
        """Where the losses and hits of an epoch of resident data go; made at the first step."""
        history = self._histories.get(batches)
        if history is None or not history.fits(loss_shape, hits_shape):
            steps, empty = len(batches), self._cuda.empty
            dtype = next(iter(self.model.params.values())).dtype
            hits = None if hits_shape is None else empty((steps, *hits_shape), np.int32)
            history = History(empty((steps, *loss_shape), dtype), hits)
            self._histories[batches] = history
        return history

    def together(self, x: Array, y: Array, share: Share, wish: bool) -> Figures:
        """One step of several ranks, of which this one has a part of the batch's rows.

        x and y have one row at least, which does not count where the rank has none; ``wish`` is
        whether it would like to stop. The figures' loss stays on the device.
        """
        recording = self._recording(x, y, share=share)
        if isinstance(recording, str):
            with self._explained_memory("running"):
                figures, self.outputs = by_layers_together(self._task, x, y, None, share, wish)
            return figures
        recording.x[...] = x
        recording.y[...] = y
        assert recording.shared is not None
        recording.shared.wish(wish)
        self._replay(recording)
        figures = recording.shared.figures()
        figures.value = recording.value.copy()
        return figures

    def refuses(self, x: Array, y: Array, share: Share | None = None) -> str | None:
        """Why such a batch would run layer by layer, or None. Looks at shapes and types only."""
        if off := why_kernels_are_off():
            return off
        params = list(self.model.params.values())
        if not params:
            return "there is nothing to train"
        if y is None:
            return "there are no targets"
        dtypes = {dtype_name(param.dtype) for param in params}
        if len(dtypes) > 1:
            return f"parameters are {' and '.join(sorted(dtypes))}"
        if dtypes - {"float32", "float64"}:
            return f"parameters are {dtypes.pop()}, not float32 or float64"
        if any(0 in array.shape for array in (x, y, *params)):
            return "something is empty"
        return None if share is None else self._refuses_share(share, params)

    def _refuses_share(self, share: Share, params: list[Array]) -> str | None:
        """The same on all ranks, which record together or not at all."""
        if not share.ranks.takes(params[0]):
            return "arrays are summed through host memory"
        if self.loss.weighs_rows:
            return "what rows count for is summed first"
        if not share.even:
            return "ranks have other rows than Share.of divides"
        return None

    def explain(self, x: Array, y: Array, share: Share | None = None) -> str:
        """How a step on such a batch runs, and why, in one line."""
        reason = self._failed.get(_signature(x, y, share=share)) or self.refuses(x, y, share)
        if reason is not None:
            return f"layer by layer ({reason})"
        kind = flat_kind(self.optimizer)
        text = "captured" if kind is not None else "captured, but for the update"
        return text if self.precision is None else f"{text}, in {self.precision}"

    @property
    def loss_scale(self) -> Any:
        """What ``precision="fp16"`` multiplies the loss by, and what decides on it, on the host.

        Arrays for the same property of another step; None where there is no such scale yet.
        """
        shared = self._recordings
        return (
            self._loss_scale if shared is None or shared.scaler is None else shared.scaler.values()
        )

    @loss_scale.setter
    def loss_scale(self, values: Any) -> None:
        self._loss_scale, shared = values, self._recordings
        if values is not None and shared is not None and shared.scaler is not None:
            shared.scaler.restore(tuple(values))

    def settle(self) -> None:
        """Make ``optimizer.steps`` count only updates that were made; waits for the device.

        Only ``precision="fp16"`` skips any.
        """
        shared = self._recordings
        if shared is not None and shared.scaler is not None and shared.rates is not None:
            shared.rates.settle()

    @property
    def _task(self) -> Task:
        """What a step layer by layer is made of."""
        return Task(self.model, self.loss, self.optimizer, self.penalty, self.clip_norm)

    def _by_layers(self, x: Array, y: Array) -> Array:
        """The same step, without a graph; the next replay takes over what it has changed."""
        with self._explained_memory("running"):
            value, self.outputs = by_layers(self._task, x, y)
        rows = as_rows(self.outputs, y, self.model.population)
        self.correct = right_answers(self.loss, *rows)
        return value

    def _explained_memory(self, doing: str) -> Any:
        lower = "lower the batch size"
        if self.precision not in ("bf16", "fp16"):
            lower += ", ask for precision='bf16'"
        what = f"{doing} a training step"
        return self._cuda.explained_memory("CapturedStep", what, f"{lower}, keep fewer data on it")

    # --- Recording --------------------------------------------------------------------------------

    def _recording(
        self,
        x: Array,
        y: Array,
        batches: Any = None,
        place: int = 0,
        share: Share | None = None,
    ) -> Recording | str:
        """The graph for such a batch, recorded now if it is the first; or why there is none."""
        key = _signature(x, y, batches, share)
        shared = self._recordings
        if shared is not None and shared.is_stale():
            self._loss_scale = self.loss_scale
            shared = self._recordings = None  # lets go of its memory before the next one takes some
            self._failed.clear()
        found = None if shared is None else shared.by_batch.get(key)
        if found is not None:
            return found
        reason = self._failed.get(key) or self.refuses(x, y, share)
        if reason is not None:
            return reason
        _check_places(self.model, x, y)
        recording = None
        try:
            recording = self._record(key, x, y, batches, place, share=share)
        except NotCaptured as error:
            reason = str(error)
        if share is not None:  # what one rank cannot record, none replays
            reason = next(filter(None, share.ranks.everyone(reason)), None)
        if recording is not None and reason is None:
            return recording
        assert reason is not None
        self._failed[key] = reason
        if self._recordings is not None:
            self._recordings.by_batch.pop(key, None)
        warnings.warn(f"`CapturedStep`: steps run layer by layer: {reason}", stacklevel=4)
        return reason

    def _record(self, *arguments: Any, share: Share | None) -> Recording:
        """A new recording; where memory is short, in the place of all others."""
        try:
            return self._record_once(*arguments, share)
        except OutOfMemoryError:
            if share is not None:
                raise  # other ranks would not rehearse again
            if self._recordings is not None:
                self._recordings.by_batch.clear()
        self._cuda.release_memory()  # not above, where the error still holds arrays
        try:
            return self._record_once(*arguments, share)
        except OutOfMemoryError:
            self._loss_scale = self.loss_scale
            self._recordings = None  # gives back what it has, for a smaller batch
            raise

    def _record_once(self, *arguments: Any) -> Recording:
        with self._explained_memory("recording"):
            if self._recordings is None:
                self._recordings = Recordings(self)
                self.loss_scale = self._loss_scale
            return self._recordings.record(*arguments)

    def _replay(self, recording: Recording, place: int | None = None) -> None:
        shared = self._recordings
        assert shared is not None
        shared.before_replay(place)
        recording.replay()
        shared.after_replay(recording)
        self.outputs = recording.outputs


def _check_places(model: Layer, x: Array, y: Array) -> None:
    """That everything is of one library and on one device; the message names each argument."""
    name, param = next(iter(model.params.items()))
    arguments = {f"the parameter {name}": param, "x": x, "y": y}
    kinds = {what: type(a).__module__.partition(".")[0] for what, a in arguments.items()}
    if len(set(kinds.values())) == 1:
        if len({str(array_api_compat.device(a)) for a in arguments.values()}) == 1:
            return
        kinds = {
            what: f"{kinds[what]} on {array_api_compat.device(a)}" for what, a in arguments.items()
        }
    found = ", ".join(f"{what} from {kind}" for what, kind in kinds.items())
    raise BackendError(
        f"`TrainStep`: expected everything in one library and on one device, got {found}; move it "
        "with xpmlp.asarray(...)"
    )


def _check_precision(precision: Precision | None, model: Layer, cuda: Any) -> None:
    if precision is None:
        return
    for name, param in model.params.items():
        if dtype_name(param.dtype) != "float32":
            raise DTypeError(
                f"`CapturedStep`: expected float32 parameters for precision={precision!r}, got "
                f"{name} of {dtype_name(param.dtype)}; tensor cores take float32 (as TF32), "
                "bfloat16 and float16 only: make the model with dtype='float32', or leave "
                "precision out"
            )
    if precision != "tf32" and not isinstance(model, Sequential):
        raise ConfigError(
            f"`CapturedStep`: expected a Sequential model for precision={precision!r}, got "
            f"{type(model).__name__}; use 'tf32', or leave precision out"
        )
    problem = cuda.precision_problem(precision)
    if problem is not None:
        raise ConfigError(
            f"`CapturedStep`: expected a precision that the device has, got {precision!r}: "
            f"{problem}; leave precision out"
        )


def _signature(x: Array, y: Array, batches: Any = None, share: Share | None = None) -> tuple:
    """What a recording is for. Of resident data, the set itself, too."""
    return (
        type(x),
        x.shape,
        x.dtype,
        type(y),
        getattr(y, "shape", None),
        getattr(y, "dtype", None),
        id(batches),
        share,
    )
