"""Convolution, pooling and normalization of images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from xpmlp import ops, use_backend
from xpmlp.errors import ConfigError, DTypeError, ShapeError
from xpmlp.initializers import GlorotUniform, HeNormal
from xpmlp.layers import (
    AvgPool2D,
    BatchNorm,
    BatchNorm2D,
    Conv2D,
    GlobalAvgPool2D,
    GroupNorm,
    MaxPool2D,
    Sequential,
)

OPTIONS = list(itertools.product([1, 2, (2, 3)], [0, 1, (2, 1)], [1, 2], [1, 2], [1, 3, (2, 3)]))
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def test_every_option_equals_torch(torch, rng):
    x = rng.normal(size=(3, 4, 9, 11))
    for stride, padding, dilation, groups, size in OPTIONS:
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        layer = Conv2D(4, 6, size, **options, rng=1, dtype="float64")
        y = layer.forward(x)
        dy = rng.normal(size=y.shape)
        X, W, b = (torch.tensor(a, requires_grad=True) for a in (x, layer.W, layer.b))
        Y = torch.nn.functional.conv2d(X, W, b, **options)
        Y.backward(torch.tensor(dy))
        np.testing.assert_allclose(y, Y.detach().numpy(), **TIGHT)
        for ours, theirs in ((layer.backward(dy), X), (layer.dW, W), (layer.db, b)):
            np.testing.assert_allclose(ours, theirs.grad.numpy(), **TIGHT, err_msg=str(layer))


@pytest.mark.parametrize("stride", [None, 1, (2, 3)])
@pytest.mark.parametrize(("size", "padding"), [(2, 0), (3, 1), ((3, 2), (0, 1)), (1, 0)])
def test_pooling_equals_torch(torch, rng, size, padding, stride):
    F = torch.nn.functional
    x = rng.integers(-2, 3, (2, 3, 8, 9)).astype("float64")  # with many ties
    options = {"stride": stride, "padding": padding}
    for layer, function in (
        (MaxPool2D(size, **options), F.max_pool2d),
        (AvgPool2D(size, **options), F.avg_pool2d),
        (
            AvgPool2D(size, **options, count_padding=False),
            lambda *a, **k: F.avg_pool2d(*a, **k, count_include_pad=False),
        ),
    ):
        y = layer.forward(x)
        dy = rng.normal(size=y.shape)
        X = torch.tensor(x, requires_grad=True)
        Y = function(X, size, **options)
        Y.backward(torch.tensor(dy))
        np.testing.assert_allclose(y, Y.detach().numpy(), **TIGHT)
        np.testing.assert_allclose(layer.backward(dy), X.grad.numpy(), **TIGHT)


def test_the_first_of_equals_gets_the_gradient(library):
    layer = MaxPool2D(2)
    layer.forward(library.array(np.ones((1, 1, 2, 4))))
    dx = library.numpy(layer.backward(library.array([[[[3.0, 5.0]]]])))
    np.testing.assert_array_equal(dx, [[[[3, 0, 5, 0], [0, 0, 0, 0]]]])


def test_values_published_by_the_course():
    """CS231n, assignment 2, ConvolutionalNetworks: conv_forward_naive, max_pool_forward_naive."""
    x = np.linspace(-0.1, 0.5, num=96).reshape(2, 3, 4, 4)
    W = np.linspace(-0.2, 0.3, num=144).reshape(3, 3, 4, 4)
    y = ops.conv2d(x, W, np.linspace(-0.1, 0.2, num=3), stride=2, padding=1)
    expected = [
        [[-0.08759809, -0.10987781, -0.18387192, -0.2109216],
         [0.21027089, 0.21661097, 0.22847626, 0.23004637],
         [0.50813986, 0.54309974, 0.64082444, 0.67101435]],
        [[-0.98053589, -1.03143541, -1.19128892, -1.24695841],
         [0.69108355, 0.66880383, 0.59480972, 0.56776003],
         [2.36270298, 2.36904306, 2.38090835, 2.38247847]],
    ]  # fmt: skip
    np.testing.assert_allclose(y, np.reshape(expected, (2, 3, 2, 2)), atol=1e-8)
    x = np.linspace(-0.3, 0.4, num=96).reshape(2, 3, 4, 4)
    expected = [
        -0.26315789, -0.24842105, -0.20421053, -0.18947368, -0.14526316, -0.13052632,
        -0.08631579, -0.07157895, -0.02736842, -0.01263158, 0.03157895, 0.04631579,
        0.09052632, 0.10526316, 0.14947368, 0.16421053, 0.20842105, 0.22315789,
        0.26736842, 0.28210526, 0.32631579, 0.34105263, 0.38526316, 0.4,
    ]  # fmt: skip
    np.testing.assert_allclose(
        ops.max_pool2d(x, size=2), np.reshape(expected, (2, 3, 2, 2)), atol=1e-8
    )


def test_a_kernel_over_the_whole_image_is_a_linear_map(rng):
    layer, x = Conv2D(3, 5, (4, 6), rng=0, dtype="float64"), rng.normal(size=(7, 3, 4, 6))
    expected = x.reshape(7, -1) @ layer.W.reshape(5, -1).T + layer.b
    np.testing.assert_allclose(layer.forward(x)[:, :, 0, 0], expected, atol=1e-13)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=["image", "batch", "more"])
def test_leading_axes_are_only_more_images(library, freeze, rng, lead):
    layer = freeze(Conv2D(2, 3, 3, padding=1, rng=0, dtype="float64"))
    x = rng.normal(size=(*lead, 2, 5, 4))
    y = library.numpy(layer.forward(library.array(x)))
    dy = rng.normal(size=y.shape)
    dx = library.numpy(layer.backward(library.array(dy)))
    dW = library.numpy(layer.dW)
    assert y.shape == (*lead, 3, 5, 4) and dx.shape == x.shape
    flat = library.array(x.reshape(-1, 2, 5, 4))
    np.testing.assert_allclose(library.numpy(layer.forward(flat)).reshape(y.shape), y, **TIGHT)
    flat = library.array(dy.reshape(-1, 3, 5, 4))
    np.testing.assert_allclose(library.numpy(layer.backward(flat)).reshape(x.shape), dx, **TIGHT)
    np.testing.assert_allclose(library.numpy(layer.dW), dW, **TIGHT)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=["shared", "own", "more"])
@pytest.mark.parametrize("kind", ["convolution", "group norm", "batch norm"])
def test_a_population_is_so_many_layers(library, freeze, rng, kind, lead):
    if kind != "convolution" and not lead:
        pytest.skip("normalizations have a batch for each member")
    P, options = 3, {"population": 3, "dtype": "float64"}
    many = {
        "convolution": lambda: Conv2D(4, 6, 3, stride=2, padding=1, groups=2, rng=0, **options),
        "group norm": lambda: GroupNorm(2, 4, **options),
        "batch norm": lambda: BatchNorm2D(4, **options),
    }[kind]()
    for name in list(many.params):
        many.params[name] = rng.normal(size=many.params[name].shape)
    one = {
        "convolution": lambda: Conv2D(4, 6, 3, stride=2, padding=1, groups=2, dtype="float64"),
        "group norm": lambda: GroupNorm(2, 4, dtype="float64"),
        "batch norm": lambda: BatchNorm2D(4, dtype="float64"),
    }[kind]
    freeze(many)
    x = rng.normal(size=(*lead, 5, 4, 6, 5))
    y = library.numpy(many.forward(library.array(x), training=True))
    dy = rng.normal(size=y.shape)
    dx = library.numpy(many.backward(library.array(dy)))
    sums = np.zeros(x.shape)
    for p in range(P):
        with use_backend("numpy"):
            layer = one()
        for name in layer.params:
            layer.params[name] = library.numpy(many.params[name])[p]
        own = x if not lead else x[..., p, :, :, :, :]
        np.testing.assert_allclose(
            layer.forward(own, training=True), y[..., p, :, :, :, :], **TIGHT
        )
        own_dx = layer.backward(dy[..., p, :, :, :, :])
        if lead:
            np.testing.assert_allclose(dx[..., p, :, :, :, :], own_dx, **TIGHT)
        sums += own_dx if not lead else 0.0
        for name in layer.grads:
            np.testing.assert_allclose(
                library.numpy(many.grads[name])[p], layer.grads[name], **TIGHT
            )
    if not lead:
        np.testing.assert_allclose(dx, sums, **TIGHT)


def test_arrays_that_do_not_lie_in_order(rng):
    layer = Conv2D(3, 4, 3, stride=2, padding=1, rng=0, dtype="float64")
    x = rng.normal(size=(3, 9, 2, 8)).transpose(2, 0, 1, 3)[:, :, ::-1, ::2]
    y = layer.forward(np.ascontiguousarray(x))
    dy = rng.normal(size=y.shape[::-1]).transpose()
    dx = layer.backward(dy.copy())
    grads = dict(layer.grads)
    np.testing.assert_allclose(layer.forward(x), y, **TIGHT)
    np.testing.assert_allclose(layer.backward(dy), dx, **TIGHT)
    for name, grad in grads.items():
        np.testing.assert_allclose(layer.grads[name], grad, **TIGHT)


def test_without_images_nothing_comes(library, freeze):
    layer = freeze(Conv2D(2, 3, 3, rng=0))
    y = layer.forward(library.array(np.zeros((0, 2, 5, 5), "float32")))
    assert tuple(y.shape) == (0, 3, 3, 3)
    assert tuple(layer.backward(y).shape) == (0, 2, 5, 5)
    np.testing.assert_array_equal(library.numpy(layer.dW), 0.0)


def test_spatial_batch_norm_is_batch_norm_of_the_pixels(rng):
    x = 3.0 + rng.normal(size=(5, 4, 3, 2))
    spatial, plain = BatchNorm2D(4, dtype="float64"), BatchNorm(4, dtype="float64")
    y = spatial.forward(x, training=True)
    rows = plain.forward(x.transpose(0, 2, 3, 1).reshape(-1, 4), training=True)
    np.testing.assert_allclose(y.transpose(0, 2, 3, 1).reshape(-1, 4), rows, **TIGHT)
    np.testing.assert_allclose(spatial.running_var, plain.running_var, **TIGHT)
    one_image = Sequential(BatchNorm2D(4, dtype="float64")).forward(x[:1], training=True)
    assert np.isfinite(one_image).all()


def test_group_norm_with_a_large_mean(rng):
    """In float32, of numbers about 10⁴ that differ by 1."""
    x = rng.normal(size=(2, 4, 8, 8))
    y = GroupNorm(2, 4).forward((x + 1e4).astype("float32"))
    np.testing.assert_allclose(y, GroupNorm(2, 4, dtype="float64").forward(x), atol=5e-3)


def test_weights_start_by_the_fans_of_kernels():
    W = Conv2D(64, 32, 3, init="glorot_uniform", rng=0).W
    bound = np.sqrt(6.0 / (9 * (64 + 32)))
    assert 0.99 * bound < np.abs(W).max() <= bound
    W = Conv2D(64, 32, (3, 5), init=HeNormal(), groups=2, rng=0).W
    np.testing.assert_allclose(W.std(), np.sqrt(2.0 / (15 * 32)), rtol=0.05)
    biases = Conv2D(64, 512, 3, init="glorot_uniform", rng=0).b
    assert np.abs(biases).max() <= np.sqrt(6.0 / (9 * (64 + 512)))
    assert repr(GlorotUniform()) == "GlorotUniform()"


def test_member_of_a_population_starts_as_it_would_alone():
    many, one = Conv2D(2, 3, 3, population=2, rng=[4, 7]), Conv2D(2, 3, 3, rng=7)
    np.testing.assert_array_equal(many.W[1], one.W)
    np.testing.assert_array_equal(many.b[1], one.b)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Conv2D(3, 4, 0), "expected size as an integer ≥ 1"),
        (lambda: Conv2D(3, 4, (1, 2, 3)), "one for height and one for width, got"),
        (lambda: Conv2D(3, 4, 3, stride=0), "expected stride"),
        (lambda: Conv2D(3, 4, 3, padding=-1), "expected padding as an integer ≥ 0"),
        (lambda: Conv2D(3, 4, 3, dilation=1.5), "expected dilation"),
        (lambda: Conv2D(3, 4, 3, groups=2), "groups to divide the 3 channels"),
        (lambda: Conv2D(4, 3, 3, groups=2), "and the 3 outputs"),
        (lambda: Conv2D(0, 3, 3), "expected channels to be an integer ≥ 1"),
        (lambda: MaxPool2D(2, padding=2), "padding of at most half the size"),
        (lambda: AvgPool2D((2, "a")), "expected size"),
        (lambda: AvgPool2D(2, count_padding=2), "count_padding to be True or False"),
        (lambda: GroupNorm(3, 4), "groups to divide the 4 channels"),
        (lambda: ops.max_pool2d(np.ones((1, 4, 4)), size=2, padding=2), "at most half"),
        (lambda: ops.conv2d(np.ones((1, 4, 4)), np.ones((3, 1, 2, 2)), groups=2), "groups to div"),
    ],
)  # fmt: skip
def test_options_out_of_range(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (lambda: Conv2D(3, 4, 3), (2, 4, 8, 8), r"x of shape \(…, 3, H, W\), got \(2, 4, 8, 8\)"),
        (lambda: Conv2D(3, 4, 3), (3, 8), "x of shape"),
        (lambda: Conv2D(3, 4, 3, dilation=2), (2, 3, 4, 9), "at least 5 × 5.* got 4 × 9"),
        (lambda: Conv2D(3, 4, 3, population=2), (3, 5, 3, 8, 8), r"\(2, N, C, H, W\) for a pop"),
        (lambda: Conv2D(3, 4, 3, population=2), (3, 8, 8), "for a population"),
        (lambda: MaxPool2D(3), (2, 3, 2, 8), "at least 3 × 3"),
        (lambda: AvgPool2D(3), (8, 8), r"x of shape \(…, C, H, W\)"),
        (lambda: GlobalAvgPool2D(), (8, 8), r"x of shape \(…, C, H, W\)"),
        (lambda: BatchNorm2D(3), (2, 4, 8, 8), r"\(…, 3, H, W\)"),
        (lambda: BatchNorm2D(3), (1, 3, 1, 1), "a batch of at least 2 rows"),
        (lambda: GroupNorm(1, 3), (2, 4, 8, 8), r"\(…, 3, H, W\)"),
        (lambda: GroupNorm(1, 3, population=2), (3, 5, 3, 8, 8), r"\(2, N, C, H, W\) for a pop"),
    ],
)  # fmt: skip
def test_wrong_shapes(make, shape, words):
    layer = make()
    with pytest.raises(ShapeError, match=words):
        layer.forward(np.ones(shape, "float32"), training=True)


def test_wrong_slopes_and_types(rng):
    layer = Conv2D(3, 4, 3, dtype="float64")
    layer.forward(rng.normal(size=(2, 3, 8, 8)))
    with pytest.raises(ShapeError, match=r"dy of shape \(2, 4, 6, 6\), got \(2, 4, 8, 8\)"):
        layer.backward(np.ones((2, 4, 8, 8)))
    with pytest.raises(DTypeError, match="expected x of dtype float64"):
        layer.forward(np.ones((2, 3, 8, 8), "float32"))
    with pytest.raises(DTypeError, match="an array"):
        MaxPool2D(2).forward([[1.0]])


def test_descriptions_name_what_is_unusual():
    assert repr(Conv2D(3, 4, 3)) == "Conv2D(3, 4, 3)"
    layer = Conv2D(4, 6, (1, 3), stride=2, padding=(0, 1), groups=2, bias=False)
    assert repr(layer) == "Conv2D(4, 6, (1, 3), stride=2, padding=(0, 1), groups=2, bias=False)"
    assert repr(MaxPool2D(3, stride=2, padding=1)) == "MaxPool2D(3, stride=2, padding=1)"
    assert repr(AvgPool2D(2, count_padding=False)) == "AvgPool2D(2, count_padding=False)"
    assert layer.output_shape((4, 8, 8)) == (6, 4, 4)
