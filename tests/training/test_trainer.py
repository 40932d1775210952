"""The training loop: what it keeps, when it stops, and what it says."""

from __future__ import annotations

import os
import signal
import sys
import threading

import numpy as np
import pytest

import xpmlp
from xpmlp import kernels
from xpmlp.data import Normalization, load_digits
from xpmlp.errors import ConfigError
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam
from xpmlp.schedules import Cosine
from xpmlp.training import (
    Callback,
    EarlyStopping,
    History,
    ReduceOnPlateau,
    SaveHistory,
    Trainer,
)
from xpmlp.training.progress import Progress


def digits(rows=400):
    data = load_digits()
    x = (data.x_train[:rows].reshape(rows, -1) / 16).astype(np.float32)
    return x, data.y_train[:rows]


def trainer(model=None, **options):
    options = {"epochs": 3, "batch_size": 32, "progress": False} | options
    return Trainer(model or FullyConnectedNet([64, 32, 10], seed=1), **options)


class Watch(Callback):
    """Counts calls and keeps the model's arrays after every epoch."""

    def __init__(self):
        self.calls, self.states = [], []

    def on_start(self, trainer):
        self.calls.append("start")

    def on_step(self, trainer, loss):
        self.calls.append("step")

    def on_epoch(self, trainer, row):
        self.calls.append("epoch")
        self.states.append(trainer.model.state_dict())

    def on_end(self, trainer, history):
        self.calls.append("end")


def test_fifty_samples_are_learned_by_heart():
    x, y = digits(50)
    t = trainer(optimizer=Adam(0.01), epochs=60, batch_size=10)
    history = t.fit(x, y)
    assert t.evaluate(x, y)["accuracy"] == 1.0
    assert history["train_loss"][-1] < 0.01


def test_history_has_a_row_for_each_epoch_and_a_loss_for_each_step():
    x, y = digits()
    history = trainer().fit(x, y, validation=(x[:100], y[:100]))
    assert [row["epoch"] for row in history.rows] == [1, 2, 3]
    assert history["step"] == [13, 26, 39]
    assert history.step_losses.shape == (39,)
    weights = [32] * 12 + [16]
    first = np.average(history.step_losses[:13], weights=weights)
    assert history["train_loss"][0] == pytest.approx(first)
    assert history.ending == "finished" and not history.interrupted
    assert set(history.rows[0]) == {
        *("epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *("lr", "seconds", "samples_per_second"),
    }


def test_best_epoch_is_restored_with_its_running_statistics():
    x, y = digits()
    watch = Watch()
    model = FullyConnectedNet([64, 32, 10], normalization="batchnorm", seed=0)
    # A rate this high makes the validation accuracy jump about, so the last epoch is not the best.
    t = trainer(model, optimizer=SGD(3.0, momentum=0.9), epochs=8, callbacks=[watch])
    history = t.fit(x[:300], y[:300], validation=(x[300:], y[300:]))
    best = history.best_epoch
    scores = history["val_accuracy"]
    assert scores[best - 1] == max(scores)
    assert best != 8, "the test needs a training whose last epoch is not its best"
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, watch.states[best - 1][name])
    assert any("running_var" in name for name in model.state_dict())
    assert t.evaluate(x[300:], y[300:])["accuracy"] == pytest.approx(scores[best - 1])


def test_restore_best_can_be_declined():
    x, y = digits()
    watch = Watch()
    model = FullyConnectedNet([64, 32, 10], normalization="batchnorm", seed=0)
    t = trainer(
        model, optimizer=SGD(3.0, momentum=0.9), epochs=8, callbacks=[watch], restore_best=False
    )
    t.fit(x[:300], y[:300], validation=(x[300:], y[300:]))
    np.testing.assert_array_equal(model.state_dict()["0.W"], watch.states[-1]["0.W"])


def test_same_seed_gives_the_same_training_and_another_seed_another():
    x, y = digits()
    losses = [trainer(seed=seed).fit(x, y).step_losses for seed in (5, 5, 6)]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[0], losses[2])


def test_loss_curves_agree_on_every_library(library):
    x, y = digits(96)
    with xpmlp.use_backend("numpy"):
        expected = trainer(epochs=2).fit(x, y).step_losses
    np.testing.assert_allclose(trainer(epochs=2).fit(x, y).step_losses, expected, rtol=1e-4)


def test_rows_can_be_left_in_their_order():
    x, y = digits(64)
    stored = trainer(shuffle=False, epochs=1, seed=1).fit(x, y).step_losses
    np.testing.assert_array_equal(
        stored, trainer(shuffle=False, epochs=1, seed=2).fit(x, y).step_losses
    )
    assert not np.array_equal(stored, trainer(epochs=1, seed=1).fit(x, y).step_losses)


