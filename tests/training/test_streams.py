"""Batches of iterables: the same training as on arrays, and words for what does not last."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp.data import Normalization
from xpmlp.errors import ConfigError, DataError
from xpmlp.losses import MSE
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.schedules import Cosine, Step
from xpmlp.training import Callback, Checkpoint, EarlyStopping, Trainer

SIZE = 32


def data(rng, rows=100):
    x = rng.normal(size=(rows, 5)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1)


def cut(x, y, size=SIZE):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


class Anew:
    """Batches without a length, as often as one likes."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def trainer(**options):
    options = {"epochs": 3, "batch_size": SIZE, "shuffle": False, "progress": False} | options
    return Trainer(FullyConnectedNet([5, 8, 3], seed=1), **options)


def test_batches_train_as_arrays_do(library, rng):
    x, y = data(rng)
    scale = Normalization.fit(x)
    schedule = {"optimizer": Adam(1e-2, schedule="cosine"), "normalization": scale}
    wanted = trainer(**schedule).fit(x, y, validation=(x[:50], y[:50]))
    one = trainer(**schedule)
    found = one.fit(cut(x, y), validation=cut(x[:50], y[:50], 7))
    np.testing.assert_allclose(found.step_losses, wanted.step_losses, rtol=1e-5)
    np.testing.assert_allclose(found["val_loss"], wanted["val_loss"], rtol=1e-5)
    assert found["val_accuracy"] == wanted["val_accuracy"] and found.best_epoch == wanted.best_epoch
    assert one.steps_per_epoch == 4 and one.total_steps == 12
    assert one.evaluate(cut(x, y, 9)) == pytest.approx(one.evaluate(x, y), rel=1e-5)


def test_data_loaders_of_torch_train_and_validate(library, rng):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    x, y = data(rng)
    rows = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    order = torch.Generator().manual_seed(0)
    loader = DataLoader(rows, batch_size=SIZE, shuffle=True, generator=order)
    one = trainer(epochs=20, optimizer=Adam(3e-2), callbacks=EarlyStopping(20))
    history = one.fit(loader, validation=DataLoader(rows, batch_size=30))
    assert one.evaluate(x, y)["accuracy"] > 0.8
    assert history.step_losses.shape == (80,) and len(history) == 20
    with pytest.raises(ConfigError, match=r"fit\(batches\), without y"):
        one.fit(loader, y)


def test_batches_without_a_length_need_no_length(rng):
    x, y = data(rng)
    wanted = trainer().fit(cut(x, y)).step_losses

    class Told(Callback):
        def on_start(self, trainer):
            self.steps = trainer.steps_per_epoch

    told = Told()
    found = trainer(callbacks=told, progress=True).fit(Anew(cut(x, y))).step_losses
    np.testing.assert_array_equal(found, wanted)
    assert told.steps == 0
    for schedule in (Cosine(total=12), Step(every=4, factor=0.5), lambda step: 1.0):
        options = {"optimizer": Adam(1e-3, schedule=schedule)}
        np.testing.assert_array_equal(
            trainer(**options).fit(Anew(cut(x, y))).step_losses,
            trainer(**options).fit(cut(x, y)).step_losses,
        )


@pytest.mark.parametrize(
    "options", [{"optimizer": Adam(1e-3, schedule="cosine")}, {"lr_decay": 0.9}], ids=str
)
def test_a_schedule_over_the_whole_needs_a_length(rng, options):
    with pytest.raises(ConfigError, match="batches with a length"):
        trainer(**options).fit(Anew(cut(*data(rng))))


