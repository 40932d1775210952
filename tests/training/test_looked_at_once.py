"""Data that cannot be trained on are refused before the first step, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

import xpmlp
from xpmlp import losses
from xpmlp.errors import DataError, DTypeError, XpmlpError
from xpmlp.layers import Linear, Sequential
from xpmlp.losses import BCEWithLogits, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.training import PopulationTrainer, Trainer

N, D, C = 40, 4, 3


@pytest.fixture(params=["kernels", "without_kernels"])
def either(request):
    """With kernels, and without."""
    if request.param == "without_kernels":
        request.getfixturevalue("without_kernels")


def data(library, y, x=None):
    x = np.random.default_rng(0).normal(size=(N, D)).astype("float32") if x is None else x
    return library.array(x), library.array(y)


def trainer(loss, population=None):
    net = FullyConnectedNet([D, 6, C], normalization="batchnorm", population=population)
    kind = Trainer if population is None else PopulationTrainer
    return kind(net, loss, epochs=1, batch_size=16, progress=False)


def refused(made, x, y, message, error=DataError, **more):
    before = made.model.state_dict()
    with pytest.raises(error, match=message):
        made.fit(x, y, **more)
    assert made.optimizer.steps == 0
    for name, array in made.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("population", [None, 2])
@pytest.mark.parametrize("loss", ["SoftmaxCrossEntropy", "NLL", "MulticlassHinge"])
@pytest.mark.parametrize("wrong", [C, -1, 2**40])
def test_class_numbers_that_do_not_exist(library, either, loss, wrong, population):
    y = np.arange(N) % C
    x, right = data(library, y)
    y[[N - 2, N - 1]] = wrong
    _, bad = data(library, y)
    message = rf"`{loss}`: expected class numbers in 0…2, got .* in row {N - 2} \(2 such"
    refused(trainer(getattr(losses, loss)(), population), x, bad, message)
    made = trainer(getattr(losses, loss)(), population)
    refused(made, x, right, message, validation=(x, bad))
    with pytest.raises(DataError, match=message):
        made.evaluate(x, bad)


def test_a_number_to_ignore_is_none_that_is_wrong(library, either):
    y = np.arange(N) % C
    y[3] = -100
    trainer(SoftmaxCrossEntropy(ignore_index=-100)).fit(*data(library, y))
    y[5] = -99
    refused(trainer(SoftmaxCrossEntropy(ignore_index=-100)), *data(library, y), "got -99 in row 5")


@pytest.mark.parametrize("value", [-0.5, 2.0, -1.0])
def test_probabilities_out_of_range(library, either, value):
    y = np.full((N, C), 0.5, "float32")
    y[7, 1] = value
    refused(trainer(BCEWithLogits()), *data(library, y), rf"in \[0, 1\], got {value} in row \(7, 1")
    if value < 0:
        message = rf"targets ≥ 0, got {value} in row \(7, 1"
        refused(trainer(SoftmaxCrossEntropy()), *data(library, y), message)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "y"])
def test_numbers_that_are_not_finite(library, either, bad, where):
    x = np.random.default_rng(0).normal(size=(N, D)).astype("float32")
    y = np.zeros((N, C), "float32")
    (x if where == "x" else y)[4, 2] = bad
    message = f"`{where}`: expected finite numbers, got 1 .* in row 4"
    refused(trainer(losses.MSE()), *data(library, y, x), message)


@pytest.mark.parametrize("where", ["x", "y"])
def test_numbers_beyond_float32(library, where):
    x, y = np.ones((N, D)), np.ones((N, C))
    (x if where == "x" else y)[4, 2] = 1e39
    if not xpmlp.backend.has_wide_types(library.xp):
        pytest.skip("no float64 to come from")
    message = f"`{where}`: expected numbers that float32 can hold, got 1e\\+39; scale them"
    refused(trainer(losses.MSE()), *data(library, y, x), message)


@pytest.mark.parametrize(
    ("y", "loss"),
    [
        (np.arange(N) % C + 0.0, "SoftmaxCrossEntropy"),
        (np.arange(N) % C + 0.0, "NLL"),
        (np.arange(N) % C + 0.0, "MulticlassHinge"),
        (np.arange(N) % C, "MSE"),
        (np.arange(N) % C, "BCEWithLogits"),
        (np.zeros((N, C + 1)), "MSE"),
        (np.zeros((N, C), "int64"), "NLL"),
    ],
)
def test_targets_of_another_kind_than_the_loss_takes(library, either, y, loss):
    made = trainer(getattr(losses, loss)())
    refused(made, *data(library, y), "expected", error=XpmlpError)


@pytest.mark.parametrize(
    "y", [np.full(N, np.datetime64("2020-01-01")), np.ones((N, C), complex), np.full(N, "a")]
)
def test_targets_that_are_no_real_numbers(y):
    for loss in (losses.MSE(), SoftmaxCrossEntropy(), losses.NLL()):
        with pytest.raises(DTypeError, match="expected"):
            loss.forward(np.ones((N, C)), y)
        refused(trainer(loss), np.ones((N, D)), y, "expected", error=DTypeError)


def test_a_network_that_hides_its_outputs_is_refused_at_the_batch(host_library, either):
    class Own(Sequential):
        def forward(self, x, training=False):
            return super().forward(x, training)

    y = np.arange(N) % C
    y[:] = 7
    made = Trainer(Own(Linear(D, C)), epochs=1, progress=False)
    with pytest.raises(DataError, match=r"class numbers in 0…2, got 7 in row 0"):
        made.fit(*data(host_library, y))


def test_a_jax_step_that_is_being_traced_looks_at_nothing():
    jax = pytest.importorskip("jax")
    with xpmlp.use_backend("jax"):
        loss = SoftmaxCrossEntropy()
        traced = jax.jit(lambda a, b: loss.forward(a, b))
        value = traced(xpmlp.asarray(np.zeros((4, C), "float32")), xpmlp.asarray(np.arange(4) % C))
        assert float(value) == pytest.approx(np.log(C))


def test_negative_class_weights_and_label_smoothing_are_refused_by_the_op(host_library, either):
    x, y = host_library.array(np.ones((4, C))), host_library.array(np.arange(4) % C)
    op = xpmlp.ops.softmax_cross_entropy
    with pytest.raises(DataError, match="class_weights ≥ 0, got -1"):
        op(x, y, class_weights=host_library.array(np.array([1.0, -1.0, 1.0])))
    with pytest.raises(DataError, match=r"label_smoothing in \[0, 1\], got 1.5"):
        op(
            host_library.array(np.ones((2, 4, C))),
            y,
            label_smoothing=host_library.array(np.array([0.1, 1.5])),
        )