def test_lr_decay_multiplies_after_each_epoch():
    x, y = digits()
    history = trainer(optimizer=SGD(0.1), lr_decay=0.5).fit(x, y)
    assert history["lr"] == pytest.approx([0.1, 0.05, 0.025])


def test_lr_decay_and_a_schedule_exclude_each_other():
    with pytest.raises(ConfigError, match="got both"):
        trainer(optimizer=SGD(0.1, schedule="cosine"), lr_decay=0.5)


def test_open_schedule_gets_the_number_of_steps():
    x, y = digits()
    t = trainer(optimizer=Adam(1e-3, schedule="cosine"))
    t.fit(x, y)
    assert t.optimizer.schedule == Cosine(total=39)


def test_schedule_may_be_a_plain_function():
    x, y = digits(64)
    history = trainer(optimizer=SGD(0.1, schedule=lambda step: 0.5**step)).fit(x, y)
    assert history["lr"] == pytest.approx([0.1 * 0.5**1, 0.1 * 0.5**3, 0.1 * 0.5**5])


def test_early_stopping_waits_for_its_patience():
    x, y = digits()
    stop = EarlyStopping(2, monitor="val_loss")
    history = trainer(optimizer=SGD(0.0), epochs=20, callbacks=[stop]).fit(x, y, (x, y))
    assert len(history) == 3  # the first sets the mark, two more wait
    assert history.ending.startswith("early stopping: val_loss")


def test_a_plateau_lowers_the_rate_and_may_end_the_training():
    x, y = digits()
    lower = ReduceOnPlateau(2, monitor="train_loss", min_delta=100.0, factor=0.5)
    training = trainer(optimizer=SGD(0.4), epochs=7, callbacks=[lower])
    history = training.fit(x, y)
    assert history["lr"] == [0.4, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1]  # after epochs 3, 5 and 7
    assert training.optimizer.lr == 0.05
    lower = ReduceOnPlateau(1, monitor="train_loss", min_delta=100.0, factor=0.5, stop_at=0.1)
    history = trainer(optimizer=SGD(0.4), epochs=20, callbacks=[lower]).fit(x, y)
    assert history["lr"] == [0.4, 0.4, 0.2, 0.1]
    assert history.ending == "plateau: train_loss, and the learning rate is at 0.1"
    with pytest.raises(ConfigError, match="`ReduceOnPlateau`: expected factor"):
        ReduceOnPlateau(factor=1.5)


def test_early_stopping_needs_its_column():
    x, y = digits(64)
    with pytest.raises(ConfigError, match="pass validation data"):
        trainer(callbacks=[EarlyStopping(2)]).fit(x, y)


needs_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGINT that a process can send itself"
)


class PressCtrlC(Callback):
    def __init__(self, at_step, times=1):
        self.at_step, self.times, self.steps = at_step, times, 0

    def on_step(self, trainer, loss):
        self.steps += 1
        if self.steps == self.at_step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


@needs_signals
def test_ctrl_c_ends_cleanly_and_keeps_the_best_so_far(default_ctrl_c):
    x, y = digits()
    watch = Watch()
    t = trainer(epochs=50, callbacks=[watch, PressCtrlC(at_step=30)])
    history = t.fit(x, y, validation=(x, y))
    assert history.interrupted
    assert len(history.step_losses) == 30
    assert history["step"] == [13, 26, 30]
    best = watch.states[history.best_epoch - 1]
    np.testing.assert_array_equal(t.model.state_dict()["0.W"], best["0.W"])
    assert watch.calls[-1] == "end"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@needs_signals
def test_second_ctrl_c_raises(default_ctrl_c):
    x, y = digits()
    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks=[PressCtrlC(at_step=3, times=2)]).fit(x, y)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_works_outside_of_the_main_thread():
    x, y = digits(64)
    lengths = []
    thread = threading.Thread(target=lambda: lengths.append(len(trainer().fit(x, y))))
    thread.start()
    thread.join()
    assert lengths == [3]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_reported_and_the_last_good_epoch_kept():
    x, y = digits()

    class Explode(Callback):
        def on_epoch(self, trainer, row):
            if row["epoch"] == 2:
                trainer.optimizer.lr = 1e30

    t = trainer(optimizer=SGD(0.1), epochs=9, callbacks=[Explode()])
    history = t.fit(x, y, validation=(x, y))
    assert history.ending.startswith("diverged") and "lower the learning rate" in history.ending
    assert len(history) == 3 and history.best_epoch == 2
    assert np.isfinite(t.evaluate(x, y)["loss"])


def test_callbacks_are_called_in_order():
    x, y = digits(64)
    watch = Watch()
    trainer(epochs=2, callbacks=[watch]).fit(x, y)
    assert watch.calls == ["start", "step", "step", "epoch", "step", "step", "epoch", "end"]


