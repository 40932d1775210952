"""Softmax cross-entropy for NumPy arrays: one read of the logits, one write of the gradient.

Three ways through it, by shape:

* few classes: blocks of rows are transposed into a tile, so that vector lanes hold rows and none
  is wasted on the end of a short row;
* otherwise row by row: a row stays in the cache from its maximum to its scaled exponentials;
* few rows of very many classes: the threads share the columns of each row.

With the notation of :func:`xpmlp.ops.softmax_cross_entropy`, a row's gradient is
``(Q + 2 z lse) p − q'`` and its loss ``Q lse − Σ q'_c logits_c + z lse²``, where ``Q = Σ q'_c``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ...errors import DataError
from .elementary import exp_nonpositive, from_ordered_bits, log_positive, ordered_bits
from .threads import enter_parallel, leave_parallel, parallel_threads
from .twins import twins

_TILE = 64  # rows in a tile: four vectors of 16 floats, a multiple of every vector width
_FEW_CLASSES = 32
_PARALLEL_ELEMENTS = 100_000  # with fewer, waking a second thread takes longer than it saves
_SHARED_COLUMNS = 16_384

_NO_WEIGHTS = {np.dtype(name): np.zeros(0, name) for name in ("float32", "float64")}


def softmax_cross_entropy(
    logits, targets, *, label_smoothing, ignore_index, class_weights, z_loss, reduction
):
    """The kernel, with the signature and the results of the op's reference.

    Raises
    ------
    DataError
        If a class number is outside of 0…C−1 and not ``ignore_index``.
    """
    shape, dtype = logits.shape, logits.dtype
    if isinstance(label_smoothing, np.ndarray):
        return _problem_by_problem(
            logits, targets, label_smoothing, ignore_index, class_weights, z_loss, reduction
        )
    classes, batch = shape[-1], shape[-2]
    x = np.ascontiguousarray(logits).reshape(-1)
    rows = x.size // classes
    gradient, losses = np.empty(x.size, dtype), np.empty(rows, dtype)
    scales = np.empty(rows // batch, dtype)
    weights = _NO_WEIGHTS[dtype] if class_weights is None else np.ascontiguousarray(class_weights)
    mean = reduction == "mean"
    parallel = x.size > _PARALLEL_ELEMENTS and enter_parallel()
    try:
        if targets.dtype.kind == "f":
            y = np.ascontiguousarray(targets, dtype).reshape(-1)
            scales.fill(1.0 / batch if mean else 1.0)
            run = _probabilities_parallel if parallel else _probabilities
            run(x, y, weights, scales, label_smoothing, z_loss, gradient, losses)
        else:
            y = np.ascontiguousarray(targets).reshape(-1)
            has_ignore, ignored = ignore_index is not None, ignore_index or 0
            wrong = _scale_rows(y, weights, has_ignore, ignored, classes, mean, scales, rows)
            if wrong >= 0:
                raise DataError(
                    f"`softmax_cross_entropy`: expected class numbers in 0…{classes - 1}, got "
                    f"{y[wrong]} in row {wrong}; check the labels, or name it as ignore_index"
                )
            if parallel and rows < 2 * parallel_threads() and classes >= _SHARED_COLUMNS:
                run = _shared_columns_parallel
            elif classes <= _FEW_CLASSES and label_smoothing == 0.0:
                run = _tiles_parallel if parallel else _tiles
            else:
                run = _rows_parallel if parallel else _rows
            options = weights, scales, label_smoothing, z_loss, has_ignore, ignored
            run(x, y, *options, gradient, losses)
    finally:
        if parallel:
            leave_parallel()
    gradient = gradient.reshape(shape)
    if reduction == "none":
        return losses.reshape(shape[:-1]), gradient
    if len(shape) == 2:
        return dtype.type(_total(losses)), gradient
    return losses.reshape(shape[:-1]).sum(axis=-1), gradient


def _problem_by_problem(
    logits, targets, label_smoothing, ignore_index, class_weights, z_loss, reduction
):
    """Each problem with its own label smoothing."""
    shared = targets.ndim < logits.ndim - (targets.dtype.kind != "f")
    results = [
        softmax_cross_entropy(
            logits[problem],
            targets if shared else targets[problem],
            label_smoothing=float(label_smoothing[problem]),
            ignore_index=ignore_index,
            class_weights=class_weights,
            z_loss=z_loss,
            reduction=reduction,
        )
        for problem in np.ndindex(label_smoothing.shape)
    ]
    losses = np.stack([loss for loss, _ in results])
    gradient = np.stack([gradient for _, gradient in results])
    lead = label_smoothing.shape
    return losses.reshape(lead + losses.shape[1:]), gradient.reshape(logits.shape)


@njit(cache=True, nogil=True)
def _scale_rows(y, weights, has_ignore, ignored, classes, mean, scales, rows):
    """Fill in what each problem's rows are multiplied by; the first wrong class number, or −1."""
    batch = rows // scales.size
    for problem in range(scales.size):
        total = 0.0
        first = problem * batch if y.size == rows else 0
        for i in range(first, first + batch):
            if has_ignore and y[i] == ignored:
                continue
            if y[i] < 0 or y[i] >= classes:
                return i
            total += weights[y[i]] if weights.size else 1.0
        scales[problem] = 1.0 / total if mean and total > 0.0 else 1.0
    return -1


