"""Instructions of group normalization, on images whose channels come last; sums in float64."""

from __future__ import annotations

import numpy as np
from numba import njit

from .records import FEATURES, NUMBER, Of, by_columns, by_rows, record
from .records import ROWS as EACH
from .tape import release, scratch

_X, _OF_GROUPS = Of("rows", "columns", apart="apart"), Of("rows", "groups")
GroupNorm = record(
    "GroupNorm", x=_X, apart=int, channels=int, groups=int, gamma=Of("channels"),
    beta=Of("channels"), eps=NUMBER, y=EACH, mean=_OF_GROUPS, inverse=_OF_GROUPS,
)  # fmt: skip
GroupNormBackward = record(
    "GroupNormBackward", dy=EACH, x=_X, apart=int, channels=int, groups=int, gamma=Of("channels"),
    mean=_OF_GROUPS, inverse=_OF_GROUPS, dx=EACH,
)  # fmt: skip
ChannelSlopes = record(
    "ChannelSlopes", pixels=int, dy=Of("rows", "pixels", "columns"),
    x=Of("rows", "pixels", "columns", apart="apart"), apart=int, groups=int, mean=_OF_GROUPS,
    inverse=_OF_GROUPS, dgamma=FEATURES, dbeta=FEATURES,
)  # fmt: skip
"""Columns are channels."""


@njit(inline="always")
def _moments(a, begin, group, each):
    """Mean and variance of a group of channels of the image that begins there."""
    pixels = a.columns // a.channels
    count, total = np.float64(pixels * each), 0.0
    for p in range(pixels):
        at = begin + p * a.channels + group * each
        for c in range(each):
            total += np.float64(a.x[at + c])
    mean, squares = total / count, 0.0
    for p in range(pixels):
        at = begin + p * a.channels + group * each
        for c in range(each):
            away = np.float64(a.x[at + c]) - mean
            squares += away * away
    return mean, squares / count


def _group_norm(a, first, last):
    """Group norm of each image; mean and inverse deviation are kept for the backward."""
    real, each = a.x.dtype.type, a.channels // a.groups
    for row in range(first, last):
        begin = row * a.columns
        for group in range(a.groups):
            mean, variance = _moments(a, begin, group, each)
            middle, inverse = real(mean), real(1.0 / np.sqrt(variance + np.float64(a.eps)))
            a.mean[row * a.groups + group], a.inverse[row * a.groups + group] = middle, inverse
            for p in range(a.columns // a.channels):
                at = begin + p * a.channels + group * each
                for c in range(each):
                    k = group * each + c
                    a.y[at + c] = (a.x[at + c] - middle) * inverse * a.gamma[k] + a.beta[k]


def _group_norm_backward(a, first, last):
    """``dx = (g − mean(g) − x̂ mean(g x̂)) / √(σ² + ε)`` with ``g = γ dy``."""
    real, each, pixels = a.x.dtype.type, a.channels // a.groups, a.columns // a.channels
    for row in range(first, last):
        begin = row * a.columns
        for group in range(a.groups):
            mean, inverse = a.mean[row * a.groups + group], a.inverse[row * a.groups + group]
            total, product = 0.0, 0.0
            for p in range(pixels):
                at = begin + p * a.channels + group * each
                for c in range(each):
                    slope = np.float64(a.dy[at + c] * a.gamma[group * each + c])
                    total += slope
                    product += slope * np.float64((a.x[at + c] - mean) * inverse)
            count = np.float64(pixels * each)
            level, tilt = real(total / count), real(product / count)
            for p in range(pixels):
                at = begin + p * a.channels + group * each
                for c in range(each):
                    slope = a.dy[at + c] * a.gamma[group * each + c]
                    along = (a.x[at + c] - mean) * inverse
                    a.dx[at + c] = (slope - level - along * tilt) * inverse


def _channel_slopes(a, first, last):
    """``dβ = Σ dy`` and ``dγ = Σ dy x̂`` of some channels."""
    real, each = a.x.dtype.type, a.columns // a.groups
    sums, products = scratch(last - first, 0.0), scratch(last - first, 0.0)
    for row in range(a.rows):
        for p in range(a.pixels):
            at = (row * a.pixels + p) * a.columns
            for c in range(first, last):
                of_group, slope = row * a.groups + c // each, a.dy[at + c]
                along = (a.x[at + c] - a.mean[of_group]) * a.inverse[of_group]
                sums[c - first] += np.float64(slope)
                products[c - first] += np.float64(slope * along)
    for c in range(first, last):
        a.dbeta[c], a.dgamma[c] = real(sums[c - first]), real(products[c - first])
    release(sums, products)


group_norm = by_rows(GroupNorm, _group_norm)
group_norm_backward = by_rows(GroupNormBackward, _group_norm_backward)
channel_slopes = by_columns(ChannelSlopes, _channel_slopes)
