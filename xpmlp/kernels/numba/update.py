"""Optimizer updates for NumPy arrays: every operand read once, every result written once.

Each rule is written once, as a ``…_range`` over the elements begin … end−1 of flat arrays. What an
op calls writes new arrays; the ``…_in_place`` functions, for compiled code that owns its arrays,
write into w and what the optimizer remembers.

All ranges have the arguments ``(w, g, *slots, new_w, *new_slots, begin, end, *rates, decay,
shrink, clip)``. begin and end are unsigned (``np.uintp``). Weight decay and clipping cost no pass
of their own: g counts as ``clip · g + decay · w``, and w as ``shrink · w`` where the step is taken.
Decay 0, shrink 1 and clip 1 are for none.

In w's precision from the start: then a member of a population, whose rates come in it, takes the
very steps it takes alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .threads import enter_parallel, leave_parallel
from .twins import twins

# A BLAS of its own has usually just run on all cores; waking ours pays for large parameters only.
_PARALLEL_ELEMENTS = 1_000_000
_BLOCK = 16_384  # elements a thread takes at a time

# Python's rule that a division by zero raises would put a branch into every loop, and LLVM makes
# no vectors of such loops.
OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy"}


def sgd_update(w, g, *, lr):
    """The kernel, with the signature and the results of the op's reference."""
    (new_w,) = _run(_sgd, (w, g), 1, (lr,))
    return new_w


def momentum_update(w, g, velocity, *, lr, momentum, nesterov):
    """The kernel, with the signature and the results of the op's reference."""
    return _run(_momentum, (w, g, velocity), 2, (lr, momentum, nesterov))


def adagrad_update(w, g, squares, *, lr, eps):
    """The kernel, with the signature and the results of the op's reference."""
    return _run(_adagrad, (w, g, squares), 2, (lr, eps))


def rmsprop_update(w, g, squares, *, lr, gain, eps):
    """The kernel, with the signature and the results of the op's reference."""
    return _run(_rmsprop, (w, g, squares), 2, (lr, gain, eps))


def adam_update(w, g, m, v, *, lr, gain1, gain2, correction1, correction2, eps):
    """The kernel, with the signature and the results of the op's reference."""
    return _run(_adam, (w, g, m, v), 3, (lr, gain1, gain2, correction1, correction2, eps))


def _run(ways, arrays, count, rates):
    """``count`` new arrays, all at once, or member by member where rates are arrays (P, 1, …)."""
    serial, parallel = ways
    w = arrays[0]
    results = tuple([np.empty(w.shape, w.dtype) for _ in range(count)])
    if any(isinstance(rate, np.ndarray) for rate in rates):
        columns = [np.broadcast_to(np.ravel(rate), len(w)).tolist() for rate in rates]
        for member, values in enumerate(zip(*columns, strict=True)):
            serial(*(a[member].reshape(-1) for a in (*arrays, *results)), *values)
        return results
    flat = [a.reshape(-1) for a in (*arrays, *results)]
    if w.size > _PARALLEL_ELEMENTS and enter_parallel():
        try:
            parallel(*flat, *rates)
        finally:
            leave_parallel()
    else:
        serial(*flat, *rates)
    return results


# --- The rules ------------------------------------------------------------------------------------

# A running mean moves from the nearer end, as ops.update._moved says: from the old value by the
# gain, or from the new one by the gain − 1.

# They become part of their callers as source, so that an array given both as w and as new_w is
# known to be one: only then does LLVM make a vector loop of it without asking whether they overlap.


@njit(inline="always")
def sgd_range(w, g, new_w, begin, end, lr, decay, shrink, clip):
    """``w ← w − lr g``."""
    real = w.dtype.type
    lr, decay, shrink, clip = real(lr), real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = clip * g[i] + decay * w[i] if decay != 0 else clip * g[i]
        new_w[i] = shrink * w[i] - lr * slope


@njit(inline="always")
def momentum_range(
    w, g, velocity, new_w, new_velocity, begin, end, lr, momentum, nesterov, decay, shrink, clip
):
    """``v ← momentum v + g``; ``w ← w − lr v``, or ``w − lr (g + momentum v)`` with nesterov."""
    real = w.dtype.type
    lr, momentum = real(lr), real(momentum)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = clip * g[i] + decay * w[i] if decay != 0 else clip * g[i]
        v = momentum * velocity[i] + slope
        direction = slope + momentum * v if nesterov else v
        new_w[i] = shrink * w[i] - lr * direction
        new_velocity[i] = v


