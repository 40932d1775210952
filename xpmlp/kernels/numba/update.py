"""Optimizer updates for NumPy arrays: every operand read once, every result written once.

Each rule is written once, over some elements of flat arrays, and made into two instructions: one
for a training step, which writes into w and what the optimizer remembers (m, and v), and one for
the op, which writes new arrays.

Weight decay and clipping cost no pass of their own: g counts as ``clip · g + decay · w``, and w as
``shrink · w`` where the step is taken. Decay 0, shrink 1 and clip 1 are for none.

In w's precision from the start: then a member of a population, whose rates come in it, takes the
very steps it takes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .gemm import TALL
from .launching import launch
from .records import ROWS, by_elements, by_rows, record

# A BLAS of its own has usually just run on all cores; waking ours pays for large parameters only.
_PARALLEL_ELEMENTS = 200_000
_CONTRACT = {"contract"}
_PLAIN = 0.0, 1.0, 1.0  # decay, shrink and clip of an op


# --- Rates, a row of them for each member; what the optimizers share comes last -------------------


class SGDRates(NamedTuple):
    """Of :func:`xpmlp.ops.sgd_update`."""

    lr: float
    decay: float
    shrink: float
    clip: float


class MomentumRates(NamedTuple):
    """Of :func:`xpmlp.ops.momentum_update`; nesterov is 0 or 1."""

    lr: float
    momentum: float
    nesterov: float
    decay: float
    shrink: float
    clip: float


class AdaGradRates(NamedTuple):
    """Of :func:`xpmlp.ops.adagrad_update`."""

    lr: float
    eps: float
    decay: float
    shrink: float
    clip: float


class RMSPropRates(NamedTuple):
    """Of :func:`xpmlp.ops.rmsprop_update`."""

    lr: float
    gain: float
    eps: float
    decay: float
    shrink: float
    clip: float


class AdamRates(NamedTuple):
    """Of :func:`xpmlp.ops.adam_update`."""

    lr: float
    gain1: float
    gain2: float
    correction1: float
    correction2: float
    eps: float
    decay: float
    shrink: float
    clip: float


# --- The ops --------------------------------------------------------------------------------------


# With the signature and the results of the op's reference. In place, the arrays themselves are the
# results, and nothing is returned.


def sgd_update(w, g, *, lr, in_place=False):
    """The kernel."""
    results = _run("sgd", in_place, (w, g), lr)
    return None if in_place else results[0]


def momentum_update(w, g, velocity, *, lr, momentum, nesterov, in_place=False):
    """The kernel."""
    return _run("momentum", in_place, (w, g, velocity), lr, momentum, nesterov)


def adagrad_update(w, g, squares, *, lr, eps, in_place=False):
    """The kernel."""
    return _run("adagrad", in_place, (w, g, squares), lr, eps)


def rmsprop_update(w, g, squares, *, lr, gain, eps, in_place=False):
    """The kernel."""
    return _run("rmsprop", in_place, (w, g, squares), lr, gain, eps)


def adam_update(w, g, m, v, *, lr, gain1, gain2, correction1, correction2, eps, in_place=False):
    """The kernel."""
    rates = lr, gain1, gain2, correction1, correction2, eps
    return _run("adam", in_place, (w, g, m, v), *rates)


def _run(rule, in_place, arrays, *rates):
    """A new array for w and each slot, or none; members apart where rates are arrays (P, 1, …)."""
    w, members = arrays[0], 1
    if np.ndarray in map(type, rates):
        members = len(w)
        columns = [np.broadcast_to(np.ravel(rate), members) for rate in (*rates, *_PLAIN)]
        rates = np.stack(columns, axis=1, dtype=np.float64).ravel()
    else:
        rates += _PLAIN
    size, spare = w.size // members, (w,) * (4 - len(arrays))  # in place of slots that are not
    if in_place:
        instruction, results = _IN_PLACE[rule], None
        given = instruction.record.plain(members, size, 1, *arrays, *spare, rates)
    else:
        instruction, results = _NEW[rule], tuple([np.empty(w.shape, w.dtype) for _ in arrays[1:]])
        written = *results, *spare
        given = instruction.record.plain(members, 1, size, *arrays, *spare, *written, rates)
    launch(instruction(w.dtype), given, worth_it=w.size > _PARALLEL_ELEMENTS)
    return results


# --- The rules ------------------------------------------------------------------------------------

# A running mean moves from the nearer end, as ops.update._moved says: from the old value by the
# gain, or from the new one by the gain − 1.

# ``a`` has the arrays before and the rates, ``to`` those after. They become part of the loops as
# source, so that an array in both is known to be one: only then does LLVM make a vector loop of it
# without asking whether they overlap.


@njit(inline="always")
def _sgd(a, to, begin, end, decay, shrink, clip):
    """``w ← w − lr g``."""
    real = a.w.dtype.type
    lr, decay, shrink, clip = real(a.rates.lr), real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = clip * a.g[i] + decay * a.w[i] if decay != 0 else clip * a.g[i]
        to.w[i] = shrink * a.w[i] - lr * slope


@njit(inline="always")
def _momentum(a, to, begin, end, decay, shrink, clip):
    """``v ← momentum v + g``; ``w ← w − lr v``, or ``w − lr (g + momentum v)`` with nesterov."""
    real = a.w.dtype.type
    lr, momentum, nesterov = real(a.rates.lr), real(a.rates.momentum), a.rates.nesterov != 0
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = clip * a.g[i] + decay * a.w[i] if decay != 0 else clip * a.g[i]
        v = momentum * a.m[i] + slope
        direction = slope + momentum * v if nesterov else v
        to.w[i] = shrink * a.w[i] - lr * direction
        to.m[i] = v


@njit(inline="always")
def _adagrad(a, to, begin, end, decay, shrink, clip):
    """``s ← s + g²``; ``w ← w − lr g / (√s + ε)``."""
    real = a.w.dtype.type
    lr, eps = real(a.rates.lr), real(a.rates.eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    for i in range(begin, end):
        slope = clip * a.g[i] + decay * a.w[i] if decay != 0 else clip * a.g[i]
        square = a.m[i] + slope * slope
        to.w[i] = shrink * a.w[i] - lr * slope / (np.sqrt(square) + eps)
        to.m[i] = square


@njit(inline="always")
def _rmsprop(a, to, begin, end, decay, shrink, clip):
    """``s ← s + gain (g² − s)``; ``w ← w − lr g / (√s + ε)``."""
    # Constants choose the loop: left to the compiler, what it takes out of it decides what is
    # fused with what, and so the last bits.
    if a.rates.gain < 0.5:
        if decay != 0:
            _rmsprop_loop(a, to, begin, end, decay, shrink, clip, True, True)
        else:
            _rmsprop_loop(a, to, begin, end, decay, shrink, clip, True, False)
    elif decay != 0:
        _rmsprop_loop(a, to, begin, end, decay, shrink, clip, False, True)
    else:
        _rmsprop_loop(a, to, begin, end, decay, shrink, clip, False, False)


@njit(inline="always")
def _rmsprop_loop(a, to, begin, end, decay, shrink, clip, from_old, decayed):
    real = a.w.dtype.type
    lr, gain, eps = real(a.rates.lr), real(a.rates.gain), real(a.rates.eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    way = gain if from_old else gain - real(1)
    for i in range(begin, end):
        slope = clip * a.g[i] + decay * a.w[i] if decayed else clip * a.g[i]
        square = slope * slope
        square = (a.m[i] if from_old else square) + way * (square - a.m[i])
        to.w[i] = shrink * a.w[i] - lr * slope / (np.sqrt(square) + eps)
        to.m[i] = square


@njit(inline="always")
def _adam(a, to, begin, end, decay, shrink, clip):
    """``m ← m + gain₁ (g − m)``; ``v ← v + gain₂ (g² − v)``;
    ``w ← w − lr (m/c₁) / (√(v/c₂) + ε)``."""
    real, r = a.w.dtype.type, a.rates
    rate, rest2 = real(r.lr) / real(r.correction1), real(1) / real(r.correction2)
    gain1, gain2, eps = real(r.gain1), real(r.gain2), real(r.eps)
    decay, shrink, clip = real(decay), real(shrink), real(clip)
    from_old1, from_old2 = gain1 < real(0.5), gain2 < real(0.5)
    way1 = gain1 if from_old1 else gain1 - real(1)
    way2 = gain2 if from_old2 else gain2 - real(1)
    for i in range(begin, end):
        slope = clip * a.g[i] + decay * a.w[i] if decay != 0 else clip * a.g[i]
        mean = (a.m[i] if from_old1 else slope) + way1 * (slope - a.m[i])
        square = slope * slope
        square = (a.v[i] if from_old2 else square) + way2 * (square - a.v[i])
        to.w[i] = shrink * a.w[i] - rate * mean / (np.sqrt(square * rest2) + eps)
        to.m[i] = mean
        to.v[i] = square


# --- The instructions -----------------------------------------------------------------------------

# Optimizers with fewer than two slots may give no address for m or v, and those are never read.
STATE = {name: ROWS for name in ("w", "g", "m", "v")}
_NEW = {f"new_{name}": ROWS for name in ("w", "m", "v")}


class _After(NamedTuple):
    w: Any
    m: Any
    v: Any


def updating(record: Any, rule: Callable) -> Any:
    """The rule's instruction in place, cut as the product that made g was, by rows."""

    def update(a, first, last):
        r = a.rates
        rule(a, a, first * a.columns, last * a.columns, r.decay, r.shrink, r.clip)

    update.__module__ = record.__module__  # where the rule is: its source tells whether code is old
    return by_rows(record, update, unit=TALL, fastmath=_CONTRACT, name=record.__name__)


