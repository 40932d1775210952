"""Populations that have their hidden layers' matrices in common: members, training, files."""

import numpy as np
import pytest

from xpmlp.ensemble import Ensemble
from xpmlp.errors import ConfigError, XpmlpError
from xpmlp.layers import Dropout, SharedLinear
from xpmlp.memory_budget import bytes_per_member
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.population import Population, stack
from xpmlp.training import (
    Callback,
    Checkpoint,
    EarlyStopping,
    PopulationTrainer,
    load_model,
    save_model,
)
from xpmlp.training.selection import select_optimizer

P, SIZES = 4, [6, 20, 8, 3]


def make(**options):
    return FullyConnectedNet(SIZES, population=P, shared=True, **{"seed": 5} | options)


@pytest.fixture
def trained(rng):
    """One whose vectors are no longer what they began with."""
    net = make(normalization="batchnorm", dropout=[0.1, 0.2, 0.0, 0.3])
    x, y = data(rng)
    trainer = PopulationTrainer(net, optimizer=Adam(0.01), epochs=3, progress=False)
    trainer.fit(x, y)
    return net


def data(rng, rows=200):
    centres = 2.0 * rng.normal(size=(3, SIZES[0]))
    y = rng.integers(3, size=rows)
    return (centres[y] + rng.normal(size=(rows, SIZES[0]))).astype("float32"), y


def same(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def test_hidden_layers_share_and_the_last_one_does_not():
    net = make()
    kinds = [type(layer).__name__ for layer in net.layers if layer.params]
    assert kinds == ["SharedLinear", "SharedLinear", "Linear"]
    assert net.params["0.W"].shape == (6, 20) and net.params["4.W"].shape == (P, 8, 3)
    assert net.shared_params == ("0.W", "2.W") and net.independent is None
    assert set(np.unique(net.params["0.r"])) == {-1.0, 1.0}  # they differ from the first step on
    assert (net.params["2.r"] == 1.0).all()
    assert FullyConnectedNet(**net.config).config == net.config


def test_members_predict_as_their_rows(trained, rng):
    x = rng.normal(size=(9, SIZES[0])).astype("float32")
    expected = trained.outputs(x)
    apart = trained.separate()
    assert apart.shared_params == () and apart.population == apart.independent == P
    same(apart.outputs(x), expected)
    for number in range(P):
        member = trained.member(number)
        assert member.population is None
        same(member.outputs(x), expected[number])
        steps = {own.step for own in trained.layers if isinstance(own, Dropout)}
        mine = {own.step for own in member.layers if isinstance(own, Dropout)}
        assert mine == (steps if number != 2 else set()) and steps != {0}  # 2 drops nothing
    some = trained.select([3, 1])
    assert some.shared_params == trained.shared_params and some.population == 2
    same(some.outputs(x), expected[[3, 1]])
    same(stack([trained, trained.member(0)]).outputs(x), expected[[0, 1, 2, 3, 0]])
    assert Population(trained.member(0), 2).shared_params == ()


def test_files_and_ensembles_keep_them(trained, tmp_path, rng):
    x, y = data(rng)
    save_model(tmp_path / "nets.npz", trained)
    again, _ = load_model(tmp_path / "nets.npz")
    np.testing.assert_array_equal(again.outputs(x), trained.outputs(x))
    ensemble = Ensemble(trained)
    mean = ensemble.predict_proba(x)
    np.testing.assert_array_equal(mean, trained.predict_proba(x).mean(axis=0))
    assert ensemble.calibrate(x, y) > 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": None}, "population=P"),
        ({"sizes": [6, [4, 5, 6, 7], 3]}, "widths"),
        ({"sizes": [6, 3]}, "hidden"),
        ({"columns": [("linear", 1)] * 6}, "columns"),
        ({"shared": "yes"}, "shared"),
    ],
)
def test_what_cannot_share_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        FullyConnectedNet(**{"sizes": SIZES, "population": P, "shared": True} | options)


def test_only_what_shares_is_made_separate():
    with pytest.raises(ConfigError, match="shared=True"):
        FullyConnectedNet(SIZES, population=P).separate()


class Watch(Callback):
    def __init__(self, drop_in=0):
        self.drop_in, self.kept = drop_in, []

    def on_epoch(self, trainer, row):
        self.kept.append(trainer.model.state_dict())
        if trainer.epoch == self.drop_in:
            trainer.drop([1], "by hand")


