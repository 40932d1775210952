"""One matrix for all members, vectors for each: values, gradients beside PyTorch's, its options."""

import numpy as np
import pytest

from xpmlp.errors import ConfigError, DTypeError, ShapeError
from xpmlp.layers import Linear, SharedLinear

P, N, D, M = 3, 7, 6, 5


@pytest.fixture
def layer(freeze, rng):
    made = SharedLinear(D, M, population=P, rng=0, dtype="float64")
    for name in ("r", "s", "b"):
        setattr(made, name, rng.normal(size=made.params[name].shape))
    return freeze(made)


@pytest.mark.parametrize("lead", [(), (P,)], ids=["shared", "separate"])
def test_values_and_gradients_are_those_of_autograd(library, layer, lead, rng):
    torch = pytest.importorskip("torch")
    values, dy = rng.normal(size=(*lead, N, D)), rng.normal(size=(P, N, M))
    theirs = {
        n: torch.tensor(library.numpy(a), requires_grad=True) for n, a in layer.params.items()
    }
    x = torch.tensor(values, requires_grad=True)
    r, s, b = (theirs[name][:, None, :] for name in ("r", "s", "b"))
    expected = ((x * r) @ theirs["W"]) * s + b
    expected.backward(torch.tensor(dy))

    y = layer.forward(library.array(values))
    dx = layer.backward(library.array(dy))
    close = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(library.numpy(y), expected.detach().numpy(), **close)
    np.testing.assert_allclose(library.numpy(dx), x.grad.numpy(), **close)
    for name, their in theirs.items():
        got = library.numpy(layer.grads[name])
        np.testing.assert_allclose(got, their.grad.numpy(), **close, err_msg=name)
    grads = dict(layer.grads)
    assert layer.backward(library.array(dy), input_grad=False) is None
    for name, gradient in grads.items():
        np.testing.assert_array_equal(
            library.numpy(layer.grads[name]), library.numpy(gradient), err_msg=name
        )


def test_matrices_of_their_own_give_the_same(library, layer, rng):
    x = library.array(rng.normal(size=(P, N, D)))
    apart = layer.separate()
    assert type(apart) is Linear and tuple(apart.W.shape) == (P, D, M)
    np.testing.assert_allclose(
        library.numpy(apart.forward(x)), library.numpy(layer.forward(x)), rtol=1e-12, atol=1e-13
    )


def test_it_starts_as_its_options_say():
    layer = SharedLinear(40, 30, population=2, rng=[4, 9])
    first, second = (Linear(40, 30, rng=seed) for seed in (4, 9))
    np.testing.assert_array_equal(layer.W, first.W)
    assert (layer.r == 1).all() and (layer.s == 1).all() and np.ptp(layer.b[0] - layer.b[1]) > 0
    signs = SharedLinear(40, 30, population=2, adapters="signs", rng=[4, 9])
    assert set(np.unique(signs.r)) == {-1.0, 1.0} and np.any(signs.r[0] != signs.r[1])
    again = SharedLinear(40, 30, population=2, adapters="signs", rng=[9, 4])
    np.testing.assert_array_equal(again.r, signs.r[::-1])
    np.testing.assert_array_equal(again.W, second.W)
    zeros = SharedLinear(3, 2, population=2, init=0.5, rng=0)
    assert (zeros.b == 0).all() and "b" not in SharedLinear(3, 2, population=2, bias=False).params
    assert repr(layer) == "SharedLinear(40, 30)" and layer.output_shape((5, 8)) == (30,)
    assert layer.shared_params == layer.weight_params == ("W",) and layer.independent is None


def test_trailing_axes_are_flattened(rng):
    layer = SharedLinear(D, M, population=P, rng=0)
    x = rng.normal(size=(N, D)).astype("float32")
    folded = x.reshape(N, 2, D // 2)
    expected = layer.forward(x)
    np.testing.assert_array_equal(layer.forward(folded), expected)
    dx = layer.backward(np.ones((P, N, M), np.float32))
    assert dx.shape == folded.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 0}, "population"),
        ({"population": None}, "population"),
        ({"inputs": 0}, "inputs"),
        ({"adapters": "random"}, "adapters"),
        ({"bias": 3}, "bias"),
        ({"rng": [1, 2]}, "seeds"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SharedLinear(**{"inputs": D, "outputs": M, "population": P} | options)


def test_batches_that_do_not_fit_are_refused(rng):
    layer = SharedLinear(D, M, population=P, rng=0)
    for shape in ((N, D + 1), (P + 1, N, D), (D,), (2, P, N, D)):
        with pytest.raises(ShapeError, match=r"SharedLinear\.forward"):
            layer.forward(rng.normal(size=shape).astype("float32"))
    with pytest.raises(DTypeError, match=r"SharedLinear\.forward.*float32"):
        layer.forward(np.ones((N, D)))
    layer.forward(np.ones((N, D), np.float32))
    with pytest.raises(ShapeError, match=r"SharedLinear\.backward.*dy"):
        layer.backward(np.ones((N, M), np.float32))
