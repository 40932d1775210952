"""PiecewiseLinear: the codes of numbers and levels, and a linear map of them."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import ConfigError, DTypeError, ShapeError
from xpmlp.layers import Linear, PiecewiseLinear
from xpmlp.models import FullyConnectedNet

COLUMNS = [("linear", 1), ("bins", 3), ("levels", 2)]
X = np.array([[5.0, 1.25, 1.0], [-2.0, -4.0, 0.0], [0.0, 3.0, 2.0], [1.5, 9.0, 0.5]])
CODES = np.array(
    [
        [5.0, 1.0, 0.25, 0.0, 0.0, 1.0],
        [-2.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        [0.0, 1.0, 1.0, 1.0, 0.0, 0.0],
        [1.5, 1.0, 1.0, 1.0, 0.0, 0.0],
    ]
)
P = 3


def test_values_and_gradients_are_those_of_a_linear_map_of_the_codes(library, rng):
    layer = PiecewiseLinear(COLUMNS, 5, rng=1, dtype="float64")
    W, b = map(library.numpy, (layer.W, layer.b))
    x, dy = library.array(X), rng.normal(size=(4, 5))
    np.testing.assert_allclose(library.numpy(layer.forward(x)), CODES @ W + b, atol=1e-14)
    dx = library.numpy(layer.backward(library.array(dy)))
    np.testing.assert_allclose(library.numpy(layer.dW), CODES.T @ dy, atol=1e-14)
    np.testing.assert_allclose(library.numpy(layer.db), dy.sum(axis=0), atol=1e-14)
    slopes = dy @ W.T
    np.testing.assert_allclose(dx[:, 0], slopes[:, 0], atol=1e-14)
    # In its second bin, and outside of all: also at 3, the end of the last.
    np.testing.assert_allclose(dx[:, 1], [slopes[0, 2], 0.0, 0.0, 0.0], atol=1e-14)
    np.testing.assert_array_equal(dx[:, 2], 0.0)
    assert layer.backward(library.array(dy), input_grad=False) is None


def test_equals_torch(torch, rng):
    """Its gradients by torch's own differentiation of the codes' formula."""
    layer = PiecewiseLinear(COLUMNS, 5, rng=1, dtype="float64")
    W, b = (torch.tensor(p, requires_grad=True) for p in (layer.W, layer.b))
    x, dy = torch.tensor(X, requires_grad=True), rng.normal(size=(4, 5))
    bins = torch.clamp(x[:, 1:2] - torch.arange(3.0), 0.0, 1.0)
    levels = (x[:, 2:3] == torch.arange(2.0)).to(x.dtype)
    y = torch.cat([x[:, :1], bins, levels], dim=1) @ W + b
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(layer.forward(X), y.detach().numpy(), rtol=1e-13)
    np.testing.assert_allclose(layer.backward(dy)[:2], x.grad.numpy()[:2], rtol=1e-12)
    np.testing.assert_allclose(layer.dW, W.grad.numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(layer.db, b.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_a_population_equals_separate_layers(library, rng, shared):
    layer = PiecewiseLinear(COLUMNS, 5, population=P, rng=1, dtype="float64")
    values = X if shared else np.stack([X, X + 0.5, X - 1.0])
    dy = rng.normal(size=(P, 4, 5))
    y = layer.forward(library.array(values))
    assert tuple(y.shape) == (P, 4, 5)
    layer.backward(library.array(dy))
    for p in range(P):
        alone = PiecewiseLinear(COLUMNS, 5, dtype="float64")
        alone.W, alone.b = layer.W[p, ...], layer.b[p, ...]
        own = alone.forward(library.array(values if shared else values[p]))
        np.testing.assert_allclose(library.numpy(y)[p], library.numpy(own), rtol=1e-13)
        alone.backward(library.array(dy[p]))
        for name, grad in alone.grads.items():
            both = library.numpy(layer.grads[name])[p], library.numpy(grad)
            np.testing.assert_allclose(*both, rtol=1e-12, atol=1e-14)


def test_it_begins_as_a_linear_layer_of_as_many_codes():
    layer, plain = (kind(6, 5, rng=3) for kind in (_of_codes, Linear))
    np.testing.assert_array_equal(layer.W, plain.W)
    np.testing.assert_array_equal(layer.b, plain.b)
    assert repr(layer) == "PiecewiseLinear(3 columns of 6 codes, 5)"
    assert layer.output_shape((3,)) == (5,)


def _of_codes(codes, outputs, rng):
    assert ops.piecewise_linear(X, np.ones((codes, 1)), columns=tuple(COLUMNS)).shape == (4, 1)
    return PiecewiseLinear(COLUMNS, outputs, rng=rng)


@pytest.mark.parametrize(
    "columns",
    [[], "bins", None, [("bins", 0)], [("linear", 2)], [("steps", 3)], [("bins", 2.0)], ["bins"]],
    ids=repr,
)
def test_columns_that_are_none_are_refused(columns):
    with pytest.raises(ConfigError, match=r"`PiecewiseLinear`: expected .*column"):
        PiecewiseLinear(columns, 4)


def test_wrong_inputs_are_refused():
    layer = PiecewiseLinear(COLUMNS, 5)
    for shape in ((4, 2), (3,), (4, 6)):
        with pytest.raises(ShapeError, match=r"expected x of shape \(N, 3\)"):
            layer.forward(np.zeros(shape, "float32"))
    with pytest.raises(DTypeError, match="expected x of dtype float32"):
        layer.forward(X)
    with pytest.raises(DTypeError, match="expected x as an array"):
        layer.forward([[1.0, 2.0, 3.0]])
    with pytest.raises(ShapeError, match=r"\(…, 3\)"):
        layer.output_shape((4,))
    with pytest.raises(ShapeError, match="W with 6 rows"):
        ops.piecewise_linear(X, np.ones((5, 2)), columns=tuple(COLUMNS))
    with pytest.raises(ShapeError, match="dy"):
        ops.piecewise_linear_backward(X, X, np.ones((6, 2)), columns=tuple(COLUMNS))


def test_networks_of_columns_are_built_selected_and_saved(tmp_path, rng):
    from xpmlp.population import stack
    from xpmlp.training import load_model, save_model
    from xpmlp.training.minibatches import count_outputs

    nets = FullyConnectedNet([3, 7, 2], columns=COLUMNS, population=P, seed=5)
    x = X.astype("float32")
    y = nets.forward(x)
    np.testing.assert_allclose(nets.member(1).forward(x), y[1], rtol=1e-5)
    np.testing.assert_array_equal(nets.select([2, 0]).forward(x), y[[2, 0]])
    np.testing.assert_array_equal(stack([nets.member(p) for p in range(P)]).forward(x), y)
    save_model(tmp_path / "net.npz", nets)
    again, _ = load_model(tmp_path / "net.npz")
    np.testing.assert_array_equal(again.forward(x), y)
    assert "PiecewiseLinear" in nets.summary()
    assert isinstance(FullyConnectedNet([3, 2], columns=COLUMNS).layers[0], PiecewiseLinear)
    assert count_outputs(FullyConnectedNet([3, 2], columns=COLUMNS)) == 2
    with pytest.raises(ConfigError, match="expected 3 inputs, one for each of columns="):
        FullyConnectedNet([6, 7, 2], columns=COLUMNS)