def test_history_is_written_after_every_epoch(tmp_path):
    x, y = digits(64)
    lengths = []

    class Count(Callback):
        def on_epoch(self, trainer, row):
            lengths.append(len((tmp_path / "history.csv").read_text().splitlines()))

    trainer(callbacks=[SaveHistory(tmp_path / "history.csv"), Count()]).fit(x, y)
    assert lengths == [2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_regression_reports_r2(rng):
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = (x @ np.array([[1.0], [-2.0], [0.5]])).astype(np.float32)
    model = FullyConnectedNet([3, 1], output="identity")
    t = Trainer(model, MSE(), Adam(0.05), epochs=30, batch_size=20, progress=False)
    history = t.fit(x, y, validation=(x, y))
    assert history["val_r2"][-1] > 0.999
    assert t.evaluate(x, y)["r2"] > 0.999


def test_normalization_is_applied_to_training_and_evaluation():
    data = load_digits()
    x, y = data.x_train[:300], data.y_train[:300]
    normalization = Normalization.fit(x, per_feature=False)
    inside = trainer(normalization=normalization)
    outside = trainer()
    ready = normalization.apply(x).reshape(300, -1)
    np.testing.assert_allclose(
        inside.fit(x, y).step_losses, outside.fit(ready, y).step_losses, rtol=1e-5
    )
    assert inside.evaluate(x, y)["loss"] == pytest.approx(outside.evaluate(ready, y)["loss"], 1e-4)


def test_population_is_trained_together():
    x, y = digits()
    alone = [
        trainer(FullyConnectedNet([64, 16, 10], seed=seed), optimizer=SGD(0.1)).fit(x, y)
        for seed in (0, 1)
    ]
    model = FullyConnectedNet([64, 16, 10], seed=0, population=2)
    together = trainer(model, optimizer=SGD(0.1)).fit(x, y)
    expected = np.stack([history.step_losses for history in alone], axis=1)
    np.testing.assert_allclose(together.step_losses, expected, rtol=1e-4)
    means = np.mean([history["train_accuracy"] for history in alone], axis=0)
    np.testing.assert_allclose(together["train_accuracy"], means, atol=0.01)


@pytest.mark.parametrize("option", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, 2.5, "3"])
def test_sizes_other_than_whole_numbers_are_refused(option, value):
    with pytest.raises(ConfigError, match=option):
        trainer(**{option: value})
    trainer(**{option: np.int64(2)})


@pytest.mark.parametrize(
    ("option", "value"),
    [("loss", "mse"), ("loss", MSE), ("optimizer", "adam"), ("optimizer", [SGD(0.1)]),
     ("penalty", 1e-4), ("loss", SGD(0.1))],
)  # fmt: skip
def test_other_objects_in_place_of_parts_are_refused(option, value):
    with pytest.raises(ConfigError, match=f"expected {option} to be a"):
        trainer(**{option: value})


def test_validation_data_are_a_pair():
    x, y = digits(64)
    with pytest.raises(ConfigError, match=r"validation=\(x, y\)"):
        trainer().fit(x, y, validation=x)


def test_unknown_monitor_lists_the_columns():
    x, y = digits(64)
    with pytest.raises(ConfigError, match="val_accuracy"):
        trainer(monitor="val_f1").fit(x, y, validation=(x, y))


def test_progress_prints_a_line_for_each_epoch(capsys):
    x, y = digits(64)
    trainer(progress=True).fit(x, y, validation=(x, y))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/3  train loss ") and "samples/s" in lines[0]
    assert "validation loss" in lines[0] and "accuracy" in lines[0]


def test_live_bar_shows_in_a_terminal(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("xpmlp.training.progress._REFRESH_SECONDS", 0.0)
    x, y = digits(64)
    trainer(progress=True).fit(x, y)
    text = capsys.readouterr().err
    assert "samples/s" in text and "epoch 1/3" in text and "━" in text


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("rich", [True, False])
def test_a_wait_for_the_compiler_is_explained_once_in_a_terminal(
    rich, terminal, monkeypatch, capsys
):
    if rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar, running = Progress(), trainer(progress=False)
    running.steps_per_epoch = 3
    bar.on_start(running)
    for _ in range(2):
        if kernels.on_compile is not None:
            kernels.on_compile()
    bar.on_end(running, History())
    assert kernels.on_compile is None
    assert ("compiling for this machine" in capsys.readouterr().err) == terminal


def test_label_smoothing_reaches_the_loss():
    x, y = digits(64)
    plain = trainer(epochs=1).fit(x, y).step_losses
    smooth = trainer(loss=SoftmaxCrossEntropy(label_smoothing=0.2), epochs=1).fit(x, y).step_losses
    assert not np.allclose(plain, smooth)
