"""Members of a population that several ranks divide are trained as in one process."""

from __future__ import annotations

import numpy as np
import pytest
from parallel.ranks import run_ranks

from xpmlp.errors import ConfigError
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.training import Callback, Checkpoint, EarlyStopping, PopulationTrainer

P, D, C = 5, 7, 3


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, D))
    return x, (x[:, :C] + 0.7 * rng.normal(size=(90, C))).argmax(axis=1)


def trained(ranks=None, *callbacks, rates=(0.1, 0.3, 0.02, 0.2, 0.05), epochs=6, **options):
    x, y = data()
    nets = FullyConnectedNet(
        [D, [6, 8, 8, 8, 6], C],
        normalization="batchnorm",
        dropout=[0.0, 0.2, 0.1, 0.3, 0.0],
        population=P,
        seed=list(range(P)),
        dtype="float64",
    )
    options = {"sampling": "own", "batch_size": 32, "progress": False} | options
    loss = SoftmaxCrossEntropy(label_smoothing=[0.0, 0.1, 0.0, 0.05, 0.2])
    trainer = PopulationTrainer(
        nets, loss, SGD(list(rates), momentum=0.9), epochs=epochs, callbacks=callbacks,
        parallel=ranks, **options,
    )  # fmt: skip
    history = trainer.fit(x[:70], y[:70], (x[70:], y[70:]))
    return nets, history, trainer


def assert_alike(found, one):
    (nets, history, _), (expected, alone, _) = found, one
    for member in range(P):  # of its own width: what a narrower one lacks may be anything
        wanted = expected.member(member).state_dict()
        for name, array in nets.member(member).state_dict().items():
            np.testing.assert_allclose(array, wanted[name], 1e-9, 1e-12, err_msg=name)
    assert history.endings == alone.endings and history.best_epochs == alone.best_epochs
    assert history.ending == alone.ending and len(history) == len(alone)
    for name in ("step_losses", "rates"):
        np.testing.assert_allclose(getattr(history, name), getattr(alone, name), 1e-9, err_msg=name)
    assert history.curves.keys() == alone.curves.keys()
    for name, curve in history.curves.items():
        np.testing.assert_allclose(curve, alone.curves[name], 1e-9, err_msg=name)
    for row, other in zip(history.rows, alone.rows, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"seconds", "samples_per_second"}:
            assert row[name] == pytest.approx(other[name], rel=1e-9, nan_ok=True), name


@pytest.mark.parametrize("sampling", ["shared", "own", "bootstrap"])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_every_rank_has_what_one_process_trains(size, sampling):
    one = trained(sampling=sampling)
    for found in run_ranks(size, lambda ranks: trained(ranks, sampling=sampling)):
        assert_alike(found, one)


def test_members_end_by_themselves():
    """One diverges, others run out of patience; a rank may come to its end before the others."""
    options = {"rates": (1e200, 1e200, 0.02, 0.2, 0.05), "epochs": 30}
    one = trained(None, EarlyStopping(2), **options)
    assert any("diverged" in ending for ending in one[1].endings)
    assert any("early" in ending for ending in one[1].endings)
    for found in run_ranks(2, lambda ranks: trained(ranks, EarlyStopping(2), **options)):
        assert_alike(found, one)


def test_each_rank_trains_only_its_own():
    class Seen(Callback):
        def on_epoch(self, trainer, row):
            self.members = trainer._work.members.tolist()

    seen = [Seen() for _ in range(2)]
    run_ranks(2, lambda ranks: trained(ranks, seen[ranks.rank]))
    assert sorted(seen[0].members + seen[1].members) == list(range(P))


def test_nothing_is_sent_while_they_train():
    class Silence(Callback):
        def on_start(self, trainer):
            self.kept = trainer.ranks.broadcast
            trainer.ranks.broadcast = trainer.ranks.allreduce = None  # a call would be an error

        def on_stop(self, trainer):
            trainer.ranks.broadcast = self.kept

    one = trained()
    for found in run_ranks(2, lambda ranks: trained(ranks, Silence())):
        assert_alike(found, one)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"folds": 3}, "no folds"),
        ({"callbacks": [Checkpoint("state.npz")]}, "no Checkpoint"),
    ],
)
def test_what_cannot_be_divided_is_refused(options, expected):
    nets = FullyConnectedNet([D, 4, C], population=4)
    with pytest.raises(ConfigError, match=f"expected {expected}"):
        run_ranks(2, lambda ranks: PopulationTrainer(nets, parallel=ranks, **options))


def test_more_ranks_than_members_and_shared_networks_are_refused():
    few, shared = (FullyConnectedNet([D, 4, C], population=2, shared=s) for s in (False, True))
    with pytest.raises(ConfigError, match="expected 3 members or more"):
        run_ranks(3, lambda ranks: PopulationTrainer(few, parallel=ranks))
    with pytest.raises(ConfigError, match="expected networks that share nothing"):
        run_ranks(2, lambda ranks: PopulationTrainer(shared, parallel=ranks))
