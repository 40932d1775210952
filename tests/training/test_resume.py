"""Trainings that are stopped anywhere and go on end with the bits of one that is not."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import tempfile

import numpy as np
import pytest

import xpmlp
from xpmlp.errors import CheckpointError, ConfigError
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam, Muon
from xpmlp.penalties import L2
from xpmlp.schedules import Cosine, WarmUp
from xpmlp.training import (
    Callback,
    Checkpoint,
    EarlyStopping,
    PopulationTrainer,
    ReduceOnPlateau,
    SaveHistory,
    Trainer,
    TrainStep,
    load_model,
    save_model,
)
from xpmlp.training.state_file import read_state, write_state

STEPS = 5  # an epoch of 50 rows
EPOCHS = 6


def data(rows=50):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 5))
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


VALIDATION = data(24)


def network(**options):
    given = {"dropout": 0.2, "normalization": "batchnorm", "seed": 1, "dtype": "float64"}
    return FullyConnectedNet([5, 8, 3], **given | options)


def trainer(kind=Trainer, model=None, callbacks=(), **options):
    given = {"optimizer": Adam(1e-2), "epochs": EPOCHS, "batch_size": 10, "progress": False}
    return kind(model or network(), callbacks=callbacks, **given | options)


class Killed(BaseException):
    pass


class Kill(Callback):
    """Ends everything at a step, as ``kill -9`` would; what was saved before is all there is."""

    def __init__(self, step):
        self.step = step

    def on_step(self, trainer, loss):
        self.step -= 1
        if self.step < 0:
            raise Killed


def always(path):
    """A checkpoint after each step."""
    return Checkpoint(path, every=0.0, share=1.0)


def kill(make, step, path, validation):
    with pytest.raises(Killed):
        make([Kill(step), always(path)]).fit(*data(), validation)


def assert_same_state(one, other):
    """All but times."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "samples_per_second"}:
            assert_same_state(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same_state(*pair)
    elif isinstance(one, np.ndarray | float):
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


def assert_same_end(whole, resumed):
    assert_same_state(whole.model.state_dict(), resumed.model.state_dict())
    assert_same_state(whole.history.state_dict(), resumed.history.state_dict())
    assert whole.optimizer.steps == resumed.optimizer.steps
    if whole.model.population is None:  # of members that have left, nothing more is remembered
        assert whole.model.counters() == resumed.model.counters()
        assert_same_state(whole.optimizer.state_dict(), resumed.optimizer.state_dict())


PLACES = (1, STEPS - 1, STEPS, STEPS + 1, 3 * STEPS + 2, EPOCHS * STEPS - 1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("validation", [None, VALIDATION], ids=["alone", "validated"])
def test_a_training_goes_on_to_the_bit(place, validation, tmp_path):
    def make(callbacks=()):
        return trainer(optimizer=Adam(1e-2, schedule="onecycle"), callbacks=callbacks)

    whole, resumed = make(), make()
    whole.fit(*data(), validation)
    kill(make, place, tmp_path / "state.npz", validation)
    resumed.fit(*data(), validation, resume=tmp_path / "state.npz")
    assert_same_end(whole, resumed)


OPTIONS = [
    {"optimizer": SGD(0.1), "lr_decay": 0.5},
    {"optimizer": SGD(0.1, momentum=0.9), "clip_norm": 0.5, "penalty": L2(1e-2)},
    {"optimizer": Adam(1e-2, schedule=WarmUp(steps=3, then="cosine"))},
    {"optimizer": Adam(1e-2, schedule=Cosine(total=50)), "restore_best": False},
    {"optimizer": Muon(), "shuffle": False},
    {"loss": SoftmaxCrossEntropy(class_weights=[1, 2, 3], label_smoothing=0.1), "seed": 3},
    {"monitor": "val_loss", "drop_last": True, "batch_size": 12},
    {"patience": 2, "optimizer": Adam(0.3)},
]


@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options))
def test_whatever_it_is_made_with(options, kernels, tmp_path, request):
    if kernels == "off":
        request.getfixturevalue("without_kernels")
    options = dict(options)
    patience = options.pop("patience", None)

    def make(callbacks=()):
        patient = [] if patience is None else [EarlyStopping(patience)]
        return trainer(callbacks=[*callbacks, *patient], **options)

    whole, resumed = make(), make()
    whole.fit(*data(), VALIDATION)
    place = 2 * STEPS if patience else 3 * STEPS - 2
    kill(make, place, tmp_path / "state.safetensors", VALIDATION)
    resumed.fit(*data(), VALIDATION, resume=tmp_path / "state.safetensors")
    assert_same_end(whole, resumed)