@njit(inline="always")
def adagrad_range(w, g, squares, new_w, new_squares, begin, end, lr, eps, decay, shrink, clip):
    """``s ← s + g²``; ``w ← w − lr g / (√s + ε)``."""
    real = w.dtype.type
    lr, eps = real(lr), real(eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = clip * g[i] + decay * w[i] if decay != 0 else clip * g[i]
        square = squares[i] + slope * slope
        new_w[i] = shrink * w[i] - lr * slope / (np.sqrt(square) + eps)
        new_squares[i] = square


@njit(inline="always")
def rmsprop_range(
    w, g, squares, new_w, new_squares, begin, end, lr, gain, eps, decay, shrink, clip
):
    """``s ← s + gain (g² − s)``; ``w ← w − lr g / (√s + ε)``."""
    real = w.dtype.type
    lr, gain, eps = real(lr), real(gain), real(eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    from_old = gain < real(0.5)
    way = gain if from_old else gain - real(1)
    for i in range(begin, end):
        slope = clip * g[i] + decay * w[i] if decay != 0 else clip * g[i]
        square = slope * slope
        square = (squares[i] if from_old else square) + way * (square - squares[i])
        new_w[i] = shrink * w[i] - lr * slope / (np.sqrt(square) + eps)
        new_squares[i] = square


@njit(inline="always")
def adam_range(
    w, g, m, v, new_w, new_m, new_v, begin, end,
    lr, gain1, gain2, correction1, correction2, eps, decay, shrink, clip,
):  # fmt: skip
    """``m ← m + gain₁ (g − m)``; ``v ← v + gain₂ (g² − v)``;
    ``w ← w − lr (m/c₁) / (√(v/c₂) + ε)``."""
    real = w.dtype.type
    rate, rest2 = real(lr) / real(correction1), real(1) / real(correction2)
    gain1, gain2, eps = real(gain1), real(gain2), real(eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    from_old1, from_old2 = gain1 < real(0.5), gain2 < real(0.5)
    way1 = gain1 if from_old1 else gain1 - real(1)
    way2 = gain2 if from_old2 else gain2 - real(1)
    for i in range(begin, end):
        slope = clip * g[i] + decay * w[i] if decay != 0 else clip * g[i]
        mean = (m[i] if from_old1 else slope) + way1 * (slope - m[i])
        square = slope * slope
        square = (v[i] if from_old2 else square) + way2 * (square - v[i])
        new_w[i] = shrink * w[i] - rate * mean / (np.sqrt(square * rest2) + eps)
        new_m[i] = mean
        new_v[i] = square


# --- In place, for compiled code ------------------------------------------------------------------


@njit(nogil=True, **OPTIONS)
def sgd_in_place(w, g, begin, end, lr, decay, shrink, clip):
    """:func:`sgd_range` into w."""
    sgd_range(w, g, w, begin, end, lr, decay, shrink, clip)


@njit(nogil=True, **OPTIONS)
def momentum_in_place(w, g, velocity, begin, end, lr, momentum, nesterov, decay, shrink, clip):
    """:func:`momentum_range` into w and velocity."""
    momentum_range(
        w, g, velocity, w, velocity, begin, end, lr, momentum, nesterov, decay, shrink, clip
    )  # fmt: skip


@njit(nogil=True, **OPTIONS)
def adagrad_in_place(w, g, squares, begin, end, lr, eps, decay, shrink, clip):
    """:func:`adagrad_range` into w and squares."""
    adagrad_range(w, g, squares, w, squares, begin, end, lr, eps, decay, shrink, clip)


@njit(nogil=True, **OPTIONS)
def rmsprop_in_place(w, g, squares, begin, end, lr, gain, eps, decay, shrink, clip):
    """:func:`rmsprop_range` into w and squares."""
    rmsprop_range(w, g, squares, w, squares, begin, end, lr, gain, eps, decay, shrink, clip)


@njit(nogil=True, **OPTIONS)
def adam_in_place(
    w, g, m, v, begin, end, lr, gain1, gain2, correction1, correction2, eps, decay, shrink, clip
):
    """:func:`adam_range` into w, m and v."""
    adam_range(
        w, g, m, v, w, m, v, begin, end,
        lr, gain1, gain2, correction1, correction2, eps, decay, shrink, clip,
    )  # fmt: skip


# --- Into new arrays, for the ops: each twice, serial and parallel --------------------------------


@njit(inline="always")
def _bounds(block, size):
    """Where a block begins and ends."""
    begin = np.uintp(block) * np.uintp(_BLOCK)
    return begin, min(np.uintp(size), begin + np.uintp(_BLOCK))


def _sgd_body(w, g, new_w, lr):
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        begin, end = _bounds(block, w.size)
        sgd_range(w, g, new_w, begin, end, lr, 0.0, 1.0, 1.0)


def _momentum_body(w, g, velocity, new_w, new_velocity, lr, momentum, nesterov):
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        begin, end = _bounds(block, w.size)
        momentum_range(
            w, g, velocity, new_w, new_velocity, begin, end, lr, momentum, nesterov, 0.0, 1.0, 1.0
        )


def _adagrad_body(w, g, squares, new_w, new_squares, lr, eps):
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        begin, end = _bounds(block, w.size)
        adagrad_range(w, g, squares, new_w, new_squares, begin, end, lr, eps, 0.0, 1.0, 1.0)


def _rmsprop_body(w, g, squares, new_w, new_squares, lr, gain, eps):
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        begin, end = _bounds(block, w.size)
        rmsprop_range(w, g, squares, new_w, new_squares, begin, end, lr, gain, eps, 0.0, 1.0, 1.0)


def _adam_body(w, g, m, v, new_w, new_m, new_v, lr, gain1, gain2, correction1, correction2, eps):
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        begin, end = _bounds(block, w.size)
        adam_range(
            w, g, m, v, new_w, new_m, new_v, begin, end,
            lr, gain1, gain2, correction1, correction2, eps, 0.0, 1.0, 1.0,
        )  # fmt: skip


_sgd = twins(_sgd_body, **OPTIONS)
_momentum = twins(_momentum_body, **OPTIONS)
_adagrad = twins(_adagrad_body, **OPTIONS)
_rmsprop = twins(_rmsprop_body, **OPTIONS)
_adam = twins(_adam_body, **OPTIONS)
