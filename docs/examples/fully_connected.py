"""A coding exercise: write ``FullyConnected``, ``Sigmoid`` and ``Relu``, and have them graded.

The task, as courses set it:

* ``FullyConnected(W, b)`` has ``forward(x)`` and ``backward(dy)``. x has shape (B, d1, …, dk): any
  shape, as long as d1 · … · dk = D, the number of rows of W (D, M). The result is (B, M)::

      y = flat(x) W + b

      dx = dy Wᵀ, in x's shape       db = Σ over the batch of dy
      dW = flat(x)ᵀ dy               both kept as attributes, ``dW`` and ``db``

* ``Sigmoid`` and ``Relu`` work elementwise on any shape::

      y = 1 / (1 + e⁻ˣ)      dx = dy ⊙ y (1 − y)
      y = max(x, 0)          dx = dy where x > 0, else 0

* Answers must be right to 1e-5, and ``dy`` belongs to the caller: it must come back untouched. (The
  tempting ``dy[x <= 0] = 0`` passes the first test and spoils the caller's array.)

The classes below solve it with xpmlp's layers, which do all of this already: what is left is a few
lines each. :func:`grade` compares any three classes with answers that are computed another way, in
sums written out index by index; give it your own.

Run it: ``python docs/examples/fully_connected.py``
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpmlp.layers import Flatten, Linear, ReLU
from xpmlp.layers import Sigmoid as SigmoidLayer

TOLERANCE = 1e-5


class FullyConnected:
    """``y = flat(x) W + b`` for x (B, d1, …, dk), W (D, M), b (M,).

    ``Flatten`` makes x (B, D) whatever its shape, ``Linear`` multiplies, and on the way back they
    are undone in reverse order.
    """

    def __init__(self, W: np.ndarray, b: np.ndarray):
        self._flatten = Flatten()
        self._linear = Linear.from_arrays(W, b)

    @property
    def dW(self) -> np.ndarray:
        """Gradient of W (D, M), after a backward."""
        return self._linear.dW

    @property
    def db(self) -> np.ndarray:
        """Gradient of b (M,), after a backward."""
        return self._linear.db

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x (B, d1, …, dk) to (B, M)."""
        return self._linear.forward(self._flatten.forward(x))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dy (B, M) to dx (B, d1, …, dk)."""
        return self._flatten.backward(self._linear.backward(dy))


class Sigmoid(SigmoidLayer):
    """``1 / (1 + e⁻ˣ)``: the library's layer as it is."""


class Relu(ReLU):
    """``max(x, 0)``: the library's layer as it is."""


@dataclass(frozen=True)
class Mark:
    """One thing that was checked: what, how far it was off, and whether that is good enough."""

    what: str
    error: float
    passed: bool


def grade(
    fully_connected: Callable[..., Any] = FullyConnected,
    sigmoid: Callable[[], Any] = Sigmoid,
    relu: Callable[[], Any] = Relu,
    *,
    seed: int = 0,
) -> list[Mark]:
    """Check three classes on random inputs.

    Parameters
    ----------
    fully_connected, sigmoid, relu : class
        With ``forward`` and ``backward`` as the task describes.
    seed : int
        Another seed, other inputs.

    Returns
    -------
    list of Mark
        Two or more for each class; all must have ``passed``.
    """
    rng = np.random.default_rng(seed)
    marks: list[Mark] = []
    # One flat input, one like an image, and one whose *last* axis happens to be D.
    for shape in ((4, 6), (5, 2, 3, 4), (3, 1, 7)):
        features = math.prod(shape[1:])
        W, b = rng.normal(size=(features, 3)), rng.normal(size=3)
        x, dy = rng.normal(size=shape), rng.normal(size=(shape[0], 3))
        layer = fully_connected(W.copy(), b.copy())
        kept = dy.copy()
        got = {"y": layer.forward(x.copy()), "dx": layer.backward(dy)}
        got |= {"dW": layer.dW, "db": layer.db}
        want = _fully_connected_by_index(x, W, b, kept)
        marks += [_compare(f"FullyConnected {shape}: {k}", got[k], want[k]) for k in want]
        marks.append(_untouched(f"FullyConnected {shape}: dy untouched", dy, kept))
    for name, make, by_index in (
        ("Sigmoid", sigmoid, _sigmoid_by_index),
        ("Relu", relu, _relu_by_index),
    ):
        x, dy = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
        kept, layer = dy.copy(), make()
        got = {"y": layer.forward(x.copy()), "dx": layer.backward(dy)}
        want = by_index(x, kept)
        marks += [_compare(f"{name}: {k}", got[k], want[k]) for k in want]
        marks.append(_untouched(f"{name}: dy untouched", dy, kept))
    return marks


def _fully_connected_by_index(x, W, b, dy) -> dict[str, np.ndarray]:
    """The definition, one number at a time: slow, and hard to get wrong in the same way."""
    rows = [list(sample.ravel()) for sample in x]
    B, D, M = len(rows), *W.shape
    y = [[sum(rows[n][d] * W[d, m] for d in range(D)) + b[m] for m in range(M)] for n in range(B)]
    dx = [[sum(dy[n, m] * W[d, m] for m in range(M)) for d in range(D)] for n in range(B)]
    dW = [[sum(rows[n][d] * dy[n, m] for n in range(B)) for m in range(M)] for d in range(D)]
    db = [sum(dy[n, m] for n in range(B)) for m in range(M)]
    return {
        "y": np.array(y),
        "dx": np.array(dx).reshape(x.shape),
        "dW": np.array(dW),
        "db": np.array(db),
    }


def _sigmoid_by_index(x, dy) -> dict[str, np.ndarray]:
    y = np.array([1.0 / (1.0 + math.exp(-value)) for value in x.ravel()]).reshape(x.shape)
    return {"y": y, "dx": dy * y * (1.0 - y)}


def _relu_by_index(x, dy) -> dict[str, np.ndarray]:
    y = np.array([max(value, 0.0) for value in x.ravel()]).reshape(x.shape)
    dx = [d if value > 0 else 0.0 for value, d in zip(x.ravel(), dy.ravel(), strict=True)]
    return {"y": y, "dx": np.array(dx).reshape(x.shape)}


def _compare(what: str, got: Any, want: np.ndarray) -> Mark:
    if np.shape(got) != want.shape:
        return Mark(f"{what} has shape {np.shape(got)}, not {want.shape}", math.inf, False)
    error = float(np.max(np.abs(got - want)))
    return Mark(what, error, error <= TOLERANCE)  # NaN is not ≤ anything, so it fails


def _untouched(what: str, now: np.ndarray, before: np.ndarray) -> Mark:
    error = float(np.max(np.abs(now - before)))
    return Mark(what, error, error == 0.0)


def main() -> None:
    """Grade the classes of this file."""
    marks = grade()
    for mark in marks:
        print(f"  {'pass' if mark.passed else 'FAIL'}   error {mark.error:7.1e}   {mark.what}")
    print(f"\n{sum(mark.passed for mark in marks)} of {len(marks)} passed")


if __name__ == "__main__":
    main()
