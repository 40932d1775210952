"""Instructions for losses and their gradients, but for cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .activations import softplus
from .elementary import exp_nonpositive, log_positive
from .records import (
    EACH_ROW,
    NUMBER,
    OUT,
    ROWS,
    Of,
    by_members,
    by_rows,
    formula,
    of_member,
    record,
)
from .row_sums import total
from .tape import instruction

_LABELS = Of("rows", dtype="int64", apart="apart")  # 0 apart where members share them
_RESULTS = {"factor": NUMBER, "constant": NUMBER, "gradient": ROWS, "losses": EACH_ROW}
Elementwise = record(
    "Elementwise", y=ROWS, targets=Of("rows", "columns", apart="apart"), apart=int, **_RESULTS
)
ByClass = record("ByClass", x=ROWS, labels=_LABELS, apart=int, **_RESULTS)
Hits = record("Hits", x=ROWS, labels=_LABELS, apart=int, hits=Of(1, dtype="int64"))
RowTotal = record("RowTotal", losses=EACH_ROW, value=OUT)
Weighed = record(
    "Weighed", factors=Of("rows", apart="apart"), apart=int, gradient=ROWS, losses=EACH_ROW
)
Shares = record("Shares", targets=ROWS, most=NUMBER)


@instruction
def check_shares(real):
    """1 where a target is not in 0 … most, else 0."""

    def run(arguments, part, parts):
        a = of_member(arguments, Shares, 0, real(0))
        wrong = 0
        for i in range(a.rows * a.columns):
            wrong |= not (a.targets[i] >= 0 and a.targets[i] <= a.most)
        return wrong

    return run


check_shares.record = Shares


def _hits(a, first, last):
    """In how many rows the largest output, the first of equals, is the label's."""
    count = 0
    for row in range(a.rows):
        begin, best = row * a.columns, np.uintp(0)
        for c in range(np.uintp(1), a.columns):
            best = c if a.x[begin + c] > a.x[begin + best] else best
        count += a.labels[row] == np.intp(best)
    a.hits[0] = count


def _row_total(a, first, last):
    """Each member's loss from those of its rows."""
    a.value[0] = a.value.dtype.type(total(a.losses))


def _weighed(a, first, last):
    """Each row's loss and gradient times its factor; 0 where that is 0, whatever they were."""
    for row in range(first, last):
        begin, factor = row * a.columns, a.factors[row]
        if factor == 0:
            a.losses[row] = 0
            a.gradient[begin : begin + a.columns] = 0
        else:
            a.losses[row] *= factor
            for j in range(a.columns):
                a.gradient[begin + j] *= factor


hits, row_total = by_members(Hits, _hits), by_members(RowTotal, _row_total)
weighed = by_rows(Weighed, _weighed, unit=256)


# --- Sums over elements ---------------------------------------------------------------------------

# "reassoc": the sum over a row may run in the lanes of a vector. Its terms are functions with
# options of their own, in which nothing is reordered.


def _elementwise(function: Callable) -> Any:
    """Each row's part of ``factor · Σ f(y, t)``, and ``factor f′``.

    Of ``function(y, t, constant) -> (f, f′)``.
    """

    def loss(a, first, last):
        for row in range(first, last):
            begin, total = row * a.columns, a.y.dtype.type(0)
            for j in range(a.columns):
                value, slope = function(a.y[begin + j], a.targets[begin + j], a.constant)
                total += value
                a.gradient[begin + j] = slope * a.factor
            a.losses[row] = total * a.factor

    return by_rows(Elementwise, loss, unit=256, fastmath={"reassoc", "nsz"}, name=function.__name__)


@formula
def _sign(x):
    """The sign, 0 for 0 and NaN for NaN."""
    return type(x)(1) if x > 0 else (type(x)(-1) if x < 0 else x)


@formula
def _squared(y, t, c):
    d = y - t
    return d * d, d + d


@formula
def _half_squared(y, t, c):
    d = y - t
    return type(d)(0.5) * d * d, d


@formula
def _absolute(y, t, c):
    d = y - t
    return abs(d), _sign(d)


@formula
def _huber(y, t, delta):
    d = y - t
    size, half = abs(d), type(d)(0.5)
    return (half * d * d, d) if size <= delta else (delta * (size - half * delta), delta * _sign(d))


@formula
def _binary(y, t, c):
    value, slope = softplus(y, c)
    return value - t * y, slope - t


@formula
def _poisson(y, t, c):
    root = exp_nonpositive(type(y)(-0.5) * abs(y))  # of e⁻|y|, which may be below normal numbers
    root = root if y < 0 else type(y)(1) / root
    rate = root * root
    return rate - t * y, rate - t


@formula
def _divergence(y, t, c):
    some = t > 0
    logarithm = log_positive(t if some else type(t)(1))
    return t * (logarithm - y) if some else type(t)(0), -t


ELEMENTWISE_LOSSES = {
    "squared": _elementwise(_squared),
    "half_squared": _elementwise(_half_squared),
    "absolute": _elementwise(_absolute),
    "huber": _elementwise(_huber),
    "binary": _elementwise(_binary),
    "poisson": _elementwise(_poisson),
    "divergence": _elementwise(_divergence),
}


# --- Losses of class numbers ----------------------------------------------------------------------


def _by_class(function: Callable) -> Any:
    """Each row's loss and gradient; a wrong class number is no class at all.

    Of ``function(outputs, label, constant, factor, gradient) -> loss``, in all of a row.
    """

    def loss(a, first, last):
        for row in range(first, last):
            begin, end = row * a.columns, (row + np.uintp(1)) * a.columns
            outputs, slopes = a.x[begin:end], a.gradient[begin:end]
            value = function(outputs, a.labels[row], a.constant, a.factor, slopes)
            a.losses[row] = value * a.factor

    return by_rows(ByClass, loss, unit=256, name=function.__name__)


@formula
def _log_likelihood(outputs, label, c, factor, slopes):
    slopes[:] = 0
    if label < 0 or label >= outputs.size:
        return type(c)(0)
    slopes[label] = -factor
    return -outputs[label]


@formula
def _hinge(outputs, label, margin, factor, slopes):
    known = 0 <= label < outputs.size
    own = outputs[label] if known else type(margin)(0)
    total, count = type(margin)(0), type(margin)(0)
    for j in range(outputs.size):
        excess = outputs[j] - own + margin
        violated = excess > 0 and j != label
        total += excess * type(margin)(violated) if j != label else type(margin)(0)
        count += type(margin)(violated)
        slopes[j] = factor if violated else type(margin)(0)
    if known:
        slopes[label] = -count * factor
    return total


CLASS_LOSSES = {"log_likelihood": _by_class(_log_likelihood), "hinge": _by_class(_hinge)}