def _into_new(record: Any, rule: Callable) -> Any:
    """What is added for decay and clipping falls out of the compiled loop."""

    def update(a, first, last):
        rule(a, _After(a.new_w, a.new_m, a.new_v), first, last, 0.0, 1.0, 1.0)

    return by_elements(record, update, fastmath=_CONTRACT, name=record.__name__)


SGD = record("SGD", **STATE, rates=SGDRates)
Momentum = record("Momentum", **STATE, rates=MomentumRates)
AdaGrad = record("AdaGrad", **STATE, rates=AdaGradRates)
RMSProp = record("RMSProp", **STATE, rates=RMSPropRates)
Adam = record("Adam", **STATE, rates=AdamRates)
NewSGD = record("NewSGD", **STATE, **_NEW, rates=SGDRates)
NewMomentum = record("NewMomentum", **STATE, **_NEW, rates=MomentumRates)
NewAdaGrad = record("NewAdaGrad", **STATE, **_NEW, rates=AdaGradRates)
NewRMSProp = record("NewRMSProp", **STATE, **_NEW, rates=RMSPropRates)
NewAdam = record("NewAdam", **STATE, **_NEW, rates=AdamRates)

_IN_PLACE = {
    "sgd": updating(SGD, _sgd),
    "momentum": updating(Momentum, _momentum),
    "adagrad": updating(AdaGrad, _adagrad),
    "rmsprop": updating(RMSProp, _rmsprop),
    "adam": updating(Adam, _adam),
}
sgd, momentum, adagrad, rmsprop, adam = _IN_PLACE.values()
_NEW = {
    "sgd": _into_new(NewSGD, _sgd),
    "momentum": _into_new(NewMomentum, _momentum),
    "adagrad": _into_new(NewAdaGrad, _adagrad),
    "rmsprop": _into_new(NewRMSProp, _rmsprop),
    "adam": _into_new(NewAdam, _adam),
}
