"""Every size that is measured, in one place. ``quick`` marks those of ``xpmlp bench --quick``."""

from __future__ import annotations

from dataclasses import dataclass

# (rows, classes): small batches, a large one, and vocabularies.
SOFTMAX_CROSS_ENTROPY = (
    (128, 10),
    (512, 10),
    (65536, 10),
    (4096, 100),
    (8192, 1000),
    (1024, 50257),
)
SOFTMAX_QUICK = ((128, 10), (4096, 100))

# (matrices, I, K, J): squares and one oblong, in batches whose three arrays fill 6 to 50 MB.
MATMUL = (
    (32768, 4, 4, 4),
    (16384, 8, 8, 8),
    (4096, 16, 16, 16),
    (2048, 32, 32, 32),
    (512, 64, 64, 64),
    (128, 128, 128, 128),
    (32, 256, 256, 256),
    (4, 512, 512, 512),
    (1, 1024, 1024, 1024),
    (1, 2048, 2048, 2048),
    (128, 128, 64, 128),
)
MATMUL_QUICK = ((4096, 16, 16, 16), (512, 64, 64, 64))
# Which operands are transposed views: none, the first, the second.
TRANSPOSES = ("", "aT", "bT")

# (rows, inputs, outputs), with bias and ReLU.
LINEAR = ((128, 784, 256), (128, 256, 128), (512, 512, 512), (2048, 1024, 1024))
LINEAR_QUICK = ((128, 784, 256),)

# (rows, features), for batch_norm, layer_norm and dropout.
ROWS = ((128, 256), (512, 512), (8192, 1024))
ROWS_QUICK = ((512, 512),)
DROPOUT = 0.2

# Layer sizes of the network whose parameters Adam updates.
ADAM = ((784, 100, 10), (784, 512, 512, 10))
ADAM_QUICK = ((784, 512, 512, 10),)


@dataclass(frozen=True)
class Net:
    """A network, its batch and how it is trained; with ``members``, so many of them at once."""

    sizes: tuple[int, ...]
    batch: int
    optimizer: str = "sgd"
    lr: float = 0.1
    batchnorm: bool = False
    dropout: float = 0.0
    quick: bool = False
    members: int | None = None
    loss: str = "cross-entropy"

    @property
    def name(self) -> str:
        """``784-100-10 at 64``, and what is not plain about it."""
        extras = ["batchnorm"] * self.batchnorm + ["dropout"] * bool(self.dropout)
        extras += [self.optimizer] if self.optimizer != "sgd" else []
        extras += [self.loss] if self.loss != "cross-entropy" else []
        count = "" if self.members is None else f"{self.members} × "
        return f"{count}{'-'.join(map(str, self.sizes))} at {self.batch}" + (
            f", {' + '.join(extras)}" if extras else ""
        )


STEPS = (
    Net((784, 100, 10), 64),
    Net((784, 100, 10), 128, quick=True),
    Net((784, 256, 128, 10), 128, quick=True),
    Net((784, 512, 512, 10), 512),
    Net((784, 1024, 1024, 10), 2048),
    Net((3072, 2048, 2048, 10), 1024),
    Net((784, 512, 256, 10), 128, "adamw", 1e-3, batchnorm=True, dropout=0.2, quick=True),
)

# Networks of equal sizes that are trained side by side, on the same batch.
POPULATIONS = (
    Net((16, 32, 32, 1), 64, lr=0.01, members=256, loss="mse", quick=True),
    Net((784, 64, 10), 128, members=32, quick=True),
)

# Rows of made-up 28×28 uint8 images, trained on once.
EPOCH_NET = Net((784, 256, 128, 10), 128, "adam", 1e-3)
EPOCH_ROWS = 60_000
EPOCH_ROWS_QUICK = 10_000


@dataclass(frozen=True)
class Race:
    """Train until a test accuracy is reached, and how many epochs that may take at most."""

    data: str
    net: Net
    accuracy: float
    most_epochs: int
    quick: bool = False


RACES = (
    Race("digits", Net((64, 128, 10), 64, "adam", 1e-3), 0.96, 60, quick=True),
    Race("mnist", Net((784, 256, 128, 10), 128, "adam", 1e-3), 0.97, 20),
)


@dataclass(frozen=True)
class FullTraining:
    """The whole default training of ``xpmlp train mnist``; a test holds the two equal."""

    sizes: tuple[int, ...] = (784, 512, 256, 10)
    epochs: int = 10
    batch: int = 128
    lr: float = 4e-3
    dropout: float = 0.0
    label_smoothing: float = 0.05
    weight_decay: float = 0.1
    validation: int = 5000
    accuracy: float = 0.98


RECIPE = FullTraining()
