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
from .sources import compiled
from .threads import enter_parallel, leave_parallel, parallel_threads
from .transpose import transpose_in, transpose_out
from .twins import twins

_TILE = 64  # rows in a tile: four vectors of 16 floats, a multiple of every vector width
_EIGHT = np.uintp(8)
_FEW_CLASSES = 128
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
    if isinstance(label_smoothing, np.ndarray):
        return _problem_by_problem(
            logits, targets, label_smoothing, ignore_index, class_weights, z_loss, reduction
        )
    shape, dtype = logits.shape, logits.dtype
    gradient, losses = np.empty(shape, dtype), np.empty(shape[:-1], dtype)
    weights = _NO_WEIGHTS[dtype] if class_weights is None else class_weights.ravel()
    arrays = logits.ravel(), targets.ravel(), weights, gradient.ravel(), losses.ravel()
    mean = reduction == "mean"
    if targets.dtype.kind == "f":
        total = _by_probabilities(*arrays, label_smoothing, z_loss, mean, shape[-2])
    else:
        ignored = ignore_index or 0
        total = _by_class_numbers(
            *arrays, label_smoothing, z_loss, ignore_index is not None, ignored, mean, shape[-2]
        )
    if reduction == "none":
        return losses, gradient
    return dtype.type(total) if len(shape) == 2 else losses.sum(axis=-1), gradient


