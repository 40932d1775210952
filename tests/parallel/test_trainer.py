"""A training of several ranks is that of one process, and its decisions are made once for all."""

from __future__ import annotations

import time

import numpy as np
import pytest
from parallel.ranks import run_ranks

from xpmlp.errors import CheckpointError, ConfigError, StateError
from xpmlp.losses import MSE, BCEWithLogits
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam
from xpmlp.training import (
    Callback,
    Checkpoint,
    EarlyStopping,
    SaveHistory,
    TimeLimit,
    Trainer,
)

ROWS = 214  # batches of 64 and a last one of 22


def data(output="softmax"):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (ROWS, 11), dtype=np.uint8)
    if output == "softmax":
        return x, (x[:, :3].argmax(axis=1)).astype(np.int64)
    y = x[:, :2] / 100.0
    return x, (y > 1.2).astype(float) if output == "sigmoid" else y


def trainer(comm=None, *callbacks, output="softmax", epochs=3, seed=0, **options):
    outputs = 3 if output == "softmax" else 2
    net = FullyConnectedNet(
        [11, 16, 12, outputs],
        normalization="batchnorm",
        dropout=0.2,
        output=output,
        dtype="float64",
        seed=seed,
    )
    options = {"batch_size": 64, "progress": False} | options
    options.setdefault("optimizer", SGD(0.05, momentum=0.9, schedule="cosine"))
    return Trainer(net, epochs=epochs, callbacks=callbacks, parallel=comm, **options)


def fitted(comm, x, y, *callbacks, validation=True, resume=None, weights=None, **options):
    made = trainer(comm, *callbacks, **options)
    held = (x[:90], y[:90]) if validation else None
    history = made.fit(x, y, held, resume=resume, sample_weight=weights)
    return made, history


TIMES = ("seconds", "samples_per_second")


