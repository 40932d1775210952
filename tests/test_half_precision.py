"""float16 and bfloat16 train: eps, moments, norms, statistics and sums are float32."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Library

import xpmlp
from xpmlp import layers, losses
from xpmlp.backend import available_backends, dtype_name, get_backend, use_backend
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import OPTIMIZERS, clip_by_global_norm
from xpmlp.penalties import L1, L2, L2Norm
from xpmlp.training import Trainer

HALVES = [
    (name, dtype)
    for name in ("numpy", "torch", "jax")
    for dtype in ("float16", "bfloat16")
    if name in available_backends() and not (name == "numpy" and dtype == "bfloat16")
]


@pytest.fixture(params=HALVES, ids=" ".join)
def half(request):
    """An array library, and a half-precision dtype of it."""
    name, dtype = request.param
    with use_backend(name):
        yield Library(name, get_backend().xp), dtype


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype("float32")
    return x, (x[:, 0] > 0) + (x[:, 1] > 0).astype("int64")


@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm", "rmsnorm"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_networks_learn(half, optimizer, normalization):
    _, dtype = half
    net = FullyConnectedNet([5, 16, 3], dtype=dtype, normalization=normalization)
    make, lr = OPTIMIZERS[optimizer], {"sgd": 0.3, "adadelta": 1.0}.get(optimizer, 0.02)
    trainer = Trainer(
        net, optimizer=make(lr), epochs=10, batch_size=50, clip_norm=5.0, progress=False
    )
    history = trainer.fit(*data(), validation=data())
    losses = history["train_loss"]
    assert history.ending == "finished" and losses[-1] < 0.95 * losses[0]
    for array in net.params.values():
        assert dtype_name(array.dtype) == dtype
    for slots in trainer.optimizer.state.values():
        assert all(dtype_name(slot.dtype) == "float32" for slot in slots)


@pytest.mark.parametrize("name", ["BatchNorm", "LayerNorm", "RMSNorm"])
def test_statistics_of_wide_columns_are_finite(half, name):
    library, dtype = half
    layer = getattr(layers, name)(4, dtype=dtype)
    x = library.array(300 * np.random.default_rng(0).normal(size=(512, 4)), "float32")
    x = xpmlp.asarray(x, dtype)
    for _ in range(40):
        trained = layer.forward(x, training=True)
    dx = layer.backward(trained)
    evaluated = layer.forward(x)
    for array in (trained, evaluated):
        assert dtype_name(array.dtype) == dtype
        assert library.numpy(array).astype("float64").std() == pytest.approx(1.0, abs=0.05)
    assert np.isfinite(library.numpy(dx).astype("float64")).all()
    for array in layer.state.values():
        assert dtype_name(array.dtype) == "float32"
    again = getattr(layers, name)(4, dtype=dtype)
    again.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(library.numpy(again.forward(x)), library.numpy(evaluated))


@pytest.mark.parametrize("population", [None, 2])
def test_clipping_by_a_norm_whose_square_is_beyond_the_dtype(half, population):
    library, dtype = half
    lead = () if population is None else (population,)
    grads = {n: xpmlp.asarray(np.full((*lead, 4), 300.0), dtype) for n in "ab"}
    clipped = clip_by_global_norm(grads, 1.0, population)
    for array in clipped.values():
        assert dtype_name(array.dtype) == dtype
        np.testing.assert_allclose(library.numpy(array).astype("float64"), 8**-0.5, rtol=4e-3)


def test_clipping_where_squares_are_beyond_float32(library):
    grads = {"a": library.array(np.full(4, 1e30), "float32")}
    clipped = library.numpy(clip_by_global_norm(grads, 1.0)["a"])
    np.testing.assert_allclose(clipped, 0.5, rtol=1e-5)


@pytest.mark.parametrize("penalty", [L1, L2, L2Norm])
def test_penalties_of_large_weights_are_finite(half, penalty):
    library, dtype = half
    W = {"W": xpmlp.asarray(np.full((40, 40), 10.0), dtype)}
    value = library.numpy(penalty(1e-3).forward(W, ["W"]))
    expected = {L1: 16.0, L2: 80.0, L2Norm: 0.4}[penalty]
    assert float(value) == pytest.approx(expected, rel=0.01)
    slope = penalty(1e-3).backward(W, ["W"])["W"]
    assert dtype_name(slope.dtype) == dtype
    assert np.all(library.numpy(slope).astype("float64") > 0)


@pytest.mark.parametrize("loss", ["MSE", "MAE", "Huber"])
def test_a_mean_loss_is_finite_where_its_sum_is_not(half, loss):
    library, dtype = half
    y = xpmlp.asarray(np.full((2000, 4), 100.0), dtype)
    t = xpmlp.asarray(np.zeros((2000, 4)), dtype)
    made = getattr(losses, loss)()
    value = float(library.numpy(made.forward(y, t)))
    assert value == pytest.approx({"MSE": 1e4, "MAE": 100, "Huber": 99.5}[loss], rel=0.01)
    assert dtype_name(made.backward().dtype) == dtype
