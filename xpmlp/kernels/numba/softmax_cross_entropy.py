"""Softmax cross-entropy for NumPy arrays: one read of the logits, one write of the gradient.

Blocks of rows stay in the first-level cache from their maxima to their scaled exponentials; what is
one number for each row is worked out for a whole block at once. Threads share the blocks, or, where
there are few rows of very many classes, the columns of each row.

With the notation of :func:`xpmlp.ops.softmax_cross_entropy`, a row's gradient is
``(Q + 2 z lse) p − q'`` and its loss ``Q lse − Σ q'_c logits_c + z lse²``, where ``Q = Σ q'_c``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ...errors import DataError
from .elementary import log_positive
from .simd import LINE, address, stack_buffer
from .softmax_rows import exponentials, maximum, row_exponentials, row_maxima, scale_rows
from .sources import compiled
from .tape import vector
from .threads import enter_parallel, leave_parallel, parallel_threads
from .twins import twins

_BLOCK = 64  # rows in a block, or fewer, so that it holds no more than this many elements
_BLOCK_ELEMENTS = 4096
_NUMBERS = 8 * _BLOCK  # bytes for a number for each row of a block
_ALL_NUMBERS = 8 * _NUMBERS
_SHORT_ROWS = LINE * _BLOCK  # bytes for a vector for each row of a block
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
    parallel = x.size > _PARALLEL_ELEMENTS and enter_parallel()
    try:
        if parallel:
            scales = np.empty(rows // batch, x.dtype)
            wrong = _scale_problems(y, weights, has_ignore, ignored, classes, mean, scales, rows)
            if wrong < 0:
                few = rows < 2 * parallel_threads() and classes >= _SHARED_COLUMNS
                run = _shared_columns_parallel if few else _rows_parallel
                run(x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses)
                total = _total(losses)
        else:
            wrong, total = _serial(
                x, y, weights, smoothing, z, has_ignore, ignored, mean, batch, gradient, losses
            )
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
def _scale_problems(y, weights, has_ignore, ignored, classes, mean, scales, rows):
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


# --- Pieces, which become part of the loops below as source ---------------------------------------

# Each real call would count references to its arrays, and two threads counting at one address wait
# for each other. Arrays are flat, row i from i·C to (i + 1)·C, and indexed without a sign, which
# spares the check for negative ones. Sums run in as many partial sums as vectors have lanes
# ("reassoc"); what that would harm is in functions of scalars, with options of their own.

_FAST = {"contract", "reassoc", "nsz"}


@compiled(fastmath={"contract"})
def _hard_loss(hard, log_total, peak, logit):
    """``hard · (lse − logit)``, formed so that large logits cancel first; 0 · inf is 0."""
    return hard * (log_total + (peak - logit)) if hard != 0 else hard


@njit(inline="always")
def _drift(z, lse):
    """``z lse²``; 0 without a z, also where the square would be infinite."""
    return z * lse * lse if z != 0 else z


@njit(inline="always")
def _numbers(start, which, like):
    """One number for each row of a block, the ``which``-th of those that start at an address."""
    return vector(start + which * _NUMBERS, _BLOCK, like)


@njit(inline="always")
def _finish_block(
    x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses,
    first, count, powers, stride, numbers,
):  # fmt: skip
    """Turn a block's peaks, totals and exponentials into losses and gradient."""
    real = gradient.dtype.type
    rows, classes = losses.size, np.uintp(x.size // losses.size)
    batch = rows // scales.size
    peak, total = _numbers(numbers, 0, real(0)), _numbers(numbers, 1, real(0))
    scale, hard = _numbers(numbers, 2, real(0)), _numbers(numbers, 3, real(0))
    logit, log_total = _numbers(numbers, 4, real(0)), _numbers(numbers, 5, real(0))
    own = _numbers(numbers, 6, np.uintp(0))  # where the row's own class is
    n, keep = np.uintp(count), real(1) - smoothing
    problem, row = first // batch, first % batch
    for r in range(n):
        if row == batch:
            problem, row = problem + 1, 0
        label = y[np.uintp(first) + r] if y.size == rows else y[row]
        row += 1
        counts = not has_ignore or label != ignored
        label = np.uintp(label) if counts else np.uintp(0)
        own[r] = (np.uintp(first) + r) * classes + label
        logit[r] = x[own[r]]
        scale[r] = scales[problem] if counts else real(0)
        hard[r] = keep * weights[label] if weights.size else keep
    soft = real(0)  # the mass that label smoothing gives to all classes together
    if smoothing != 0:
        soft = smoothing
        if weights.size:
            soft = smoothing * (_total(weights) / classes)
    for r in range(n):
        log_total[r] = log_positive(total[r])
        lse = peak[r] + log_total[r]
        loss = _hard_loss(hard[r], log_total[r], peak[r], logit[r])
        losses[np.uintp(first) + r] = scale[r] * (loss + _drift(z, lse))
        total[r] = scale[r] * (hard[r] + soft + real(2) * z * lse) / total[r]
        hard[r] *= scale[r]
    to = address(gradient) + first * classes * gradient.itemsize
    scale_rows(real(0), powers, stride, count, classes, address(total), to)
    for r in range(n):
        gradient[own[r]] -= hard[r]
    if smoothing != 0:
        even = smoothing / real(classes)
        for r in range(n):
            begin, wide = (np.uintp(first) + r) * classes, 0.0  # a sum over all classes
            for c in range(classes):
                share = even * weights[c] if weights.size else even
                wide += _hard_loss(share, log_total[r], peak[r], x[begin + c])
                gradient[begin + c] -= scale[r] * share
            losses[np.uintp(first) + r] += scale[r] * real(wide)
    if has_ignore:
        for r in range(n):
            if scale[r] == 0:  # whatever the logits were, NaN too
                begin = (np.uintp(first) + r) * classes
                gradient[begin : begin + classes] = 0
                losses[np.uintp(first) + r] = 0


# --- The ways, each compiled twice: serial, and with its prange in parallel -----------------------


def _rows_body(x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses):
    rows, size = losses.size, gradient.itemsize
    classes, real = x.size // rows, gradient.dtype.type
    smoothing, z = real(smoothing), real(z)
    block = _BLOCK
    while block > 1 and block * classes > _BLOCK_ELEMENTS:
        block //= 2
    short = classes * size < LINE
    for i in prange((rows + block - 1) // block):
        numbers, powers = stack_buffer(_ALL_NUMBERS), stack_buffer(_SHORT_ROWS)
        first, stride = i * block, LINE // size
        count, begin = min(block, rows - first), first * classes * size
        if not short:
            powers, stride = address(gradient) + begin, classes
        peaks, totals = numbers, numbers + _NUMBERS
        row_maxima(real(0), address(x) + begin, count, classes, peaks)
        row_exponentials(real(0), address(x) + begin, count, classes, peaks, powers, stride, totals)
        _finish_block(
            x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses,
            first, count, powers, stride, numbers,
        )  # fmt: skip


def _shared_columns_body(
    x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses
):
    rows, size = losses.size, gradient.itemsize
    classes, real = x.size // rows, gradient.dtype.type
    smoothing, z = real(smoothing), real(z)
    parts = 16  # fixed, so that the sums do not depend on the number of threads
    width = (classes + parts - 1) // parts
    some = np.empty(parts, gradient.dtype)
    numbers = stack_buffer(_ALL_NUMBERS)
    peak, total = _numbers(numbers, 0, real(0)), _numbers(numbers, 1, real(0))
    for i in range(rows):
        row, to = address(x) + i * classes * size, address(gradient) + i * classes * size
        for part in prange(parts):
            left = part * width
            right = min(classes, left + width)
            some[part] = maximum(row + left * size, right - left, real(0))
        highest = some[0]
        for part in range(parts):
            highest = some[part] if some[part] > highest else highest
        for part in prange(parts):
            left = part * width
            right = min(classes, left + width)
            some[part] = exponentials(row + left * size, right - left, highest, to + left * size)
        peak[0], total[0] = highest, real(0)
        for part in range(parts):
            total[0] += some[part]
        _finish_block(
            x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses,
            i, 1, to, classes, numbers,
        )  # fmt: skip


def _probabilities_body(x, y, weights, scales, smoothing, z, gradient, losses):
    rows, size = losses.size, gradient.itemsize
    batch = rows // scales.size
    classes, real = np.uintp(x.size // rows), gradient.dtype.type
    keep, even = real(1 - smoothing), real(smoothing) / real(classes)
    for i in prange(rows):
        begin = np.uintp(i) * classes
        # Shared targets start again with every problem.
        q = begin if y.size == x.size else np.uintp(i % batch) * classes
        scale = scales[i // batch]
        row, to = address(x) + begin * size, address(gradient) + begin * size
        peak = maximum(row, classes, real(0))
        total = exponentials(row, classes, peak, to)
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
        losses[i] = scale * (loss + _drift(z, lse))


_rows, _rows_parallel = twins(_rows_body, fastmath=_FAST, error_model="numpy")
_, _shared_columns_parallel = twins(_shared_columns_body, fastmath=_FAST, error_model="numpy")
_probabilities, _probabilities_parallel = twins(
    _probabilities_body, fastmath=_FAST, error_model="numpy"
)


@compiled(nogil=True)
def _serial(x, y, weights, smoothing, z, has_ignore, ignored, mean, batch, gradient, losses):
    """All of it in one call, for problems that take no longer than a few calls."""
    rows = losses.size
    scales = np.empty(rows // batch, gradient.dtype)
    classes = gradient.size // rows
    wrong = _scale_problems(y, weights, has_ignore, ignored, classes, mean, scales, rows)
    if wrong >= 0:
        return wrong, 0.0
    _rows(x, y, weights, scales, smoothing, z, has_ignore, ignored, gradient, losses)
    return wrong, _total(losses)
