"""Backpropagation in three formulas, and where they come from.

For a layer ``z = x W``, ``y = f(z)`` with samples as rows, courses boil backpropagation down to::

    (1)  δ            = f′(z) · error        how E answers to z
    (2)  error_hidden = δ · Wᵀ               the error, handed back to the layer before
    (3)  dW           = xᵀ · δ               and what to change the weights by

where ``error = dE/dy``, so δ = dE/dz by the chain rule. (2) and (3) are the same for every network.
Only (1) depends on loss and activation, for the last layer like this (t is the target)::

    E                          activation      error           f′           δ
    SSE  ½ Σ (y − t)²          sigmoid         y − t           y (1 − y)    (y − t) ⊙ y (1 − y)
                               ReLU            y − t           [z > 0]      (y − t) ⊙ [z > 0]
                               softmax         e = y − t       a matrix     y ⊙ (e − Σ e ⊙ y)
    cross-entropy
      −Σ t ln y                softmax         −t / y          a matrix     y − t
      −Σ t ln y + (1−t)ln(1−y) sigmoid         (y−t)/(y(1−y))  y (1 − y)    y − t

Two things to see. Softmax mixes all units of a row, so its f′ is a matrix (its Jacobian,
diag(y) − y yᵀ) and formula (1) is a product with it, not an elementwise one. And for cross-entropy
f′ cancels: δ = y − t, the simplest there is, and it does not vanish where a sigmoid is flat. ReLU
has no place under cross-entropy's logarithm, its output is no probability, but it is fine in the
hidden layer, where any of these can follow it.

**Signs.** Here error = y − t and the step is ``W ← W − r · dW``. Some tutorials write
error = t − y and *add* the step: two signs turned, the same thing. Turn only one of them and the
error goes up; :func:`turned_sign` shows it.

Run it: ``python docs/examples/three_formulas.py``
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xpmlp.layers import Layer, Linear, ReLU, Sequential, Sigmoid, Softmax
from xpmlp.losses import BCEWithLogits, HalfSSE, SoftmaxCrossEntropy
from xpmlp.random import Generator

Arrays = dict[str, np.ndarray]


# --- The formulas ---------------------------------------------------------------------------------


def sigmoid(z: np.ndarray) -> np.ndarray:
    """``1 / (1 + e⁻ᶻ)``."""
    return 1.0 / (1.0 + np.exp(-z))


def relu(z: np.ndarray) -> np.ndarray:
    """``max(z, 0)``."""
    return np.maximum(z, 0.0)


def softmax(z: np.ndarray) -> np.ndarray:
    """``eᶻ / Σ eᶻ`` over each row; the largest is taken off first, so that nothing overflows."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


ACTIVATIONS = {"sigmoid": sigmoid, "relu": relu, "softmax": softmax}


