"""Trainers on a device, with NumPy in its place (numpy_graph.py): they do what NumPy's do."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from step import numpy_graph
from step.numpy_graph import Traced, traced
from step.test_captured import trace

from xpmlp.data import Batches, Normalization, resident
from xpmlp.layers import base
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam, AdamW
from xpmlp.optim import base as optim_base
from xpmlp.step import CapturedStep
from xpmlp.step import train_step as step
from xpmlp.step.captured import step as captured
from xpmlp.training import Callback, Checkpoint, PopulationTrainer, Trainer
from xpmlp.training import minibatches as minibatches_module
from xpmlp.training.progress import Progress


@pytest.fixture
def device(monkeypatch, without_kernels):
    """A device of stand-ins; counts how its steps were asked for.

    Without kernels: numba's would compute unseen by a recording.
    """
    cuda = numpy_graph.make()
    cuda.epochs = cuda.steps = 0
    for module in (captured, resident):
        monkeypatch.setattr(module, "load_kernels", lambda library, name: cuda)
    for module in (captured, minibatches_module):
        monkeypatch.setattr(module, "why_kernels_are_off", lambda: "")
    is_traced = SimpleNamespace(
        is_cupy_array=lambda array: isinstance(array, Traced), is_jax_array=lambda array: False
    )
    monkeypatch.setattr(step, "array_api_compat", is_traced)
    empty, one, whole = resident._empty_batch, CapturedStep.__call__, CapturedStep.run_epoch

    def single(self, x, y):
        cuda.steps += 1
        return one(self, x, y)

    def epoch(self, *arguments):
        cuda.epochs += 1
        return whole(self, *arguments)

    monkeypatch.setattr(resident, "_empty_batch", lambda *a: tuple(map(traced, empty(*a))))
    monkeypatch.setattr(CapturedStep, "__call__", single)
    monkeypatch.setattr(CapturedStep, "run_epoch", epoch)
    cuda.use = lambda: monkeypatch.setattr(minibatches_module, "_is_on_cuda", lambda model: True)
    return cuda


def data(rng):
    return rng.integers(0, 256, (44, 2, 3), dtype=np.uint8), rng.integers(0, 4, 44)


def single(**options):
    model = FullyConnectedNet([6, 9, 4], dropout=0.2, seed=1, dtype="float64")
    return model, Trainer(model, optimizer=Adam(0.01), **options)


def population(**options):
    model = FullyConnectedNet(
        [6, 9, 4], population=3, dropout=[0.0, 0.2, 0.4], seed=[1, 2, 3], dtype="float64"
    )
    return model, PopulationTrainer(model, optimizer=AdamW([0.01, 0.02, 0.005]), **options)


def assert_same_training(make, device, rng, **options):
    """Curves, evaluations and parameters, on NumPy and on the device."""
    x, y = data(rng)
    options = dict(epochs=3, batch_size=8, progress=False, seed=7) | options
    options["normalization"] = Normalization(100.0, 50.0)
    plain_model, plain = make(**options)
    expected = plain.fit(x[:36], y[:36], validation=(x[36:], y[36:]))
    device.use()
    model, trained = make(**options)
    trace(model)
    found = trained.fit(x[:36], y[:36], validation=(x[36:], y[36:]))
    np.testing.assert_allclose(found.step_losses, expected.step_losses, rtol=1e-9)
    for column in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "step"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-9, err_msg=column)
    for name, array in plain_model.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], array, rtol=1e-8, atol=1e-12)
    assert trained.evaluate(x, y) == pytest.approx(plain.evaluate(x, y), rel=1e-9)


@pytest.mark.parametrize("make", [single, population])
@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"drop_last": True}], ids=str)
def test_epochs_run_as_a_whole_and_equal_those_on_numpy(device, rng, make, options):
    assert_same_training(make, device, rng, **options)
    assert (device.epochs, device.steps) == (3, 0)


@pytest.mark.parametrize("make", [single, population])
def test_a_precision_reaches_the_step(device, rng, make):
    x, y = data(rng)
    device.use()
    model, trainer = make(epochs=1, batch_size=8, progress=False, precision="tf32")
    model = trainer.model = FullyConnectedNet([6, 9, 4], population=model.population, seed=1)
    trace(model)
    trainer.fit(x, y)
    assert device.entered and device.epochs == 1


@pytest.mark.parametrize("make", [single, population])
def test_data_that_do_not_fit_stream(device, rng, make):
    device.free_memory = lambda: 100
    assert_same_training(make, device, rng)
    assert (device.epochs, device.steps) == (0, 15)


class Losses(Callback):
    def __init__(self):
        self.seen = []

    def on_step(self, trainer, loss):
        self.seen.append(loss)


def test_a_callback_that_looks_at_steps_sees_each(device, rng):
    watch = Losses()
    assert_same_training(single, device, rng, callbacks=[watch])
    assert (device.epochs, device.steps) == (0, 15) and len(watch.seen) == 30
    np.testing.assert_allclose(np.array(watch.seen[15:]), np.array(watch.seen[:15]), rtol=1e-9)


def test_what_sees_steps():
    assert Losses().sees_steps and not Callback().sees_steps
    given = Callback()
    given.on_step = lambda trainer, loss: None
    assert given.sees_steps
    bar = Progress()
    assert not bar.sees_steps
    bar._bar = object()
    assert bar.sees_steps


def test_lines_of_progress_leave_epochs_whole(device, rng, capsys):
    assert_same_training(single, device, rng, progress=True)
    assert device.epochs == 3 and "epoch 3/3" in capsys.readouterr().err


def test_an_interruption_ends_an_epoch_after_its_step(device, rng):
    x, y = data(rng)
    device.use()
    model, trainer = single(epochs=3, batch_size=8, progress=False)
    trace(model)
    gather, calls = numpy_graph.gather, []

    def interrupt():
        calls.append(0)
        if len(calls) == 12:  # four rehearsals and six steps in the first epoch
            trainer.stop("enough")

    def interrupting(*arrays, **options):
        gather(*arrays, **options)
        numpy_graph.launch(interrupt)

    device.gather = interrupting
    history = trainer.fit(x, y)
    assert history.ending == "enough" and len(history) == 2
    assert history.step_losses.shape == (8,)


def test_a_recording_keeps_the_data_that_it_reads(device, rng):
    """Else other data could be taken for them: an object's identity is used again once it ends."""
    model, trainer = single(batch_size=8)
    step = CapturedStep(trace(model), trainer.loss, trainer.optimizer)
    x, y = data(rng)
    batches = resident.batches_on_device(x, y, batch_size=22, dtype="float64")
    step.run_epoch(batches, 0)
    kept = [recording.batches for recording in step._recordings.by_batch.values()]
    assert kept == [batches]