def test_a_rate_that_was_lowered_is_not_the_one_that_was_asked_for(tmp_path):
    def make(callbacks=()):
        lower = ReduceOnPlateau(1, min_delta=100.0, factor=0.5)
        return trainer(callbacks=[*callbacks, lower], optimizer=SGD(0.1))

    whole, resumed = make(), make()
    whole.fit(*data(), VALIDATION)
    kill(make, 3 * STEPS - 2, tmp_path / "state.safetensors", VALIDATION)
    resumed.fit(*data(), VALIDATION, resume=tmp_path / "state.safetensors")
    assert resumed.optimizer.lr < 0.1
    assert_same_end(whole, resumed)


class Drop(Callback):
    def __init__(self, epoch, members):
        self.epoch, self.members = epoch, members

    def on_epoch(self, trainer, row):
        if row["epoch"] == self.epoch:
            trainer.drop(self.members, "dropped")


POPULATIONS = [
    ({}, {}),
    ({"dropout": 0.0, "normalization": None}, {"sampling": "own", "seed": [3, 4, 5, 6]}),
    ({}, {"sampling": "bootstrap", "optimizer": Adam([1e-3, 1e-2, 1e-1, 1.0])}),
    ({"dropout": [0.0, 0.0, 0.2, 0.3]}, {"clip_norm": [1.0, 2.0, 0.5, 0.5]}),
]


@pytest.mark.parametrize("place", [2, 2 * STEPS, 2 * STEPS + 1, 5 * STEPS + 3])
@pytest.mark.parametrize(("options", "training"), POPULATIONS, ids=str)
def test_a_population_goes_on_to_the_bit(options, training, place, tmp_path):
    def make(callbacks=()):
        net = network(**{"population": 4} | options)
        every = [EarlyStopping(3), Drop(2, [2, 3]), *callbacks]
        return trainer(PopulationTrainer, net, every, **training)

    whole, resumed = make(), make()
    whole.fit(*data(), VALIDATION)
    kill(make, place, tmp_path / "state.npz", VALIDATION)
    resumed.fit(*data(), VALIDATION, resume=tmp_path / "state.npz")
    assert_same_end(whole, resumed)
    assert whole.history.endings[2:] == ["dropped"] * 2


@pytest.mark.parametrize("normalization", [None, "layernorm"])
@pytest.mark.parametrize(
    "options",
    [
        {"sizes": [5, [6, 6, 16, 16], 3]},
        {"sizes": [5, 6, 3], "dropout": [0.0, 0.0, 0.2, 0.2]},
    ],
    ids=["the widest", "those that drop units"],
)
def test_members_that_leave_may_change_the_shape_of_the_others(options, normalization, tmp_path):
    def make(callbacks=()):
        net = FullyConnectedNet(**options, normalization=normalization, population=4, seed=1)
        return trainer(PopulationTrainer, net, [Drop(2, [2, 3]), *callbacks])

    whole, resumed = make(), make()
    whole.fit(*data(), VALIDATION)
    alone = FullyConnectedNet([5, 6, 3], normalization=normalization, seed=1)
    trainer(model=alone).fit(*data(), VALIDATION)
    member = whole.model.member(0)
    for name, array in alone.state_dict().items():
        np.testing.assert_allclose(member.state_dict()[name], array, rtol=1e-5, atol=1e-6)
    kill(make, 3 * STEPS, tmp_path / "state.npz", VALIDATION)
    resumed.fit(*data(), VALIDATION, resume=tmp_path / "state.npz")
    assert_same_end(whole, resumed)


