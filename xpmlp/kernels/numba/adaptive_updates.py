"""Instructions for the updates of Adam's relatives: as in :mod:`~.update`, in place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from .records import ROWS, record
from .update import STATE, AdamRates, updating


class NAdamRates(NamedTuple):
    """Of :func:`xpmlp.ops.nadam_update`."""

    lr: float
    ahead: float
    gain1: float
    gain2: float
    correction2: float
    eps: float
    decay: float
    shrink: float
    clip: float


class RAdamRates(NamedTuple):
    """Of :func:`xpmlp.ops.radam_update`."""

    lr: float
    adaptive: float
    gain1: float
    gain2: float
    eps: float
    decay: float
    shrink: float
    clip: float


class AdamaxRates(NamedTuple):
    """Of :func:`xpmlp.ops.adamax_update`."""

    lr: float
    gain1: float
    keep: float
    eps: float
    decay: float
    shrink: float
    clip: float


class AdadeltaRates(NamedTuple):
    """Of :func:`xpmlp.ops.adadelta_update`."""

    lr: float
    gain: float
    eps: float
    decay: float
    shrink: float
    clip: float


class LionRates(NamedTuple):
    """Of :func:`xpmlp.ops.lion_update`."""

    lr: float
    gain1: float
    gain2: float
    decay: float
    shrink: float
    clip: float


@njit(inline="always")
def _moved(old, new, gain):
    """A running mean's next value, from the nearer end."""
    from_old = gain < type(old)(0.5)
    way = gain if from_old else gain - type(old)(1)
    return (old if from_old else new) + way * (new - old)


@njit(inline="always")
def _slope(a, i, decay, clip):
    return clip * a.g[i] + decay * a.w[i] if decay != 0 else clip * a.g[i]


@njit(inline="always")
def _amsgrad(a, to, begin, end, decay, shrink, clip):
    real, r = a.w.dtype.type, a.rates
    rate, rest2 = real(r.lr) / real(r.correction1), real(1) / real(r.correction2)
    gain1, gain2, eps = real(r.gain1), real(r.gain2), real(r.eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = _slope(a, i, decay, clip)
        mean, square = _moved(a.m[i], slope, gain1), _moved(a.v[i], slope * slope, gain2)
        largest = np.maximum(a.u[i], square)
        to.w[i] = shrink * a.w[i] - rate * mean / (np.sqrt(largest * rest2) + eps)
        to.m[i], to.v[i], to.u[i] = mean, square, largest


@njit(inline="always")
def _nadam(a, to, begin, end, decay, shrink, clip):
    real, r = a.w.dtype.type, a.rates
    lr, ahead, rest2 = real(r.lr), real(r.ahead), real(1) / real(r.correction2)
    gain1, gain2, eps = real(r.gain1), real(r.gain2), real(r.eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = _slope(a, i, decay, clip)
        mean, square = _moved(a.m[i], slope, gain1), _moved(a.v[i], slope * slope, gain2)
        to.w[i] = shrink * a.w[i] - (lr * slope + ahead * mean) / (np.sqrt(square * rest2) + eps)
        to.m[i], to.v[i] = mean, square


@njit(inline="always")
def _radam(a, to, begin, end, decay, shrink, clip):
    real, r = a.w.dtype.type, a.rates
    lr, adaptive = real(r.lr), real(r.adaptive)
    gain1, gain2, eps = real(r.gain1), real(r.gain2), real(r.eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = _slope(a, i, decay, clip)
        mean, square = _moved(a.m[i], slope, gain1), _moved(a.v[i], slope * slope, gain2)
        to.w[i] = shrink * a.w[i] - mean * (lr + adaptive / (np.sqrt(square) + eps))
        to.m[i], to.v[i] = mean, square


@njit(inline="always")
def _adamax(a, to, begin, end, decay, shrink, clip):
    real, r = a.w.dtype.type, a.rates
    lr, gain1, keep, eps = real(r.lr), real(r.gain1), real(r.keep), real(r.eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = _slope(a, i, decay, clip)
        mean = _moved(a.m[i], slope, gain1)
        largest = np.maximum(keep * a.v[i], abs(slope) + eps)
        to.w[i] = shrink * a.w[i] - lr * mean / largest
        to.m[i], to.v[i] = mean, largest


@njit(inline="always")
def _adadelta(a, to, begin, end, decay, shrink, clip):
    real, r = a.w.dtype.type, a.rates
    lr, gain, eps = real(r.lr), real(r.gain), real(r.eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = _slope(a, i, decay, clip)
        square = _moved(a.m[i], slope * slope, gain)
        move = slope * np.sqrt(a.v[i] + eps) / np.sqrt(square + eps)
        to.w[i] = shrink * a.w[i] - lr * move
        to.m[i], to.v[i] = square, _moved(a.v[i], move * move, gain)


@njit(inline="always")
def _lion(a, to, begin, end, decay, shrink, clip):
    real, r = a.w.dtype.type, a.rates
    lr, gain1, gain2 = real(r.lr), real(r.gain1), real(r.gain2)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = _slope(a, i, decay, clip)
        way = np.sign(_moved(a.m[i], slope, gain1))
        to.w[i] = shrink * a.w[i] - lr * way
        to.m[i] = _moved(a.m[i], slope, gain2)


AMSGrad = record("AMSGrad", **STATE, u=ROWS, rates=AdamRates)
NAdam = record("NAdam", **STATE, rates=NAdamRates)
RAdam = record("RAdam", **STATE, rates=RAdamRates)
Adamax = record("Adamax", **STATE, rates=AdamaxRates)
Adadelta = record("Adadelta", **STATE, rates=AdadeltaRates)
Lion = record("Lion", **STATE, rates=LionRates)

amsgrad, nadam = updating(AMSGrad, _amsgrad), updating(NAdam, _nadam)
radam, adamax = updating(RAdam, _radam), updating(Adamax, _adamax)
adadelta, lion = updating(Adadelta, _adadelta), updating(Lion, _lion)