def test_what_cannot_be_captured_takes_plain_batches(device, rng, monkeypatch):
    device.use()
    x, y = data(rng)
    model = FullyConnectedNet([6, 4], dtype="float64")
    assert isinstance(
        minibatches_module.minibatches(model, x, y, batch_size=8), resident.ResidentBatches
    )
    half = FullyConnectedNet([6, 4], dtype="float16")
    assert type(minibatches_module.minibatches(half, x, y, batch_size=8)) is Batches
    monkeypatch.setattr(minibatches_module, "why_kernels_are_off", lambda: "a reason")
    assert type(minibatches_module.minibatches(model, x, y, batch_size=8)) is Batches


class Interrupt(Callback):
    """As a signal does, at the first look after a step that the device makes."""

    sees_steps = False

    def __init__(self, device, step):
        self.device, self.step = device, step

    def on_epoch(self, trainer, row):
        if row["epoch"] == 2:
            made, run = 0, trainer._step._capture()._replay

            def replay(*arguments):
                nonlocal made
                made += 1
                if made == self.step:
                    trainer.stop("interrupted")
                return run(*arguments)

            trainer._step._capture()._replay = replay


@pytest.mark.slow
def test_an_epoch_that_ran_as_a_whole_goes_on_in_the_middle(device, rng, tmp_path, monkeypatch):
    x, y = data(rng)
    device.use()
    for module in (base, optim_base):  # what is read is on the device
        like = module.asarray_like
        monkeypatch.setattr(module, "asarray_like", lambda v, w, like=like: traced(like(v, w)))
    ends = []
    for callbacks, resume in (
        ((), None),
        ([Interrupt(device, 3), Checkpoint(tmp_path / "state.npz")], None),
        ([Checkpoint(tmp_path / "state.npz")], tmp_path / "state.npz"),
    ):
        device.epochs = device.steps = 0
        options = {"normalization": Normalization(100.0, 50.0), "callbacks": callbacks}
        model, trainer = single(epochs=4, batch_size=8, progress=False, **options)
        trace(model)
        history = trainer.fit(x, y, resume=resume)
        ends.append((history, model.state_dict(), device.epochs, device.steps))
    (whole, expected, *_), (stopped, _, *ran), (resumed, found, *rest) = ends
    # Nothing but whole epochs until the stop; then three steps, and the last epoch as a whole.
    assert stopped.interrupted and len(stopped.step_losses) == 15 and ran == [3, 0]
    assert rest == [1, 3]
    np.testing.assert_array_equal(resumed.step_losses, whole.step_losses)
    assert resumed["train_loss"] == whole["train_loss"]
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
