"""A university lab's network for MNIST, put together by hand: FFN → ReLU → FFN → Softmax → Log.

The lab writes samples as *columns* and has no biases. N images (N, 28, 28) are flattened to
(N, 784), a column of ones is appended in place of the biases, and the whole is turned on its side::

    x   (785, N)      columns of pixels, the last row all ones
    a = W1 x          W1 (100, 785)     → (100, N)       da = …         dW1 = da xᵀ
    h = max(a, 0)                                        da = dh ⊙ [a > 0]
    s = W2 h          W2 (10, 100)      → (10, N)        dh = W2ᵀ ds    dW2 = ds hᵀ
    p = softmax(s)    down each column                   ds = p ⊙ (dp − Σ dp ⊙ p)
    ℓ = ln p                                             dp = dℓ / p

The loss is the mean cross-entropy with one-hot labels t, plus the *norms* of the weights (not their
squares)::

    L = −1/N Σₙ Σ_c t_cn ℓ_cn + λ (‖W1‖ + ‖W2‖)

    dℓ = −t / N                      d‖W‖/dW = W / ‖W‖

Follow dℓ backwards through the last two layers and the two Jacobians melt into one line:
``ds = (p − t) / N``. A fused softmax cross-entropy starts from there;
:func:`fused_agrees` checks that it is the same.

**The lab's own gradients.** The lab states this loss but steps along something else: it sums the
data's gradient over the batch instead of averaging (dℓ = −t), and doubles the penalty's
(2λ W/‖W‖). That is not the gradient of L, and finite differences say so. It is the gradient of
*another* loss, N times the data term and twice the penalty, so the same training can be had from
the true gradients with other numbers. With batches of N::

    W − r_lab (N g + 2 λ_lab W/‖W‖)  =  W − r (g + λ W/‖W‖)

    r = N r_lab          λ = 2 λ_lab / N

:func:`lab_to_true` and :func:`true_to_lab` translate. Two consequences of summing: the step grows
with the batch, so a rate tuned for batches of 100 diverges with batches of 1000; and a short last
batch takes a short step.

Run it: ``python docs/examples/lab_mlp.py``. It uses MNIST if ``XPMLP_DATA`` (or the cache) has it,
and otherwise the package's small digits, enlarged to 28×28.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from xpmlp import ops
from xpmlp.data import load_digits, load_mnist
from xpmlp.errors import DataError
from xpmlp.layers import Log, Matmul, ReLU, Softmax
from xpmlp.penalties import L2Norm
from xpmlp.random import Generator, permutation

Arrays = dict[str, np.ndarray]


def columns(images: np.ndarray) -> np.ndarray:
    """Images (N, 28, 28) as columns with a one at the end of each: (785, N)."""
    flat = images.reshape(len(images), -1)
    return np.concatenate([flat, np.ones((len(images), 1))], axis=1).T


def one_hot(labels: np.ndarray, classes: int = 10) -> np.ndarray:
    """Labels (N,) as columns with a single 1: (10, N)."""
    return (np.arange(classes)[:, None] == labels[None, :]).astype(np.float64)


class LabNetwork:
    """The five layers in a row. ``forward`` goes down the list, ``backward`` comes up again."""

    def __init__(self, W1: np.ndarray, W2: np.ndarray):
        self.first, self.second = Matmul(W1), Matmul(W2)
        self.relu, self.log = ReLU(), Log()
        self.softmax = Softmax(axis=-2)  # down the columns: a column is a sample
        self.layers = (self.first, self.relu, self.second, self.softmax, self.log)

    @classmethod
    def random(cls, seed: int = 0) -> LabNetwork:
        """Weights of standard deviation √(2/D), from a seed."""
        rng = Generator(seed)
        W1 = rng.spawn().normal((100, 785)) * np.sqrt(2 / 785)
        W2 = rng.spawn().normal((10, 100)) * np.sqrt(2 / 100)
        return cls(W1, W2)

    @property
    def weights(self) -> Arrays:
        """``{"W1": (100, 785), "W2": (10, 100)}``; assign to replace them."""
        return {"W1": self.first.W, "W2": self.second.W}

    @weights.setter
    def weights(self, new: Arrays) -> None:
        self.first.W, self.second.W = new["W1"], new["W2"]

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Images (N, 28, 28) to log-probabilities (10, N)."""
        x = columns(images)
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dlogp: np.ndarray) -> Arrays:
        """dℓ (10, N) to ``{"W1": dW1, "W2": dW2}``."""
        dy = dlogp
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return {"W1": self.first.dW, "W2": self.second.dW}

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The share of images whose most probable class is the right one."""
        return float(np.mean(np.argmax(self.forward(images), axis=0) == labels))


def objective(network: LabNetwork, images: np.ndarray, t: np.ndarray, strength: float) -> float:
    """L: mean cross-entropy plus ``strength · (‖W1‖ + ‖W2‖)``, with t (10, N) one-hot."""
    cross_entropy = -np.sum(t * network.forward(images)) / len(images)
    weights = network.weights
    return float(cross_entropy + L2Norm(strength).forward(weights, weights))


def true_gradients(
    network: LabNetwork, images: np.ndarray, t: np.ndarray, strength: float
) -> Arrays:
    """dL/dW1 and dL/dW2, the derivatives of :func:`objective`."""
    network.forward(images)
    data = network.backward(-t / len(images))
    weights = network.weights
    penalty = L2Norm(strength).backward(weights, weights)
    return {name: data[name] + penalty[name] for name in weights}


def lab_gradients(
    network: LabNetwork, images: np.ndarray, t: np.ndarray, strength: float
) -> Arrays:
    """What the lab steps along: summed over the batch, and the penalty's gradient doubled."""
    network.forward(images)
    data = network.backward(-t)
    weights = network.weights
    penalty = L2Norm(2 * strength).backward(weights, weights)
    return {name: data[name] + penalty[name] for name in weights}


