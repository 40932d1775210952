"""Instructions of a training step: losses and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .activations import softplus
from .records import formula
from .softmax_cross_entropy import _probabilities, _rows, _scale_problems, _total
from .tape import element_share, instruction, integers, row_share, share, vector
from .tiles import constants


@instruction
def check_labels(real):
    """1 + the first row with a wrong class number, or 0; fills each member's scale of rows."""

    def run(arguments, part, parts):
        (
            y, problems, members, rows, classes, weights, weighted, has_ignore, ignored, mean,
            scales,
        ) = integers(arguments, 11)  # fmt: skip
        labels = vector(y, problems * rows, np.int64(0))
        shares = vector(weights, classes if weighted else 0, real(0))
        factors = vector(scales, members, real(0))
        return 1 + _scale_problems(
            labels, shares, has_ignore != 0, ignored, classes, mean != 0, factors, members * rows
        )

    return run


@instruction
def check_shares(real):
    """1 where a target is not in 0 … most, else 0."""

    def run(arguments, part, parts):
        targets, size, most = integers(arguments, 3)
        shares, bound = vector(targets, size, real(0)), real(vector(most, 1, np.float64(0))[0])
        wrong = 0
        for i in range(np.uintp(size)):
            wrong |= not (shares[i] >= 0 and shares[i] <= bound)
        return wrong

    return run


@instruction
def cross_entropy(real):
    """Loss of each row and gradient of softmax cross-entropy with class numbers."""

    def run(arguments, part, parts):
        (
            x, y, y_batch, members, rows, classes, weights, weighted, has_ignore, ignored,
            scales, smoothings, z_loss, gradient, losses,
        ) = integers(arguments, 15)  # fmt: skip
        size = constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 64)
        count = last - first
        if count <= 0:
            return 0
        shares = vector(weights, classes if weighted else 0, real(0))
        factors = vector(scales, members, real(0))
        smoothing = vector(smoothings, members, np.float64(0))
        z = vector(z_loss, 1, np.float64(0))[0]
        for member in range(first_member, last_member):
            row = member * rows + first
            logits = vector(x + row * classes * size, count * classes, real(0))
            labels = vector(y + (member * y_batch + first) * 8, count, np.int64(0))
            slopes = vector(gradient + row * classes * size, count * classes, real(0))
            values = vector(losses + row * size, count, real(0))
            scale = factors[member : member + 1]
            _rows(
                logits, labels, shares, scale, smoothing[member], z, has_ignore != 0, ignored,
                slopes, values,
            )  # fmt: skip
        return 0

    return run


@instruction
def hits(real):
    """For each member: in how many rows the largest output, the first of equals, is the label's."""

    def run(arguments, part, parts):
        x, y, y_batch, members, rows, classes, out = integers(arguments, 7)
        size = constants(real(0))[1]
        first, last = share(members, part, parts, 1)
        counts = vector(out, members, np.int64(0))
        for member in range(first, last):
            labels = vector(y + member * y_batch * 8, rows, np.int64(0))
            count = 0
            for row in range(rows):
                at = (member * rows + row) * classes * size
                outputs = vector(x + at, classes, real(0))
                best = 0
                for c in range(1, classes):
                    best = c if outputs[c] > outputs[best] else best
                count += labels[row] == best
            counts[member] = count
        return 0

    return run


@instruction
def cross_entropy_of_shares(real):
    """Loss of each row and gradient of softmax cross-entropy with target probabilities."""

    def run(arguments, part, parts):
        (
            x, y, y_batch, members, rows, classes, weights, weighted, scales, smoothings, z_loss,
            gradient, losses,
        ) = integers(arguments, 13)  # fmt: skip
        size = constants(real(0))[1]
        first_member, last_member, first, last = row_share(members, rows, part, parts, 1)
        count = last - first
        if count <= 0:
            return 0
        shares = vector(weights, classes if weighted else 0, real(0))
        factors = vector(scales, members, real(0))
        smoothing = vector(smoothings, members, np.float64(0))
        z = vector(z_loss, 1, np.float64(0))[0]
        for member in range(first_member, last_member):
            row = member * rows + first
            at, targets = row * classes * size, (member * y_batch + first * classes) * size
            _probabilities(
                vector(x + at, count * classes, real(0)),
                vector(y + targets, count * classes, real(0)), shares,
                factors[member : member + 1], smoothing[member], z,
                vector(gradient + at, count * classes, real(0)),
                vector(losses + row * size, count, real(0)),
            )  # fmt: skip
        return 0

    return run


# --- Sums over elements ---------------------------------------------------------------------------

# "reassoc": the sum over a row may run in the lanes of a vector. Its terms are functions with
# options of their own, in which nothing is reordered.


def _elementwise(function: Callable) -> Callable[..., int]:
    """Each row's part of ``factor · Σ f(y, t)``, and ``factor f′``.

    Of ``function(y, t, constant) -> (f, f′)``.
    """

    @partial(instruction, fastmath={"reassoc", "nsz"})
    def loss(real):
        def run(arguments, part, parts):
            y, t, t_batch, members, rows, columns, options, gradient, losses = integers(
                arguments, 9
            )
            size = constants(real(0))[1]
            factor, constant = vector(options, 2, np.float64(0))
            f, c = real(factor), real(constant)
            first, last = element_share(members, rows, part, parts)
            for row in range(first, last):
                member, own = row // rows, row % rows
                outputs = vector(y + row * columns * size, columns, real(0))
                targets = vector(t + (member * t_batch + own * columns) * size, columns, real(0))
                slopes = vector(gradient + row * columns * size, columns, real(0))
                total = real(0)
                for j in range(np.uintp(columns)):
                    value, slope = function(outputs[j], targets[j], c)
                    total += value
                    slopes[j] = slope * f
                vector(losses + row * size, 1, real(0))[0] = total * f
            return 0

        return run

    return loss


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


ELEMENTWISE_LOSSES = {
    "squared": _elementwise(_squared),
    "half_squared": _elementwise(_half_squared),
    "absolute": _elementwise(_absolute),
    "huber": _elementwise(_huber),
    "binary": _elementwise(_binary),
}


# --- Other losses of class numbers ----------------------------------------------------------------


def _by_class(function: Callable) -> Callable[..., int]:
    """Each row's loss and gradient; a wrong class number is no class at all.

    Of ``function(outputs, label, constant, factor, gradient) -> loss``, in all of a row.
    """

    @instruction
    def loss(real):
        def run(arguments, part, parts):
            x, y, y_batch, members, rows, classes, options, gradient, losses = integers(
                arguments, 9
            )
            size = constants(real(0))[1]
            factor, constant = vector(options, 2, np.float64(0))
            first, last = element_share(members, rows, part, parts)
            for row in range(first, last):
                member, own = row // rows, row % rows
                label = vector(y + (member * y_batch + own) * 8, 1, np.int64(0))[0]
                at = row * classes * size
                outputs = vector(x + at, classes, real(0))
                slopes = vector(gradient + at, classes, real(0))
                value = function(outputs, label, real(constant), real(factor), slopes)
                vector(losses + row * size, 1, real(0))[0] = value * real(factor)
            return 0

        return run

    return loss


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


@instruction
def row_total(real):
    """Each member's loss from those of its rows."""

    def run(arguments, part, parts):
        losses, members, rows, out = integers(arguments, 4)
        size = constants(real(0))[1]
        first, last = share(members, part, parts, 1)
        totals = vector(out, members, real(0))
        for member in range(first, last):
            totals[member] = real(_total(vector(losses + member * rows * size, rows, real(0))))
        return 0

    return run
