"""Whole trainings on the device, against the same ones on NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import xpmlp
from xpmlp.data import Normalization, resident
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.training import Callback, PopulationTrainer, Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("error:`CapturedStep`")]


class Watcher(Callback):
    """Makes the trainer go step by step."""

    def on_step(self, trainer, loss):
        pass


def train(rng, population, **options):
    model = FullyConnectedNet([64, 48, 10], dropout=0.2, population=population)
    kind = Trainer if population is None else PopulationTrainer
    images = rng.integers(0, 256, (1000, 8, 8), dtype=np.uint8)
    labels = rng.integers(0, 10, 1000)
    trainer = kind(
        model,
        optimizer=Adam(0.001),
        epochs=3,
        batch_size=128,
        progress=False,
        normalization=Normalization(127.5, 64.0),
        **options,
    )
    return trainer.fit(images[:900], labels[:900], validation=(images[900:], labels[900:]))


@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("way", ["whole epochs", "step by step", "streamed"])
def test_a_training_equals_the_one_on_numpy(cupy, monkeypatch, population, way):
    with xpmlp.use_backend("numpy"):
        expected = train(np.random.default_rng(1), population)
    if way == "streamed":
        monkeypatch.setattr(resident, "fits_on_device", lambda *arrays, free: False)
    callbacks = [Watcher()] if way == "step by step" else []
    found = train(np.random.default_rng(1), population, callbacks=callbacks)
    assert found.step_losses.shape == expected.step_losses.shape
    np.testing.assert_allclose(found.step_losses, expected.step_losses, rtol=2e-3)
    np.testing.assert_allclose(found["train_accuracy"], expected["train_accuracy"], atol=0.01)
    np.testing.assert_allclose(found["val_loss"], expected["val_loss"], rtol=2e-3)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("shape", [(90, 6), (90, 4, 6)])  # rows, or sequences of four
def test_orders_of_memory_and_sequences_give_what_numpy_gives(cupy, rng, shape, classes, order):
    """A table's columns lie one after the other; a sequence's steps are rows."""
    x = np.asarray(rng.normal(size=shape), np.float32, order=order)
    y = rng.integers(0, 3, shape[:-1]) if classes else rng.normal(size=(*shape[:-1], 3))
    y = np.asarray(y, None if classes else np.float32, order=order)
    normalization = Normalization(*(np.asarray(v, order=order) for v in (x.mean(0), x.std(0))))

    def fit():
        trainer = Trainer(
            FullyConnectedNet([6, 8, 3]),
            SoftmaxCrossEntropy() if classes else MSE(),
            Adam(0.01),
            epochs=2,
            batch_size=20,
            progress=False,
            normalization=normalization,
        )
        return trainer.fit(x, y, validation=(x, y))

    found = fit()
    with xpmlp.use_backend("numpy"):
        expected = fit()
    for row, other in zip(found.rows, expected.rows, strict=True):
        for name in row.keys() - {"seconds", "samples_per_second"}:
            assert row[name] == pytest.approx(other[name], rel=1e-4), name


@pytest.mark.parametrize("shuffle", [True, False])
def test_one_full_batch_and_a_rest(cupy, rng, shuffle):
    """While it is rehearsed, the next batch of the first's size is none."""
    x = rng.normal(size=(37, 6)).astype(np.float32)
    y = rng.dirichlet(np.ones(3), 37).astype(np.float32)  # probabilities, which have hits too

    def fit():
        model = FullyConnectedNet([6, 8, 3])
        return Trainer(
            model, optimizer=Adam(0.01), batch_size=32, shuffle=shuffle, epochs=2, progress=False
        ).fit(x, y)

    found = fit()
    with xpmlp.use_backend("numpy"):
        expected = fit()
    assert found["train_accuracy"] == expected["train_accuracy"]
    np.testing.assert_allclose(found.step_losses, expected.step_losses, rtol=1e-4)


def test_a_device_is_named_as_it_is_asked_for(cupy):
    """A run's folder has this name, and goes on there."""
    backend = xpmlp.get_backend()
    assert backend.place == "cuda:0" and "on cuda:0 (" in str(backend)
    with xpmlp.use_backend("cupy", backend.place) as again:
        assert again.device == backend.device