def lab_to_true(rate: float, strength: float, batch: int) -> tuple[float, float]:
    """Learning rate and λ that make the true gradients train as the lab's do."""
    return rate * batch, 2 * strength / batch


def true_to_lab(rate: float, strength: float, batch: int) -> tuple[float, float]:
    """Learning rate and λ that make the lab's gradients train as the true ones do."""
    return rate / batch, strength * batch / 2


def slope_along(
    function: Callable[[], float], network: LabNetwork, direction: Arrays, step: float = 1e-7
) -> float:
    """``(L(W + s u) − L(W − s u)) / 2s``, the slope of the loss along u; the weights are put back.

    One direction through all 79,500 weights at once: if a gradient is right, its product with u is
    this number, and if any part of it is wrong, it is not (unless u happens to be blind to it).
    """
    start, values = network.weights, []
    for sign in (1, -1):
        network.weights = {name: w + sign * step * direction[name] for name, w in start.items()}
        values.append(function())
    network.weights = start
    return (values[0] - values[1]) / (2 * step)


def dot(a: Arrays, b: Arrays) -> float:
    """The product of two sets of arrays, summed over everything."""
    return sum(float(np.sum(a[name] * b[name])) for name in a)


def fused_agrees(network: LabNetwork, images: np.ndarray, labels: np.ndarray) -> float:
    """The largest difference of ds between Log and Softmax by hand and the library's fused op."""
    log_p = network.forward(images)
    dp = network.log.backward(-one_hot(labels) / len(images))
    by_hand = network.softmax.backward(dp)
    scores = network.second.forward(network.relu.forward(network.first.forward(columns(images))))
    _, fused = ops.softmax_cross_entropy(scores.T, labels)  # samples as rows
    # The same thing in one line, from the probabilities:
    in_a_line = (np.exp(log_p) - one_hot(labels)) / len(images)
    return float(max(np.abs(by_hand - fused.T).max(), np.abs(by_hand - in_a_line).max()))


def batches(n: int, batch: int, epoch: int) -> Iterator[np.ndarray]:
    """Row numbers of one epoch in batches of one size: the last few rows sit out.

    With gradients summed over the batch a short batch would take a short step, and the translation
    between the two forms would hold only roughly.
    """
    order = permutation(n, seed=0, epoch=epoch)
    for start in range(0, n - batch + 1, batch):
        yield order[start : start + batch]


