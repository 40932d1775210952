"""Every layer against PyTorch's, with all options both have, on every path."""

from __future__ import annotations

import numpy as np
import pytest
from conformance.paths import PATHS, on
from conformance.samples import LAYERS, WITHOUT_COUNTERPART, samples, torch
from tolerances import tolerance

import xpmlp
from xpmlp import layers

SAMPLES = {sample.name: sample for sample in samples(LAYERS)}
NAMES = {"a": "weight", "W": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}
BASES = (layers.Layer, layers.Container, layers.Activation)
TOLERANCE = tolerance("normalization", "float64")


def test_every_layer_has_a_counterpart_or_is_known_to_have_none():
    public = {
        name
        for name in layers.__all__
        if issubclass(getattr(layers, name), layers.Layer) and getattr(layers, name) not in BASES
    }
    found = {type(s.ours(s.make())).__name__ for s in SAMPLES.values() if s.ours(s.make())}
    assert public - found == WITHOUT_COUNTERPART["layers"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SAMPLES)
def test_values_and_gradients(name, path):
    sample = SAMPLES[name]
    theirs = sample.make().train()
    (x,) = sample.inputs
    with on(path):
        layer = sample.ours(theirs)
        if layer is None or x.ndim == 0 or not fits(layer, x):
            pytest.skip("an option or a layout that we do not have")
        if x.ndim < 2 and not isinstance(layer, layers.Linear):
            x = x[None]  # a batch of one
        codes = not x.is_floating_point()
        x = x.detach().clone().requires_grad_(not codes)
        rng = np.random.default_rng(0)
        expected = theirs(x)
        dy = rng.normal(size=tuple(expected.shape))
        expected.backward(torch.tensor(dy))
        given = xpmlp.asarray(x.detach().numpy(), "int64" if codes else "float64")
        y = layer.forward(given, training=True)
        dx = layer.backward(xpmlp.asarray(dy, "float64"))
        close(y, expected.detach())
        close(dx, torch.zeros_like(x) if codes else x.grad)
        for ours, gradient in layer.grads.items():
            their = getattr(theirs, NAMES[ours]).grad
            turned = isinstance(layer, layers.Linear) and ours == "W"
            close(gradient, their.T if turned else their)
        for kept in layer.state:
            close(layer.state[kept], getattr(theirs, kept))


def fits(layer, x) -> bool:
    """Whether x is laid out as here: features last, images in batches, and at least one row."""
    if isinstance(layer, layers.BatchNorm2D | layers.GroupNorm):
        return x.ndim == 4 and x.numel() > 0
    # torch's channels are axis 1, ours the last.
    by_channel = isinstance(layer, layers.BatchNorm)
    by_channel |= isinstance(layer, layers.PReLU) and layer.features > 1
    features_last = not by_channel or x.ndim == 2
    return features_last and x.numel() > 0


def close(actual, expected):
    np.testing.assert_allclose(xpmlp.to_numpy(actual), expected.numpy(), **TOLERANCE)
