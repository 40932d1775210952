"""Losses: ``loss.forward(outputs, targets)`` gives the value, ``loss.backward()`` its gradient.

All reduce over the batch axis N (and the outputs M) of arrays (…, N, M), so that each leading
index, such as a member of a population, has a loss of its own; their gradients do not mix.

A forward keeps its gradient or what it needs for it, so the backward takes no arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import array_api_compat
import numpy as np

from . import ops
from .backend import Array, array_namespace, asarray_like, dtype_name, on_host, to_numpy
from .errors import ConfigError, DTypeError, ShapeError, StateError
from .ops.shapes import check_choice, check_floating, working_dtype
from .ops.softmax_cross_entropy import REDUCTIONS
from .ops.targets import check_classes, check_shares, is_class_numbers
from .options import Number


class Loss:
    """Base of all losses.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of values reduced; "none" leaves one value a row or element.

    Attributes
    ----------
    answers : {"classes", "yes_no", "numbers", None}
        What outputs are to the loss, and so how they are scored: by the largest one, by each one's
        sign, or by R². None: by what the targets look like.
    weighs_rows : bool
        Whether some rows count more than others, or not at all.
    """

    answers: str | None = None
    weighs_rows = False

    def __init__(self, reduction: str = "mean"):
        check_choice(type(self).__name__, "reduction", reduction, REDUCTIONS)
        self.reduction = reduction
        self._gradient: Any = None

    def forward(self, outputs: Array, targets: Array) -> Array:
        """The loss, of shape (…,), still on the device."""
        raise NotImplementedError

    def backward(self) -> Array:
        """Gradient of the last forward's loss with respect to its outputs, of their shape."""
        if self._gradient is None:
            raise StateError(
                f"`{type(self).__name__}.backward`: expected a forward before it; "
                "call loss.forward(outputs, targets) first"
            )
        if callable(self._gradient):  # of a compiled step: copied when first looked at
            self._gradient = self._gradient()
        return self._gradient

    def units(self, outputs: Array, targets: Array) -> Any:
        """What the batch's mean is a mean over, as a number or of shape (…,).

        The mean over several batches is ``Σ mean · units / Σ units``.
        """
        return outputs.shape[-2]

    def counted(self, targets: Array) -> Array | None:
        """Which rows count at all, (…, N) booleans; None for all of them."""
        return None

    def check_targets(self, targets: Array, classes: int) -> None:
        """Look at the targets' values: once a data set, before the first step.

        A forward looks as well where that is free, in host memory; on a device it never does, since
        every step would wait.

        Parameters
        ----------
        targets : array
            Of a batch, or of all rows.
        classes : int
            C, or M: how many outputs there are.

        Raises
        ------
        DataError
            For a class number that does not exist, or a share that is none.
        """

    def __call__(self, outputs: Array, targets: Array) -> Array:
        return self.forward(outputs, targets)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_gradient": None}  # for copies and pickles

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"

    def describe(self) -> str:
        """The options that differ from their defaults."""
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of softmax(logits); see :func:`xpmlp.ops.softmax_cross_entropy`.

    Parameters
    ----------
    label_smoothing : float or sequence of P floats
    ignore_index : int, optional
    class_weights : array_like, shape (C,), optional
    z_loss : float
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ConfigError
        For options out of range.
    """

    answers = "classes"
    label_smoothing: Any = Number("[0, 1]", each_member=True)
    ignore_index: Any = Number(whole=True, optional=True)
    z_loss: Any = Number("[0, inf)")

    def __init__(
        self,
        *,
        label_smoothing: float | Sequence[float] = 0.0,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | Array | None = None,
        z_loss: float = 0.0,
        reduction: str = "mean",
    ):
        super().__init__(reduction)
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.class_weights = class_weights
        self.z_loss = z_loss

    @property
    def class_weights(self) -> np.ndarray | None:
        """Of each class, (C,) in float64."""
        return self._class_weights

    @class_weights.setter
    def class_weights(self, weights: Any) -> None:
        self._class_weights = None if weights is None else _class_weights(weights)

    @property
    def weighs_rows(self) -> bool:
        return self._class_weights is not None or self.ignore_index is not None

    def counted(self, targets: Array) -> Array | None:
        if self.ignore_index is None:
            return None
        if dtype_name(targets.dtype) in ("int8", "uint8", "int16", "uint16"):
            xp = array_namespace(targets)  # wide enough for such as −100
            targets = xp.astype(targets, xp.int32)
        return targets != self.ignore_index

    def units(self, outputs: Array, targets: Array) -> Any:
        if not self.weighs_rows or "int" not in dtype_name(targets.dtype):
            return outputs.shape[-2]
        xp = array_namespace(outputs, targets)
        dtype, counted = working_dtype(xp, outputs), self.counted(targets)
        if self._class_weights is None:
            return xp.sum(xp.astype(counted, dtype), axis=-1)
        weights = xp.astype(asarray_like(self._class_weights, outputs), dtype, copy=False)
        if counted is not None:
            targets = xp.where(counted, targets, xp.zeros_like(targets))
        rows = xp.reshape(xp.take(weights, xp.reshape(targets, (-1,)), axis=0), targets.shape)
        if counted is not None:
            rows = xp.where(counted, rows, xp.zeros_like(rows))
        return xp.sum(rows, axis=-1)

    def describe(self) -> str:
        none = np.ndim(self.label_smoothing) == 0 and self.label_smoothing == 0.0
        smoothing = "" if none else f"label_smoothing={self.label_smoothing}"
        return ", ".join(part for part in (smoothing, super().describe()) if part)

    def check_targets(self, targets: Array, classes: int) -> None:
        """Class numbers in 0 … C−1 or ``ignore_index``, or probabilities ≥ 0."""
        if is_class_numbers(targets):
            check_classes("SoftmaxCrossEntropy", targets, classes, self.ignore_index)
        else:
            check_shares("SoftmaxCrossEntropy", targets)

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs: logits (…, N, C); targets: class numbers (…, N) or probabilities (…, N, C)."""
        _check_arrays("SoftmaxCrossEntropy", outputs, targets)
        smoothing, weights = self.label_smoothing, self.class_weights
        loss, self._gradient = ops.softmax_cross_entropy(
            outputs,
            targets,
            label_smoothing=asarray_like(smoothing, outputs) if np.ndim(smoothing) else smoothing,
            ignore_index=self.ignore_index,
            class_weights=None if weights is None else asarray_like(weights, outputs),
            z_loss=self.z_loss,
            reduction=self.reduction,
        )
        return loss


