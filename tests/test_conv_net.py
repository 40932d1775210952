"""ConvNet: the ready convolutional network."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpmlp.errors import CheckpointError, ConfigError
from xpmlp.layers import BatchNorm2D, Conv2D, Dropout, Linear, MaxPool2D
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import ConvNet
from xpmlp.optim import AdamW
from xpmlp.training import Trainer, load_model, save_model

SIZES = [(1, 8, 8), 4, 6, 3]


def test_layers_and_outputs(rng):
    model = ConvNet(SIZES, normalization="batchnorm", dropout=0.2)
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Conv2D", "BatchNorm2D", "ReLU", "MaxPool2D"]
    assert kinds == ["Unflatten", *block, *block, "Flatten", "Dropout", "Linear"]
    x = rng.normal(size=(5, 8, 8)).astype("float32")
    y = model.forward(x)
    assert y.shape == (5, 3)
    assert model.backward(y).shape == (5, 8, 8)
    for same in (x[:, None], x.reshape(5, 64)):
        np.testing.assert_array_equal(model.forward(same), y)
    np.testing.assert_allclose(model.predict_proba(x).sum(axis=1), 1.0, rtol=1e-6)
    assert model.predict(x).shape == (5,)
    total = sum(math.prod(p.shape) for p in model.params.values())
    assert f"{total:,}" in model.summary() and "(N, 6, 2, 2)" in model.summary()


def test_learns_and_comes_back_from_its_file(tmp_path, rng):
    """Where in an image a bright spot is."""
    corner = rng.integers(0, 3, 300)
    x = rng.normal(size=(300, 8, 8)).astype("float32")
    for n, c in enumerate(corner):
        x[n, 4 * (c // 2) : 4 * (c // 2) + 3, 4 * (c % 2) : 4 * (c % 2) + 3] += 2.0
    model = ConvNet(SIZES, normalization="batchnorm", dropout=0.1, seed=1)
    trainer = Trainer(
        model, SoftmaxCrossEntropy(), AdamW(0.01), epochs=8, batch_size=32, progress=False
    )
    trainer.fit(x, corner)
    assert np.mean(model.predict(x) == corner) > 0.95
    for suffix in ("npz", "safetensors"):
        save_model(tmp_path / f"net.{suffix}", model, {"classes": ["a"]})
        again, extras = load_model(tmp_path / f"net.{suffix}")
        assert type(again) is ConvNet and again.config == model.config
        assert extras == {"classes": ["a"]} and again.counters() == model.counters()
        np.testing.assert_array_equal(again.outputs(x), model.outputs(x))


def test_a_file_that_lies_about_its_size_is_refused(tmp_path, monkeypatch):
    model = ConvNet(SIZES)
    model.config["sizes"] = [64, 30_000, 30_000, 3]
    save_model(tmp_path / "net.npz", model)
    monkeypatch.setattr(ConvNet, "__init__", lambda *args, **options: pytest.fail("was built"))
    with pytest.raises(CheckpointError, match="its network has 81"):
        load_model(tmp_path / "net.npz")


def test_the_same_network_from_its_configuration():
    model = ConvNet(SIZES, size=5, activation="gelu", init="he_normal", seed=3, dtype="float64")
    again = ConvNet(**model.config)
    for name, array in model.params.items():
        np.testing.assert_array_equal(array, again.params[name])
    convolution = next(layer for layer in model.layers if isinstance(layer, Conv2D))
    assert convolution.W.shape == (4, 1, 5, 5) and convolution.padding == (2, 2)
    dropped = ConvNet(SIZES, dropout=0.5)
    assert not {Dropout, BatchNorm2D} & {type(layer) for layer in model.layers}
    plain = ConvNet(SIZES)
    np.testing.assert_array_equal(plain.layers[-1].W, dropped.layers[-1].W)
    assert isinstance(plain.layers[3], MaxPool2D) and isinstance(plain.layers[-1], Linear)


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        (SIZES, {"size": 2}, "size to be odd"),
        (SIZES, {"normalization": "layernorm"}, "None, batchnorm"),
        (SIZES, {"activation": "step"}, "activation to be one of"),
        (SIZES, {"dropout": [0.1, 0.2]}, "dropout"),
        ([(1, 8, 8), 4, 4, 4, 4, 3], {}, "can be halved 4 times"),
        ([64, 4, 3], {}, r"an image \(C, H, W\) first"),
        ([63, 4, 3], {"image": (1, 8, 8)}, "expected 64 inputs"),
        ([(1, 8, 8), 0, 3], {}, "sizes to be an integer ≥ 1"),
        (5, {}, "expected sizes such as"),
    ],
)
def test_options_out_of_range(sizes, options, words):
    with pytest.raises(ConfigError, match=words):
        ConvNet(sizes, **options)