def test_generators_train_one_epoch_and_say_that_they_are_used_up(rng):
    x, y = data(rng)
    wanted = trainer(epochs=1).fit(cut(x, y), validation=(x, y))
    found = trainer(epochs=1).fit((b for b in cut(x, y)), validation=(b for b in cut(x, y)))
    np.testing.assert_array_equal(found.step_losses, wanted.step_losses)
    assert found["val_accuracy"] == wanted["val_accuracy"]
    with pytest.raises(ConfigError, match="for 3 epochs, got a generator, which is used up after"):
        trainer().fit(b for b in cut(x, y))
    with pytest.raises(ConfigError, match="got a list_iterator, which is used up"):
        trainer().fit(x, y, validation=iter(cut(x, y)))
    used = iter(cut(x, y))
    one = trainer(epochs=1)
    one.fit(used)
    with pytest.raises(DataError, match="expected batches in epoch 1, got none; a generator is"):
        one.fit(used)
    once = Anew(used)  # an __iter__ that gives the same iterator again
    with pytest.raises(DataError, match="got none"):
        trainer().fit(once)


def test_going_on_in_memory(rng):
    x, y = data(rng)
    whole = trainer(epochs=4).fit(cut(x, y)).step_losses
    parts = trainer(epochs=2)
    parts.fit(cut(x, y))
    np.testing.assert_array_equal(parts.resume(cut(x, y), epochs=2).step_losses, whole)


def test_batches_are_not_for_checkpoints(rng, tmp_path):
    x, y = data(rng)
    path = tmp_path / "state.npz"
    with pytest.raises(ConfigError, match="leave the Checkpoint out"):
        trainer(callbacks=Checkpoint(path)).fit(cut(x, y))
    with pytest.raises(ConfigError, match="leave the Checkpoint out"):
        trainer(callbacks=Checkpoint(path)).fit(x, y, validation=cut(x, y))
    with pytest.raises(ConfigError, match="leave the Checkpoint out"):
        trainer().fit(cut(x, y), resume=path)
    assert not path.exists()


def test_batches_bring_weights_of_their_rows(rng):
    x, y = data(rng)
    weights = rng.uniform(0.1, 2.0, len(x))
    parts = [(x[i : i + SIZE], y[i : i + SIZE], weights[i : i + SIZE]) for i in (0, 32, 64, 96)]
    wanted = trainer().fit(x, y, validation=(x, y, weights), sample_weight=weights)
    found = trainer().fit(parts, validation=parts)
    np.testing.assert_array_equal(found.step_losses, wanted.step_losses)
    np.testing.assert_allclose(found["val_accuracy"], wanted["val_accuracy"], rtol=1e-6)
    with pytest.raises(ConfigError, match="expected weights in the batches"):
        trainer().fit(parts, sample_weight=weights)


def test_bad_batches_are_named(rng):
    x, y = data(rng)
    with pytest.raises(DataError, match="got 4 parts as batch 0"):
        trainer().fit([(x, y, y, y)])
    with pytest.raises(DataError, match="got dict as batch 1"):
        trainer().fit([(x, y), {"x": x, "y": y}])
    with pytest.raises(DataError, match="NaN"):
        trainer().fit([(x * np.nan, y)])
    with pytest.raises(DataError, match="class"):
        trainer().fit([(x, y + 5)])
    with pytest.raises(ConfigError, match="got ndarray and no y"):
        trainer().fit(x)
    with pytest.raises(ConfigError, match="got int and no y"):
        trainer().fit(3)
    for validation in (x, {"x": x}, (x, y, y, y), "xy"):
        with pytest.raises(ConfigError, match=r"expected validation=\(x, y\) or"):
            trainer().fit(x, y, validation=validation)


def test_two_batches_in_a_list_are_batches(rng):
    x, y = data(rng, 64)
    found = trainer().fit(x, y, validation=cut(x, y))
    wanted = trainer().fit(x, y, validation=(x, y))
    assert found["val_accuracy"] == wanted["val_accuracy"]
    assert trainer().fit(x, y, validation=[x, y])["val_loss"] == wanted["val_loss"]


def test_numbers_come_in_any_float_type(rng):
    x, _ = data(rng)
    net = FullyConnectedNet([5, 8, 1], output="identity", seed=1)
    one = Trainer(net, MSE(), epochs=30, optimizer=Adam(3e-2), progress=False)
    target = x[:, :1].astype(np.float64)
    one.fit(cut(x.astype(np.float64), target))
    assert one.evaluate(x, target)["r2"] > 0.8