def train(
    network: LabNetwork,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    gradients: Callable[[LabNetwork, np.ndarray, np.ndarray, float], Arrays],
    rate: float,
    strength: float,
    batch: int = 100,
    epochs: int = 10,
) -> list[float]:
    """Plain gradient descent, ``W ← W − rate · gradient``; the loss L after each epoch."""
    losses = []
    for epoch in range(epochs):
        for rows in batches(len(images), batch, epoch):
            grads = gradients(network, images[rows], one_hot(labels[rows]), strength)
            network.weights = {name: w - rate * grads[name] for name, w in network.weights.items()}
        losses.append(objective(network, images, one_hot(labels), strength))
    return losses


def load_images(limit: int = 10_000) -> tuple[str, tuple[np.ndarray, ...]]:
    """MNIST if it is at hand, else the package's digits at MNIST's size, with values in [0, 1].

    Returns
    -------
    name : str
    arrays : x_train (N, 28, 28), y_train (N,), x_test, y_test
        At most ``limit`` images to train on.
    """
    try:
        data, scale = load_mnist(download=False), 255.0
    except DataError:
        data, scale = load_digits(), 16.0

    def prepare(x: np.ndarray) -> np.ndarray:
        if x.shape[1:] == (8, 8):  # each pixel becomes 3×3, and two rows of paper go all around
            x = np.pad(x.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
        return x / scale

    x_train, y_train = prepare(data.x_train[:limit]), data.y_train[:limit]
    return data.name, (x_train, y_train, prepare(data.x_test[:limit]), data.y_test[:limit])


def gradient_table(
    network: LabNetwork, images: np.ndarray, t: np.ndarray, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Slope of L, true gradient and the lab's gradient, all along one random direction.

    For the data term (λ = 0), for the two together (λ = 1), and, as their difference, the penalty.
    """
    rng = np.random.default_rng(seed)
    direction = {name: rng.normal(size=w.shape) for name, w in network.weights.items()}

    def row(strength: float) -> np.ndarray:
        slope = slope_along(lambda: objective(network, images, t, strength), network, direction)
        true = dot(true_gradients(network, images, t, strength), direction)
        lab = dot(lab_gradients(network, images, t, strength), direction)
        return np.array([slope, true, lab])

    data, both = row(0.0), row(1.0)
    rows = {"data term": data, "penalty": both - data, "both": both}
    return {title: (float(r[0]), float(r[1]), float(r[2])) for title, r in rows.items()}


def main() -> None:
    """Check the gradients, set the lab's beside them, and train with both."""
    name, (x, y, x_test, y_test) = load_images()
    print(f"{name}: {len(x)} images to train on, {len(x_test)} to test on\n")
    network = LabNetwork.random()
    few, t = x[:100], one_hot(y[:100])

    print("Gradients along a random direction, batch of 100, λ = 1")
    print("               slope of L      true gradient   the lab's       lab / true")
    for title, (slope, true, lab) in gradient_table(network, few, t).items():
        print(f"  {title:<10} {slope:13.8f}   {true:13.8f}   {lab:13.8f}  {lab / true:9.4f}")
    print(f"\nds by hand and fused differ by at most {fused_agrees(network, few, y[:100]):.1e}\n")

    rate, strength, batch = 0.1, 1e-3, 100
    lab_rate, lab_strength = true_to_lab(rate, strength, batch)
    print(f"Training, 10 epochs, batches of {batch}")
    print(f"  true gradients with rate {rate} and λ = {strength}, which are")
    print(f"  the lab's with rate {lab_rate} and λ = {lab_strength}")
    true_net, lab_net = LabNetwork.random(), LabNetwork.random()
    true_losses = train(true_net, x, y, gradients=true_gradients, rate=rate, strength=strength)
    train(lab_net, x, y, gradients=lab_gradients, rate=lab_rate, strength=lab_strength)
    for epoch, loss in enumerate(true_losses, 1):
        print(f"  epoch {epoch}: loss {loss:.4f}")
    apart = max(np.abs(true_net.weights[k] - lab_net.weights[k]).max() for k in ("W1", "W2"))
    print(f"  weights of the two runs differ by at most {apart:.1e}")
    print(f"  test accuracy {true_net.accuracy(x_test, y_test):.2%}")


if __name__ == "__main__":
    main()
