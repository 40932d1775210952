"""Launches ``softmax_cross_entropy.cu``: loss, gradient and hits, every option of the op."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import XpmlpError
from . import geometry, launch, source
from .sums import Sum

_OP = "softmax_cross_entropy"


def softmax_cross_entropy(
    logits: Any,
    targets: Any,
    *,
    label_smoothing: Any = 0.0,
    ignore_index: int | None = None,
    class_weights: Any = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> tuple[Any, Any]:
    """The kernel, with the signature and the results of the op."""
    loss, dlogits, _ = with_hits(
        logits,
        targets,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        class_weights=class_weights,
        z_loss=z_loss,
        reduction=reduction,
        count_hits=False,
    )
    return loss, dlogits


def with_hits(
    logits: Any,
    targets: Any,
    *,
    label_smoothing: Any = 0.0,
    ignore_index: int | None = None,
    class_weights: Any = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
    loss_scale: Any = None,
    count_hits: bool = True,
) -> tuple[Any, Any, Any]:
    """The same, and how many rows have their largest logit at their class.

    Parameters
    ----------
    loss_scale : float32 array of one element, optional
        On the device; multiplies the gradient only.
    count_hits : bool

    Returns
    -------
    loss, dlogits : as the op's
    hits : int32 array, shape (…,), or None
        None without ``count_hits`` and for target probabilities.
    """
    plan, row_loss, dlogits, hits, scales = _by_rows(
        logits,
        targets,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        class_weights=class_weights,
        z_loss=z_loss,
        reduction=reduction,
        loss_scale=loss_scale,
        count_hits=count_hits,
    )
    lead = dlogits.shape[:-2]
    correct = launch.empty(lead, np.int32) if plan.counts else None
    total = launch.empty(lead, dlogits.dtype) if plan.adds_up else None
    if plan.adds_up or plan.counts:
        arguments = row_loss, hits, plan.sizes[-1], plan.scale, scales, total, correct
        launch.run(_OP, plan.suffix, plan.reduce, *arguments)
    if total is None:
        total = row_loss.astype(dlogits.dtype, copy=False)
    return total, dlogits, correct


def in_parts(logits: Any, targets: Any, **options: Any) -> tuple[Sum, Any, Sum | None]:
    """The same with hits, but what comes from each row is still to be added up.

    Parameters
    ----------
    logits, targets : array
    **options
        As in :func:`with_hits`, all of them but ``count_hits``.
    """
    plan, row_loss, dlogits, hits, scales = _by_rows(logits, targets, count_hits=True, **options)
    shape, batch = dlogits.shape[:-1], dlogits.shape[-2]
    if plan.adds_up:
        parts = row_loss.reshape(-1, batch).T
        loss = Sum(parts, shape[:-1], scale=float(plan.scale), scales=scales)
    else:
        loss = Sum(row_loss.reshape(1, -1), shape)
    return loss, dlogits, None if hits is None else Sum(hits.reshape(-1, batch).T, shape[:-1])


def _by_rows(
    logits: Any,
    targets: Any,
    *,
    label_smoothing: Any,
    ignore_index: int | None,
    class_weights: Any,
    z_loss: float,
    reduction: str,
    loss_scale: Any,
    count_hits: bool,
) -> tuple[_Plan, Any, Any, Any, Any]:
    """The plan; each row's loss, the gradient, each row's hit; the factors on sums of losses."""
    logits, row_stride = _rows(logits)
    targets = launch.contiguous(targets)
    smoothing = None if _is_array(label_smoothing) else float(label_smoothing)
    shape = logits.shape
    plan = _plan(
        *(logits.dtype, shape, targets.dtype, targets.shape),
        *(smoothing, ignore_index, class_weights is not None, float(z_loss), reduction, count_hits),
    )
    real, suffix = plan.real, plan.suffix
    smoothings = None if smoothing is not None else _each(label_smoothing, shape[:-2], real)
    weights = None
    if class_weights is not None:
        weights = launch.contiguous(class_weights.astype(real, copy=False))

    scales = None
    if plan.normalizer is not None:
        scales = launch.empty((plan.problems,), real)
        kind, target_rows, _, classes, batch = plan.sizes
        launch.run(
            *(_OP, suffix, plan.normalizer, targets, kind, target_rows, batch, classes),
            *(weights, *plan.ignored, scales),
        )
    row_loss = launch.empty(shape[:-1], real)
    dlogits = launch.empty(shape, logits.dtype)
    hits = launch.empty(shape[:-1], np.uint8) if plan.counts else None
    aligned = _aligned(logits, row_stride) and _aligned(dlogits, shape[-1])
    _run(
        *(plan, aligned, logits, row_stride, dlogits, shape[-1], targets, *plan.sizes),
        *(plan.smoothing, smoothings, weights, *plan.ignored, plan.z_loss, plan.scale, scales),
        *(loss_scale, row_loss, hits),
    )
    return plan, row_loss, dlogits, hits, scales


@dataclass(frozen=True)
class _Plan:
    """What depends on shapes, types and options alone, in the kernels' types.

    Attributes
    ----------
    sizes : tuple
        The kernels' target_kind, target_rows, rows, classes and batch.
    ignored : tuple
        Their ignore_index and has_ignore.
    layouts : dict
        The launch for rows that are aligned and for others, on each device, with clusters or not.
    """

    suffix: str
    real: Any
    problems: int
    sizes: tuple
    targets: str
    smoothing: Any
    ignored: tuple
    z_loss: Any
    scale: Any
    normalizer: geometry.Launch | None
    reduce: geometry.Launch
    counts: bool
    adds_up: bool
    layouts: dict[tuple, geometry.Launch] = field(default_factory=dict, compare=False)


@lru_cache(maxsize=1024)
def _plan(
    dtype: Any,
    shape: tuple[int, ...],
    target_dtype: Any,
    target_shape: tuple[int, ...],
    smoothing: float | None,
    ignore_index: int | None,
    weighted: bool,
    z_loss: float,
    reduction: str,
    count_hits: bool,
) -> _Plan:
    suffix = source.SUFFIXES[np.dtype(dtype).name]
    real = launch.accumulator(suffix)
    problems, (batch, classes) = math.prod(shape[:-2]), shape[-2:]
    target_dtype, given = np.dtype(target_dtype), math.prod(target_shape)
    probabilities = target_dtype.kind not in "iu"
    kind = 0 if probabilities else geometry.TARGET_KINDS[target_dtype.name]
    target_rows = given // classes if probabilities else given
    has_ignore = ignore_index is not None
    mean = reduction == "mean"
    weighs = mean and not probabilities and (weighted or has_ignore)
    return _Plan(
        suffix=suffix,
        real=real,
        problems=problems,
        sizes=(np.int32(kind), target_rows, problems * batch, np.int32(classes), batch),
        targets="probabilities" if probabilities else "numbers" if smoothing == 0 else "smoothed",
        smoothing=real(smoothing or 0.0),
        ignored=(ignore_index or 0, np.int32(has_ignore)),
        z_loss=real(z_loss),
        scale=real(1.0 / batch if mean and not weighs else 1.0),
        normalizer=geometry.normalizer(problems, suffix) if weighs else None,
        reduce=geometry.reduce_losses(problems, suffix),
        counts=count_hits and not probabilities,
        adds_up=reduction != "none",
    )


_without_clusters: set[int] = set()  # devices that have refused to launch one


def _run(plan: _Plan, aligned: bool, *arguments: Any) -> None:
    """Launch the kernel for rows of this width."""
    number = launch.device_number()
    clusters = number not in _without_clusters
    layout = _layout(plan, aligned, number, clusters)
    try:
        launch.run(_OP, plan.suffix, layout, *arguments)
        return
    except RuntimeError as error:
        # A device that is shared or cut into parts may have no room for a whole cluster.
        if "cluster" not in layout.kernel or isinstance(error, XpmlpError):
            raise
        warnings.warn(f"`{_OP}`: clusters of blocks are not used: {error}", stacklevel=4)
        _without_clusters.add(number)
    launch.run(_OP, plan.suffix, _layout(plan, aligned, number, False), *arguments)


def _layout(plan: _Plan, aligned: bool, number: int, clusters: bool) -> geometry.Launch:
    found = plan.layouts.get((aligned, number, clusters))
    if found is None:
        device = launch.device()
        if not clusters:
            below = min(device.capability, geometry.CLUSTERS_FROM - 1)
            device = replace(device, capability=below)
        found = plan.layouts[aligned, number, clusters] = geometry.softmax_cross_entropy(
            *(plan.sizes[2], int(plan.sizes[3]), plan.suffix, device),
            *(plan.targets, plan.counts, aligned),
        )
    return found


def _rows(logits: Any) -> tuple[Any, int]:
    """Logits whose rows are equally far apart, and the distance in elements.

    A padded matrix, whose rows are longer than its classes, is taken as it is.
    """
    classes, size = logits.shape[-1], logits.dtype.itemsize
    if logits.ndim == 2 and logits.strides[-1] == size:
        stride, rest = divmod(logits.strides[0], size)
        if rest == 0 and stride >= classes:
            return logits, stride
    return launch.contiguous(logits), classes


def _each(value: Any, lead: tuple[int, ...], real: Any) -> Any:
    """Label smoothing as an array of one number a problem."""
    cupy = launch.library()
    return cupy.ascontiguousarray(cupy.broadcast_to(value.astype(real), lead))


def _is_array(smoothing: Any) -> bool:
    return hasattr(smoothing, "dtype") and not isinstance(smoothing, np.generic)


def _aligned(array: Any, stride: int) -> bool:
    """Whether every row begins at a multiple of 16 bytes."""
    return launch.address(array) % 16 == 0 and stride * array.dtype.itemsize % 16 == 0