class _ElementwiseLoss(Loss):
    """A loss that is a sum or mean over elements of f(outputs, targets)."""

    answers = "numbers"

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs (…, N, M) and targets of the same shape, or without some leading axes."""
        where = type(self).__name__
        _check_arrays(where, outputs, targets)
        shape, target_shape = tuple(outputs.shape), tuple(targets.shape)
        # Two axes at least: targets (N,) would pass for (M,) wherever N equals M.
        if target_shape != shape[len(shape) - len(target_shape) :] or len(target_shape) < 2:
            raise ShapeError(
                f"`{where}`: expected targets of the outputs' shape {shape}, got {target_shape}; "
                "a column vector of targets is y[:, None]"
            )
        if outputs.ndim < 2 or outputs.shape[-2] == 0:
            raise ShapeError(
                f"`{where}`: expected outputs of shape (…, N, M) with N ≥ 1, got {shape}"
            )
        xp, dtype = array_namespace(outputs, targets), outputs.dtype
        if on_host(targets):
            self.check_targets(targets, shape[-1])
        wide = working_dtype(xp, outputs)
        values, gradient = self.elements(
            xp.astype(outputs, wide, copy=False), xp.astype(targets, wide, copy=False)
        )
        if self.reduction != "none":
            values = xp.sum(values, axis=(-2, -1))
            count = outputs.shape[-2] * outputs.shape[-1] if self.reduction == "mean" else 1
            if count != 1:
                values, gradient = values / count, gradient / count
        self._gradient = xp.astype(gradient, dtype, copy=False)
        return xp.astype(values, dtype, copy=False)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        """f(y, t) and df/dy, elementwise."""
        raise NotImplementedError


class MSE(_ElementwiseLoss):
    """Mean squared error ``mean (y − t)²``; gradient ``2 (y − t) / (N M)``."""

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        difference = y - t
        return difference * difference, 2.0 * difference


class HalfSSE(_ElementwiseLoss):
    """Half the sum of squared errors ``½ Σ (y − t)²``; gradient ``y − t`` with no factor."""

    def __init__(self, reduction: str = "sum"):
        super().__init__(reduction)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        difference = y - t
        return 0.5 * difference * difference, difference


class MAE(_ElementwiseLoss):
    """Mean absolute error ``mean |y − t|``; gradient ``sign(y − t) / (N M)``, 0 where equal."""

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        xp = array_namespace(y)
        difference = y - t
        return xp.abs(difference), xp.sign(difference)


class Huber(_ElementwiseLoss):
    """``½ d²`` where ``|d| ≤ δ``, else ``δ (|d| − ½ δ)``, with ``d = y − t`` (Huber 1964).

    Parameters
    ----------
    delta : float
        δ, where the square turns into a line.
    reduction : {"mean", "sum", "none"}
    """

    delta: Any = Number("(0, inf)")

    def __init__(self, delta: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.delta = delta

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        xp = array_namespace(y)
        difference = y - t
        size = xp.abs(difference)
        inside = size <= self.delta
        values = xp.where(
            inside, 0.5 * difference * difference, self.delta * (size - 0.5 * self.delta)
        )
        return values, xp.where(inside, difference, self.delta * xp.sign(difference))


class BCEWithLogits(_ElementwiseLoss):
    """Binary cross-entropy of σ(y): ``mean [softplus(y) − t y]``; gradient ``(σ(y) − t)/(N M)``.

    Targets are probabilities in [0, 1]; hard labels are 0 and 1.
    """

    answers = "yes_no"

    def check_targets(self, targets: Array, classes: int) -> None:
        """Probabilities in [0, 1]."""
        check_shares("BCEWithLogits", targets, most=1.0)

    def elements(self, y: Array, t: Array) -> tuple[Array, Array]:
        return ops.softplus(y) - t * y, ops.sigmoid(y) - t


class NLL(Loss):
    """Negative log-likelihood ``−mean log p[target]`` of log-probabilities (…, N, C).

    Follows a LogSoftmax layer. SoftmaxCrossEntropy does both in one pass.
    """

    answers = "classes"

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs: log-probabilities (…, N, C); targets: class numbers (…, N)."""
        onehot, outputs, dtype = self._prepare(outputs, targets)
        xp = array_namespace(outputs)
        # where, not a product: 0 · log 0 would be NaN.
        picked = xp.where(onehot, outputs, xp.zeros_like(outputs))
        return self._reduce_rows(-xp.sum(picked, axis=-1), -xp.astype(onehot, outputs.dtype), dtype)

    def check_targets(self, targets: Array, classes: int) -> None:
        """Class numbers in 0 … C−1."""
        check_classes(type(self).__name__, targets, classes)

    def _prepare(self, outputs: Array, targets: Array) -> tuple[Array, Array, Any]:
        """Each row's class as a boolean, the outputs to compute with, and the dtype to give."""
        onehot = _one_hot(type(self).__name__, outputs, targets)
        if on_host(targets):
            self.check_targets(targets, outputs.shape[-1])
        xp = array_namespace(outputs)
        wide = working_dtype(xp, outputs)
        return onehot, xp.astype(outputs, wide, copy=False), outputs.dtype

    def _reduce_rows(self, rows: Array, gradient: Array, dtype: Any) -> Array:
        xp = array_namespace(rows)
        if self.reduction == "mean":
            gradient, rows = gradient / rows.shape[-1], xp.mean(rows, axis=-1)
        elif self.reduction == "sum":
            rows = xp.sum(rows, axis=-1)
        self._gradient = xp.astype(gradient, dtype, copy=False)
        return xp.astype(rows, dtype, copy=False)


