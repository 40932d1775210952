"""A sweep trains each setting as it would be trained alone, and keeps the best."""

import signal

import numpy as np
import pytest

from xpmlp.data import load_digits
from xpmlp.errors import ConfigError
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import AdamW
from xpmlp.sweep import Halving, Settings, SweepResult, expand, sweep
from xpmlp.sweep.halving import rungs
from xpmlp.sweep.plan import plan
from xpmlp.training import Callback, Trainer

BASE = Settings(hidden=(12,), epochs=4, batch_size=32, lr=0.01, schedule="cosine")
AXES = {
    "lr": [0.003, 0.02],
    "weight_decay": [0.0, 0.1],
    "label_smoothing": [0.0, 0.1],
    "momentum": [0.8, 0.9],
    "hidden": [(8,), (12,)],
}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x = (data.x_train / 16.0).reshape(len(data.x_train), 64)
    return x[:160], data.y_train[:160], (x[160:260], data.y_train[160:260])


def run(digits, settings, **options):
    return sweep(*digits, settings, **{"outputs": 10, "dtype": "float64"} | options)


def test_each_trial_is_what_it_would_be_alone(digits):
    settings = expand(AXES, BASE)
    found = run(digits, settings, seeds=[3, 8], sampling="own")
    assert found.populations == [64] and len(found.trials) == 64
    for trial in found.trials[::7]:
        own = trial.settings
        assert own is settings[trial.setting]
        net = FullyConnectedNet([64, *own.hidden, 10], seed=trial.seed, dtype="float64")
        trainer = Trainer(
            net,
            SoftmaxCrossEntropy(label_smoothing=own.label_smoothing),
            AdamW(own.lr, weight_decay=own.weight_decay, beta1=own.momentum, schedule="cosine"),
            epochs=4,
            batch_size=32,
            seed=trial.seed,
            progress=False,
        )
        history = trainer.fit(*digits[:2], validation=digits[2])
        row = history.rows[history.best_epoch - 1]
        assert trial.best_epoch == history.best_epoch
        assert trial.scores["val_accuracy"] == pytest.approx(row["val_accuracy"])
        assert trial.scores["train_loss"] == pytest.approx(row["train_loss"], rel=1e-6)
    best = found.models[found.best]
    value = np.mean(np.asarray(best.predict(digits[2][0])) == digits[2][1])
    assert value == pytest.approx(found.values(found.best).max())


def test_batch_sizes_and_depths_are_populations_of_their_own(digits):
    axes = {"batch_size": [32, 64], "hidden": [(8,), (8, 8)], "dropout": [0.0, 0.3]}
    found = run(digits, expand(axes, BASE))
    assert found.populations == [2, 2, 2, 2]
    assert [trial.setting for trial in found.trials] == list(range(8))
    rows = found.rows(list(axes))
    assert {(row["batch_size"], row["hidden"], row["dropout"]) for row in rows} == {
        (size, hidden, dropout)
        for size in (32, 64)
        for hidden in ((8,), (8, 8))
        for dropout in (0.0, 0.3)
    }


def test_widths_are_padded_only_where_it_costs_little():
    settings = expand({"hidden": [(8,), (9,), (10,), (400,), (500,)]}, BASE)
    assert plan(settings, 1, 64, 10) == [[0, 1, 2], [3, 4]]


def test_what_is_too_large_is_split_and_gives_the_same(digits):
    settings = expand({"lr": [0.001 * k for k in range(1, 8)]}, BASE)
    whole = run(digits, settings, seeds=2)
    split = run(digits, settings, seeds=2, memory=400_000)
    assert whole.populations == [14] and len(split.populations) > 2
    assert sum(split.populations) == 14 and all(size % 2 == 0 for size in split.populations)
    for ours, theirs in zip(whole.trials, split.trials, strict=True):
        assert (ours.setting, ours.seed) == (theirs.setting, theirs.seed)
        assert ours.scores["val_loss"] == pytest.approx(theirs.scores["val_loss"], rel=1e-9)
    assert whole.best == split.best
    np.testing.assert_allclose(
        whole.models[whole.best].params["0.W"], split.models[split.best].params["0.W"], rtol=1e-6
    )


def test_what_cannot_fit_says_so():
    with pytest.raises(ConfigError, match=r"3 seeds of about .* each, got room for 2 networks"):
        plan([BASE], 3, 64, 10, memory=100_000)


def test_best_and_those_to_keep_have_models(digits):
    settings = expand({"lr": [1e-6, 0.02, 1e-5]}, BASE)
    found = run(digits, settings, seeds=2, keep=(2,))
    assert found.best == 1 and set(found.models) == {1, 2}
    assert all(net.population is None for net in found.models.values())