def assert_alike(found, one):
    (trainer, history), (alone, expected) = found, one
    assert history.ending == expected.ending and history.best_epoch == expected.best_epoch
    assert len(history) == len(expected)
    np.testing.assert_allclose(history.step_losses, expected.step_losses, rtol=1e-11)
    for row, other in zip(history.rows, expected.rows, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - set(TIMES):
            np.testing.assert_allclose(row[name], other[name], rtol=1e-10, err_msg=name)
    arrays = alone.model.state_dict()
    largest = max(np.abs(array).max() for array in arrays.values())
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_allclose(array, arrays[name], rtol=0, atol=1e-11 * largest, err_msg=name)


@pytest.mark.parametrize("output", ["softmax", "identity", "sigmoid"])
@pytest.mark.parametrize("size", [2, 3])
def test_the_training_of_one_process(output, size):
    x, y = data(output)
    loss = {"softmax": None, "identity": MSE(), "sigmoid": BCEWithLogits()}[output]
    options = {"output": output, "loss": loss}
    one = fitted(None, x, y, **options)
    everyone = run_ranks(size, lambda comm: fitted(comm, x, y, **options))
    for found in everyone:
        assert_alike(found, one)
        assert found[1].rows == everyone[0][1].rows


def test_metrics_and_weights_are_those_of_all_rows():
    x, y = data()
    weights = np.arange(ROWS) % 3 + 0.5
    options = {"weights": weights, "metrics": ["f1", "auc"], "monitor": "val_f1"}
    one = fitted(None, x, y, **options)
    assert "val_auc" in one[1].rows[0]
    for found in run_ranks(3, lambda comm: fitted(comm, x, y, **options)):
        assert_alike(found, one)


def test_more_ranks_than_rows_of_a_batch():
    x, y = data()
    one = fitted(None, x, y, epochs=2, batch_size=16)
    for found in run_ranks(6, lambda comm: fitted(comm, x, y, epochs=2, batch_size=16)):
        assert_alike(found, one)


def test_ranks_begin_with_the_first_ones_network():
    x, y = data()
    one = fitted(None, x, y)

    def work(comm):
        made = trainer(comm)
        if comm.rank:
            made.model.params["0.W"] = made.model.params["0.W"] + 1.0
        return made, made.fit(x, y, (x[:90], y[:90]))

    for found in run_ranks(2, work):
        assert_alike(found, one)


def test_other_data_or_settings_on_a_rank_are_refused_on_all():
    x, y = data()
    errors = []

    def work(comm):
        try:
            fitted(comm, x, y, batch_size=64 if comm.rank == 0 else 32)
        except ConfigError as error:
            errors.append(str(error))

    run_ranks(3, work)
    assert len(errors) == 3
    assert "rank 1: settings.batch_size is 32, not 64" in errors[0]


class At(Callback):
    """Does something after a step, on one rank."""

    def __init__(self, comm, step, action, rank=1):
        self.comm, self.step, self.action, self.rank = comm, step, action, rank

    def on_step(self, trainer, loss):
        if self.comm.rank == self.rank and trainer.optimizer.steps == self.step:
            self.action(trainer)


def test_a_rank_that_wishes_to_stop_stops_all_after_the_same_step():
    x, y = data()

    def work(comm):
        stop = At(comm, 5, lambda trainer: trainer.stop("enough"))
        made, history = fitted(comm, x, y, stop)
        return made.optimizer.steps, history.ending, len(history)

    assert run_ranks(3, work) == [(6, "enough", 2)] * 3  # told with the next step


def test_a_wish_of_the_last_step_is_not_lost():
    x, y = data()

    def work(comm):
        made, history = fitted(comm, x, y, At(comm, 4, lambda trainer: trainer.stop("enough")))
        return made.optimizer.steps, history.ending, len(history)

    assert run_ranks(2, work) == [(4, "enough", 1)] * 2


def test_a_signal_on_one_rank_interrupts_all_and_the_checkpoint_goes_on(tmp_path):
    x, y = data()
    whole = fitted(None, x, y)
    path = tmp_path / "run.npz"

    def stopped(comm):
        stop = At(comm, 5, lambda trainer: trainer.stopping._stop("interrupted"))
        return fitted(comm, x, y, stop, Checkpoint(path))[1].ending

    assert run_ranks(2, stopped) == ["interrupted"] * 2
    for size in (3, 1):  # with another number of ranks, or alone
        found = run_ranks(size, lambda comm: fitted(comm, x, y, resume=path))
        for each in found:
            assert_alike(each, whole)


def test_what_one_process_began_ranks_go_on_with(tmp_path):
    x, y = data()
    whole = fitted(None, x, y)
    path = tmp_path / "run.npz"

    class Stop(Callback):
        def on_step(self, trainer, loss):
            if trainer.optimizer.steps == 6:
                trainer.stop("interrupted")

    fitted(None, x, y, Stop(), Checkpoint(path))
    for found in run_ranks(2, lambda comm: fitted(comm, x, y, resume=path)):
        assert_alike(found, whole)


def test_a_checkpoint_that_the_first_rank_cannot_read_is_an_error_on_all(tmp_path):
    x, y = data()
    errors = []

    def work(comm):
        try:
            fitted(comm, x, y, resume=tmp_path / "none.npz")
        except CheckpointError as error:
            errors.append(str(error))

    run_ranks(2, work)
    assert len(errors) == 2 and errors[0] == errors[1]


def test_early_stopping_is_that_of_one_process():
    x, _ = data()
    noise = np.random.default_rng(5).integers(0, 3, ROWS)
    one = fitted(None, x, noise, EarlyStopping(2), epochs=30, optimizer=Adam(0.03))
    assert one[1].ending.startswith("early stopping")

    def work(comm):
        return fitted(comm, x, noise, EarlyStopping(2), epochs=30, optimizer=Adam(0.03))[1]

    for history in run_ranks(2, work):
        assert history.ending == one[1].ending and len(history) == len(one[1])


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_divergence_ends_all():
    x, y = data("identity")
    options = {"output": "identity", "loss": MSE(), "optimizer": SGD(1e200), "validation": False}
    for made, history in run_ranks(2, lambda comm: fitted(comm, x, y, **options)):
        assert history.ending.startswith("diverged")
        assert all(np.isfinite(array).all() for array in made.model.params.values())


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_after_divergence_all_have_the_network_that_the_first_began_with():
    x, y = data("identity")

    def work(comm):
        options = {"output": "identity", "loss": MSE(), "optimizer": SGD(1e200)}
        made = trainer(comm, **options)
        if comm.rank:
            made.model.params["0.W"] = made.model.params["0.W"] + 1.0
        assert made.fit(x, y).ending.startswith("diverged")
        return made.model.params["0.W"]

    first, second = run_ranks(2, work)
    np.testing.assert_array_equal(first, second)


def test_time_is_up_for_all_at_once():
    x, y = data()

    def work(comm):
        slow = At(comm, 2, lambda trainer: time.sleep(0.3), rank=0)
        limit = TimeLimit(0.2 if comm.rank == 0 else 1e9)
        return len(fitted(comm, x, y, slow, limit, epochs=1000)[1])

    assert len(set(run_ranks(2, work))) == 1


def test_only_the_first_rank_writes_and_draws(tmp_path, capsys):
    x, y = data()

    def work(comm):
        path = tmp_path / f"{comm.rank}.csv"
        fitted(comm, x, y, SaveHistory(path), Checkpoint(path.with_suffix(".npz")), progress=True)

    run_ranks(3, work)
    assert {path.name for path in tmp_path.iterdir()} == {"0.csv", "0.npz"}
    assert capsys.readouterr().err.count("epoch 1/3") == 1


def test_ranks_that_come_apart_are_told():
    x, y = data()

    def work(comm):
        def change(trainer):
            trainer.model.params["0.b"] = trainer.model.params["0.b"] + 1e-9

        fitted(comm, x, y, At(comm, 3, change))

    with pytest.raises(StateError, match=r"got others on \[1\]"):
        run_ranks(3, work)


def test_a_copy_of_a_trainer_has_no_ranks():
    import pickle

    def work(comm):
        return pickle.loads(pickle.dumps(trainer(comm)))

    copy = run_ranks(2, work)[1]
    assert copy.ranks is None
    assert len(copy.fit(*data())) == 3


def test_batches_that_come_from_elsewhere_are_refused():
    def work(comm):
        trainer(comm).fit([data(), data()])

    with pytest.raises(ConfigError, match="several ranks"):
        run_ranks(2, work)


def test_what_parallel_may_be():
    with pytest.raises(ConfigError, match="parallel"):
        trainer("threads")
