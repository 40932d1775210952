"""Optimizer updates for NumPy arrays: every operand read once, every result written once."""

from __future__ import annotations

import numpy as np
from numba import prange

from .threads import enter_parallel, leave_parallel
from .twins import twins

# A BLAS of its own has usually just run on all cores; waking ours pays for large parameters only.
_PARALLEL_ELEMENTS = 1_000_000


def momentum_update(w, g, velocity, *, lr, momentum, nesterov):
    """The kernel, with the signature and the results of the op."""
    results = [np.empty(w.shape, w.dtype) for _ in range(2)]
    _run(_momentum, _momentum_parallel, (w, g, velocity, *results), (lr, momentum, nesterov))
    return tuple(results)


def adam_update(w, g, m, v, *, lr, gain1, gain2, correction1, correction2, eps):
    """The kernel, with the signature and the results of the op."""
    results = [np.empty(w.shape, w.dtype) for _ in range(3)]
    rates = lr, gain1, gain2, correction1, correction2, eps
    _run(_adam, _adam_parallel, (w, g, m, v, *results), rates)
    return tuple(results)


def _run(serial, parallel, arrays, hyperparameters):
    """All of it at once, or member by member where hyperparameters are arrays (P, 1, …)."""
    if any(isinstance(value, np.ndarray) for value in hyperparameters):
        columns = [np.broadcast_to(np.ravel(h), len(arrays[0])).tolist() for h in hyperparameters]
        for member, values in enumerate(zip(*columns, strict=True)):
            serial(*(a[member].reshape(-1) for a in arrays), *values)
        return
    flat = [a.reshape(-1) for a in arrays]
    if flat[0].size > _PARALLEL_ELEMENTS and enter_parallel():
        try:
            parallel(*flat, *hyperparameters)
        finally:
            leave_parallel()
    else:
        serial(*flat, *hyperparameters)


_BLOCK = 16_384  # elements a thread takes at a time


def _momentum_body(w, g, velocity, new_w, new_velocity, lr, momentum, nesterov):
    real = w.dtype.type
    lr, momentum = real(lr), real(momentum)
    size = np.uintp(w.size)
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        begin = np.uintp(block) * np.uintp(_BLOCK)
        for i in range(begin, min(size, begin + np.uintp(_BLOCK))):
            v = momentum * velocity[i] + g[i]
            new_velocity[i] = v
            direction = g[i] + momentum * v if nesterov else v
            new_w[i] = w[i] - lr * direction


def _adam_body(w, g, m, v, new_w, new_m, new_v, lr, gain1, gain2, correction1, correction2, eps):
    real = w.dtype.type
    # In w's precision from the start: then a member of a population, whose numbers come in it,
    # takes the very steps it takes alone.
    rate, rest2 = real(lr) / real(correction1), real(1) / real(correction2)
    gain1, gain2, eps = real(gain1), real(gain2), real(eps)
    size = np.uintp(w.size)
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        begin = np.uintp(block) * np.uintp(_BLOCK)
        for i in range(begin, min(size, begin + np.uintp(_BLOCK))):
            mean = m[i] + gain1 * (g[i] - m[i])
            square = v[i] + gain2 * (g[i] * g[i] - v[i])
            new_m[i], new_v[i] = mean, square
            new_w[i] = w[i] - rate * mean / (np.sqrt(square * rest2) + eps)


_momentum, _momentum_parallel = twins(_momentum_body, fastmath={"contract"})
_adam, _adam_parallel = twins(_adam_body, fastmath={"contract"})
