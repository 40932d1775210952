"""Softmax cross-entropy of NumPy arrays: instructions, and the op that launches them.

One read of the logits, one write of the gradient: blocks of rows stay in the first-level cache from
their maxima to their scaled exponentials; what is one number for each row is worked out for a whole
block at once. Threads share the rows or, where there are few of very many classes, the columns.

With the notation of :func:`xpmlp.ops.softmax_cross_entropy`, a row's gradient is
``(Q + 2 z lse) p − q'`` and its loss ``Q lse − Σ q'_c logits_c + z lse²``, where ``Q = Σ q'_c``.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from ...errors import DataError
from .elementary import log_positive
from .launching import launch
from .records import (
    EACH_MEMBER,
    EACH_ROW,
    OUT,
    ROWS,
    Of,
    by_members,
    by_rows,
    of_member,
    record,
    sizes_of,
)
from .row_sums import total as sum_of
from .simd import LINE, address, stack_buffer
from .softmax_rows import exponentials, maximum, row_exponentials, row_maxima, scale_rows
from .sources import compiled
from .tape import instruction, vector
from .threads import enter_parallel, leave_parallel, parallel_threads

_BLOCK = 64  # rows in a block, or fewer, so that it holds no more than this many elements
_BLOCK_ELEMENTS = 4096
_NUMBERS = 8 * _BLOCK  # bytes for a number for each row of a block
_ALL_NUMBERS = 8 * _NUMBERS
_SHORT_ROWS = LINE * _BLOCK  # bytes for a vector for each row of a block
_PARALLEL_ELEMENTS = 100_000  # with fewer, waking a second thread takes longer than it saves
_SHARED_COLUMNS = 16_384
_INT64 = np.dtype(np.int64)

_OPTIONS = {
    "weights": Of("columns", shared=True), "weighted": int, "smoothing": Of(dtype="float64"),
    "z": Of(dtype="float64", shared=True),
}  # fmt: skip
_RESULTS = {"gradient": ROWS, "losses": EACH_ROW, "total": OUT}
CrossEntropy = record(
    "CrossEntropy", x=ROWS, labels=Of("rows", dtype="int64", apart="apart"), apart=int, **_OPTIONS,
    has_ignore=int, ignored=int, mean=int, scale=OUT, **_RESULTS,
)  # fmt: skip
"""Of class numbers; ``apart`` is 0 where all members share them."""
SharesEntropy = record(
    "SharesEntropy", x=ROWS, targets=Of("rows", "columns", apart="apart"), apart=int, **_OPTIONS,
    scale=EACH_MEMBER, **_RESULTS,
)  # fmt: skip
"""Of target probabilities."""


def softmax_cross_entropy(
    logits, targets, *, label_smoothing, ignore_index, class_weights, z_loss, reduction
):
    """The kernel, with the signature and the results of the op's reference.

    Raises
    ------
    DataError
        If a class number is outside of 0…C−1 and not ``ignore_index``.
    """
    shape, dtype, smoothing = logits.shape, logits.dtype, label_smoothing
    rows, classes = shape[-2:]
    gradient, losses, members = np.empty(shape, dtype), np.empty(shape[:-1], dtype), 1
    if len(shape) > 2:
        members = losses.size // rows
        smoothing = np.broadcast_to(np.ravel(smoothing), members).astype(np.float64)
    totals, scales = np.empty(members, dtype), np.empty(members, dtype)
    mean = 1 if reduction == "mean" else 0
    weights, weighted = (0, 0) if class_weights is None else (class_weights, 1)
    worth_it = logits.size > _PARALLEL_ELEMENTS
    if targets.dtype.kind == "f":
        apart = rows * classes if targets.ndim == len(shape) else 0
        scales.fill(1.0 / rows if mean else 1.0)
        given = SharesEntropy.plain(
            members, rows, classes, logits, targets, apart, weights, weighted, smoothing, z_loss,
            scales, gradient, losses, totals,
        )  # fmt: skip
        launch(_of_shares(dtype), given, worth_it=worth_it)
    else:
        apart = rows if targets.ndim == len(shape) - 1 else 0
        labels = targets if targets.dtype == _INT64 else _labels(targets)
        has_ignore, ignored = (0, 0) if ignore_index is None else (1, ignore_index)
        given = CrossEntropy.plain(
            members, rows, classes, logits, labels, apart, weights, weighted, smoothing, z_loss,
            has_ignore, ignored, mean, scales, gradient, losses, totals,
        )  # fmt: skip
        steps = _of_labels(dtype)
        if not worth_it:
            wrong = launch(steps, given)
        else:
            wrong = launch(steps[0], given)
            if wrong == 0 and not _run_columns(given, dtype):
                launch(steps[1:], given, worth_it=True)
        if wrong:
            row = wrong - 1
            raise DataError(
                f"`softmax_cross_entropy`: expected class numbers in 0…{classes - 1}, got "
                f"{targets.reshape(-1)[row]} in row {row}; check the labels, or name it as "
                "ignore_index"
            )
    if reduction == "none":
        return losses, gradient
    return totals[0] if len(shape) == 2 else totals.reshape(shape[:-2]), gradient


def _labels(targets):
    """Class numbers as the instructions take them; a larger one than they know stays wrong."""
    if targets.dtype == np.uint64:
        targets = np.minimum(targets, np.uint64(np.iinfo(np.int64).max))
    return targets.astype(np.int64)


# --- Checks ---------------------------------------------------------------------------------------


@instruction
def check_labels(real):
    """1 + the first row with a wrong class number, or 0; fills each member's scale of rows."""

    def run(arguments, part, parts):
        members = sizes_of(arguments)[0]
        for member in range(members):
            a = of_member(arguments, CrossEntropy, member, real(0))
            wrong = _scale(a)
            if wrong >= 0:
                return 1 + member * np.intp(a.apart) + wrong
        return 0

    return run