def _by_class_numbers(
    x, y, weights, gradient, losses, smoothing, z, has_ignore, ignored, mean, batch
):
    """Fill gradient and losses; the sum of the losses."""
    rows = losses.size
    classes = x.size // rows
    few = classes <= _FEW_CLASSES and smoothing == 0.0
    parallel = x.size > _PARALLEL_ELEMENTS and enter_parallel()
    try:
        if few and not parallel:
            wrong, total = _few(
                x, y, weights, z, has_ignore, ignored, mean, batch, gradient, losses
            )
        else:
            scales = np.empty(rows // batch, x.dtype)
            wrong = _scale_rows(y, weights, has_ignore, ignored, classes, mean, scales, rows)
            if wrong < 0:
                if parallel and rows < 2 * parallel_threads() and classes >= _SHARED_COLUMNS:
                    run = _shared_columns_parallel
                elif few:
                    run = _tiles_parallel
                else:
                    run = _rows_parallel if parallel else _rows
                run(x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses)
                total = _total(losses)
    finally:
        if parallel:
            leave_parallel()
    if wrong >= 0:
        raise DataError(
            f"`softmax_cross_entropy`: expected class numbers in 0…{classes - 1}, got "
            f"{y[wrong]} in row {wrong}; check the labels, or name it as ignore_index"
        )
    return total


def _by_probabilities(x, y, weights, gradient, losses, smoothing, z, mean, batch):
    """Fill gradient and losses; the sum of the losses."""
    scales = np.full(losses.size // batch, 1.0 / batch if mean else 1.0, x.dtype)
    parallel = x.size > _PARALLEL_ELEMENTS and enter_parallel()
    try:
        run = _probabilities_parallel if parallel else _probabilities
        run(x, y, weights, scales, smoothing, z, gradient, losses)
    finally:
        if parallel:
            leave_parallel()
    return _total(losses)


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


@compiled(nogil=True)
def _scale_rows(y, weights, has_ignore, ignored, classes, mean, scales, rows):
    """Fill in what each problem's rows are multiplied by; the first wrong class number, or −1."""
    batch = rows // scales.size
    for problem in range(scales.size):
        first = problem * batch if y.size == rows else 0
        total = 0.0
        if has_ignore or weights.size or not _all_below(y, first, first + batch, classes):
            for i in range(first, first + batch):
                if has_ignore and y[i] == ignored:
                    continue
                if y[i] < 0 or y[i] >= classes:
                    return i
                total += weights[y[i]] if weights.size else 1.0
        else:
            total += batch
        scales[problem] = 1.0 / total if mean and total > 0.0 else 1.0
    return -1


@njit(inline="always")
def _all_below(y, begin, end, limit):
    """Whether all these numbers are in 0 … limit−1; negative ones are large without a sign."""
    wrong = 0
    for i in range(np.uintp(begin), np.uintp(end)):
        wrong |= np.uint64(y[i]) >= np.uint64(limit)
    return wrong == 0


@compiled(nogil=True, fastmath={"reassoc"})
def _total(losses):
    """The sum, in double precision; the same for any number of threads."""
    total = 0.0
    for i in range(np.uintp(losses.size)):
        total += losses[i]
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


@compiled(fastmath={"contract"})
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


@njit(inline="always")
def _look_up_rows(
    tile, own, scale, hard, classes, first, count, y, rows, batch, weights, scales, has_ignore,
    ignored,
):  # fmt: skip
    """What the tile's columns are multiplied by, and where in it their own classes are."""
    real, width = tile.dtype.type, np.uintp(_TILE)
    for r in range(width):
        tile[scale + r] = real(0)  # stays so where a row does not count
        tile[hard + r] = real(0)
        own[r] = r
    problem, row = first // batch, first % batch
    for r in range(np.uintp(count)):
        if row == batch:
            problem, row = problem + 1, 0
        label = y[first + r] if y.size == rows else y[row]
        row += 1
        if has_ignore and label == ignored:
            for c in range(classes):
                tile[c * width + r] = real(0)  # whatever it was, NaN too
        else:
            own[r] = np.uintp(label) * width + r
            tile[scale + r] = scales[problem]
            tile[hard + r] = weights[label] if weights.size else real(1)


def _tiles_body(x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses):
    rows = losses.size
    batch = rows // scales.size
    classes = np.uintp(x.size // rows)
    real = gradient.dtype.type
    width, z = np.uintp(_TILE), real(z)
    for block in prange((rows + _TILE - 1) // _TILE):
        first = block * _TILE
        count = min(_TILE, rows - first)
        # A row for each class, and below them what each column, which is a row of x, comes to.
        tile = np.empty((classes + np.uintp(5)) * width, gradient.dtype)
        peak = classes * width
        total, scale = peak + width, peak + np.uintp(2) * width
        hard, loss = peak + np.uintp(3) * width, peak + np.uintp(4) * width
        own = np.empty(_TILE, np.uintp)  # where in the tile a row's own class is
        transpose_in(x, first * classes, count, classes, tile, _TILE)
        if scales.size == 1 and not weights.size and not has_ignore:
            for r in range(width):
                tile[scale + r] = scales[0]
                tile[hard + r] = real(1)
                own[r] = r
            for r in range(np.uintp(count)):
                own[r] = np.uintp(y[np.uintp(first) + r]) * width + r
        else:
            _look_up_rows(
                tile, own, scale, hard, classes, first, count, y, rows, batch, weights, scales,
                has_ignore, ignored,
            )  # fmt: skip
        for r in range(width):
            tile[peak + r] = tile[r]
            tile[total + r] = real(0)
            tile[loss + r] = tile[own[r]]
        # Eight classes at a time: fewer accesses to what is gathered, and smaller rounding errors.
        whole = classes - classes % _EIGHT
        for c in range(np.uintp(0), whole, _EIGHT):
            for r in range(width):
                most = tile[peak + r]
                for k in range(_EIGHT):
                    value = tile[(c + k) * width + r]
                    most = value if value > most else most
                tile[peak + r] = most
        for c in range(whole, classes):
            for r in range(width):
                value, most = tile[c * width + r], tile[peak + r]
                tile[peak + r] = value if value > most else most
        for c in range(np.uintp(0), whole, _EIGHT):
            for k in range(_EIGHT):
                for r in range(width):
                    tile[(c + k) * width + r] = exp_nonpositive(
                        tile[(c + k) * width + r] - tile[peak + r]
                    )
            for r in range(width):
                some = real(0)
                for k in range(_EIGHT):
                    some += tile[(c + k) * width + r]
                tile[total + r] += some
        for c in range(whole, classes):
            for r in range(width):
                e = exp_nonpositive(tile[c * width + r] - tile[peak + r])
                tile[c * width + r] = e
                tile[total + r] += e
        for r in range(width):
            log_total = log_positive(tile[total + r])
            lse = tile[peak + r] + log_total
            part = _hard_loss(tile[hard + r], log_total, tile[peak + r], tile[loss + r])
            tile[loss + r] = tile[scale + r] * (part + z * lse * lse)
            mass = tile[hard + r] + real(2) * z * lse
            tile[total + r] = tile[scale + r] * mass / tile[total + r]
            tile[hard + r] *= tile[scale + r]
        for c in range(classes):
            for r in range(width):
                tile[c * width + r] *= tile[total + r]
        for r in range(width):
            tile[own[r]] -= tile[hard + r]
        transpose_out(tile, _TILE, count, classes, gradient, first * classes)
        for r in range(np.uintp(count)):
            losses[np.uintp(first) + r] = tile[loss + r]


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
_tiles, _tiles_parallel = twins(_tiles_body, fastmath=_FAST, error_model="numpy")
_, _shared_columns_parallel = twins(_shared_columns_body, fastmath=_FAST)
_probabilities, _probabilities_parallel = twins(_probabilities_body, fastmath=_FAST)


def _few_body(x, y, weights, z, has_ignore, ignored, mean, batch, gradient, losses):
    """All of it in one call, for problems that take no longer than a few calls."""
    rows = losses.size
    scales = np.empty(rows // batch, gradient.dtype)
    classes = gradient.size // rows
    wrong = _scale_rows(y, weights, has_ignore, ignored, classes, mean, scales, rows)
    if wrong >= 0:
        return wrong, 0.0
    _tiles(x, y, weights, scales, 0.0, z, has_ignore, ignored, gradient, losses)
    return wrong, _total(losses)


_few = compiled(_few_body, nogil=True)
