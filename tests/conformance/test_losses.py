"""Every loss against PyTorch's, with all options both have, on every path."""

from __future__ import annotations

import numpy as np
import pytest
from conformance.paths import PATHS, on
from conformance.samples import LOSSES, WITHOUT_COUNTERPART, samples
from tolerances import tolerance

import xpmlp
from xpmlp import losses

SAMPLES = {sample.name: sample for sample in samples(LOSSES)}
TOLERANCE = tolerance("reduction", "float64")


def test_every_loss_has_a_counterpart_or_is_known_to_have_none():
    public = {
        name
        for name, found in vars(losses).items()
        if name[0] != "_" and isinstance(found, type) and losses.Loss in found.__mro__[1:]
    }
    found = {type(s.ours(s.make())).__name__ for s in SAMPLES.values() if s.ours(s.make())}
    assert public - found == WITHOUT_COUNTERPART["losses"]


def classes_last(loss, outputs, targets):
    """Here classes are the last axis, and each further axis of rows is one of leading problems."""
    if isinstance(loss, losses.SoftmaxCrossEntropy | losses.NLL):
        classes = outputs.shape[1] if outputs.ndim > 1 else outputs.shape[0]
        if targets.is_floating_point():
            targets = targets.movedim(1, -1).reshape(-1, classes)
        else:
            targets = targets.reshape(-1)
        return outputs.movedim(1, -1).reshape(-1, classes), targets
    return outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1, targets.shape[-1])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SAMPLES)
def test_values_and_gradients(name, path):
    sample = SAMPLES[name]
    theirs = sample.make()
    outputs, targets = sample.inputs
    with on(path):
        loss = sample.ours(theirs)
        if loss is None or outputs.ndim < 2:
            pytest.skip("an option that we do not have, or no batch")
        outputs, targets = (t.detach() for t in classes_last(loss, outputs, targets))
        outputs = outputs.clone().requires_grad_()
        expected = theirs(outputs, targets)
        expected.sum().backward()
        gradient = outputs.grad
        if isinstance(loss, losses.MulticlassHinge):  # there a mean over the classes
            expected, gradient = expected * outputs.shape[1], gradient * outputs.shape[1]
        dtype = "float64" if targets.is_floating_point() else "int64"
        value = loss.forward(
            xpmlp.asarray(outputs.detach().numpy(), "float64"),
            xpmlp.asarray(targets.numpy(), dtype),
        )
        # Of a batch with nothing but ignored labels torch's mean is 0/0, ours 0.
        close(value, expected.detach().nan_to_num())
        close(loss.backward(), gradient.nan_to_num())


def close(actual, expected):
    np.testing.assert_allclose(xpmlp.to_numpy(actual), expected.numpy(), **TOLERANCE)
