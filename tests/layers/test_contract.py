"""What every layer promises, whatever it computes."""

import copy

import numpy as np
import pytest

from xpmlp import layers
from xpmlp.backend import dtype_name
from xpmlp.errors import StateError
from xpmlp.layers import (
    CELU,
    ELU,
    GELU,
    AvgPool2D,
    BatchNorm,
    BatchNorm2D,
    Conv2D,
    Dropout,
    EmbedColumns,
    Embedding,
    Flatten,
    GlobalAvgPool2D,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    Linear,
    Log,
    LogSoftmax,
    Matmul,
    MaxPool2D,
    Periodic,
    PiecewiseLinear,
    Residual,
    RMSNorm,
    Sequential,
    SharedLinear,
    SiLU,
    Softmax,
    Tanh,
)
from xpmlp.layers.activations import ACTIVATIONS
from xpmlp.testing import gradcheck

N, D, P = 4, 6, 3
C, H, W = 4, 7, 5


def matmul(dtype):
    values = np.random.default_rng(0).normal(size=(5, N))
    return Matmul(values.astype(dtype))  # freeze() hands it to the library


def piecewise(dtype, **options):
    columns = [("bins", 2), ("linear", 1), ("bins", 1), ("levels", 2), ("bins", 3), ("linear", 1)]
    assert len(columns) == D
    return PiecewiseLinear(columns, 5, rng=0, dtype=dtype, **options)


def batch_norm(dtype, **options):
    layer = BatchNorm(D, dtype=dtype, **options)
    layer.running_var = 1.5 * layer.running_var  # so that evaluation does something
    return layer


def batch_norm_2d(dtype, **options):
    layer = BatchNorm2D(C, dtype=dtype, **options)
    layer.running_var = 1.5 * layer.running_var
    return layer


