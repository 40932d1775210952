"""Many networks at once: a sweep, an ensemble of the best setting, and how far to trust it.

The digits that come with the package are enough to see all of it in a few seconds:

1. cross-validate a grid of settings, every fold and seed in one population;
2. train an ensemble with the best setting, each member on minibatches of its own;
3. compare the ensemble with its members, calibrate it, and let it look at noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpmlp.cross_validation import cross_validate
from xpmlp.data import load_digits
from xpmlp.ensemble import Ensemble
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import AdamW
from xpmlp.sweep import Settings, expand
from xpmlp.training import PopulationTrainer

BASE = Settings(hidden=(32,), epochs=12, batch_size=64, schedule="onecycle", lr=5e-3)
AXES: dict[str, list[Any]] = {"lr": [1e-3, 5e-3, 2e-2], "hidden": [(16,), (32,), (48,)]}


def choose(x: np.ndarray, y: np.ndarray) -> Settings:
    """The best of nine settings, by 4 folds and 2 seeds: 72 networks, some narrower than others."""
    found = cross_validate(x, y, expand(AXES, BASE), folds=4, seeds=2, normalize=False)
    print("setting                accuracy (mean ± deviation over 4 folds and 2 seeds)")
    order = np.argsort(found.cv_results_["rank_test_score"], kind="stable")
    for place in order[:4]:
        mean = 100 * found.cv_results_["mean_test_score"][place]
        spread = 100 * found.cv_results_["std_test_score"][place]
        print(f"{found.settings[place].describe(['lr', 'hidden']):22} {mean:.1f} % ± {spread:.1f}")
    print(f"{len(order) * 8} networks in {found.seconds:.1f} s\n")
    return found.best_settings_


def train(settings: Settings, x: np.ndarray, y: np.ndarray, members: int = 8) -> FullyConnectedNet:
    """Networks that differ in their first weights and in the order of their minibatches."""
    nets = FullyConnectedNet([x.shape[1], *settings.hidden, 10], population=members)
    trainer = PopulationTrainer(
        nets,
        optimizer=AdamW(settings.lr, weight_decay=0.0, schedule=settings.schedule),
        epochs=20,
        batch_size=settings.batch_size,
        sampling="own",
        progress=False,
    )
    trainer.fit(x, y)
    return nets


def main() -> dict[str, float]:
    """Print all of it; returns the figures."""
    digits = load_digits()
    x, y = digits.x_train.reshape(-1, 64) / 16.0, digits.y_train
    x_test, y_test = digits.x_test.reshape(-1, 64) / 16.0, digits.y_test
    x_train, y_train, x_val, y_val = x[:1100], y[:1100], x[1100:], y[1100:]

    settings = choose(x_train, y_train)
    nets = train(settings, x_train, y_train)
    alone = [
        float(np.mean(nets.member(number).predict(x_test) == y_test))
        for number in range(nets.population or 0)
    ]
    ensemble = Ensemble(nets)
    before = ensemble.evaluate(x_test, y_test)
    temperature = ensemble.calibrate(x_val, y_val)
    after = ensemble.evaluate(x_test, y_test)
    print(f"members alone:  {100 * min(alone):.1f} … {100 * max(alone):.1f} %")
    print(f"ensemble:       {100 * after['accuracy']:.1f} %")
    print(f"log loss:       {before['log_loss']:.4f}, calibrated {after['log_loss']:.4f}")
    print(f"temperature:    {temperature:.2f}\n")

    noise = np.random.default_rng(0).uniform(size=x_test.shape)
    figures = {"accuracy": after["accuracy"], "mean_alone": float(np.mean(alone))}
    for name, images in (("digits", x_test), ("noise", noise)):
        found = ensemble.uncertainty(images)
        figures[name] = float(found["mutual_information"].mean())
        print(
            f"{name + ':':8} entropy {found['entropy'].mean():.3f}, "
            f"of it the members' disagreement {figures[name]:.3f}"
        )
    return figures


if __name__ == "__main__":
    main()