class MulticlassHinge(NLL):
    """``mean Σ_{c ≠ t} max(0, s_c − s_t + margin)`` (Weston and Watkins 1999; CS231n's SVM loss).

    Parameters
    ----------
    margin : float
    reduction : {"mean", "sum", "none"}
    """

    margin: Any = Number()

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = margin

    def forward(self, outputs: Array, targets: Array) -> Array:
        """outputs: scores (…, N, C); targets: class numbers (…, N)."""
        onehot, outputs, dtype = self._prepare(outputs, targets)
        xp = array_namespace(outputs)
        zero = xp.zeros_like(outputs)
        true_score = xp.sum(xp.where(onehot, outputs, zero), axis=-1, keepdims=True)
        margins = xp.where(onehot, zero, outputs - true_score + self.margin)
        violated = xp.astype(margins > 0, outputs.dtype)
        count = xp.sum(violated, axis=-1, keepdims=True)
        gradient = violated - xp.where(onehot, count, zero)
        return self._reduce_rows(xp.sum(margins * violated, axis=-1), gradient, dtype)


def loss_for(output: str | None, *, label_smoothing: Any = 0.0) -> Loss:
    """The loss that goes with what a network's outputs mean.

    Parameters
    ----------
    output : {"softmax", "sigmoid", "identity"} or None
        As :class:`~xpmlp.models.FullyConnectedNet` has it: cross-entropy, binary cross-entropy,
        mean squared error. None, of a model that does not say: cross-entropy.
    label_smoothing : float or sequence of P floats
        Of classes.
    """
    if output == "identity":
        return MSE()
    if output == "sigmoid":
        return BCEWithLogits()
    return SoftmaxCrossEntropy(label_smoothing=label_smoothing)


