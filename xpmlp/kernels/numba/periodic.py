"""Instructions for numbers as waves, and for what their frequencies' gradients are."""

from __future__ import annotations

import math

import numpy as np

from .records import FEATURES, Of, by_columns, by_rows, record

# Columns are the frequencies of all numbers, ``waves`` of each; a row of y has the sines and then
# the cosines of the first number, then those of the second.
_BATCH = {"x": Of("rows", "inputs", apart="apart"), "apart": int, "inputs": int, "waves": int}
_WIDE = Of(2, "rows", "columns")

Waves = record("Waves", **_BATCH, c=FEATURES, y=_WIDE)
WaveSlopes = record(
    "WaveSlopes", **_BATCH, c=FEATURES, y=_WIDE, dy=_WIDE, dc=FEATURES, dx=Of("rows", "inputs")
)


def _waves(a, first, last):
    """``sin 2πcx`` and ``cos 2πcx``, without the whole turns."""
    real, K = a.x.dtype.type, a.waves
    turn = real(2.0 * math.pi)
    for row in range(first, last):
        for f in range(a.inputs):
            x, begin = a.x[row * a.inputs + f], np.uintp(2) * (row * a.columns + f * K)
            for k in range(K):
                turns = x * a.c[f * K + k]
                angle = turn * (turns - np.rint(turns))
                a.y[begin + k] = np.sin(angle)
                a.y[begin + K + k] = np.cos(angle)


def _wave_slopes(a, first, last):
    """``dc = Σ 2πx (dsin·cos − dcos·sin)`` of some columns."""
    real, K = a.x.dtype.type, a.waves
    turn, sums = real(2.0 * math.pi), np.zeros(last - first)
    for row in range(a.rows):
        for f in range(first // K, (last + K - np.uintp(1)) // K):
            x, begin = turn * a.x[row * a.inputs + f], np.uintp(2) * (row * a.columns + f * K)
            for column in range(max(first, f * K), min(last, (f + np.uintp(1)) * K)):
                sine = begin + column - f * K
                cosine = sine + K
                slope = a.dy[sine] * a.y[cosine] - a.dy[cosine] * a.y[sine]
                sums[column - first] += x * slope
    for j in range(last - first):
        a.dc[first + j] = real(sums[j])


def _waves_backward(a, first, last):
    """``dx = Σ 2πc (dsin·cos − dcos·sin)`` of each row's numbers."""
    real, K = a.x.dtype.type, a.waves
    turn = real(2.0 * math.pi)
    for row in range(first, last):
        for f in range(a.inputs):
            begin, total = np.uintp(2) * (row * a.columns + f * K), real(0)
            for k in range(K):
                sine = begin + k
                cosine = sine + K
                slope = a.dy[sine] * a.y[cosine] - a.dy[cosine] * a.y[sine]
                total += a.c[f * K + k] * slope
            a.dx[row * a.inputs + f] = turn * total


waves = by_rows(Waves, _waves)
wave_slopes = by_columns(WaveSlopes, _wave_slopes)
waves_backward = by_rows(WaveSlopes, _waves_backward)
