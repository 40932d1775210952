"""FullyConnectedNet: how it is built, what it predicts, and what it refuses."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import xpmlp
from xpmlp.errors import ConfigError, DataError, DTypeError, ShapeError
from xpmlp.initializers import Zeros
from xpmlp.models import ACTIVATIONS, NORMALIZATIONS, FullyConnectedNet

P = 3
FULL = {"normalization": "batchnorm", "dropout": 0.2}


def kinds(net):
    return [type(layer).__name__ for layer in net.layers]


def test_blocks_are_linear_normalization_activation_dropout():
    assert kinds(FullyConnectedNet([4, 3])) == ["Linear"]
    assert kinds(FullyConnectedNet([4, 5, 3])) == ["Linear", "ReLU", "Linear"]
    block = ["Linear", "BatchNorm", "ReLU", "Dropout"]
    assert kinds(FullyConnectedNet([4, 5, 6, 3], **FULL)) == [*block, *block, "Linear"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_by_name(name):
    net = FullyConnectedNet([4, 5, 3], activation=name)
    assert isinstance(net[1], ACTIVATIONS[name])


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalization_by_name(name):
    net = FullyConnectedNet([4, 5, 3], normalization=name)
    assert isinstance(net[1], NORMALIZATIONS[name]) and net[1].features == 5


def test_the_batchnorm_convention_is_handed_down():
    net = FullyConnectedNet([4, 5, 3], normalization="batchnorm", batchnorm="cs231n")
    assert not net[1].unbiased and not net[1].running_var.any()


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_weights_and_biases_start_uniform(activation):
    first = FullyConnectedNet([300, 200, 10], activation=activation)[0]
    for values in (first.W, first.b):
        assert 0.95 * (6 / 500) ** 0.5 < np.abs(values).max() <= (6 / 500) ** 0.5
        assert values.std() == pytest.approx((2 / 500) ** 0.5, rel=0.1)
    last = FullyConnectedNet([30, 200, 400], activation=activation)[-1]
    for values in (last.W, last.b):  # smaller, to begin near 0
        assert 0.95 * 200**-0.5 < np.abs(values).max() <= 200**-0.5


def test_the_default_start_is_built_again_from_the_configuration():
    net = FullyConnectedNet([5, 8, 3], seed=4)
    again = FullyConnectedNet(**net.config)
    for name, array in net.params.items():
        np.testing.assert_array_equal(again.params[name], array)
    members = FullyConnectedNet([5, [4, 8], 3], population=2, seed=[9, 4])
    for name, array in members.member(1).params.items():
        np.testing.assert_array_equal(array, net.params[name])


def test_starts_may_be_chosen():
    fixed = FullyConnectedNet([300, 200, 10], init=0.01)[0]
    assert fixed.W.std() == pytest.approx(0.01, rel=0.02)
    assert not fixed.b.any()
    assert FullyConnectedNet([300, 200, 10], init=0.01, bias_init="glorot_uniform")[-1].b.all()
    assert not FullyConnectedNet([30, 20, 10], bias_init="zeros")[-1].b.any()
    assert not FullyConnectedNet([30, 20, 10], init=Zeros())[0].W.any()


def test_layers_start_differently_and_so_do_seeds():
    net = FullyConnectedNet([5, 5, 5, 5], seed=0)
    assert np.abs(net[0].W - net[2].W).max() > 0.1
    assert np.abs(net[0].W - FullyConnectedNet([5, 5, 5, 5], seed=1)[0].W).max() > 0.1
    np.testing.assert_array_equal(net[0].W, FullyConnectedNet([5, 5, 5, 5], seed=0)[0].W)


def test_weights_start_the_same_with_and_without_dropout():
    # A member whose rate is 0 must start as it would alone, where it has no Dropout layer.
    plain, dropping = (FullyConnectedNet([5, 5, 5, 5], dropout=p) for p in (0.0, 0.5))
    for ours, theirs in zip(plain.params.values(), dropping.params.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_bias_there_is_none():
    assert set(FullyConnectedNet([4, 5, 3], bias=False).params) == {"0.W", "2.W"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {**FULL, "activation": "gelu", "seed": 7, "dtype": "float64"},
        {"population": P, "seed": 5, "dropout": [0.1, 0.0, 0.3]},
        {"population": P, "seed": [9, 4, 2**63 + 1], "dropout": np.array([0.1, 0.0, 0.3])},
        {"population": 1, "seed": np.array([9]), "dropout": [0.1]},
        {
            "normalization": "batchnorm",
            "batchnorm": "cs231n",
            "bias": False,
            "init": "lecun_normal",
        },
        {"init": 0.02, "bias_init": 0.1, "output": "sigmoid", "seed": np.int64(3)},
    ],
    ids=["plain", "full", "population", "arrays", "one", "cs231n", "init"],
)
def test_the_config_builds_the_same_net_again(options):
    net = FullyConnectedNet([4, 5, 6, 3], **options)
    again = FullyConnectedNet(**json.loads(json.dumps(net.config)))
    assert repr(again) == repr(net) and again.config == net.config
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)
    x = np.ones((P, 8, 4) if options.get("population") == P else (1, 8, 4), net.dtype)
    np.testing.assert_array_equal(again.forward(x, True), net.forward(x, True))  # masks too


def test_predictions_follow_the_output(library, rng):
    x = rng.normal(size=(9, 4))
    nets = {o: FullyConnectedNet([4, 5, 3], output=o) for o in ("softmax", "sigmoid", "identity")}
    raw = library.numpy(nets["identity"].predict(x))
    logits = library.numpy(nets["softmax"].forward(library.array(x, "float32")))
    np.testing.assert_allclose(raw, logits, rtol=1e-6)

    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = library.numpy(nets["softmax"].predict_proba(x))
    np.testing.assert_allclose(p, e / e.sum(axis=1, keepdims=True), rtol=1e-5)
    labels = library.numpy(nets["softmax"].predict(x))
    assert labels.dtype == "int64"
    np.testing.assert_array_equal(labels, logits.argmax(axis=1))

    p = library.numpy(nets["sigmoid"].predict_proba(x))
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    answers = library.numpy(nets["sigmoid"].predict(x))
    assert answers.dtype == "int64"
    np.testing.assert_array_equal(answers, logits > 0)


def test_probabilities_of_plain_numbers_are_refused():
    with pytest.raises(ConfigError, match="expected a classifier, got output='identity'"):
        FullyConnectedNet([4, 3], output="identity").predict_proba(np.ones((2, 4)))


@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_the_batch_size_changes_no_prediction(rng, batch_size):
    net = FullyConnectedNet([4, 5, 3], **FULL, dtype="float64")
    x = rng.normal(size=(9, 4))
    expected = net.predict_proba(x)
    np.testing.assert_allclose(net.predict_proba(x, batch_size), expected, rtol=1e-13)


def test_predictions_drop_nothing_and_move_no_statistics(rng):
    net = FullyConnectedNet([4, 5, 3], **FULL)
    before = net.state_dict()
    x = rng.normal(size=(9, 4))
    np.testing.assert_array_equal(net.predict_proba(x), net.predict_proba(x))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("kind", ["list", "float64", "uint8", "images", "torch"])
def test_inputs_may_be_of_any_kind(rng, kind):
    net = FullyConnectedNet([4, 5, 3])
    x = rng.integers(5, size=(6, 4))
    expected = net.outputs(x.astype("float32"))
    if kind == "torch":
        given = pytest.importorskip("torch").tensor(x)
    else:
        given = {
            "list": x.tolist(),
            "images": x.reshape(6, 2, 2).astype("float32"),
        }.get(kind, x.astype(kind if kind in ("float64", "uint8") else "float32"))
    np.testing.assert_array_equal(net.outputs(given), expected)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((8, 4), None), ((P, 8, 4), 0), ((P, 2, 2), None), ((P, 8, 2, 2), 0), ((P, P, 4), 0)],
    ids=str,
)
def test_a_population_takes_shared_or_own_samples(rng, shape, axis):
    net = FullyConnectedNet([4, 5, 3], population=P, seed=4)
    x = rng.normal(size=shape).astype("float32")
    together = net.predict_proba(x, batch_size=1)
    samples = shape[0] if axis is None else shape[1]
    assert together.shape == (P, samples, 3) and net.predict(x).shape == (P, samples)
    for p in range(P):
        alone = FullyConnectedNet([4, 5, 3], seed=4 + p)
        own = x if axis is None else x[p]
        np.testing.assert_allclose(together[p], alone.predict_proba(own), rtol=1e-5)


def test_a_population_counts_its_members_in_the_summary():
    assert FullyConnectedNet([4, 3], population=P).summary().endswith("3 networks")


def test_summary_lists_shapes_and_parameters():
    net = FullyConnectedNet([784, 256, 10], **FULL)
    lines = [line.split("  ") for line in net.summary().splitlines()]
    table = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert table["input"] == ["(N, 784)"]
    assert table["0 Linear(784, 256)"] == ["(N, 256)", "200,960"]
    assert table["1 BatchNorm(256)"] == ["(N, 256)", "512"]
    assert table["2 ReLU()"] == ["(N, 256)"]
    assert table["3 Dropout(p=0.2)"] == ["(N, 256)"]
    assert table["4 Linear(256, 10)"] == ["(N, 10)", "2,570"]
    assert table["total"] == ["204,042"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [4]}, "at least an input and an output size"),
        ({"sizes": [4, 0, 3]}, "all ≥ 1, got"),
        ({"sizes": [4, 2.5, 3]}, "whole numbers, got 2.5"),
        ({"sizes": [4, "5", 3]}, "whole numbers, got '5'"),
        ({"sizes": 4}, r"such as \[784, 100, 10\], got 4"),
        ({"sizes": "4,5,3"}, "got '4,5,3'"),
        ({"activation": "swish"}, "activation to be one of relu, leaky_relu, .* got 'swish'"),
        ({"normalization": "batch"}, "one of None, batchnorm, layernorm, rmsnorm, got 'batch'"),
        ({"output": "linear"}, "output to be one of softmax, sigmoid, identity"),
        ({"dropout": 1.0}, r"expected dropout in \[0, 1\)"),
        ({"dropout": [0.1, 0.2]}, "one rate or 1, one a member, got 2"),
        ({"init": "he"}, "expected an initializer among he_normal"),
        ({"bias_init": "ones"}, "expected bias_init among glorot_uniform, fan_in_uniform, zeros"),
        ({"seed": -1}, r"seeds that are integers in \[0, 2\*\*64\)"),
        ({"seed": [1, 2], "population": 3}, "expected 3 population seeds, got 2"),
        ({"population": 0}, "expected population to be None or an integer ≥ 1, got 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        FullyConnectedNet(**{"sizes": [4, 5, 3], **options})


def test_an_unknown_dtype_is_refused():
    with pytest.raises(DTypeError, match="got 'float31'"):
        FullyConnectedNet([4, 3], dtype="float31")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(4), r"expected x of shape \(N, …\), got \(4,\); a single sample is x\[None\]"),
        (np.ones((2, 5)), r"expected x of shape \(…, 4\)"),
        (np.ones((0, 4)), "expected at least one sample, got none"),
        (3.0, r"expected x of shape \(N, …\), got \(\)"),
    ],
    ids=["one", "width", "empty", "number"],
)
def test_inputs_that_do_not_fit_are_refused(x, message):
    with pytest.raises(ShapeError, match=message):
        FullyConnectedNet([4, 5, 3]).predict(x)


def test_predictions_work_where_jax_has_32_bits_only():
    if "jax" not in xpmlp.available_backends():
        pytest.skip("jax is not installed")
    code = """