check_labels.record = CrossEntropy


@njit(inline="always")
def _scale(a):
    """Fill in what a member's rows are multiplied by; the first wrong class number, or −1."""
    mass, ignored, classes = 0.0, np.intp(a.ignored), np.intp(a.columns)
    wrong = -1
    if a.has_ignore != 0 or a.weighted != 0 or not _all_below(a.labels, a.columns):
        for i in range(a.labels.size):
            label = a.labels[i]
            if a.has_ignore != 0 and label == ignored:
                continue
            if label < 0 or label >= classes:
                wrong = i
                break
            mass += a.weights[label] if a.weighted != 0 else 1.0
    else:
        mass += a.labels.size
    a.scale[0] = 1.0 / mass if a.mean != 0 and mass > 0.0 else 1.0
    return wrong


@njit(inline="always")
def _all_below(labels, limit):
    """Whether all these numbers are in 0 … limit−1; negative ones are large without a sign."""
    wrong = 0
    for i in range(np.uintp(labels.size)):
        wrong |= np.uint64(labels[i]) >= np.uint64(limit)
    return wrong == 0


# --- Rows -----------------------------------------------------------------------------------------

# Arrays are indexed without a sign, which spares the check for negative indices. Sums run in as
# many partial sums as vectors have lanes ("reassoc"); what that would harm is in functions of
# scalars, with options of their own.

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
def _finish_block(a, first, count, powers, stride, numbers):
    """Turn a block's peaks, totals and exponentials into losses and gradient."""
    real = a.gradient.dtype.type
    smoothing, z, ignored = real(a.smoothing), real(a.z), np.intp(a.ignored)
    classes, first = np.uintp(a.columns), np.uintp(first)
    peak, total = _numbers(numbers, 0, real(0)), _numbers(numbers, 1, real(0))
    scale, hard = _numbers(numbers, 2, real(0)), _numbers(numbers, 3, real(0))
    logit, log_total = _numbers(numbers, 4, real(0)), _numbers(numbers, 5, real(0))
    own = _numbers(numbers, 6, np.uintp(0))  # where the row's own class is
    n, keep = np.uintp(count), real(1) - smoothing
    for r in range(n):
        label = a.labels[first + r]
        counts = a.has_ignore == 0 or label != ignored
        label = np.uintp(label) if counts else np.uintp(0)
        own[r] = (first + r) * classes + label
        logit[r] = a.x[own[r]]
        scale[r] = a.scale[0] if counts else real(0)
        hard[r] = keep * a.weights[label] if a.weighted != 0 else keep
    soft = real(0)  # the mass that label smoothing gives to all classes together
    if smoothing != 0:
        soft = smoothing
        if a.weighted != 0:
            soft = smoothing * (sum_of(a.weights) / classes)
    for r in range(n):
        log_total[r] = log_positive(total[r])
        lse = peak[r] + log_total[r]
        loss = _hard_loss(hard[r], log_total[r], peak[r], logit[r])
        a.losses[first + r] = scale[r] * (loss + _drift(z, lse))
        total[r] = scale[r] * (hard[r] + soft + real(2) * z * lse) / total[r]
        hard[r] *= scale[r]
    to = address(a.gradient) + first * classes * a.gradient.itemsize
    scale_rows(real(0), powers, stride, count, classes, address(total), to)
    for r in range(n):
        a.gradient[own[r]] -= hard[r]
    if smoothing != 0:
        even = smoothing / real(classes)
        for r in range(n):
            begin, wide = (first + r) * classes, 0.0  # a sum over all classes
            for c in range(classes):
                share = even * a.weights[c] if a.weighted != 0 else even
                wide += _hard_loss(share, log_total[r], peak[r], a.x[begin + c])
                a.gradient[begin + c] -= scale[r] * share
            a.losses[first + r] += scale[r] * real(wide)
    if a.has_ignore != 0:
        for r in range(n):
            if scale[r] == 0:  # whatever the logits were, NaN too
                begin = (first + r) * classes
                a.gradient[begin : begin + classes] = 0
                a.losses[first + r] = 0


