"""Learning-rate schedules: end points, shapes, and torch's where torch has the same."""

import json

import numpy as np
import pytest

from xpmlp.errors import ConfigError
from xpmlp.schedules import (
    BY_NAME,
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Polynomial,
    Step,
    WarmRestarts,
    WarmUp,
    as_schedule,
)

TOTAL = 40
STEPS = range(TOTAL + 1)


@pytest.fixture
def torch():
    """torch as an independent reference."""
    return pytest.importorskip("torch", reason="torch is the reference here; pip install torch")


def curve(schedule):
    return np.array([schedule(step) for step in STEPS])


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [
        (Constant(), 1.0, 1.0),
        (Step(every=10, factor=0.5), 1.0, 0.5**4),
        (Exponential(total=TOTAL, final=0.01), 1.0, 0.01),
        (Cosine(total=TOTAL), 1.0, 0.0),
        (Cosine(total=TOTAL, final=0.1), 1.0, 0.1),
        (WarmUp(steps=8), 1 / 8, 1.0),
        (WarmUp(total=TOTAL, steps=8, then=Cosine(final=0.1)), 1 / 8, 0.1),
        (Polynomial(total=TOTAL, power=2.0, final=0.3), 1.0, 0.3),
        (WarmRestarts(first=TOTAL, growth=2, final=0.2), 1.0, 1.0),
        (OneCycle(total=TOTAL), 0.04, 1e-4),
        (OneCycle(total=TOTAL, rise=0.0), 1.0, 1e-4),
    ],
    ids=lambda value: repr(value) if isinstance(value, float) else type(value).__name__,
)
def test_end_points(schedule, first, last):
    assert schedule(0) == pytest.approx(first, rel=1e-14)
    assert schedule(TOTAL) == pytest.approx(last, rel=1e-14, abs=1e-16)
    assert all(isinstance(schedule(step), float) for step in STEPS)


@pytest.mark.parametrize(
    "schedule",
    [Exponential(total=TOTAL), Cosine(total=TOTAL), OneCycle(total=TOTAL)],
    ids=lambda s: type(s).__name__,
)
def test_after_the_last_step_the_rate_stays(schedule):
    assert schedule(10 * TOTAL) == schedule(TOTAL)


@pytest.mark.parametrize(
    "schedule",
    [Exponential(total=TOTAL), Cosine(total=TOTAL), Step(every=7)],
    ids=lambda s: type(s).__name__,
)
def test_falls_throughout(schedule):
    slopes = np.diff(curve(schedule))
    assert (slopes <= 0).all() and (slopes < 0).any()


@pytest.mark.parametrize("rise", [0.25, 0.5])
def test_one_cycle_rises_to_1_and_falls(rise):
    factors = curve(OneCycle(total=TOTAL, rise=rise))
    top = round(rise * TOTAL)
    assert factors[top] == pytest.approx(1.0) and factors.argmax() == top
    assert (np.diff(factors[: top + 1]) > 0).all() and (np.diff(factors[top:]) < 0).all()


def test_warm_up_is_a_line_and_then_counts_from_0():
    factors = curve(WarmUp(total=TOTAL, steps=8, then=Cosine()))
    np.testing.assert_allclose(factors[:8], np.arange(1, 9) / 8)
    rest = Cosine(total=TOTAL - 8)
    np.testing.assert_allclose(factors[8:], [rest(step) for step in range(TOTAL - 7)], rtol=1e-15)


@pytest.mark.parametrize("steps", [0, 1])
def test_no_warm_up_is_the_schedule_itself(steps):
    assert WarmUp(steps=steps)(0) == 1.0