@pytest.mark.parametrize("population", [None, 3])
def test_what_one_library_has_begun_numpy_goes_on_with(population, library, tmp_path):
    kind = Trainer if population is None else PopulationTrainer
    x, y = data()

    def make(callbacks=()):
        return trainer(kind, network(population=population), callbacks)

    whole = make()
    whole.fit(x, y, VALIDATION)
    kill(make, 3 * STEPS + 2, tmp_path / "state.npz", VALIDATION)
    with xpmlp.use_backend("numpy"):
        resumed = make()
        resumed.fit(x, y, VALIDATION, resume=tmp_path / "state.npz")
    for name, array in whole.model.state_dict().items():
        np.testing.assert_allclose(resumed.model.state_dict()[name], array, rtol=1e-7, atol=1e-9)


def test_patience_goes_on_where_it_was(tmp_path):
    def make(callbacks=()):
        patient = EarlyStopping(4, monitor="epoch")  # which never gets better
        return trainer(callbacks=[*callbacks, patient])

    whole, resumed = make(), make()
    assert len(whole.fit(*data())) == 5
    kill(make, 3 * STEPS, tmp_path / "state.npz", None)
    assert read_state(tmp_path / "state.npz")["callbacks"][1][1]["waited"] == 2
    resumed.fit(*data(), resume=tmp_path / "state.npz")
    assert_same_end(whole, resumed)


def test_what_a_callback_has_changed_stays_changed(tmp_path):
    class Slower(Callback):
        def on_epoch(self, trainer, row):
            if row["epoch"] == 2:
                trainer.optimizer.lr = 1e-4

    def make(callbacks=()):
        return trainer(callbacks=[Slower(), *callbacks])

    whole, resumed = make(), make()
    whole.fit(*data())
    kill(make, 4 * STEPS, tmp_path / "state.npz", None)
    resumed.fit(*data(), resume=tmp_path / "state.npz")
    assert resumed.optimizer.lr == 1e-4
    assert_same_end(whole, resumed)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("place", [2 * STEPS - 2, 2 * STEPS + 2, 3 * STEPS])
def test_one_that_diverges_later_falls_back_on_the_same_network(place, tmp_path):
    class Poison(Callback):
        def on_epoch(self, trainer, row):
            if row["epoch"] == 2:
                trainer.optimizer.lr = 1e200

    def make(callbacks=()):
        return trainer(
            optimizer=SGD(0.1), model=network(dropout=0), callbacks=[Poison(), *callbacks]
        )

    whole, resumed = make(), make()
    whole.fit(*data())
    assert whole.history.ending.startswith("diverged")
    # It may have ended before the kill: then the end itself was saved.
    with contextlib.suppress(Killed):
        make([Kill(place), always(tmp_path / "state.npz")]).fit(*data())
    resumed.fit(*data(), resume=tmp_path / "state.npz")
    assert_same_state(whole.model.state_dict(), resumed.model.state_dict())
    assert whole.history.ending == resumed.history.ending


@pytest.mark.parametrize("population", [None, 2])
def test_one_that_has_ended_is_given_back(population, tmp_path):
    kind = Trainer if population is None else PopulationTrainer
    path = tmp_path / "state.npz"

    def make(callbacks=()):
        net = network(population=population)
        return trainer(kind, net, [EarlyStopping(1), *callbacks], optimizer=Adam(0.3))

    whole, again = make([Checkpoint(path)]), make([Kill(0)])
    whole.fit(*data(), VALIDATION)
    again.fit(*data(), VALIDATION, resume=path)
    assert_same_end(whole, again)
    with pytest.raises(Killed):  # more epochs are another training, and one that trains
        longer = trainer(kind, network(population=population), [Kill(0)], epochs=EPOCHS + 1)
        finished = trainer(kind, network(population=population), [Checkpoint(path)])
        finished.fit(*data())
        longer.fit(*data(), resume=path, strict=False)