def _cross_entropy(a, first, last):
    """Loss of each row and gradient of softmax cross-entropy with class numbers."""
    real, size, classes = a.x.dtype.type, a.x.itemsize, np.intp(a.columns)
    block = _BLOCK
    while block > 1 and block * classes > _BLOCK_ELEMENTS:
        block //= 2
    short = classes * size < LINE
    for top in range(np.intp(first), np.intp(last), block):
        numbers, powers, stride = (
            stack_buffer(_ALL_NUMBERS),
            stack_buffer(_SHORT_ROWS),
            LINE // size,
        )
        count, begin = min(block, np.intp(last) - top), top * classes * size
        if not short:
            powers, stride = address(a.gradient) + begin, classes
        peaks, totals, x = numbers, numbers + _NUMBERS, address(a.x) + begin
        row_maxima(real(0), x, count, classes, peaks)
        row_exponentials(real(0), x, count, classes, peaks, powers, stride, totals)
        _finish_block(a, top, count, powers, stride, numbers)


def _cross_entropy_of_shares(a, first, last):
    """Loss of each row and gradient of softmax cross-entropy with target probabilities."""
    real, classes = a.x.dtype.type, a.columns
    keep, even = real(1 - a.smoothing), real(a.smoothing) / real(classes)
    for i in range(first, last):
        begin = i * classes
        at = begin * a.x.itemsize
        peak = maximum(address(a.x) + at, classes, real(0))
        total = exponentials(address(a.x) + at, classes, peak, address(a.gradient) + at)
        log_total = log_positive(total)
        lse = peak + log_total
        mass, loss = 0.0, 0.0
        for c in range(classes):
            share = keep * a.targets[begin + c] + even
            if a.weighted != 0:
                share *= a.weights[c]
            mass += share
            loss += _hard_loss(share, log_total, peak, a.x[begin + c])
        factor = real((mass + 2.0 * a.z * lse) / total)
        for c in range(classes):
            share = keep * a.targets[begin + c] + even
            if a.weighted != 0:
                share *= a.weights[c]
            a.gradient[begin + c] = a.scale * (a.gradient[begin + c] * factor - share)
        a.losses[i] = a.scale * (loss + _drift(a.z, lse))


def _summed(a, first, last):
    """Each member's loss from those of its rows."""
    a.total[0] = a.total.dtype.type(sum_of(a.losses))


cross_entropy = by_rows(CrossEntropy, _cross_entropy, unit=64, fastmath=_FAST)
cross_entropy_of_shares = by_rows(SharesEntropy, _cross_entropy_of_shares, fastmath=_FAST)
total_loss = by_members(CrossEntropy, _summed, name="_summed")
total_loss_of_shares = by_members(SharesEntropy, _summed, name="_summed_of_shares")


@cache
def _of_labels(dtype):
    return check_labels(dtype), cross_entropy(dtype), total_loss(dtype)


@cache
def _of_shares(dtype):
    return cross_entropy_of_shares(dtype), total_loss_of_shares(dtype)


# --- Few rows of very many classes ----------------------------------------------------------------


def _run_columns(given, dtype):
    """Let threads share the columns, where that is better; whether it was."""
    named = CrossEntropy(*given)
    few = named.rows < 2 * parallel_threads() and named.columns >= _SHARED_COLUMNS
    if named.members > 1 or not few or not enter_parallel():
        return False
    weights = named.weights if named.weighted else np.zeros(0, dtype)
    block = _Block(
        named.x.ravel(), named.labels.ravel(), weights.ravel(), named.weighted, named.has_ignore,
        named.ignored, named.columns, np.float64(np.ravel(named.smoothing)[0]), float(named.z),
        named.scale, named.gradient.ravel(), named.losses.ravel(),
    )  # fmt: skip
    try:
        _shared_columns(block)
    finally:
        leave_parallel()
    named.total[0] = named.losses.sum(dtype=np.float64)
    return True


class _Block(NamedTuple):
    """What :func:`_finish_block` needs, of one problem."""

    x: Any
    labels: Any
    weights: Any
    weighted: int
    has_ignore: int
    ignored: int
    columns: int
    smoothing: float
    z: float
    scale: Any
    gradient: Any
    losses: Any


@compiled(nogil=True, parallel=True, fastmath=_FAST, error_model="numpy")
def _shared_columns(a):
    x, gradient, labels, classes = a.x, a.gradient, a.labels, a.columns
    rows, size, real = labels.size, gradient.itemsize, gradient.dtype.type
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
        _finish_block(a, i, 1, to, classes, numbers)
