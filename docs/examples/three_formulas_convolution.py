"""Backpropagation in three formulas, for a convolution: every product written out.

The three formulas of ``three_formulas.py`` are those of any layer ``z = x W``, ``y = f(z)``::

    (1)  δ       = f′(z) · error
    (2)  error_x = δ · Wᵀ          handed back to the layer before
    (3)  dW      = xᵀ · δ          what to change the weights by

A convolution is such a layer, once its windows are written as rows. Here a 3 × 3 image meets one
2 × 2 filter, which has four places on it::

    x = x11 x12 x13      w = w11 w12      z = z11 z12
        x21 x22 x23          w21 w22          z21 z22
        x31 x32 x33

    z11 = x11 w11 + x12 w12 + x21 w21 + x22 w22
    z12 = x12 w11 + x13 w12 + x22 w21 + x23 w22
    z21 = x21 w11 + x22 w12 + x31 w21 + x32 w22
    z22 = x22 w11 + x23 w12 + x32 w21 + x33 w22

With ReLU behind it and E = ½ Σ (y − t)², the numbers are chosen so that the output's δ's are −0.1,
0.2 and 0.3, and 0 where ReLU lets nothing through.

Run it: ``python docs/examples/three_formulas_convolution.py``
"""

from __future__ import annotations

from itertools import product

import numpy as np

from xpmlp.layers import Conv2D, ReLU, Sequential
from xpmlp.losses import HalfSSE

X = np.array([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0], [2.0, 1.0, 0.5]])
W = np.array([[0.5, -1.0], [1.0, 0.2]])
ERROR = np.array([[-0.1, 0.7], [0.2, 0.3]])
"""y − t at each output; the target is what makes it so."""

PLACES = tuple(product(range(2), range(2)))
"""Of the filter on the image, and of a number in the filter."""


def relu(z: np.ndarray) -> np.ndarray:
    """``max(z, 0)``."""
    return np.maximum(z, 0.0)


# --- As sums: number by number --------------------------------------------------------------------


def forward_sums(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``z[h, k] = Σ_{i,j} x[h + i, k + j] · w[i, j]``."""
    z = np.zeros((2, 2))
    for (h, k), (i, j) in product(PLACES, PLACES):
        z[h, k] += x[h + i, k + j] * w[i, j]
    return z


def backward_sums(x: np.ndarray, w: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2) and (3): each product of the forward, met once more by each of its two factors.

    ``x[h + i, k + j] · w[i, j]`` is part of z[h, k]. So the number of x answers for
    ``δ[h, k] · w[i, j]`` of the error, and that of w for ``δ[h, k] · x[h + i, k + j]``.
    """
    error_x, dw = np.zeros((3, 3)), np.zeros((2, 2))
    for (h, k), (i, j) in product(PLACES, PLACES):
        error_x[h + i, k + j] += delta[h, k] * w[i, j]  # (2)
        dw[i, j] += delta[h, k] * x[h + i, k + j]  # (3)
    return error_x, dw


# --- As products: the windows as rows -------------------------------------------------------------


def windows(x: np.ndarray) -> np.ndarray:
    """The four windows as rows of four numbers: (4, 4)."""
    return np.stack([x[h : h + 2, k : k + 2].ravel() for h, k in PLACES])


def backward_products(
    x: np.ndarray, w: np.ndarray, delta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(2) and (3) as they stand, then each window's part goes back where it was copied from."""
    column = delta.reshape(4, 1)
    dw = windows(x).T @ column  # (3)
    parts = column @ w.reshape(1, 4)  # (2)
    error_x = np.zeros((3, 3))
    for (h, k), part in zip(PLACES, parts, strict=True):
        error_x[h : h + 2, k : k + 2] += part.reshape(2, 2)
    return error_x, dw.reshape(2, 2)


# --- The same, two other ways ---------------------------------------------------------------------


def layer_gradients(x: np.ndarray, w: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From :class:`xpmlp.layers.Conv2D`."""
    convolution = Conv2D(1, 1, 2, bias=False, dtype="float64")
    convolution.W = w[None, None]
    network, loss = Sequential(convolution, ReLU()), HalfSSE()
    loss.forward(network.forward(x[None, None]), t[None, None])
    error_x = network.backward(loss.backward())
    return error_x[0, 0], convolution.dW[0, 0]


def finite_differences(
    x: np.ndarray, w: np.ndarray, t: np.ndarray, step: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """From the definition of a derivative, number by number."""

    def value(x: np.ndarray, w: np.ndarray) -> float:
        return float(0.5 * np.sum((relu(forward_sums(x, w)) - t) ** 2))

    slopes = np.zeros_like(x), np.zeros_like(w)
    for which, (array, slope) in enumerate(zip((x, w), slopes, strict=True)):
        for index in np.ndindex(array.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = [x.copy(), w.copy()]
                moved[which][index] += sign * step
                ends.append(value(moved[0], moved[1]))
            slope[index] = (ends[0] - ends[1]) / (2.0 * step)
    return slopes


def solve() -> dict[str, np.ndarray]:
    """All numbers of the example, by name."""
    z = forward_sums(X, W)
    y = relu(z)
    delta = ERROR * (z > 0)  # (1)
    error_x, dw = backward_sums(X, W, delta)
    return {"z": z, "y": y, "t": y - ERROR, "delta": delta, "error_x": error_x, "dw": dw}


# --- Printing -------------------------------------------------------------------------------------


def _terms(pairs: list[tuple[float, float]]) -> str:
    return " + ".join(f"({a:g})·({b:g})" for a, b in pairs)


def written_out(delta: np.ndarray) -> list[str]:
    """Every product of the forward and of the formulas (2) and (3)."""
    lines = []
    for h, k in PLACES:
        pairs = [(X[h + i, k + j], W[i, j]) for i, j in PLACES]
        total = sum(a * b for a, b in pairs)
        lines.append(f"z{h + 1}{k + 1}       = {_terms(pairs)} = {total:.4g}")
    for r, c in np.ndindex(3, 3):
        met = [((h, k), (i, j)) for (h, k), (i, j) in product(PLACES, PLACES)]
        pairs = [(delta[p], W[q]) for p, q in met if (p[0] + q[0], p[1] + q[1]) == (r, c)]
        total = sum(a * b for a, b in pairs)
        lines.append(f"error_x{r + 1}{c + 1} = {_terms(pairs)} = {total:.4g}")
    for i, j in PLACES:
        pairs = [(X[h + i, k + j], delta[h, k]) for h, k in PLACES]
        total = sum(a * b for a, b in pairs)
        lines.append(f"dw{i + 1}{j + 1}      = {_terms(pairs)} = {total:.4g}")
    return lines


def main() -> None:
    """Print every number, and what the other ways give."""
    found = solve()
    for name, array in found.items():
        print(f"{name} =\n{np.array2string(array, precision=4)}")
    print("\nEvery product:")
    print("\n".join(written_out(found["delta"])))
    for name, other in (
        ("products", backward_products(X, W, found["delta"])),
        ("Conv2D", layer_gradients(X, W, found["t"])),
        ("finite differences", finite_differences(X, W, found["t"])),
    ):
        apart = max(
            float(np.abs(ours - theirs).max())
            for ours, theirs in zip((found["error_x"], found["dw"]), other, strict=True)
        )
        print(f"{name}: differ by at most {apart:.1e}")


if __name__ == "__main__":
    main()