def test_a_folder_stands_for_the_checkpoint_in_it(tmp_path):
    trainer(callbacks=[Checkpoint(tmp_path / "checkpoint.safetensors")]).fit(*data())
    assert len(trainer().fit(*data(), resume=tmp_path)) == EPOCHS


# Another training does not go on by mistake.

OTHERS = {
    "settings.seed was 0, is 1": {"seed": 1},
    "settings.epochs was 6, is 7": {"epochs": 7},
    "settings.optimizer.lr was 0.01, is 0.02": {"optimizer": Adam(0.02)},
    "settings.optimizer.kind was 'Adam', is 'SGD'": {"optimizer": SGD(0.01)},
    "settings.schedule.kind was 'Constant', is 'Cosine'": {
        "optimizer": Adam(1e-2, schedule="cosine")
    },
    "settings.loss.label_smoothing was 0.0, is 0.1": {
        "loss": SoftmaxCrossEntropy(label_smoothing=0.1)
    },
    "settings.penalty": {"penalty": L2(0.1)},
    "settings.model.dropout was 0.2, is 0.3": {"model": network(dropout=0.3)},
    "settings.callbacks": {"callbacks": [EarlyStopping(2)]},
}


@pytest.mark.parametrize("message", OTHERS)
def test_what_differs_is_named_and_refused(message, tmp_path):
    path = tmp_path / "state.npz"
    trainer(callbacks=[Checkpoint(path)]).fit(*data())
    other = trainer(**OTHERS[message])
    before = other.model.state_dict()
    with pytest.raises(CheckpointError, match=message) as error:
        other.fit(*data(), VALIDATION if "callbacks" in message else None, resume=path)
    assert "strict=False" in str(error.value) and "state.npz" in str(error.value)
    assert_same_state(before, other.model.state_dict())


def test_other_data_and_versions_are_refused_unless_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    x, y = data()
    kill(lambda callbacks: trainer(callbacks=callbacks), 12, path, None)
    moved = x.copy()
    moved[3, 2] += 1e-9
    with pytest.raises(CheckpointError, match=r"data\.x was 'float64 50×5 \w+', is 'float64 50×5"):
        trainer().fit(moved, y, resume=path)
    with pytest.raises(CheckpointError, match=r"data\.validation x was None"):
        trainer().fit(x, y, VALIDATION, resume=path)
    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="version was '0"):
        patch.setattr("xpmlp.training.identity.__version__", "9.9")
        trainer().fit(x, y, resume=path)
    assert len(trainer().fit(moved, y, resume=path, strict=False)) == EPOCHS
    slower = trainer(optimizer=Adam(1e-3), epochs=4)
    assert len(slower.fit(x, y, resume=path, strict=False)) == 4
    assert slower.optimizer.lr == 1e-3 and slower.history["lr"] == [1e-2, 1e-2, 1e-3, 1e-3]


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "text", "model", "other kind", "list", "none", "deep"]
)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_what_is_no_checkpoint_says_so(damage, ending, tmp_path):
    path = tmp_path / f"state.{ending}"
    whole = trainer(callbacks=[Checkpoint(path)])
    whole.fit(*data())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("xpmlp" * 100)
    elif damage == "model":
        save_model(path, network())
    elif damage == "other kind":
        net = network(population=2)
        trainer(PopulationTrainer, net, [Checkpoint(path)]).fit(*data())
    else:
        state = read_state(path)
        state["history"] = [1] if damage == "list" else {"rows": None}
        write_state(path, state)
    other = trainer()
    with pytest.raises(CheckpointError, match=f"state.{ending}"):
        other.fit(*data(), resume=path, strict=damage != "other kind")


