"""Every schedule against PyTorch's learning rates, step by step."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler  # noqa: E402

from xpmlp import schedules  # noqa: E402
from xpmlp.optim import SGD  # noqa: E402
from xpmlp.training import ReduceOnPlateau  # noqa: E402

TOTAL = 40


def warm_up(optimizer):
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 10, total_iters=9)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, TOTAL - 10, eta_min=0.1)
    return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[10])


def one_cycle(optimizer):
    # torch's peak is one step early, and its end too; with one step more it is where ours is.
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=TOTAL + 1,
        pct_start=(0.3 * TOTAL + 1) / (TOTAL + 1),
        div_factor=1 / 0.04,
        final_div_factor=0.04 / 1e-4,
        cycle_momentum=False,
    )


CASES = {
    "constant": (schedules.Constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    "step": (schedules.Step(every=7, factor=0.3), lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
    "exponential": (
        schedules.Exponential(final=0.02, total=TOTAL),
        lambda o: lr_scheduler.ExponentialLR(o, 0.02 ** (1 / TOTAL)),
    ),
    "cosine": (
        schedules.Cosine(final=0.1, total=TOTAL),
        lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.1),
    ),
    "line": (
        schedules.Polynomial(total=TOTAL),
        lambda o: lr_scheduler.PolynomialLR(o, TOTAL),
    ),
    "polynomial": (
        schedules.Polynomial(total=TOTAL, power=2.5),
        lambda o: lr_scheduler.PolynomialLR(o, TOTAL, power=2.5),
    ),
    "restarts": (
        schedules.WarmRestarts(first=9, final=0.1),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 9, eta_min=0.1),
    ),
    "longer restarts": (
        schedules.WarmRestarts(first=3, growth=3),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, T_mult=3),
    ),
    "warm-up": (schedules.WarmUp(steps=10, then=schedules.Cosine(final=0.1), total=TOTAL), warm_up),
    "one cycle": (schedules.OneCycle(total=TOTAL), one_cycle),
}


def test_every_schedule_has_a_counterpart():
    public = {
        name
        for name, found in vars(schedules).items()
        if isinstance(found, type) and schedules.Schedule in found.__mro__[1:]
    }
    assert public == {type(ours).__name__ for ours, _ in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_rates_of_every_step(name):
    ours, theirs = CASES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own schedulers call each other's old ways
        reference = theirs(optimizer)
        for step in range(TOTAL):
            assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
            optimizer.step()
            reference.step()


@pytest.mark.parametrize("least", [0.0, 0.3])
@pytest.mark.parametrize("patience", [1, 3])
def test_plateaus(patience, least):
    """torch counts epochs that it bears, ours is the one after which it acts: one more."""
    losses = np.random.default_rng(0).normal(size=60).round(1) - np.linspace(0.0, 2.0, 60)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=least, threshold_mode="abs", eps=0.0
    )
    ours = ReduceOnPlateau(patience, monitor="val_loss", min_delta=least, factor=0.5)
    trainer: Any = SimpleNamespace(optimizer=SGD(1.0))
    ours.on_start(trainer)
    rates = set()
    for loss in losses:
        theirs.step(loss)
        ours.on_epoch(trainer, {"val_loss": loss})
        rates.add(trainer.optimizer.lr)
        assert trainer.optimizer.lr == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert len(rates) > 3