def _class_weights(weights: Any) -> np.ndarray:
    """Weights in any of their forms as (C,) in float64, once they are known to be some."""
    where = "`SoftmaxCrossEntropy`: expected class_weights"
    if isinstance(weights, str):
        raise ConfigError(
            f"{where} as numbers, got {weights!r}; balanced ones are "
            "len(y) / (C * numpy.bincount(y, minlength=C))"
        )
    if isinstance(weights, Mapping):
        raise ConfigError(
            f"{where} in the order of the class numbers, got a dict of {list(weights)}; write "
            "[weights[number] for number in range(C)]"
        )
    try:
        numbers = to_numpy(weights) if hasattr(weights, "dtype") else np.asarray(weights)
        if numbers.dtype.kind not in "iuf":
            raise TypeError(f"{numbers.dtype} are no real numbers")
        numbers = numbers.astype(np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{where} as a list or array, got {weights!r}") from None
    fits = numbers.ndim == 1 and numbers.size > 0 and np.isfinite(numbers).all()
    if not fits or numbers.min() < 0.0 or numbers.max() == 0.0:
        raise ConfigError(
            f"{where} of shape (C,), finite, none below 0 and one above, got {weights!r}"
        )
    return numbers


def _check_arrays(where: str, outputs: Array, targets: Array) -> None:
    """Raise DTypeError unless both are arrays, the outputs of floats."""
    for name, x in (("outputs", outputs), ("targets", targets)):
        if not hasattr(x, "dtype"):
            raise DTypeError(
                f"`{where}`: expected {name} as an array, got {type(x).__name__}; convert it with "
                f"xpmlp.asarray({name})"
            )
    check_floating(where, "outputs", outputs)
    kind = dtype_name(targets.dtype)
    if not any(number in kind for number in ("int", "float", "bool")):
        raise DTypeError(f"`{where}`: expected targets that are real numbers, got {kind}")


def _one_hot(where: str, outputs: Array, targets: Array) -> Array:
    """Booleans (…, N, C) that mark each row's class."""
    _check_arrays(where, outputs, targets)
    if "int" not in dtype_name(targets.dtype):
        raise DTypeError(
            f"`{where}`: expected targets of integers (class numbers), got "
            f"{dtype_name(targets.dtype)}; class numbers are y.astype('int64')"
        )
    shape = tuple(outputs.shape)
    if len(shape) < 2 or tuple(targets.shape) not in (shape[:-1], shape[-2:-1]) or 0 in shape:
        raise ShapeError(
            f"`{where}`: expected outputs (…, N, C) and targets (…, N), N ≥ 1, got {shape} and "
            f"{tuple(targets.shape)}"
        )
    xp = array_namespace(outputs, targets)
    numbers = xp.arange(shape[-1], device=array_api_compat.device(outputs))
    targets = xp.astype(targets, numbers.dtype, copy=False)
    return xp.broadcast_to(xp.expand_dims(targets, axis=-1) == numbers, shape)