def test_where_there_is_none_the_way_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"found none at .*checkpoint\.safetensors"):
        trainer().fit(*data(), resume=tmp_path)
    with pytest.raises(ConfigError, match=r"ending in .safetensors or .npz, got 'a.pkl'"):
        Checkpoint("a.pkl")


# Signals.


class Send(Callback):
    """A signal in the middle of an epoch, or several."""

    def __init__(self, step, *numbers):
        self.step, self.numbers = step, numbers

    def on_step(self, trainer, loss):
        if trainer.optimizer.steps == self.step:
            for number in self.numbers:
                os.kill(os.getpid(), number)


SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@needs_signals
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("population", [None, 3])
def test_a_signal_keeps_what_is_trained_and_leaves_where_it_stopped(
    name, population, tmp_path, default_ctrl_c
):
    kind = Trainer if population is None else PopulationTrainer
    number, path = getattr(signal, name), tmp_path / "state.npz"

    def make(callbacks=()):
        return trainer(kind, network(population=population), callbacks)

    whole, stopped, resumed = make(), make([Send(13, number), Checkpoint(path)]), make()
    whole.fit(*data(), VALIDATION)
    before = signal.getsignal(number)
    history = stopped.fit(*data(), VALIDATION)
    assert history.interrupted and signal.getsignal(number) == before
    assert history.ending == ("interrupted" if name == "SIGINT" else f"interrupted by {name}")
    assert len(history) == 3 and len(history.step_losses) == 13
    resumed.fit(*data(), VALIDATION, resume=path)
    assert_same_end(whole, resumed)


@needs_signals
def test_signals_that_someone_else_handles_or_ignores_stay_so(default_ctrl_c):
    seen = []
    before = [
        signal.signal(signal.SIGHUP, signal.SIG_IGN),
        signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number)),
    ]
    try:
        history = trainer(callbacks=Send(7, signal.SIGHUP, signal.SIGTERM)).fit(*data())
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert history.ending == "finished" and seen == [signal.SIGTERM]


@needs_signals
def test_a_second_ctrl_c_waits_for_what_is_being_saved(tmp_path, default_ctrl_c, monkeypatch):
    path, sync = tmp_path / "state.npz", os.fsync

    def impatient(handle):
        os.kill(os.getpid(), signal.SIGINT)
        sync(handle)

    whole, resumed = trainer(), trainer()
    whole.fit(*data())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", impatient)
        trainer(callbacks=[Send(13, signal.SIGINT), Checkpoint(path)]).fit(*data())
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]
    resumed.fit(*data(), resume=path)
    assert_same_end(whole, resumed)


@needs_signals
def test_a_terminal_that_closes_may_say_so_twice(default_ctrl_c):
    history = trainer(callbacks=Send(7, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)).fit(*data())
    assert history.interrupted


# What cannot be written.


def no_space(*arguments, **options):
    raise OSError(28, "No space left on device")


