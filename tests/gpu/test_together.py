"""A captured step of several ranks on one device: the other rank has the same rows as this one.

So a sum is twice what is there, and all but NCCL itself is what two devices would run.
"""

from __future__ import annotations

import numpy as np
import pytest

import xpmlp
from xpmlp import losses, optim
from xpmlp.communication import Communicator, Share
from xpmlp.models import FullyConnectedNet
from xpmlp.penalties import L2
from xpmlp.training import TrainStep

# A refusal to capture, which is a warning elsewhere, is a failure here.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("error:`CapturedStep`")]


class Mirrored(Communicator):
    """Two ranks with the same rows, of which there is one."""

    def allreduce(self, buffer):
        buffer *= 2

    def broadcast(self, value, root=0):
        return value

    def takes(self, array):
        return True


def network(**options):
    options = {"normalization": "batchnorm", "bias": False} | options
    return FullyConnectedNet([20, 32, 24, 10], **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [losses.SoftmaxCrossEntropy, losses.MulticlassHinge])
def test_two_ranks_make_the_step_of_one_process(cupy, rng, dtype, loss):
    common = {"penalty": L2(1e-3), "clip_norm": 0.5}

    def step(**options):
        return TrainStep(network(dtype=dtype), loss(), optim.SGD(0.05, momentum=0.9), **options)

    one, shared = step(**common), step(comm=Mirrored(0, 2), **common)
    tolerance = 1e-10 if dtype == "float64" else 2e-4
    for _ in range(6):
        x = rng.standard_normal((16, 20)).astype(dtype)
        y = rng.integers(0, 10, 16)
        both = xpmlp.asarray(np.concatenate([x, x])), xpmlp.asarray(np.concatenate([y, y]))
        own = xpmlp.asarray(x), xpmlp.asarray(y)
        share = Share.of(32, shared.comm)
        expected = one.by_layers(*both)
        value = shared(*own, share=share)
        np.testing.assert_allclose(float(value), float(expected), rtol=tolerance)
        assert int(shared.correct) == int(one.correct)
    assert shared._capture().explain(*own, share) == "captured"
    found = shared.model.state_dict()
    for name, array in one.model.state_dict().items():
        atol = 10 * tolerance * max(np.abs(array).max(), 1e-3)
        np.testing.assert_allclose(found[name], array, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("options", [{"dropout": 0.3}, {"output": "sigmoid"}])
@pytest.mark.parametrize("statistics", ["global", "rank"])
def test_the_last_rank_is_captured_too(cupy, rng, options, statistics):
    """Whose masks begin in the middle; by layers it makes the same steps."""
    yes_no = "output" in options
    loss = losses.BCEWithLogits if yes_no else losses.SoftmaxCrossEntropy

    def step():
        ranks = Mirrored(1, 2, statistics)
        given = network(dtype="float64", **options), loss(), optim.Adam(1e-3)
        return TrainStep(*given, comm=ranks)

    captured, by_layers = step(), step()
    for _ in range(5):
        x = xpmlp.asarray(rng.standard_normal((16, 20)))
        y = rng.integers(0, 2, (16, 10)) * 1.0 if yes_no else rng.integers(0, 10, 16)
        y = xpmlp.asarray(y, dtype="float64" if yes_no else None)
        share = Share.of(32, captured.comm)
        value = captured(x, y, share=share)
        uneven = Share(share.first, share.rows, share.total, by_layers.comm)
        expected = by_layers(x, y, share=uneven)
        np.testing.assert_allclose(float(value), float(expected), rtol=1e-10)
        assert int(captured.correct) == int(by_layers.correct)
    assert captured._capture().explain(x, y, share) == "captured"
    assert by_layers._capture().explain(x, y, uneven).startswith("layer by layer (ranks have")