def delta(name: str, error: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Formula (1), ``f′(z) · error``, with f′ written through y = f(z)."""
    if name == "sigmoid":
        return error * y * (1.0 - y)
    if name == "relu":
        return error * (y > 0)
    # softmax: (diag(y) − y yᵀ) error, without ever forming the matrix
    return y * (error - np.sum(error * y, axis=-1, keepdims=True))


def sse(y: np.ndarray, t: np.ndarray) -> float:
    """``½ Σ (y − t)²``."""
    return float(0.5 * np.sum((y - t) ** 2))


def cross_entropy(name: str, y: np.ndarray, t: np.ndarray) -> float:
    """``−Σ t ln y`` for softmax; with the other half, ``(1 − t) ln(1 − y)``, for sigmoid."""
    value = -np.sum(t * np.log(y))
    if name == "sigmoid":
        value -= np.sum((1.0 - t) * np.log(1.0 - y))
    return float(value)


def error_of(loss: str, name: str, y: np.ndarray, t: np.ndarray) -> np.ndarray:
    """``dE/dy``, what formula (1) starts from."""
    if loss == "sse":
        return y - t
    return (y - t) / (y * (1.0 - y)) if name == "sigmoid" else -t / y


def gradients(
    loss: str, hidden: str, output: str, x: np.ndarray, t: np.ndarray, W: np.ndarray, V: np.ndarray
) -> Arrays:
    """The three formulas on ``h = f(x W)``, ``y = g(h V)``, for x (N, D), W (D, H), V (H, M)."""
    h = ACTIVATIONS[hidden](x @ W)
    y = ACTIVATIONS[output](h @ V)
    delta_out = delta(output, error_of(loss, output, y, t), y)  # (1)
    error_hidden = delta_out @ V.T  # (2)
    delta_hidden = delta(hidden, error_hidden, h)  # (1)
    return {
        "delta": delta_out,
        "V": h.T @ delta_out,  # (3)
        "W": x.T @ delta_hidden,  # (3)
    }


# --- The same, two other ways ---------------------------------------------------------------------


def layer_gradients(
    loss: str, hidden: str, output: str, x: np.ndarray, t: np.ndarray, W: np.ndarray, V: np.ndarray
) -> Arrays:
    """The same gradients from xpmlp's layers and losses.

    xpmlp's cross-entropies take z, *before* sigmoid or softmax, and give δ = y − t at once.
    """
    make: dict[str, Callable[[], Layer]] = {"sigmoid": Sigmoid, "relu": ReLU, "softmax": Softmax}
    first, second = Linear.from_arrays(W), Linear.from_arrays(V)
    if loss == "sse":
        activation = make[output]()
        network = Sequential(first, make[hidden](), second)
        measure = HalfSSE()
        measure.forward(activation.forward(network.forward(x)), t)
        delta_out = activation.backward(measure.backward())
    else:
        network = Sequential(first, make[hidden](), second)
        measure = (BCEWithLogits if output == "sigmoid" else SoftmaxCrossEntropy)(reduction="sum")
        measure.forward(network.forward(x), t)
        delta_out = measure.backward()
    network.backward(delta_out)
    return {"delta": delta_out, "V": second.dW, "W": first.dW}


def finite_differences(
    loss: str, hidden: str, output: str, x: np.ndarray, t: np.ndarray, W: np.ndarray, V: np.ndarray
) -> Arrays:
    """And once more from the definition of a derivative, weight by weight."""

    def value(W: np.ndarray, V: np.ndarray) -> float:
        y = ACTIVATIONS[output](ACTIVATIONS[hidden](x @ W) @ V)
        return sse(y, t) if loss == "sse" else cross_entropy(output, y, t)

    return {
        "W": numerical_gradient(lambda w: value(w, V), W),
        "V": numerical_gradient(lambda v: value(W, v), V),
    }


def numerical_gradient(
    function: Callable[[np.ndarray], float], w: np.ndarray, step: float = 1e-6
) -> np.ndarray:
    """``(E(w + s) − E(w − s)) / 2s`` for every element of w."""
    gradient = np.zeros_like(w)
    for index in np.ndindex(w.shape):
        nudge = np.zeros_like(w)
        nudge[index] = step
        gradient[index] = (function(w + nudge) - function(w - nudge)) / (2 * step)
    return gradient


CASES = tuple(
    (loss, hidden, output)
    for loss, output in (
        ("sse", "sigmoid"),
        ("sse", "relu"),
        ("sse", "softmax"),
        ("cross-entropy", "sigmoid"),
        ("cross-entropy", "softmax"),
    )
    for hidden in ("relu", "sigmoid")
)


def compare(loss: str, hidden: str, output: str) -> tuple[float, float]:
    """The largest differences from the layers and from finite differences, on random numbers."""
    rng = np.random.default_rng(0)
    x, W, V = rng.normal(size=(5, 4)), rng.normal(size=(4, 6)), rng.normal(size=(6, 3))
    t = softmax(rng.normal(size=(5, 3)))  # targets may be any probabilities, not only 0 and 1
    ours = gradients(loss, hidden, output, x, t, W, V)
    layers = layer_gradients(loss, hidden, output, x, t, W, V)
    slopes = finite_differences(loss, hidden, output, x, t, W, V)
    from_layers = max(float(np.abs(ours[k] - layers[k]).max()) for k in layers)
    from_slopes = max(float(np.abs(ours[k] - slopes[k]).max()) for k in slopes)
    return from_layers, from_slopes


# --- Worked loop 1: ReLU, then sigmoid, sum of squared errors, no biases --------------------------

# Exclusive or of the first two columns; the third is always 1 and does the work of a bias.
X1 = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
T1 = np.array([[0.0], [1.0], [1.0], [0.0]])


def start_relu_sigmoid(hidden: int = 16, seed: int = 0) -> Arrays:
    """W (3, hidden) and V (hidden, 1), normal numbers from a seed."""
    rng = Generator(seed)
    return {"W": rng.spawn().normal((3, hidden)), "V": rng.spawn().normal((hidden, 1))}


def train_relu_sigmoid(params: Arrays, rate: float = 0.5, steps: int = 2000) -> list[float]:
    """The loop, in formulas alone; ``params`` gets the trained arrays. Returns E at every step."""
    W, V = params["W"], params["V"]
    errors = []
    for _ in range(steps):
        h = relu(X1 @ W)
        y = sigmoid(h @ V)
        errors.append(sse(y, T1))

        delta_out = (y - T1) * y * (1.0 - y)  # (1) error y − t, f′ = y (1 − y)
        error_hidden = delta_out @ V.T  # (2)
        delta_hidden = error_hidden * (h > 0)  # (1) f′ = [z > 0]
        W, V = W - rate * X1.T @ delta_hidden, V - rate * h.T @ delta_out  # (3)
    params |= {"W": W, "V": V}
    return errors


def train_relu_sigmoid_layers(params: Arrays, rate: float = 0.5, steps: int = 2000) -> list[float]:
    """The same loop with xpmlp's layers."""
    first, second = Linear.from_arrays(params["W"]), Linear.from_arrays(params["V"])
    return _train_layers(first, second, ReLU(), X1, T1, params, rate, steps)


# --- Worked loop 2: sigmoid twice, with biases ----------------------------------------------------

X2, T2 = X1[:, :2], T1


def start_sigmoid_sigmoid(hidden: int = 4, seed: int = 0) -> Arrays:
    """W (2, hidden), V (hidden, 1) from a seed; biases b (hidden,) and c (1,) from 0."""
    rng = Generator(seed)
    return {
        "W": rng.spawn().normal((2, hidden)),
        "b": np.zeros(hidden),
        "V": rng.spawn().normal((hidden, 1)),
        "c": np.zeros(1),
    }


def train_sigmoid_sigmoid(params: Arrays, rate: float = 2.0, steps: int = 5000) -> list[float]:
    """The loop, in formulas alone. A bias is a weight whose input is always 1: db = Σ 1 · δ."""
    W, b, V, c = params["W"], params["b"], params["V"], params["c"]
    errors = []
    for _ in range(steps):
        h = sigmoid(X2 @ W + b)
        y = sigmoid(h @ V + c)
        errors.append(sse(y, T2))

        delta_out = (y - T2) * y * (1.0 - y)  # (1)
        error_hidden = delta_out @ V.T  # (2)
        delta_hidden = error_hidden * h * (1.0 - h)  # (1)
        V, c = V - rate * h.T @ delta_out, c - rate * delta_out.sum(axis=0)  # (3)
        W, b = W - rate * X2.T @ delta_hidden, b - rate * delta_hidden.sum(axis=0)  # (3)
    params |= {"W": W, "b": b, "V": V, "c": c}
    return errors


def train_sigmoid_sigmoid_layers(
    params: Arrays, rate: float = 2.0, steps: int = 5000
) -> list[float]:
    """The same loop with xpmlp's layers."""
    first = Linear.from_arrays(params["W"], params["b"])
    second = Linear.from_arrays(params["V"], params["c"])
    return _train_layers(first, second, Sigmoid(), X2, T2, params, rate, steps)


def _train_layers(
    first: Linear,
    second: Linear,
    activation: Layer,
    x: np.ndarray,
    t: np.ndarray,
    params: Arrays,
    rate: float,
    steps: int,
) -> list[float]:
    network, loss = Sequential(first, activation, second, Sigmoid()), HalfSSE()
    errors = []
    for _ in range(steps):
        errors.append(float(loss.forward(network.forward(x), t)))
        network.backward(loss.backward())
        network.params = {
            name: w - rate * network.grads[name] for name, w in network.params.items()
        }
    params |= {"W": first.W, "V": second.W}
    if first.b is not None:
        params |= {"b": first.b, "c": second.b}
    return errors


def turned_sign(steps: int = 200) -> tuple[float, float, float]:
    """E at the start, after steps of ``−r · dW``, and after steps with one sign turned."""
    errors = train_sigmoid_sigmoid(start_sigmoid_sigmoid(), rate=2.0, steps=steps)
    worse = train_sigmoid_sigmoid(start_sigmoid_sigmoid(), rate=-2.0, steps=steps)
    return errors[0], errors[-1], worse[-1]


def main() -> None:
    """Compare the formulas with layers and finite differences, then train with both."""
    print("Largest difference of the three formulas from …")
    print("  loss           hidden    output     xpmlp's layers   finite differences")
    for case in CASES:
        layers, slopes = compare(*case)
        print("  {:<14} {:<9} {:<10} {:>14.1e} {:>20.1e}".format(*case, layers, slopes))

    for title, start, formulas, layers in (
        ("ReLU–sigmoid", start_relu_sigmoid, train_relu_sigmoid, train_relu_sigmoid_layers),
        (
            "sigmoid–sigmoid with biases",
            start_sigmoid_sigmoid,
            train_sigmoid_sigmoid,
            train_sigmoid_sigmoid_layers,
        ),
    ):
        ours, theirs = start(), start()
        errors, same = formulas(ours), layers(theirs)
        apart = max(float(np.abs(ours[k] - theirs[k]).max()) for k in ours)
        print(f"\n{title}, exclusive or, SSE")
        for step in (0, 100, 500, len(errors) - 1):
            print(f"  step {step:5d}   by formulas {errors[step]:.8f}   by layers {same[step]:.8f}")
        print(f"  weights at the end differ by at most {apart:.1e}")

    first, down, up = turned_sign()
    print(f"\nFrom E = {first:.4f}, 200 steps: to {down:.4f}; with one sign turned, to {up:.4f}")


if __name__ == "__main__":
    main()