@pytest.mark.parametrize("sampling", ["shared", "own", "bootstrap"])
def test_the_best_epoch_is_one_for_all(sampling, rng):
    x, y = data(rng, 60)  # so few that it gets worse again
    held_out = data(np.random.default_rng(1), 90)[0], np.random.default_rng(2).integers(3, size=90)
    net, watch = make(), Watch()
    stop = EarlyStopping(3, monitor="val_loss")
    options = {"monitor": "val_loss", "callbacks": [stop, watch], "sampling": sampling}
    trainer = PopulationTrainer(net, optimizer=Adam(0.02), epochs=30, progress=False, **options)
    history = trainer.fit(x, y, held_out)
    means = history.curves["val_loss"].mean(axis=1)
    best = int(np.argmin(means))
    assert history.best_epochs == [best + 1] * P and len(means) == best + 4 < 30
    assert len(set(history.endings)) == 1
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, watch.kept[best][name], err_msg=name)


def test_they_learn(rng):
    x, y = data(rng, 600)
    net = make()
    PopulationTrainer(net, optimizer=Adam(0.01), epochs=10, progress=False).fit(x[:400], y[:400])
    assert (net.predict(x[400:]) == y[400:]).mean() > 0.9
    assert np.ptp(net.predict_proba(x[400:]), axis=0).max() > 0.01  # and not all the same


def test_whoever_ends_ends_with_the_others(rng):
    x, y = data(rng)
    net = make()
    trainer = PopulationTrainer(net, epochs=9, callbacks=[Watch(2)], progress=False)
    history = trainer.fit(x, y)
    assert history.endings == ["by hand"] * P and len(history) == 2
    net = make(dtype="float64")
    with np.errstate(all="ignore"):
        trainer = PopulationTrainer(net, optimizer=Adam(1e300), epochs=9, progress=False)
        history = trainer.fit(x, y)
    assert all(ending.startswith("diverged") for ending in history.endings)
    assert np.isfinite(net.params["0.W"]).all()


def test_resumed_training_is_the_same(tmp_path, rng):
    x, y = data(rng)
    whole, halves = make(), make()
    options = {"epochs": 6, "average": 0.5, "sampling": "own", "progress": False}
    PopulationTrainer(whole, optimizer=Adam(0.01), **options).fit(x, y)

    class Stop(Callback):
        def on_epoch(self, trainer, row):
            if trainer.epoch == 3:
                raise RuntimeError("power cut")

    saving = Checkpoint(tmp_path / "state.safetensors", every=0.0, share=1.0)
    with pytest.raises(RuntimeError, match="power cut"):
        PopulationTrainer(halves, optimizer=Adam(0.01), callbacks=[saving, Stop()], **options).fit(
            x, y
        )
    again = make()
    trainer = PopulationTrainer(again, optimizer=Adam(0.01), callbacks=[saving], **options)
    trainer.fit(x, y, resume=saving.path)
    for name, array in whole.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array, err_msg=name)


def test_what_needs_members_of_their_own_is_refused(rng):
    x, y = data(rng)
    with pytest.raises(ConfigError, match="folds"):
        PopulationTrainer(make(), folds=2)
    trainer = PopulationTrainer(make(), optimizer=Adam([0.1] * P), progress=False)
    with pytest.raises(XpmlpError, match="one number"):
        trainer.fit(x, y)


def test_memory_is_counted_once():
    sizes = [784, 256, 10]
    alone, shared = bytes_per_member(sizes, 32), bytes_per_member(sizes, 32, sharing=100)
    assert shared < alone / 3
    net = FullyConnectedNet([300, 200, 3], population=50, shared=True)
    assert sum(array.nbytes for array in net.params.values()) < 50 * 4 * 300 * 200 / 10
    assert isinstance(net.layers[0], SharedLinear)


def test_an_optimizer_goes_on_with_all_that_is_shared(rng):
    x, y = data(rng)
    net = make()
    trainer = PopulationTrainer(net, optimizer=Adam(0.01), epochs=2, progress=False)
    trainer.fit(x, y)
    optimizer = trainer.optimizer
    some = net.select([3, 1])
    chosen = select_optimizer(optimizer, [3, 1], net, some)
    chosen.check_memory(some.params)
    for name, slots in chosen.state.items():
        shared = name in net.shared_params
        for got, whole in zip(slots, optimizer.state[name], strict=True):
            np.testing.assert_array_equal(got, whole if shared else whole[[3, 1]], err_msg=name)
