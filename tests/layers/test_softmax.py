"""Softmax layers: values, Jacobians and logits that would overflow."""

import numpy as np
import pytest

from xpmlp.layers import LogSoftmax, Softmax

LAYERS = {"softmax": Softmax, "logsoftmax": LogSoftmax}


@pytest.mark.parametrize("axis", [-1, -2, 0])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_torch_along_any_axis(torch, rng, name, axis):
    values, slopes = 3.0 * rng.normal(size=(2, 4, 5)), rng.normal(size=(2, 4, 5))
    x = torch.tensor(values, requires_grad=True)
    y = {"softmax": torch.softmax, "logsoftmax": torch.log_softmax}[name](x, axis)
    y.backward(torch.tensor(slopes))
    layer = LAYERS[name](axis)
    np.testing.assert_allclose(layer.forward(values), y.detach().numpy(), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(layer.backward(slopes), x.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_values_follow_the_formula(library, rng):
    x = rng.normal(size=(4, 5))
    expected = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        library.numpy(Softmax().forward(library.array(x))), expected, rtol=1e-14
    )
    np.testing.assert_allclose(
        library.numpy(LogSoftmax().forward(library.array(x))), np.log(expected), rtol=1e-13
    )


def test_huge_logits_do_not_overflow(library):
    x = library.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [3e38, 1.0, 2.0]], "float32")
    p = library.numpy(Softmax().forward(x))
    np.testing.assert_allclose(p, [[1, 0, 0], [1 / 3] * 3, [1, 0, 0]], rtol=1e-6)
    logs = library.numpy(LogSoftmax().forward(x))
    np.testing.assert_allclose(logs[0], [0.0, -2e4, -1e4], rtol=1e-6)


def test_minus_infinity_is_a_class_that_cannot_be(library):
    layer = Softmax()
    p = layer.forward(library.array([[0.0, -np.inf, 0.0]]))
    np.testing.assert_allclose(library.numpy(p), [[0.5, 0.0, 0.5]])
    dx = library.numpy(layer.backward(library.array([[1.0, 2.0, 3.0]])))
    np.testing.assert_allclose(dx, [[-0.5, 0.0, 0.5]])


def test_log_of_softmax_is_logsoftmax_in_its_gradient(rng):
    x, dy = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    softmax, logsoftmax = Softmax(), LogSoftmax()
    p = softmax.forward(x)
    logsoftmax.forward(x)
    np.testing.assert_allclose(softmax.backward(dy / p), logsoftmax.backward(dy), rtol=1e-12)
