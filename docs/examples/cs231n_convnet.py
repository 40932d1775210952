"""The three-layer convolutional network of CS231n, assignment 2, built from layers.

::

    conv – relu – 2 × 2 max pool – affine – relu – affine – softmax

The course's checks of such a network: the loss at the start is ln C and grows with regularization,
gradients are those of finite differences, and a few images are learned by heart.

Run it: ``python docs/examples/cs231n_convnet.py``
"""

from __future__ import annotations

import math

import numpy as np

from xpmlp.data import load_digits
from xpmlp.layers import Conv2D, Flatten, Linear, MaxPool2D, ReLU, Sequential
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.optim import Adam
from xpmlp.penalties import L2
from xpmlp.random import Generator
from xpmlp.testing import gradcheck
from xpmlp.training import TrainStep


def three_layer_conv_net(
    image: tuple[int, int, int] = (3, 32, 32),
    *,
    filters: int = 32,
    filter_size: int = 7,
    hidden: int = 100,
    classes: int = 10,
    weight_scale: float = 1e-3,
    dtype: str = "float32",
    seed: int = 0,
) -> Sequential:
    """The course's: weights N(0, weight_scale²), biases 0, padding that keeps an image's size."""
    C, H, W = image
    common = {"init": weight_scale, "dtype": dtype, "rng": Generator(seed)}
    return Sequential(
        Conv2D(C, filters, filter_size, padding=(filter_size - 1) // 2, **common),
        ReLU(),
        MaxPool2D(2),
        Flatten(),
        Linear(filters * (H // 2) * (W // 2), hidden, **common),
        ReLU(),
        Linear(hidden, classes, **common),
    )


def starting_loss(regularization: float) -> float:
    """Of 50 random images, without and with ½ · regularization · Σ W²."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3, 32, 32))
    model = three_layer_conv_net(dtype="float64")
    value = SoftmaxCrossEntropy().forward(model.forward(x), rng.integers(0, 10, 50))
    return float(value + L2(regularization).forward(model.params, model.weight_params))


def gradient_error() -> float:
    """The largest relative error beside finite differences, of a small network of that kind."""
    model = three_layer_conv_net(
        (3, 8, 8), filters=3, filter_size=3, hidden=7, weight_scale=0.1, dtype="float64"
    )
    return gradcheck(model, np.random.default_rng(0).normal(size=(2, 3, 8, 8)))


def learn_by_heart(images: int = 100, epochs: int = 25) -> tuple[list[float], float]:
    """Losses of the epochs, and the share of right answers, on the first digits."""
    data = load_digits()
    x = (data.x_train[:images].reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    y = data.y_train[:images]
    model = three_layer_conv_net((1, 8, 8), filters=16, filter_size=3, weight_scale=0.05)
    step = TrainStep(model, SoftmaxCrossEntropy(), Adam(3e-3))
    losses = []
    for _ in range(epochs):
        batches = [slice(n, n + 20) for n in range(0, images, 20)]
        losses.append(float(np.mean([step(x[rows], y[rows]) for rows in batches])))
    return losses, float(np.mean(model.forward(x).argmax(axis=1) == y))


def main() -> None:
    """The course's three checks."""
    print(f"loss at the start      {starting_loss(0.0):.6f}   ln 10 = {math.log(10.0):.6f}")
    print(f"with regularization    {starting_loss(0.5):.6f}")
    print(f"gradients differ by    {gradient_error():.1e} at most")
    losses, right = learn_by_heart()
    print(f"a hundred digits       loss {losses[0]:.3f} → {losses[-1]:.3f}, {right:.0%} right")


if __name__ == "__main__":
    main()