def torch_curve(torch, make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    factors = []
    for _ in STEPS:
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(factors) < TOTAL:  # torch's one-cycle refuses a step after its last
            scheduler.step()
    return np.array(factors[:TOTAL])


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Step(every=7, factor=0.3), lambda lr, opt: lr.StepLR(opt, 7, 0.3)),
        (
            Exponential(total=TOTAL, final=0.02),
            lambda lr, opt: lr.ExponentialLR(opt, 0.02 ** (1 / TOTAL)),
        ),
        (
            Cosine(total=TOTAL, final=0.05),
            lambda lr, opt: lr.CosineAnnealingLR(opt, TOTAL, eta_min=0.05),
        ),
        # torch counts the last step as the end, and its rise ends a step early.
        (
            OneCycle(total=TOTAL - 1, rise=11 / 39, initial=0.04, final=0.004),
            lambda lr, opt: lr.OneCycleLR(
                opt,
                1.0,
                total_steps=TOTAL,
                pct_start=12 / 40,
                div_factor=25,
                final_div_factor=10,
                cycle_momentum=False,
            ),
        ),
    ],
    ids=["step", "exponential", "cosine", "onecycle"],
)
def test_equals_torch(torch, schedule, make):
    np.testing.assert_allclose(curve(schedule)[:TOTAL], torch_curve(torch, make), rtol=1e-9)


@pytest.mark.parametrize("name", ["exponential", "cosine", "onecycle"])
def test_without_a_total_the_message_says_what_is_missing(name):
    with pytest.raises(ConfigError, match="expected total=, the number of steps"):
        as_schedule(name)(0)
    with pytest.raises(ConfigError, match="`Cosine`: expected total="):
        WarmUp(steps=2, then=Cosine())(2)


def test_over_fills_in_what_was_left_open():
    assert Cosine().over(10) == Cosine(total=10)
    assert Cosine(total=5).over(10) == Cosine(total=5)
    assert Constant().over(10)(3) == 1.0
    warm = WarmUp(steps=4, then=Cosine()).over(14)
    assert warm(14) == pytest.approx(0.0, abs=1e-16) and warm(9) == pytest.approx(0.5)
    assert WarmUp(steps=20, then=Cosine()).over(10)(9) == 0.5  # a warm-up longer than the training


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(total=0), "`Cosine`: expected total None or an integer ≥ 1, got 0"),
        (lambda: Step(every=0), "`Step`: expected every to be an integer ≥ 1, got 0"),
        (lambda: WarmUp(steps=-1), "`WarmUp`: expected steps to be an integer ≥ 0, got -1"),
        (lambda: OneCycle(rise=1.0), r"`OneCycle`: expected rise in \[0, 1\), got 1.0"),
        (lambda: OneCycle().over(0), "`OneCycle`: expected total None or an integer ≥ 1, got 0"),
        (lambda: as_schedule("linear"), "cosine, onecycle, polynomial, got 'linear'"),
        (lambda: WarmRestarts(growth=0), "expected growth to be an integer ≥ 1, got 0"),
        (lambda: Polynomial(power=0.0), "expected power"),
        (
            lambda: WarmRestarts(growth=2)(float("inf")),
            "the number of a step finite and ≥ 0, got inf",
        ),
        (lambda: as_schedule(0.5), "its name or a function of the step, got 0.5"),
    ],
    ids=["total", "every", "steps", "rise", "over", "name", "growth", "power", "step", "number"],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_names_stand_for_schedules():
    assert as_schedule(None) == Constant()
    assert as_schedule(Cosine(total=3)) == Cosine(total=3)
    for name, schedule in BY_NAME.items():
        assert as_schedule(name) is schedule
    assert json.dumps(sorted(BY_NAME)) == (
        '["constant", "cosine", "exponential", "onecycle", "polynomial"]'
    )


def test_a_warm_up_takes_what_follows_by_name():
    assert WarmUp(steps=2, then="cosine", total=12)(7) == Cosine(total=10)(5)
    assert WarmUp(steps=2, then=lambda step: 0.5, total=12)(7) == 0.5
    for wrong in ("abc", 7):
        with pytest.raises(ConfigError, match="expected a schedule"):
            WarmUp(then=wrong)