def test_ties_are_broken_by_the_loss(digits):
    found = run(digits, expand({"lr": [0.01, 0.02]}, BASE))
    for trial in found.trials:
        trial.scores["val_accuracy"] = 0.9
    losses = [trial.scores["val_loss"] for trial in found.trials]
    assert found.best == int(np.argmin(losses))


def test_what_diverges_is_never_best(digits):
    settings = expand({"lr": [1e38, 1e-6]}, Settings(hidden=(8,), epochs=2, optimizer="sgd"))
    found = run(digits, settings, dtype="float32")
    assert found.best == 1
    assert found.trials[0].ending.startswith("diverged")


def test_rungs():
    assert rungs(8, 100, 2) == {1: 1, 2: 2, 3: 4}
    assert rungs(60, 4, 2) == {1: 15, 2: 30}
    assert rungs(27, 9, 3) == {1: 3, 2: 9}
    assert rungs(1, 8, 2) == {}


def test_halving_keeps_the_better_half_each_time(digits):
    settings = expand({"lr": [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.03]}, BASE)
    counts = []

    class Count(Callback):
        def on_epoch(self, trainer, row):
            counts.append(row["running"])

    base = [own.with_options({"epochs": 8}) for own in settings]
    found = run(digits, base, seeds=2, halving=True, keep=(0,), callbacks=lambda _: [Count()])
    # 7 settings may go, 2 seeds each, and one is protected: 7, 4, 2 and 1 of them at each rung.
    assert counts == [16, 10, 6, 6, 4, 4, 4, 4]
    assert found.trials[0].ending == "finished"
    first = [t for t in found.trials if t.ending.endswith("not among the best 4 after 1 epochs")]
    assert len(first) == 6 and all(trial.epochs == 1 for trial in first)
    assert found.trials[2 * found.best].epochs == 8
    finished = {trial.setting for trial in found.trials if trial.ending == "finished"}
    assert finished == {0, found.best}


def test_halving_needs_its_monitor(digits):
    with pytest.raises(ConfigError, match="factor"):
        Halving([0], factor=1)


def test_ctrl_c_gives_what_there_is(digits):
    class Press(Callback):
        def on_epoch(self, trainer, row):
            signal.raise_signal(signal.SIGINT)

    settings = expand({"batch_size": [32, 64], "lr": [0.01, 0.02]}, BASE)
    found = run(digits, settings, callbacks=lambda _: [Press()])
    assert found.interrupted and found.populations == [2]
    assert [trial.epochs for trial in found.trials] == [1, 1]
    assert found.best in found.models


def test_patience_stops_members(digits):
    settings = expand({"lr": [0.0, 0.01]}, BASE)
    found = run(digits, settings, patience=1)
    assert [trial.epochs for trial in found.trials] == [2, 4]
    assert found.trials[0].ending.startswith("early stopping")


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ([], {}, "at least one setting"),
        ([BASE, BASE], {}, "number 0 again"),
        ([BASE], {"seeds": 0}, "at least one seed"),
        ([BASE], {"seeds": [2, 2]}, "each once"),
        ([BASE.with_options({"optimizer": "adagrad", "momentum": 0.5})], {}, "momentum"),
        ([BASE.with_options({"optimizer": "adamm"})], {}, "sgd, adagrad"),
        ([BASE.with_options({"dropout": 1.0})], {}, "dropout"),
    ],
)
def test_mistakes(digits, settings, options, message):
    with pytest.raises(ConfigError, match=message):
        run(digits, settings, **options)


def test_regression_is_judged_by_its_loss(rng):
    x = rng.normal(size=(80, 3))
    y = x @ rng.normal(size=(3, 2))
    settings = [Settings(hidden=(8,), epochs=20, batch_size=16, lr=lr) for lr in (1e-6, 0.02)]
    found = sweep(x, y, (x, y), settings, outputs=2, output="identity")
    assert found.monitor == "val_loss" and found.best == 1
    assert found.trials[1].scores["val_r2"] > 0.9


def test_a_sweep_is_shown_by_its_best_setting():
    assert repr(SweepResult()) == "<SweepResult: 0 networks in 0.0 s>"
    digits = load_digits()
    x, y = digits.x_train[:200].reshape(-1, 64) / 16.0, digits.y_train[:200]
    grid = expand({"lr": [1e-6, 1e-2]}, Settings(hidden=(8,), epochs=3))
    found = sweep(x, y, (x, y), grid, outputs=10)
    shown = repr(found)
    assert shown.startswith("<SweepResult: 2 networks in ") and "\n" not in shown
    assert f"best val_accuracy={found.values(1)[0]:.4g} of setting 1: Settings(" in shown


@pytest.mark.parametrize("validation", [None, (), (1,), "xy"])
def test_a_sweep_without_validation_data_is_refused(validation, digits):
    x, y = digits[:2]
    with pytest.raises(ConfigError, match=r"validation=\(x, y\).*cross_validate"):
        sweep(x, y, validation, [Settings()], outputs=10)
