"""Fully connected nets on CIFAR-10, the way the CS231n assignments go about it.

The network is ``{affine – [batch norm] – ReLU – [dropout]} × (L − 1) – affine – softmax`` of any
depth L, trained by a solver that does minibatches, an update rule, learning-rate decay, validation
and keeps the best parameters. As in the course, 49,000 of the training images are trained on, the
last 1,000 validate, and the work has two parts:

1. **Overfit 50 images.** A net that cannot learn 50 images by heart has a bug or a bad learning
   rate. It costs a second, so it comes first.
2. **The best model.** Batch norm and dropout, AdamW, one cycle of the learning rate.

Run it with the CIFAR-10 files in ``$XPMLP_DATA/cifar10`` (or let it download them)::

    python docs/examples/cs231n_cifar10.py --epochs 20
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from xpmlp.data import Dataset, Normalization, load_cifar10
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, AdamW
from xpmlp.training import Trainer

VALIDATION = 1000


def split(data: Dataset) -> tuple:
    """The course's split: the last 1,000 training images validate."""
    return data.split_validation(min(VALIDATION, len(data.x_train) // 5), seed=None)


def overfit_small(x: np.ndarray, y: np.ndarray, *, images: int = 50, epochs: int = 40) -> float:
    """Learn a few images by heart with a five-layer net; the accuracy on them, which must be 1.

    Plain momentum, no batch norm, no dropout, no penalty: nothing that could hide a mistake.
    """
    x, y = x[:images], y[:images]
    model = FullyConnectedNet([x[0].size, 100, 100, 100, 100, 10], seed=0)
    trainer = Trainer(
        model,
        SoftmaxCrossEntropy(),
        SGD(0.02, momentum=0.9),
        epochs=epochs,
        batch_size=25,
        normalization=Normalization.fit(x, per_feature=False),
        progress=False,
    )
    trainer.fit(x, y)
    return trainer.evaluate(x, y)["accuracy"]


def best_model(data: Dataset, *, hidden: Sequence[int], epochs: int, seed: int = 0) -> tuple:
    """Train the good net; returns the trainer and its history.

    The pixels are shifted and scaled by the training images' mean and standard deviation. Dropout
    comes after each ReLU, batch norm before it, as in the course.
    """
    (x, y), validation = split(data)
    model = FullyConnectedNet(
        [x[0].size, *hidden, 10],
        normalization="batchnorm",
        dropout=0.25,
        init="he_normal",  # as in the course, for rectifiers
        seed=seed,
    )
    print(model.summary())
    trainer = Trainer(
        model,
        SoftmaxCrossEntropy(),
        AdamW(2e-3, weight_decay=0.1, schedule="onecycle"),
        epochs=epochs,
        batch_size=128,
        normalization=Normalization.fit(x, per_feature=False),
        seed=seed,
    )
    # The trainer hands back the parameters of the best epoch, with their running statistics.
    return trainer, trainer.fit(x, y, validation)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Both parts; returns the figures that are printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", default="512,256", help="hidden widths, such as 512,256")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    hidden = [int(width) for width in options.hidden.split(",")]

    data = load_cifar10(options.data_dir)
    (x, y), validation = split(data)
    overfit = overfit_small(x, y)
    print(f"50 images by heart: training accuracy {100 * overfit:.0f} %")

    trainer, history = best_model(data, hidden=hidden, epochs=options.epochs, seed=options.seed)
    figures = {
        "overfit_accuracy": overfit,
        "validation_accuracy": trainer.evaluate(*validation)["accuracy"],
        "test_accuracy": trainer.evaluate(data.x_test, data.y_test)["accuracy"],
    }
    print(
        f"best epoch {history.best_epoch}: "
        f"{100 * figures['validation_accuracy']:.1f} % of {len(validation[0])} validation images, "
        f"{100 * figures['test_accuracy']:.1f} % of {len(data.x_test)} test images"
    )
    return figures


if __name__ == "__main__":
    main()