@njit(cache=True, nogil=True)
def _total(losses):
    """The sum, in double precision and in the order of the rows."""
    total = 0.0
    for loss in losses:
        total += loss
    return total


# --- Pieces of a row, each one vectorized loop ----------------------------------------------------

# They become part of the loop over the rows as source: each real call would count references to its
# arrays, and two threads counting at one address wait for each other. They take a range of a flat
# array, unsigned, which spares the check for negative indices. Sums run in as many partial sums as
# vectors have lanes ("reassoc"); what that would harm is in functions of scalars, with options of
# their own.

_FAST = {"contract", "reassoc", "nsz"}


@njit(inline="always")
def _exponentials(x, begin, end, peak, out):
    for j in range(begin, end):
        out[j] = exp_nonpositive(x[j] - peak)


@njit(inline="always")
def _sum(x, begin, end):
    total = x.dtype.type(0)
    for j in range(begin, end):
        total += x[j]
    return total


@njit(cache=True, fastmath={"contract"})
def _hard_loss(hard, log_total, peak, logit):
    """``hard · (lse − logit)``, formed so that large logits cancel first; 0 · inf is 0."""
    return hard * (log_total + (peak - logit)) if hard != 0 else hard


@njit(inline="always")
def _finish_row(x, g, begin, end, peak, total, y, weights, scale, smoothing, z):
    """Turn exponentials into the gradient, and give the row's loss."""
    real = g.dtype.type
    log_total = log_positive(total)
    lse = peak + log_total
    label = begin + np.uintp(y)
    hard = real(1) - smoothing
    if weights.size:
        hard = hard * weights[y]
    loss = _hard_loss(hard, log_total, peak, x[label])
    if smoothing == 0:
        factor = scale * (hard + real(2) * z * lse) / total
        for j in range(begin, end):
            g[j] *= factor
    else:
        even = smoothing / real(end - begin)
        mass, wide = np.float64(hard), np.float64(loss)  # sums over all classes in the wider type
        for j in range(begin, end):
            soft = even * weights[j - begin] if weights.size else even
            mass += soft
            wide += _hard_loss(soft, log_total, peak, x[j])
        loss = real(wide)
        factor = real(scale * (mass + 2.0 * z * lse) / total)
        for j in range(begin, end):
            soft = even * weights[j - begin] if weights.size else even
            g[j] = g[j] * factor - scale * soft
    g[label] -= scale * hard
    return scale * (loss + z * lse * lse)


# --- The ways, each compiled twice: serial, and with its prange in parallel -----------------------

# x and gradient are flat: row i is from i·C to (i + 1)·C.


