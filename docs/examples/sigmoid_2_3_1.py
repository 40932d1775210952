"""One step of gradient descent through a 2-3-1 network, with every number on the table.

The network has two inputs, three hidden units and one output, a sigmoid after each layer::

    z1 = x W + b1        W (2, 3)      z2 = h V + b2        V (3, 1)
    h  = σ(z1)                         y  = σ(z2)

    E  = ½ Σ (t − y)²    the error for target t

with x = (0.4, 0.5), t = 1 and the weights written below. Backpropagation runs the same path in
reverse. Each line takes the gradient of E with respect to one quantity and hands it on::

    dE/dy  = y − t                     from E = ½ (t − y)²
    dE/dz2 = dE/dy ⊙ y (1 − y)         σ′ = σ (1 − σ)
    dE/dV  = hᵀ dE/dz2                 every weight: what came in × what is wanted
    dE/db2 = dE/dz2
    dE/dh  = dE/dz2 Vᵀ                 the error, carried back through the same weights
    dE/dz1 = dE/dh ⊙ h (1 − h)
    dE/dW  = xᵀ dE/dz1
    dE/db1 = dE/dz1

and each weight moves against its gradient: ``w ← w − 0.01 · dE/dw``.

Run it: ``python docs/examples/sigmoid_2_3_1.py``
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xpmlp.layers import Linear, Sigmoid
from xpmlp.losses import HalfSSE

LEARNING_RATE = 0.01

# One sample, so every array of activations has a batch axis of length 1: (N, D) with N = 1.
X = np.array([[0.4, 0.5]])
T = np.array([[1.0]])

START = {
    "W": np.array([[0.1, 0.3, 0.5], [0.2, 0.4, 0.6]]),
    "b1": np.array([0.1, 0.2, 0.3]),
    "V": np.array([[0.1], [0.2], [0.3]]),
    "b2": np.array([0.1]),
}


def error(params: dict[str, np.ndarray]) -> float:
    """E as a plain function of the weights, in NumPy alone: what everything is checked against."""
    h = 1.0 / (1.0 + np.exp(-(X @ params["W"] + params["b1"])))
    y = 1.0 / (1.0 + np.exp(-(h @ params["V"] + params["b2"])))
    return float(0.5 * np.sum((T - y) ** 2))


def propagate(
    params: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All values from x to E, and dE/d(each of them) on the way back, by xpmlp's layers."""
    hidden, squash1 = Linear.from_arrays(params["W"], params["b1"]), Sigmoid()
    output, squash2 = Linear.from_arrays(params["V"], params["b2"]), Sigmoid()
    loss = HalfSSE()

    z1 = hidden.forward(X)  # x W + b1
    h = squash1.forward(z1)  # σ(z1)
    z2 = output.forward(h)  # h V + b2
    y = squash2.forward(z2)  # σ(z2)
    E = loss.forward(y, T)  # ½ (t − y)²

    dy = loss.backward()  # y − t
    dz2 = squash2.backward(dy)  # dy ⊙ y (1 − y)
    dh = output.backward(dz2)  # dz2 Vᵀ; assigns output.dW = hᵀ dz2 and output.db = dz2
    dz1 = squash1.backward(dh)  # dh ⊙ h (1 − h)
    hidden.backward(dz1)  # assigns hidden.dW = xᵀ dz1 and hidden.db = dz1

    values = {"z1": z1, "h": h, "z2": z2, "y": y, "E": E}
    grads = {"y": dy, "z2": dz2, "h": dh, "z1": dz1}
    grads |= {"V": output.dW, "b2": output.db, "W": hidden.dW, "b1": hidden.db}
    return values, grads


def update(params: dict[str, np.ndarray], grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``w ← w − 0.01 · dE/dw``: new arrays, the old ones stay as they are."""
    return {name: w - LEARNING_RATE * grads[name] for name, w in params.items()}


def finite_differences(
    function: Callable[[dict[str, np.ndarray]], float],
    params: dict[str, np.ndarray],
    step: float = 1e-5,
) -> dict[str, np.ndarray]:
    """``dE/dw ≈ (E(w + s) − E(w − s)) / 2s``, one weight after the other."""
    slopes = {name: np.zeros_like(w) for name, w in params.items()}
    for name, w in params.items():
        for index in np.ndindex(w.shape):
            nudge = np.zeros_like(w)
            nudge[index] = step
            above = function({**params, name: w + nudge})
            below = function({**params, name: w - nudge})
            slopes[name][index] = (above - below) / (2 * step)
    return slopes


def _print_values(title: str, values: dict[str, np.ndarray], prefix: str = "") -> None:
    print(f"\n{title}")
    for name, value in values.items():
        numbers = "  ".join(f"{number: .8f}" for number in np.ravel(value))
        print(f"  {prefix + name:<7} {numbers}")


def main() -> None:
    """Print the forward values, the gradients, and each weight before and after its step."""
    values, grads = propagate(START)
    after = update(START, grads)
    slopes = finite_differences(error, START)

    _print_values("Forward", {"x": X, **values})
    _print_values("Backward", {name: grads[name] for name in ("y", "z2", "h", "z1")}, "dE/d")

    print("\nWeights, one step of gradient descent with learning rate 0.01")
    print("  weight     before      dE/dw            finite diff.   after")
    for name in START:
        for index in np.ndindex(START[name].shape):
            label = f"{name}[{', '.join(map(str, index))}]"
            print(
                f"  {label:<8} {START[name][index]: .4f}    {grads[name][index]: .10f}   "
                f"{slopes[name][index]: .8f}   {after[name][index]: .10f}"
            )
    worst = max(float(np.abs(grads[name] - slopes[name]).max()) for name in START)
    print(f"\n  largest difference from finite differences: {worst:.1e}")
    print(f"  error before the step {error(START):.10f}, after {error(after):.10f}")


if __name__ == "__main__":
    main()
