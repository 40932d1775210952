"""Softmax and cross-entropy in one: the loss and its gradient with respect to the logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import array_api_compat
import numpy as np

from ..backend import Array, array_namespace, dtype_name, on_host
from ..choices import Reduction
from ..errors import DTypeError, ShapeError
from ..options import Number
from .arguments import look
from .dispatch import choose, why_kernels_are_off
from .shapes import check_choice, check_floating, check_ndim, per_member, working_dtype
from .targets import check_classes, check_shares

REDUCTIONS = get_args(Reduction)


def softmax_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    label_smoothing: Any = 0.0,
    ignore_index: int | None = None,
    class_weights: Array | None = None,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
) -> tuple[Array, Array]:
    """Cross-entropy of softmax(logits) against targets, and its gradient, in one call.

    With ``lse = ln Σ_c exp(logits_c)``, target probabilities q (one-hot for class indices),
    ``q' = w ⊙ ((1 − ε) q + ε/C)`` for label smoothing ε and class weights w, and
    ``p = softmax(logits)``, each row has::

        loss    = Σ_c q'_c (lse − logits_c) + z · lse²
        dlogits = p Σ_c q'_c − q' + 2 z · lse · p

    Parameters
    ----------
    logits : array of floats, shape (…, N, C)
        Each leading index is a problem of its own, with its own loss (a population's members).
        −inf is allowed for classes that are impossible.
    targets : array, shape (…, N) of integer class numbers, or (…, N, C) of probabilities
        Leading axes may be missing: then all problems share the targets.
    label_smoothing : float or array of shape (…,)
        ε in [0, 1] (Szegedy et al. 2016). An array gives each problem its own.
    ignore_index : int, optional
        Rows with this class number count for nothing. If all rows do, the loss is 0, not NaN.
    class_weights : array, shape (C,), optional
        w. With class numbers the mean divides by the sum of the rows' w, as is usual.
    z_loss : float
        z, the weight of lse² (keeps logits from drifting; Chowdhery et al. 2022).
    reduction : {"mean", "sum", "none"}
        Over the batch axis N only.

    Returns
    -------
    loss : array, shape (…,), or (…, N) for ``reduction="none"``
    dlogits : array, shape (…, N, C)
        Gradient of the loss; for "none", of its sum.

    Raises
    ------
    ShapeError, DTypeError, ConfigError
        For arguments that do not fit.
    DataError
        If a class number is none of 0 … C−1 (or ``ignore_index``), or a probability or class
        weight is negative or NaN. Only host memory is looked at: on a device that would make the
        step wait. There a Trainer looks once, at the whole data set.
    """
    if type(label_smoothing) is not float:
        label_smoothing = _number_or_array(logits, label_smoothing)
    if type(z_loss) is not float:
        z_loss = _Z_LOSS.check("softmax_cross_entropy", "z_loss", z_loss)
    signature = (
        type(logits),
        logits.dtype,
        logits.shape,
        type(targets),
        targets.dtype,
        targets.shape,
        label_smoothing if type(label_smoothing) is float else _metadata(label_smoothing),
        None if class_weights is None else _metadata(class_weights),
        *(ignore_index, z_loss, reduction, why_kernels_are_off()),
    )
    # Everything that is checked, and the choice of a kernel, depends on these alone: a training
    # step, which comes with the same ones again and again, pays for them once.
    run = _chosen.get(signature)
    if run is None:
        if len(_chosen) >= _REMEMBERED:
            _chosen.clear()
        run = _chosen[signature] = _check_and_choose(
            logits, targets, label_smoothing, ignore_index, class_weights, z_loss, reduction
        )
    return run(
        logits,
        targets,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        class_weights=class_weights,
        z_loss=z_loss,
        reduction=reduction,
    )


_SMOOTHING = Number("[0, 1]", hint="or give an array, a number for each problem")
_Z_LOSS = Number("[0, inf)")
_IGNORED = Number(whole=True, optional=True)
_chosen: dict[tuple, Callable] = {}
_REMEMBERED = 256


def _check_and_choose(
    logits: Array,
    targets: Array,
    label_smoothing: Any,
    ignore_index: int | None,
    class_weights: Array | None,
    z_loss: float,
    reduction: Reduction,
) -> Callable:
    where = "softmax_cross_entropy"
    extra = [a for a in (label_smoothing, class_weights) if hasattr(a, "dtype")]
    for array in (logits, targets, *extra):
        look(array)
    array_namespace(logits, targets, *extra)  # refuses arrays of two libraries
    check_floating(where, "logits", logits)
    check_ndim(where, "logits", logits, 2, "(…, N, C)")
    check_choice(where, "reduction", reduction, REDUCTIONS)
    indices = _check_targets(where, logits, targets)
    if type(label_smoothing) is float:
        _SMOOTHING.check(where, "label_smoothing", label_smoothing)
    _Z_LOSS.check(where, "z_loss", z_loss)
    _IGNORED.check(where, "ignore_index", ignore_index)
    if logits.shape[-2] == 0 or logits.shape[-1] == 0:
        raise ShapeError(
            f"`{where}`: expected at least one row and one class, got logits of shape "
            f"{tuple(logits.shape)}; drop empty batches"
        )
    if class_weights is not None and tuple(class_weights.shape) != (logits.shape[-1],):
        raise ShapeError(
            f"`{where}`: expected class_weights of shape ({logits.shape[-1]},), got "
            f"{tuple(class_weights.shape)}"
        )
    if ignore_index is not None and not indices:
        raise DTypeError(f"`{where}`: ignore_index needs class numbers, got target probabilities")
    options = dict(
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        class_weights=class_weights,
        z_loss=z_loss,
        reduction=reduction,
    )
    run = choose(where, reference, logits, targets, **options)
    plain = class_weights is None and isinstance(label_smoothing, float)
    # The kernels check class numbers themselves, on the host.
    return run if run is not reference and indices and plain else partial(_look_first, run)


def _look_first(run: Callable, logits: Array, targets: Array, **options: Any) -> Any:
    """Check values where that is free."""
    where = "softmax_cross_entropy"
    if on_host(targets):
        if "int" in dtype_name(targets.dtype):
            check_classes(where, targets, logits.shape[-1], options["ignore_index"])
        else:
            check_shares(where, targets)
    for name, most in (("class_weights", np.inf), ("label_smoothing", 1.0)):
        values = options[name]
        if hasattr(values, "dtype") and on_host(values):
            check_shares(where, values, name, most)
    return run(logits, targets, **options)


def reference(
    logits: Array,
    targets: Array,
    *,
    label_smoothing: Any,
    ignore_index: int | None,
    class_weights: Array | None,
    z_loss: float,
    reduction: Reduction,
) -> tuple[Array, Array]:
    """The definition, in array-API calls."""
    smoothing = label_smoothing
    extra = [a for a in (class_weights, smoothing) if hasattr(a, "dtype")]
    xp = array_namespace(logits, targets, *extra)
    dtype, classes = logits.dtype, logits.shape[-1]
    x = xp.astype(logits, working_dtype(xp, logits), copy=False)

    peak = xp.max(x, axis=-1, keepdims=True)
    shifted = x - peak
    e = xp.exp(shifted)
    total = xp.sum(e, axis=-1, keepdims=True)
    p = e / total
    log_total = xp.log(total)

    indices = "int" in dtype_name(targets.dtype)
    if indices:
        # One-hot by comparison: no gather or scatter, which libraries spell differently.
        # Bytes first become wide enough for C and for an ignore_index such as −100.
        if dtype_name(targets.dtype) in ("int8", "uint8", "int16", "uint16"):
            targets = xp.astype(targets, xp.int32)
        numbers = xp.arange(classes, dtype=targets.dtype, device=array_api_compat.device(targets))
        q = xp.astype(xp.expand_dims(targets, axis=-1) == numbers, x.dtype)
    else:
        q = xp.astype(targets, x.dtype, copy=False)
    weights, row_weight = None, None
    if class_weights is not None:
        weights = xp.astype(class_weights, x.dtype, copy=False)
        row_weight = xp.sum(q * weights, axis=-1)
    if not (isinstance(smoothing, float) and smoothing == 0.0):
        smoothing = per_member(smoothing, logits.ndim)
        q = (1.0 - smoothing) * q + smoothing / classes
    if weights is not None:
        q = q * weights

    # 0 · inf is NaN: a class with no probability must not read a logit of −inf.
    loss = xp.sum(q * xp.where(q != 0, log_total - shifted, xp.zeros_like(p)), axis=-1)
    dlogits = p * xp.sum(q, axis=-1, keepdims=True) - q
    if z_loss:
        lse = log_total + peak
        loss = loss + z_loss * lse[..., 0] ** 2
        dlogits = dlogits + (2.0 * z_loss) * lse * p

    if ignore_index is not None:
        counted = targets != ignore_index
        loss = xp.where(counted, loss, xp.zeros_like(loss))
        dlogits = xp.where(xp.expand_dims(counted, axis=-1), dlogits, xp.zeros_like(dlogits))
        ones = xp.astype(counted, x.dtype)
        row_weight = ones if row_weight is None else row_weight * ones

    if reduction == "mean":
        if row_weight is None or not indices:
            loss = xp.mean(loss, axis=-1)
            dlogits = dlogits / logits.shape[-2]
        else:
            weight = xp.sum(row_weight, axis=-1)
            weight = xp.where(weight > 0, weight, xp.ones_like(weight))
            loss = xp.sum(loss, axis=-1) / weight
            dlogits = dlogits / weight[..., None, None]
    elif reduction == "sum":
        loss = xp.sum(loss, axis=-1)
    return xp.astype(loss, dtype, copy=False), xp.astype(dlogits, dtype, copy=False)


def _metadata(x: Array) -> tuple:
    """What of an array decides which checks it passes and which kernel takes it."""
    return type(x), x.dtype, x.shape


def _number_or_array(logits: Array, smoothing: Any) -> Any:
    """Label smoothing as a float, or as the array it is; an array's values are not looked at."""
    where = "softmax_cross_entropy"
    if hasattr(smoothing, "shape") and not isinstance(smoothing, np.generic):
        shape = tuple(smoothing.shape)
        if shape not in ((), tuple(logits.shape[:-2])):
            raise ShapeError(
                f"`{where}`: expected label_smoothing to be a number or of shape "
                f"{tuple(logits.shape[:-2])}, got {shape}; one number for each problem"
            )
        return smoothing
    return _SMOOTHING.check(where, "label_smoothing", smoothing)


def _check_targets(where: str, logits: Array, targets: Array) -> bool:
    """Whether targets are class numbers; raises if they are neither form."""
    shape, target_shape = tuple(logits.shape), tuple(targets.shape)
    if "int" in dtype_name(targets.dtype):
        if target_shape in (shape[:-1], shape[-2:-1]):
            return True
        wanted = f"{shape[:-1]} (class numbers)"
    elif "float" in dtype_name(targets.dtype):
        if target_shape in (shape, shape[-2:]):
            return False
        wanted = f"{shape} (probabilities)"
    else:
        raise DTypeError(
            f"`{where}`: expected targets of integers (class numbers) or floats (probabilities), "
            f"got {dtype_name(targets.dtype)}"
        )
    hint = ""
    if math.prod(target_shape) == shape[-2]:  # one a row
        is_integer = "int" in dtype_name(targets.dtype)
        hint = "; flatten them" if is_integer else "; class numbers must be integers"
    raise ShapeError(
        f"`{where}`: expected targets of shape {wanted} for logits of shape {shape}, got "
        f"{target_shape} {dtype_name(targets.dtype)}{hint}"
    )
