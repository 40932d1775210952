"""What every layer promises, whatever it computes."""

import copy

import numpy as np
import pytest

from xpmlp import layers
from xpmlp.backend import dtype_name
from xpmlp.errors import StateError
from xpmlp.testing import gradcheck
from xpmlp.testing.samples import LAYERS as CASES
from xpmlp.testing.samples import MODES, D, N, P, away_from_kinks, fixed_of, input_of, shape_of

ROWWISE = ("relu", "linear", "softmax", "logsoftmax", "layernorm", "rmsnorm", "residual")
ROWWISE += ("piecewise",)
ROWWISE += ("periodic", "periodic-mapped")
IN_EACH_MODE = [
    pytest.param(name, training, id=f"{name}-{'train' if training else 'eval'}")
    for name in CASES
    for training in ((True, False) if name in MODES else (True,))
]


def test_every_layer_is_covered():
    bases = {"Activation", "Container", "Layer", "Parameter", "State"}
    covered = {type(make("float32")).__name__ for make in CASES.values()}
    assert covered == set(layers.__all__) - bases


@pytest.mark.parametrize(("name", "training"), IN_EACH_MODE)
def test_forward_and_backward_keep_library_dtype_and_inputs(
    library, freeze, elsewhere, rng, name, training
):
    layer = freeze(CASES[name]("float32"))
    values = input_of(name, rng).astype("float32")
    x = library.array(values)
    y = layer.forward(x, training=training)
    slopes = rng.normal(size=tuple(y.shape)).astype("float32")
    dy = library.array(slopes)
    before = {key: library.numpy(value).copy() for key, value in layer.params.items()}
    dx = layer.backward(dy)

    assert tuple(dx.shape) == tuple(x.shape)
    assert layer.grads.keys() == layer.params.keys()
    for key, grad in layer.grads.items():
        assert tuple(grad.shape) == tuple(layer.params[key].shape)
        np.testing.assert_array_equal(library.numpy(layer.params[key]), before[key])
    for array in (y, dx, *layer.grads.values(), *layer.state.values()):
        assert type(array) is type(x) and dtype_name(array.dtype) == "float32"
        assert np.isfinite(library.numpy(array)).all()
    np.testing.assert_array_equal(library.numpy(x), values)
    np.testing.assert_array_equal(library.numpy(dy), slopes)


@pytest.mark.parametrize(("name", "training"), IN_EACH_MODE)
def test_gradients_are_the_derivatives_of_the_forward(library, freeze, rng, name, training):
    layer = freeze(CASES[name]("float64"))
    x, fixed = library.array(input_of(name, rng)), fixed_of(name)
    directions = 1 if library.name == "jax" else 2
    gradcheck(layer, x, training=training, directions=directions, fixed=fixed)


@pytest.mark.parametrize("name", ROWWISE)
def test_leading_axes_are_only_more_rows(library, freeze, rng, name):
    layer = freeze(CASES[name]("float64"))
    values = away_from_kinks(rng, (P * N, D))
    y = layer.forward(library.array(values))
    dy = rng.normal(size=tuple(y.shape))
    dx = layer.backward(library.array(dy))
    grads = dict(layer.grads)

    stacked = layer.forward(library.array(values.reshape(P, N, D)))
    assert tuple(stacked.shape) == (P, N, y.shape[-1])
    np.testing.assert_allclose(
        library.numpy(stacked).reshape(tuple(y.shape)), library.numpy(y), rtol=1e-13
    )
    stacked_dx = layer.backward(library.array(dy.reshape(P, N, -1)))
    np.testing.assert_allclose(
        library.numpy(stacked_dx).reshape(P * N, D), library.numpy(dx), rtol=1e-12, atol=1e-14
    )
    for key, grad in layer.grads.items():
        np.testing.assert_allclose(
            library.numpy(grad), library.numpy(grads[key]), rtol=1e-12, atol=1e-14
        )


@pytest.mark.parametrize("name", CASES)
def test_backward_before_forward_says_so(name):
    layer = CASES[name]("float32")
    with pytest.raises(StateError, match="backward`: expected a forward before it"):
        layer.backward(np.ones((N, D), dtype="float32"))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_assigned_not_added_up(rng, name):
    layer = CASES[name]("float64")
    x = input_of(name, rng)
    dy = rng.normal(size=layer.forward(x).shape)
    first = layer.backward(dy)
    grads = copy.deepcopy(layer.grads)
    np.testing.assert_array_equal(layer.backward(dy), first)
    for key, grad in layer.grads.items():
        np.testing.assert_array_equal(grad, grads[key])


@pytest.mark.parametrize("name", [name for name in CASES if "flatten" not in name])
def test_output_shape_tells_the_shape_of_one_sample(rng, name):
    layer = CASES[name]("float64")
    if name == "matmul":  # its samples are columns
        y = layer.forward(np.ones((N, 7)))
        assert layer.output_shape((N, 7)) == y.shape
        return
    shape = shape_of(name)
    sample = shape[1:] if "trailing" in name else shape[-3 if "image" in name else -1 :]
    y = layer.forward(np.ones(shape))
    own = layer.output_shape(sample)
    assert own == y.shape[y.ndim - len(own) :] and len(own) == y.ndim - len(shape) + len(sample)


@pytest.mark.parametrize("name", CASES)
def test_repr_names_the_layer(name):
    layer = CASES[name]("float32")
    assert repr(layer).startswith(type(layer).__name__ + "(")