import warnings; warnings.simplefilter("error")
import numpy as np, xpmlp
from xpmlp.models import FullyConnectedNet
with xpmlp.use_backend("jax"):
    for output in ("sigmoid", "softmax"):
        net = FullyConnectedNet([4, 5, 3], output=output, dropout=0.5)
        print(net.predict(np.ones((2, 4))).dtype)
"""
    env = {**os.environ, "JAX_ENABLE_X64": "0"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["int32", "int32"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("population", [None, 2])
def test_no_class_is_predicted_from_nan(activation, output, population, library, rng):
    net = FullyConnectedNet(
        [4, 8, 3], activation=activation, output=output, population=population, seed=0
    )
    x = rng.normal(size=(6, 4))
    net.predict(library.array(x, "float32"))
    for value in (np.nan, np.inf):
        x[2, 1] = value
        for given in (x, x.tolist(), library.array(x, "float32")):
            for ask in (net.predict, net.predict_proba):
                if activation == "relu" or value is np.nan or isinstance(given, np.ndarray | list):
                    with pytest.raises(DataError, match=r"finite (numbers|outputs)"):
                        ask(given)


def test_a_network_of_nan_predicts_nothing(library, rng):
    net = FullyConnectedNet([4, 3])
    net.params = {"0.b": library.array(np.full(3, np.nan), "float32")}
    with pytest.raises(DataError, match="parameters are finite"):
        net.predict(library.array(rng.normal(size=(2, 4)), "float32"))
