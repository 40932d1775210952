"""Gates and PReLU: against torch's functions, and on every way that a step takes."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import ConfigError, ShapeError
from xpmlp.layers import GLU, Linear, PReLU, Sequential, SwiGLU
from xpmlp.losses import MSE
from xpmlp.optim import SGD
from xpmlp.testing import gradcheck
from xpmlp.training import TrainStep


@pytest.mark.parametrize("kind", ["glu", "swiglu", "prelu"])
def test_values_and_gradients_equal_torch(library, rng, kind):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, dy = rng.normal(size=(5, 6)), rng.normal(size=(5, 6 if kind == "prelu" else 3))
    slopes = rng.normal(size=6)
    theirs = torch.tensor(x, requires_grad=True)
    a = torch.tensor(slopes, requires_grad=True)
    expected = {
        "glu": lambda: functional.glu(theirs),
        "swiglu": lambda: functional.silu(theirs[:, :3]) * theirs[:, 3:],
        "prelu": lambda: functional.prelu(theirs, a),
    }[kind]()
    expected.backward(torch.tensor(dy))
    layer = {"glu": GLU, "swiglu": SwiGLU, "prelu": lambda: PReLU(6, dtype="float64")}[kind]()
    if kind == "prelu":
        layer.a = library.array(slopes)
    y = layer.forward(library.array(x))
    dx = layer.backward(library.array(dy))
    np.testing.assert_allclose(library.numpy(y), expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(library.numpy(dx), theirs.grad.numpy(), rtol=1e-12)
    if kind == "prelu":
        np.testing.assert_allclose(library.numpy(layer.grads["a"]), a.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [GLU(), SwiGLU(), PReLU(4, dtype="float64"), PReLU(dtype="float64")],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (2, 3, 4)], ids=str)
def test_gradients(layer, shape, rng):
    gradcheck(layer, rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 2.0, shape))


def test_gates_of_huge_inputs_stay_finite():
    x = np.array([[1e4, -1e4, 1e4, -1e4]], "float32")
    for layer in (GLU(), SwiGLU()):
        assert np.isfinite(layer.forward(x)).all()
        assert np.isfinite(layer.backward(np.ones((1, 2), "float32"))).all()


def test_a_step_on_this_library_is_the_layers_own(library, rng):
    """Jitted on JAX, layer by layer elsewhere: the loss falls as the formulas say."""
    x, y = library.array(rng.normal(size=(20, 4))), library.array(rng.normal(size=(20, 1)))

    def network():
        make = {"dtype": "float64", "rng": 1}
        return Sequential(
            Linear(4, 12, **make), SwiGLU(), Linear(6, 8, **make), GLU(),
            PReLU(4, dtype="float64"), Linear(4, 1, **make),
        )  # fmt: skip

    whole, by_hand, loss, optimizer = network(), network(), MSE(), SGD(0.1)
    step = TrainStep(whole, MSE(), SGD(0.1))
    for _ in range(3):
        value = step(x, y)
        expected = loss.forward(by_hand.forward(x, training=True), y)
        by_hand.backward(loss.backward())
        by_hand.params = optimizer.update(by_hand.params, by_hand.grads, by_hand.weight_params)
        np.testing.assert_allclose(library.numpy(value), library.numpy(expected), rtol=1e-10)
    for name, array in by_hand.state_dict().items():
        np.testing.assert_allclose(whole.state_dict()[name], array, rtol=1e-9, err_msg=name)


def test_what_does_not_fit_is_refused():
    for layer in (GLU(), SwiGLU()):
        with pytest.raises(ShapeError, match="even number of features"):
            layer.forward(np.ones((2, 3)))
        with pytest.raises(ShapeError, match="even number of features"):
            layer.output_shape((3,))
        assert layer.output_shape((5, 6)) == (5, 3)
    with pytest.raises(ShapeError, match=r"x of shape \(…, 3\), got \(2, 4\)"):
        PReLU(3).forward(np.ones((2, 4), "float32"))
    with pytest.raises(ConfigError, match="features"):
        PReLU(0)
    with pytest.raises(ShapeError, match="prelu"):
        ops.prelu(np.ones((2, 4)), np.ones(2))