def test_a_full_disk_costs_the_checkpoint_only(tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    kill(lambda callbacks: trainer(callbacks=callbacks), 12, path, None)
    before = path.read_bytes()
    whole = trainer()
    whole.fit(*data())
    resumed = trainer(callbacks=[SaveHistory(tmp_path / "history.csv"), always(path)])
    with monkeypatch.context() as patch, pytest.warns(UserWarning) as found:
        patch.setattr(tempfile, "mkstemp", no_space)
        resumed.fit(*data(), resume=path)
    messages = {str(warning.message) for warning in found}
    assert any("checkpoint is not saved: cannot write" in message for message in messages)
    assert any("history is not saved: cannot write" in message for message in messages)
    assert path.read_bytes() == before and [f.name for f in tmp_path.iterdir()] == ["state.npz"]
    assert_same_end(whole, resumed)
    assert resumed.callbacks[-1].saves == 0


def test_a_folder_that_vanishes_costs_the_checkpoint_only(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()

    class Remove(Callback):
        def on_epoch(self, trainer, row):
            if row["epoch"] == 2:
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()

    whole, other = trainer(), trainer(callbacks=[always(folder / "state.npz"), Remove()])
    whole.fit(*data())
    with pytest.warns(UserWarning, match="checkpoint is not saved"):
        other.fit(*data())
    assert_same_end(whole, other)


def test_strays_of_a_killed_process_are_cleaned_at_the_next_start(tmp_path):
    stray, other = tmp_path / ".state.npz.k3x9.tmp", tmp_path / ".else.npz.k3x9.tmp"
    stray.touch()
    other.touch()
    trainer(callbacks=[Checkpoint(tmp_path / "state.npz")]).fit(*data())
    assert {file.name for file in tmp_path.iterdir()} == {"state.npz", other.name}


def test_saves_are_as_far_apart_as_asked_and_as_they_cost(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    class Clock(Callback):
        def on_step(self, trainer, loss):
            now[0] += 1.0

    def times(cost, **options):
        saved = []

        def write(path, state):
            saved.append(now[0])
            now[0] += cost

        monkeypatch.setattr("xpmlp.training.checkpoint_callback.write_state", write)
        now[0] = 0.0
        callbacks = [Checkpoint(tmp_path / "state.npz", at_end=False, **options), Clock()]
        trainer(callbacks=callbacks, epochs=20).fit(*data())
        return saved

    assert times(0.0, every=30.0) == [30.0, 60.0, 90.0]
    assert times(1.0, every=10.0, share=0.02) == [10.0, 60.0]  # a fiftieth of the time
    assert times(0.0, every=1000.0) == []


def test_a_checkpoint_is_not_made_to_be_pickled_but_trainers_are(tmp_path):
    t = trainer(callbacks=[Checkpoint(tmp_path / "state.npz")])
    t.fit(*data())
    twin = copy.deepcopy(t)
    twin.fit(*data())
    t.fit(*data())
    assert_same_end(t, twin)


def test_a_saved_network_goes_on_with_the_masks_that_come_next(tmp_path):
    x, y = data()
    net, optimizer = network(), Adam(1e-2)
    step = TrainStep(net, SoftmaxCrossEntropy(), optimizer)
    for _ in range(3):
        step(x, y)
    save_model(tmp_path / "net.npz", net)
    other, _ = load_model(tmp_path / "net.npz")
    assert other.counters() == net.counters() == {"3.step": 3}
    twin = optimizer.copy().fresh()
    twin.load_state_dict(optimizer.state_dict(), other.params)
    step(x, y)
    TrainStep(other, SoftmaxCrossEntropy(), twin)(x, y)
    assert_same_state(net.state_dict(), other.state_dict())


def test_models_of_before_there_were_counters_are_read(tmp_path):
    path = tmp_path / "net.npz"
    save_model(path, network())
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["xpmlp"]))
    del header["counters"]
    np.savez(path, **arrays | {"xpmlp": np.array(json.dumps(header))})
    assert load_model(path)[0].counters() == {"3.step": 0}


def test_yes_or_no_and_numbers_go_on_as_well(tmp_path):
    x, y = data()
    for output, loss, targets in (
        ("sigmoid", None, (y[:, None] > 0).astype(float)),
        ("identity", MSE(), x[:, :2]),
    ):
        width = targets.shape[1]

        def make(callbacks=(), output=output, loss=loss, width=width):
            net = FullyConnectedNet([5, 8, width], output=output, seed=2)
            return trainer(model=net, loss=loss, callbacks=callbacks)

        whole, resumed, path = make(), make(), tmp_path / "state.npz"
        whole.fit(x, targets, (x, targets))
        with pytest.raises(Killed):
            make([Kill(13), always(path)]).fit(x, targets, (x, targets))
        resumed.fit(x, targets, (x, targets), resume=path)
        assert_same_end(whole, resumed)