CASES = {
    "linear": lambda dtype: Linear(D, 5, rng=0, dtype=dtype),
    "linear-nobias": lambda dtype: Linear(D, 5, bias=False, rng=0, dtype=dtype),
    "linear-trailing": lambda dtype: Linear(N * D, 5, rng=0, dtype=dtype),
    "piecewise": lambda dtype: piecewise(dtype),
    "matmul": matmul,
    **{name: lambda dtype, kind=kind: kind() for name, kind in ACTIVATIONS.items()},
    "leaky": lambda dtype: LeakyReLU(0.2),
    "elu of 0.7": lambda dtype: ELU(0.7),
    "celu of 0.7": lambda dtype: CELU(0.7),
    "gelu-tanh": lambda dtype: GELU("tanh"),
    "softmax": lambda dtype: Softmax(),
    "softmax-columns": lambda dtype: Softmax(axis=-2),
    "logsoftmax": lambda dtype: LogSoftmax(),
    "log": lambda dtype: Log(eps=3.0),
    "batchnorm": batch_norm,
    "layernorm": lambda dtype: LayerNorm(D, dtype=dtype),
    "rmsnorm": lambda dtype: RMSNorm(D, dtype=dtype),
    "dropout": lambda dtype: Dropout(0.4, rng=0),
    "flatten": lambda dtype: Flatten(),
    "flatten-axes": lambda dtype: Flatten(axes=2),
    "residual": lambda dtype: Residual(Linear(D, D, rng=0, dtype=dtype)),
    "sequential": lambda dtype: Sequential(
        Linear(D, 5, rng=0, dtype=dtype),
        BatchNorm(5, dtype=dtype),
        Tanh(),
        Dropout(0.3, rng=0),
        Residual(Sequential(Linear(5, 5, rng=1, dtype=dtype), SiLU())),
    ),
    "periodic": lambda dtype: Periodic(D, 3, scale=1.0, rng=0, dtype=dtype),
    "periodic-mapped": lambda dtype: Periodic(D, 3, dim=4, scale=1.0, rng=0, dtype=dtype),
    "embedding": lambda dtype: Embedding(5, 3, rng=0, dtype=dtype),
    "embedding-columns": lambda dtype: EmbedColumns(D, {1: (5, 3), 4: (7, 2)}, rng=0, dtype=dtype),
    "linear-population": lambda dtype: Linear(D, 5, population=P, rng=0, dtype=dtype),
    "piecewise-population": lambda dtype: piecewise(dtype, population=P),
    "batchnorm-population": lambda dtype: batch_norm(dtype, population=P),
    "layernorm-population": lambda dtype: LayerNorm(D, population=P, dtype=dtype),
    "rmsnorm-population": lambda dtype: RMSNorm(D, population=P, dtype=dtype),
    "periodic-population": lambda dtype: Periodic(
        D, 3, dim=4, scale=1.0, population=P, rng=0, dtype=dtype
    ),
    "embedding-population": lambda dtype: Embedding(5, 3, population=P, rng=0, dtype=dtype),
    "embedding-columns-population": lambda dtype: EmbedColumns(
        D, {0: (5, 3)}, population=P, rng=0, dtype=dtype
    ),
    "shared-population": lambda dtype: SharedLinear(
        D, 5, adapters="signs", population=P, rng=0, dtype=dtype
    ),
    "shared-population-nobias": lambda dtype: SharedLinear(
        D, 5, population=P, bias=False, rng=0, dtype=dtype
    ),
    "image-conv": lambda dtype: Conv2D(C, 6, 3, padding=1, rng=0, dtype=dtype),
    "image-conv-options": lambda dtype: Conv2D(
        C, 6, (2, 3), stride=(2, 1), padding=(1, 2), dilation=2, groups=2, rng=0, dtype=dtype
    ),
    "image-conv-nobias": lambda dtype: Conv2D(C, 6, 2, stride=3, bias=False, rng=0, dtype=dtype),
    "image-maxpool": lambda dtype: MaxPool2D(2),
    "image-maxpool-overlapping": lambda dtype: MaxPool2D(3, stride=(2, 1), padding=1),
    "image-avgpool": lambda dtype: AvgPool2D((2, 3)),
    "image-avgpool-overlapping": lambda dtype: AvgPool2D(
        3, stride=2, padding=1, count_padding=False
    ),
    "image-globalavgpool": lambda dtype: GlobalAvgPool2D(),
    "image-batchnorm": lambda dtype: batch_norm_2d(dtype),
    "image-groupnorm": lambda dtype: GroupNorm(2, C, dtype=dtype),
    "image-conv-population": lambda dtype: Conv2D(
        C, 6, 3, padding=1, groups=2, population=P, rng=0, dtype=dtype
    ),
    "image-batchnorm-population": lambda dtype: batch_norm_2d(dtype, population=P),
    "image-groupnorm-population": lambda dtype: GroupNorm(2, C, population=P, dtype=dtype),
    "dropout-population": lambda dtype: Dropout([0.1, 0.5, 0.0], population=P, rng=0),
}
ROWWISE = ("relu", "linear", "softmax", "logsoftmax", "layernorm", "rmsnorm", "residual")
ROWWISE += ("piecewise",)
ROWWISE += ("periodic", "periodic-mapped")
MODES = (
    "image-batchnorm",
    "image-batchnorm-population",
    "batchnorm",
    "dropout",
    "sequential",
    "batchnorm-population",
    "dropout-population",
)
MODES += ("image-batchnorm", "image-batchnorm-population")
IN_EACH_MODE = [
    pytest.param(name, training, id=f"{name}-{'train' if training else 'eval'}")
    for name in CASES
    for training in ((True, False) if name in MODES else (True,))
]


def shape_of(name):
    if "image" in name:
        return (P, N, C, H, W) if "population" in name else (N, C, H, W)
    return (P, N, D) if "trailing" in name or "population" in name or "axes" in name else (N, D)


def fixed_of(name):
    """Which columns of x are codes, if any."""
    if "embedding" not in name:
        return None
    columns = {"embedding-columns": [1, 4], "embedding-columns-population": [0]}
    fixed = np.zeros(shape_of(name), bool)
    fixed[..., columns.get(name, slice(None))] = True
    return fixed


def input_of(name, rng):
    """Numbers away from kinks, and codes."""
    x, fixed = away_from_kinks(rng, shape_of(name)), fixed_of(name)
    return x if fixed is None else np.where(fixed, rng.integers(0, 5, x.shape), x)


def away_from_kinks(rng, shape):
    return rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.1, 2.0, size=shape)


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