def _rows_body(x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses):
    rows = losses.size
    batch = rows // scales.size
    classes = np.uintp(x.size // rows)
    real = gradient.dtype.type
    for i in prange(rows):
        label = y[i] if y.size == rows else y[i % batch]
        begin = np.uintp(i) * classes
        end = begin + classes
        if has_ignore and label == ignored:
            gradient[begin:end] = 0
            losses[i] = 0
        else:
            largest = ordered_bits(x[begin])
            for j in range(begin, end):
                bits = ordered_bits(x[j])
                largest = bits if bits > largest else largest
            peak = from_ordered_bits(largest, x[begin])
            _exponentials(x, begin, end, peak, gradient)
            total = _sum(gradient, begin, end)
            losses[i] = _finish_row(
                x, gradient, begin, end, peak, total, label, weights, scales[i // batch],
                real(smoothing), real(z),
            )  # fmt: skip


def _tiles_body(x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses):
    rows = losses.size
    batch = rows // scales.size
    classes = np.uintp(x.size // rows)
    real = gradient.dtype.type
    width = np.uintp(_TILE)
    for block in prange((rows + _TILE - 1) // _TILE):
        first = np.uintp(block) * width
        count = min(width, np.uintp(rows) - first)
        tile = np.empty(classes * width, gradient.dtype)
        peak = np.empty(width, gradient.dtype)
        total = np.empty(width, gradient.dtype)
        log_total = np.empty(width, gradient.dtype)
        for r in range(count):
            for c in range(classes):
                tile[c * width + r] = x[(first + r) * classes + c]
        for r in range(count, width):
            for c in range(classes):
                tile[c * width + r] = 0
        for r in range(width):
            peak[r] = tile[r]
            total[r] = 0
        for c in range(np.uintp(1), classes):
            for r in range(width):
                value = tile[c * width + r]
                peak[r] = value if value > peak[r] else peak[r]
        for c in range(classes):
            for r in range(width):
                e = exp_nonpositive(tile[c * width + r] - peak[r])
                tile[c * width + r] = e
                total[r] += e
        for r in range(width):
            log_total[r] = log_positive(total[r])
        for r in range(count):
            i = first + r
            begin = i * classes
            label = y[i] if y.size == rows else y[i % np.uintp(batch)]
            if has_ignore and label == ignored:
                for c in range(classes):
                    gradient[begin + c] = 0
                losses[i] = 0
                continue
            scale = scales[i // np.uintp(batch)]
            hard = weights[label] if weights.size else real(1)
            lse = peak[r] + log_total[r]
            factor = scale * (hard + real(2) * real(z) * lse) / total[r]
            for c in range(classes):
                gradient[begin + c] = tile[c * width + r] * factor
            at = begin + np.uintp(label)
            gradient[at] -= scale * hard
            loss = _hard_loss(hard, log_total[r], peak[r], x[at])
            losses[i] = scale * (loss + real(z) * lse * lse)


def _shared_columns_body(
    x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses
):
    rows = losses.size
    batch = rows // scales.size
    classes = np.uintp(x.size // rows)
    real = gradient.dtype.type
    parts = 16  # fixed, so that the sums do not depend on the number of threads
    width = (classes + np.uintp(parts - 1)) // np.uintp(parts)
    some = np.empty(parts, gradient.dtype)
    for i in range(rows):
        label = y[i] if y.size == rows else y[i % batch]
        begin = np.uintp(i) * classes
        end = begin + classes
        if has_ignore and label == ignored:
            gradient[begin:end] = 0
            losses[i] = 0
            continue
        for part in prange(parts):
            left = begin + np.uintp(part) * width
            largest = ordered_bits(x[left])
            for j in range(left, min(end, left + width)):
                bits = ordered_bits(x[j])
                largest = bits if bits > largest else largest
            some[part] = from_ordered_bits(largest, x[left])
        peak = some[0]
        for part in range(parts):
            peak = peak if peak > some[part] else some[part]
        for part in prange(parts):
            left = begin + np.uintp(part) * width
            right = min(end, left + width)
            _exponentials(x, left, right, peak, gradient)
            some[part] = _sum(gradient, left, right)
        total = _sum(some, np.uintp(0), np.uintp(parts))
        losses[i] = _finish_row(
            x, gradient, begin, end, peak, total, label, weights, scales[i // batch],
            real(smoothing), real(z),
        )  # fmt: skip


def _probabilities_body(x, y, weights, scales, smoothing, z, gradient, losses):
    rows = losses.size
    batch = rows // scales.size
    classes = np.uintp(x.size // rows)
    real = gradient.dtype.type
    keep, even = real(1 - smoothing), real(smoothing) / real(classes)
    for i in prange(rows):
        begin = np.uintp(i) * classes
        end = begin + classes
        # Shared targets start again with every problem.
        q = begin if y.size == x.size else np.uintp(i % batch) * classes
        scale = scales[i // batch]
        largest = ordered_bits(x[begin])
        for j in range(begin, end):
            bits = ordered_bits(x[j])
            largest = bits if bits > largest else largest
        peak = from_ordered_bits(largest, x[begin])
        _exponentials(x, begin, end, peak, gradient)
        total = _sum(gradient, begin, end)
        log_total = log_positive(total)
        lse = peak + log_total
        mass, loss = 0.0, 0.0
        for c in range(classes):
            share = keep * y[q + c] + even
            if weights.size:
                share *= weights[c]
            mass += share
            loss += _hard_loss(share, log_total, peak, x[begin + c])
        factor = real((mass + 2.0 * z * lse) / total)
        for c in range(classes):
            share = keep * y[q + c] + even
            if weights.size:
                share *= weights[c]
            gradient[begin + c] = scale * (gradient[begin + c] * factor - share)
        losses[i] = scale * (loss + z * lse * lse)


_rows, _rows_parallel = twins(_rows_body, fastmath=_FAST)
_tiles, _tiles_parallel = twins(_tiles_body, fastmath=_FAST)
_, _shared_columns_parallel = twins(_shared_columns_body, fastmath=_FAST)
_probabilities, _probabilities_parallel = twins(_probabilities_body, fastmath=_FAST)
