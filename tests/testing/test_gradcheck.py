"""The gradient checker itself: right gradients pass, each kind of wrong one fails."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp import ops
from xpmlp.errors import DTypeError
from xpmlp.layers import BatchNorm, Dropout, EmbedColumns, Layer, Linear, ReLU, Sequential, Tanh
from xpmlp.losses import MSE, SoftmaxCrossEntropy
from xpmlp.testing import gradcheck, gradcheck_function


class Broken(Linear):
    """A Linear layer of which one gradient can be spoilt."""

    spoil = ""

    def backward(self, dy, input_grad=True):
        dx = super().backward(dy, input_grad)
        if self.spoil == "x":
            return 1.01 * dx
        if self.spoil in self.grads:
            changed = np.array(self.grads[self.spoil])
            changed.flat[0] += 1e-3  # a single element
            self.grads[self.spoil] = changed
        return dx


def network():
    return Sequential(
        Linear(4, 5, rng=0, dtype="float64"),
        BatchNorm(5, dtype="float64"),
        Tanh(),
        Dropout(0.4, rng=0),
        Linear(5, 3, rng=1, dtype="float64"),
    )


def test_right_gradients_pass_on_every_library(library, rng):
    x = library.array(rng.normal(size=(6, 4)))
    assert gradcheck(network(), x, training=True) < 1e-6
    assert gradcheck(network(), x, training=False) < 1e-6


def test_right_losses_pass_on_every_library(library, rng):
    y = library.array(rng.normal(size=(6, 3)))
    assert gradcheck(MSE(), y, library.array(rng.normal(size=(6, 3)))) < 1e-6
    assert gradcheck(SoftmaxCrossEntropy(), y, library.array([0, 1, 2, 0, 1, 2])) < 1e-6


def test_what_is_fixed_is_not_moved_and_has_no_gradient(rng):
    x = np.stack([rng.integers(0, 5, 4), rng.normal(size=4)], axis=1)
    codes = np.array([[True, False]] * 4)
    layer = EmbedColumns(2, {0: (5, 3)}, rng=0, dtype="float64")
    assert gradcheck(layer, x, fixed=codes) < 1e-6
    with pytest.raises(AssertionError, match="gradients of 0 where x is fixed"):
        gradcheck(Linear(2, 3, rng=0, dtype="float64"), x, fixed=codes)


@pytest.mark.parametrize("spoil", ["x", "W", "b"])
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "nested"])
def test_each_wrong_gradient_is_named(rng, spoil, nested):
    layer = Broken(4, 3, rng=0, dtype="float64")
    layer.spoil = spoil
    module = Sequential(Sequential(layer), Tanh()) if nested else layer
    name = f"0.0.{spoil}" if nested and spoil != "x" else spoil
    with pytest.raises(AssertionError, match=f"gradient of {name}: relative error"):
        gradcheck(module, rng.normal(size=(6, 4)))


def test_a_wrong_loss_gradient_is_noticed(rng):
    class Wrong(MSE):
        def backward(self):
            return 0.5 * super().backward()

    with pytest.raises(AssertionError, match="gradient of outputs"):
        gradcheck(Wrong(), 10 * rng.normal(size=(6, 3)), rng.normal(size=(6, 3)))


def test_the_module_is_left_as_it_was(rng):
    model = network()
    model.forward(rng.normal(size=(6, 4)), training=True)
    before = {name: a.copy() for name, a in model.state_dict().items()}
    step = model[3].step
    gradcheck(model, rng.normal(size=(6, 4)), training=True)
    assert model[3].step == step
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a, before[name])


def test_a_kink_is_reported_not_hidden():
    with pytest.raises(AssertionError, match="x lies on a kink"):
        gradcheck(ReLU(), np.zeros((2, 3)))


def test_float32_is_refused(rng):
    with pytest.raises(DTypeError, match="expected float64, got float32"):
        gradcheck(Linear(4, 3, rng=0), rng.normal(size=(2, 4)).astype(np.float32))


def test_a_gradient_of_another_shape(rng):
    class Flat(Layer):
        def forward(self, x, training=False):
            return 2 * x

        def backward(self, dy):
            return (2 * dy).reshape(-1)

    with pytest.raises(AssertionError, match=r"gradient of shape \(2, 3\), got \(6,\)"):
        gradcheck(Flat(), rng.normal(size=(2, 3)))


def test_nan_gradients_fail(rng):
    class Lost(Tanh):
        def backward(self, dy):
            return dy * np.nan

    with pytest.raises(AssertionError, match="relative error inf"):
        gradcheck(Lost(), rng.normal(size=(2, 3)))


def test_functions_of_several_arrays(rng):
    a, b = rng.normal(size=(2, 3)), rng.normal(size=(3, 2))
    gradcheck_function(ops.matmul, lambda dy, a, b: [dy @ b.T, a.T @ dy], a, b)
    gradcheck_function(ops.matmul, lambda dy, a, b: [None, a.T @ dy], a, b)
    with pytest.raises(AssertionError, match="argument 1"):
        gradcheck_function(ops.matmul, lambda dy, a, b: [dy @ b.T, 2 * a.T @ dy], a, b)
