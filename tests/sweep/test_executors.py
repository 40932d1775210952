"""A sweep whose populations are trained by the workers of an executor."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest
from unit_work import kills

from xpmlp.cross_validation import cross_validate
from xpmlp.data import load_digits
from xpmlp.ensemble import Ensemble
from xpmlp.errors import CheckpointError, ConfigError, WorkerError
from xpmlp.sweep import Settings, SweepCheckpoints, expand, sweep
from xpmlp.sweep.plan import plan
from xpmlp.sweep.run import _Work
from xpmlp.units import Pool, Processes

BASE = Settings(hidden=(12,), epochs=3, batch_size=32, lr=0.01, dropout=0.1)
GRID = expand({"lr": [1e-3, 3e-3, 1e-2, 3e-2], "weight_decay": [0.0, 0.1, 0.3, 1.0]}, BASE)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x = (data.x_train / 16.0).reshape(len(data.x_train), 64).astype(np.float32)
    return x[:300], data.y_train[:300], (x[300:400], data.y_train[300:400])


def run(digits, settings=GRID, **options):
    return sweep(*digits, settings, **{"outputs": 10, "seeds": 2, "keep": (3,)} | options)


@pytest.fixture(scope="module")
def parted(digits):
    """The same populations, in this process."""
    return run(digits, memory=room_for(2))


def room_for(settings):
    """Bytes that so many settings, with two seeds each, fit into."""
    low, high = 1, 1 << 24
    while low < high:
        middle = (low + high + 1) // 2
        try:
            most = max(map(len, plan(GRID, 2, 64, 10, memory=middle)))
        except ConfigError:
            most = 0
        low, high = (middle, high) if most <= settings else (low, middle - 1)
    return low


def same(ours, theirs):
    assert ours.populations == theirs.populations
    assert ours.best == theirs.best and set(ours.models) == set(theirs.models)
    for a, b in zip(ours.trials, theirs.trials, strict=True):
        assert a == b
    for setting, net in theirs.models.items():
        for name, array in net.state_dict().items():
            assert array.tobytes() == ours.models[setting].state_dict()[name].tobytes()


def test_the_same_bits_as_here_and_results_as_they_finish(digits, parted):
    assert parted.populations == [4] * 8
    seen = []
    found = run(digits, executor=Processes(2), on_population=lambda r: seen.append(len(r.trials)))
    same(found, parted)
    assert seen == [4 * n for n in range(1, 9)]


def test_threads(digits, parted):
    with ThreadPoolExecutor(2) as threads:
        same(run(digits, executor=threads), parted)


def test_workers_get_four_populations_each():
    assert [len(group) for group in plan(GRID, 1, 64, 10, workers=2)] == [2] * 8
    assert [len(group) for group in plan(GRID[:3], 1, 64, 10, workers=2)] == [1] * 3
    assert [len(group) for group in plan(GRID, 1, 64, 10)] == [16]
    many = GRID * 4  # two for each of no fewer than sixteen networks
    assert [len(group) for group in plan(many, 1, 64, 10, workers=2)] == [16] * 4
    assert [len(group) for group in plan(many[:62], 1, 64, 10, workers=2)] == [8] * 6 + [7] * 2
    assert [len(group) for group in plan(many * 4, 1, 64, 10, workers=2)] == [32] * 8
    two = expand({"batch_size": [16, 32], "lr": [1e-3, 1e-2]}, BASE)
    assert len(plan(two, 1, 64, 10, workers=2)) == 4


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing(digits, parted, tmp_path):
    found = run(digits, executor=Processes(2), callbacks=kills(tmp_path / "kills", 1))
    same(found, parted)
    assert not list((tmp_path / "kills").iterdir())


@pytest.mark.slow
def test_a_population_that_kills_is_reported_and_tried_again_when_asked(digits, parted, tmp_path):
    states = tmp_path / "states"
    found = run(
        digits, executor=Processes(2), callbacks=kills(tmp_path / "kills", 9), checkpoints=states
    )
    lost = {trial.setting for trial in found.failed}
    assert 5 in lost and len(lost) == 2 and len(found.trials) == 32
    assert all(np.isnan(trial.scores["val_accuracy"]) for trial in found.failed)
    assert len(list((tmp_path / "kills").iterdir())) == 6
    rows = found.rows(["lr"])
    assert len({tuple(row) for row in rows}) == 1
    for trial in found.trials:
        assert trial.setting in lost or trial == next(
            t for t in parted.trials if (t.setting, t.seed) == (trial.setting, trial.seed)
        )
    same(run(digits, checkpoints=SweepCheckpoints(states, resume=True)), parted)


@pytest.mark.slow
def test_when_nothing_comes_to_an_end_there_is_an_error(digits, tmp_path):
    with pytest.raises(WorkerError, match=r"no population came to its end; failed: .*terminated"):
        run(
            digits,
            GRID[:6],
            executor=Processes(1),
            callbacks=kills(tmp_path / "kills", 9),
            memory=room_for(16),
        )


def test_what_is_finished_is_not_trained_again(digits, parted, tmp_path, monkeypatch):
    with ThreadPoolExecutor(2) as threads:
        run(digits, executor=threads, checkpoints=tmp_path / "states")
    shutil.copytree(tmp_path / "states", tmp_path / "again")
    for kind in ("finished-3", "population-3", "population-5"):
        for file in (tmp_path / "again").glob(f"{kind}*"):
            file.unlink()
    trained, train = [], _Work.train

    def noted(self, number, group):
        trained.append(number)
        return train(self, number, group)

    monkeypatch.setattr(_Work, "train", noted)
    found = run(digits, checkpoints=SweepCheckpoints(tmp_path / "again", resume=True))
    same(found, parted)
    assert trained == [2]


def test_another_sweep_is_refused_and_damage_named(digits, tmp_path):
    states = tmp_path / "states"
    with ThreadPoolExecutor(1) as thread:
        run(digits, executor=thread, checkpoints=states)
    x, y, validation = digits
    with pytest.raises(CheckpointError, match=r"data\.x was"):
        run((x + 1, y, validation), checkpoints=SweepCheckpoints(states, resume=True))
    with pytest.raises(CheckpointError, match=r"settings\.halving was False, is True"):
        run(digits, halving=True, checkpoints=SweepCheckpoints(states, resume=True))
    (states / "finished-1.json").write_text(json.dumps({"seconds": 1.0, "models": [99]}))
    with pytest.raises(CheckpointError, match=r"finished-1\.json.*it is trained again"):
        run(digits, checkpoints=SweepCheckpoints(states, resume=True))


def test_callbacks_that_cannot_travel_are_named(digits):
    with pytest.raises(ConfigError, match="can be pickled"):
        run(digits, executor=Processes(1), callbacks=lambda members: [])


@pytest.mark.slow
def test_cross_validation_is_the_same(digits):
    data, grid = digits[:2], GRID[:3]
    found = cross_validate(*data, grid, folds=3, executor=Processes(2))
    assert found.failures == {}
    for number, own in enumerate(grid):
        alone = cross_validate(*data, own, folds=3).cv_results_
        for name in ("split0_test_score", "split2_test_score", "mean_test_loss", "diverged"):
            assert alone[name][0] == found.cv_results_[name][number]


class Luckless(Executor):
    """Runs units at once, but for those whose settings have no luck."""

    def __init__(self, *luckless):
        self.luckless = luckless

    def submit(self, function, task, data):
        future = Future()
        if set(self.luckless) & set(task.unit):
            future.set_exception(OSError("no luck"))
        else:
            future.set_result(function(task, data))
        return future


def test_a_setting_that_fails_scores_nan(digits, monkeypatch):
    monkeypatch.setattr(Pool, "workers", 2)
    found = cross_validate(*digits[:2], GRID[:3], folds=2, executor=Luckless(1))
    assert found.failures == {1: "failed: OSError: no luck"}
    assert np.isnan(found.cv_results_["mean_test_score"]).tolist() == [False, True, False]
    assert found.cv_results_["diverged"].tolist() == [0, 0, 0]
    assert found.cv_results_["rank_test_score"][1] == 3 and found.best_index_ != 1
    with pytest.raises(WorkerError, match="no setting could be trained; failed: OSError"):
        cross_validate(*digits[:2], GRID[:3], folds=2, executor=Luckless(0, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["own", "shared"])
def test_an_ensemble_is_the_same(digits, sampling):
    options = {"members": 5, "outputs": 10, "seed": 3, "sampling": sampling}
    whole = Ensemble.train(*digits, BASE, **options)
    parted = Ensemble.train(*digits, BASE, **options, executor=Processes(2))
    assert len(whole) == len(parted) == 5
    for name, array in whole.population.params.items():
        ours = parted.population.params[name]
        np.testing.assert_allclose(ours, array, rtol=1e-3, atol=1e-5)
    for number in (0, 4):  # each was a population of its own
        alone = Ensemble.train(*digits, BASE, **options | {"members": 1, "seed": 3 + number})
        if sampling == "own":
            ours = parted.population.member(number)
            for name, array in alone.population.member(0).params.items():
                assert array.tobytes() == ours.params[name].tobytes()


def test_members_that_fail_are_left_out(digits, monkeypatch):
    monkeypatch.setattr(Pool, "workers", 2)
    options = {"members": 4, "outputs": 10, "executor": Luckless(2)}
    with pytest.warns(UserWarning, match=r"1 of 4 members could not be trained; failed: OSError"):
        found = Ensemble.train(*digits, BASE, **options)
    assert len(found) == 3
    with pytest.raises(WorkerError, match="no member could be trained"):
        Ensemble.train(*digits, BASE, **options | {"executor": Luckless(0, 1, 2, 3)})
    with pytest.raises(ConfigError, match="at least one member"):
        Ensemble.train(*digits, BASE, members=0, outputs=10)
