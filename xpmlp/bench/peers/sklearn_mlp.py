"""scikit-learn's MLPClassifier: whole epochs of Adam through ``partial_fit``."""

from __future__ import annotations

import numpy as np

from ..cases import Case
from ..solver import Arrays, Build, Training, epoch_solver, race_solver
from .numpy_alone import largest


def _start(case: Case, inputs: Arrays, seed: int) -> Training:
    """Its inputs are scaled to float32 before the clock starts, since it has no other way."""
    from sklearn.neural_network import MLPClassifier

    net = case.settings["race"].net if "race" in case.settings else case.settings["net"]
    scale = np.float32(1 / largest(inputs["x"]))
    x, x_test = inputs["x"] * scale, inputs["x_test"] * scale
    classes = np.unique(inputs["labels"])
    model = MLPClassifier(
        net.sizes[1:-1],
        solver=net.optimizer,
        learning_rate_init=net.lr,
        batch_size=net.batch,
        alpha=0.0,
        random_state=seed,
    )

    def train_epoch() -> None:
        model.partial_fit(x, inputs["labels"], classes=classes)

    return train_epoch, lambda: float(model.score(x_test, inputs["labels_test"]))


SOLVERS: dict[str, Build] = {
    "epoch": epoch_solver(_start),
    "time_to_accuracy": race_solver(_start),
}
