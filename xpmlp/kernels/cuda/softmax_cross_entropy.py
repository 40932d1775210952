"""Launches ``softmax_cross_entropy.cu``: loss, gradient and hits, every option of the op."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import XpmlpError
from . import geometry, launch
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
    suffix, lead = launch.suffix_of(logits), tuple(logits.shape[:-2])
    row_loss, dlogits, hits, scale, scales = _by_rows(
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
    correct = None if hits is None else launch.empty(lead, np.int32)
    total = None if reduction == "none" else launch.empty(lead, logits.dtype)
    if total is not None or correct is not None:
        launch.run(
            _OP,
            suffix,
            geometry.reduce_losses(math.prod(lead), suffix),
            *(row_loss, hits, logits.shape[-2], scale, scales, total, correct, None),
        )
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
    row_loss, dlogits, hits, scale, scales = _by_rows(logits, targets, count_hits=True, **options)
    shape, batch = tuple(logits.shape[:-1]), logits.shape[-2]
    if options["reduction"] == "none":
        loss = Sum(row_loss.reshape(1, -1), shape)
    else:
        parts = row_loss.reshape(-1, batch).T
        loss = Sum(parts, shape[:-1], scale=float(scale), scales=scales)
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
) -> tuple[Any, Any, Any, Any, Any]:
    """Each row's loss, the gradient and each row's hit; the factors on sums of losses."""
    suffix = launch.suffix_of(logits)
    real = launch.accumulator(suffix)
    lead, (batch, classes) = tuple(logits.shape[:-2]), logits.shape[-2:]
    problems = math.prod(lead)
    rows = problems * batch
    logits, row_stride = _rows(logits)
    targets = launch.contiguous(targets)
    probabilities = targets.dtype.kind not in "iu"
    kind = 0 if probabilities else geometry.TARGET_KINDS[targets.dtype.name]
    target_rows = targets.size // classes if probabilities else targets.size
    smoothing, smoothings = _smoothing(label_smoothing, lead, real)
    weights = None
    if class_weights is not None:
        weights = launch.contiguous(class_weights.astype(real, copy=False))
    ignored = 0 if ignore_index is None else int(ignore_index)
    has_ignore = np.int32(ignore_index is not None)

    scale, scales = real(1.0 / batch if reduction == "mean" else 1.0), None
    if reduction == "mean" and not probabilities and (weights is not None or has_ignore):
        scale, scales = real(1.0), launch.empty((problems,), real)
        launch.run(
            _OP,
            suffix,
            geometry.normalizer(problems, suffix),
            *(targets, np.int32(kind), target_rows, batch, np.int32(classes)),
            *(weights, ignored, has_ignore, scales),
        )

    shape = (*lead, batch)
    row_loss = launch.empty(shape, real)
    dlogits = launch.empty((*shape, classes), logits.dtype)
    hits = launch.empty(shape, np.uint8) if count_hits and not probabilities else None
    aligned = _aligned(logits, row_stride) and _aligned(dlogits, classes)
    _run(
        suffix,
        {"rows": rows, "classes": classes, "probabilities": probabilities, "aligned": aligned},
        *(logits, row_stride, dlogits, classes, targets, np.int32(kind), target_rows, rows),
        *(np.int32(classes), batch, smoothing, smoothings, weights, ignored, has_ignore),
        *(real(z_loss), scale, scales, loss_scale, row_loss, hits),
    )
    return row_loss, dlogits, hits, scale, scales


_without_clusters: set[int] = set()  # devices that have refused to launch one


def _run(suffix: str, sizes: dict[str, Any], *arguments: Any) -> None:
    """Launch the kernel for rows of this width."""
    number, device = launch.device_number(), launch.device()
    if number not in _without_clusters:
        plan = geometry.softmax_cross_entropy(suffix=suffix, device=device, **sizes)
        try:
            launch.run(_OP, suffix, plan, *arguments)
            return
        except RuntimeError as error:
            # A device that is shared or cut into parts may have no room for a whole cluster.
            if "cluster" not in plan.kernel or isinstance(error, XpmlpError):
                raise
            warnings.warn(f"`{_OP}`: clusters of blocks are not used: {error}", stacklevel=4)
            _without_clusters.add(number)
    alone = replace(device, capability=min(device.capability, geometry.CLUSTERS_FROM - 1))
    plan = geometry.softmax_cross_entropy(suffix=suffix, device=alone, **sizes)
    launch.run(_OP, suffix, plan, *arguments)


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


def _smoothing(value: Any, lead: tuple[int, ...], real: Any) -> tuple[Any, Any]:
    """Label smoothing as one number, or as an array of one a problem."""
    if not hasattr(value, "dtype") or isinstance(value, np.generic):
        return real(value), None
    cupy = launch.library()
    return real(0.0), cupy.ascontiguousarray(cupy.broadcast_to(value.astype(real), lead))


def _aligned(array: Any, stride: int) -> bool:
    """Whether every row begins at a multiple of 16 bytes."""
    return launch.address(array) % 16 == 0 and stride * array.dtype.itemsize % 16 == 0
