"""Captured steps with the real CUDA kernels, which run on the CPU (tests/kernels/cuda/shim)."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from kernels.cuda import stand_in
from kernels.cuda.conftest import shim  # noqa: F401
from step import device_streams, numpy_graph
from step.numpy_graph import traced
from step.test_captured import OPTIMIZERS, assert_equal_training, batches, net, trace

from xpmlp import optim
from xpmlp.backend import asarray_like
from xpmlp.data.resident import ResidentBatches
from xpmlp.kernels.cuda import graph
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.ops import cuda_rules
from xpmlp.penalties import L2
from xpmlp.step import CapturedStep
from xpmlp.step.captured import recordings as recording
from xpmlp.step.captured import step as captured
from xpmlp.step.captured import work as recorded_work
from xpmlp.step.captured.optimizer import flat_kind
from xpmlp.training import TrainStep


@pytest.fixture
def cuda(monkeypatch, without_kernels, shim):  # noqa: F811
    """``xpmlp.kernels.cuda.graph`` with everything that needs a device in other hands."""
    monkeypatch.setattr(captured, "why_kernels_are_off", lambda: "")
    monkeypatch.setattr(cuda_rules, "same_type", lambda **arrays: None)
    for module in (recorded_work, recording):  # constants are on the device, too
        monkeypatch.setattr(module, "asarray_like", lambda *given: traced(asarray_like(*given)))
    device = stand_in.put_in_place(monkeypatch, shim)
    pure = numpy_graph.make(fused=False)
    names = {name: getattr(graph, name) for name in graph.__all__}
    for name in (
        *("Recorder", "explained_memory", "precision_problem", "half_dtype", "contiguous"),
        *("empty", "release_memory"),
    ):
        names[name] = getattr(pure, name)
    return SimpleNamespace(**names, device=device)


class TracedBatches(ResidentBatches):
    """New arrays are NumPy's own; those of a recording must be traced."""

    def _new(self, rows):
        return tuple(map(traced, super()._new(rows)))

    def _move_numbers(self, x):
        self._seeds = traced(self._seeds)
        if self._mean is not None:
            self._mean, self._std = traced(self._mean), traced(self._std)


def both(cuda, make_model, make_optimizer, loss=SoftmaxCrossEntropy, **options):
    eager = TrainStep(make_model(), loss(), make_optimizer(), **options)
    model = trace(make_model())
    return eager, CapturedStep(model, loss(), make_optimizer(), cuda=cuda, **options)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "muon"])
def test_replays_with_kernels_equal_eager_steps(cuda, rng, name):
    """Forward, loss, backward, sums and update all by kernels, learning rates from the device."""
    eager, replayed = both(cuda, lambda: net(dropout=0.25), OPTIMIZERS[name])
    assert_equal_training(eager, replayed, batches(rng, 12))
    ran = {launch.rpartition("_")[0] for launch in cuda.device.launches}
    assert {"bias_activation", "bias_activation_backward", "finish"} <= ran
    by_kernel = flat_kind(OPTIMIZERS[name]()) is not None
    assert any(launch.endswith("_update") for launch in ran) == by_kernel


def test_a_population_with_kernels(cuda, rng):
    P = 3

    def optimizer():
        return optim.AdamW([0.01, 0.02, 0.003], weight_decay=[0.0, 0.1, 0.2])

    options = dict(population=P, dropout=[0.1, 0.0, 0.4], seed=[3, 1, 4], activation="tanh")
    eager, replayed = both(cuda, lambda: net(**options), optimizer, clip_norm=[0.5, 0.1, 9.0])
    assert_equal_training(eager, replayed, batches(rng, 6, members=P))
    assert_equal_training(eager, replayed, batches(rng, 6))


def test_penalty_clipping_and_options_with_kernels(cuda, rng):
    def loss():
        return SoftmaxCrossEntropy(
            label_smoothing=0.1, class_weights=[1, 2, 0.5, 3], ignore_index=1
        )

    eager, replayed = both(
        cuda, lambda: net(bias=False), OPTIMIZERS["momentum"], loss, penalty=L2(0.1), clip_norm=0.2
    )
    assert_equal_training(eager, replayed, batches(rng, 8))


def test_shapes_share_everything_but_their_gradients(cuda, rng):
    eager, replayed = both(cuda, lambda: net(activation="sigmoid"), OPTIMIZERS["adam"])
    assert_equal_training(
        eager, replayed, [next(batches(rng, 1, rows)) for rows in (8, 5, 8, 5, 8)]
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_lower_precision_with_kernels(cuda, rng, precision):
    def model():
        return net(dtype="float32", dropout=0.2)

    eager = TrainStep(model(), SoftmaxCrossEntropy(), optim.AdamW(0.01))
    replayed = CapturedStep(
        trace(model()), SoftmaxCrossEntropy(), optim.AdamW(0.01), precision=precision, cuda=cuda
    )
    for x, y in batches(rng, 10, rows=32):
        x = x.astype(np.float32)
        expected = float(eager.by_layers(x, y))
        assert float(replayed(traced(x), traced(y))) == pytest.approx(expected, rel=0.05)
    W, copy = replayed.model.layers[0].W, replayed._recordings.places.copies
    if precision == "tf32":
        assert not copy and all(tf32 for _, _, tf32 in cuda.device.products)
    else:  # the update's kernel has written them
        half = copy[id(replayed.model.layers[0])]["W"]
        np.testing.assert_array_equal(np.asarray(half), np.asarray(W).astype(half.dtype))


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_of_resident_data(cuda, rng, drop_last):
    """Rows picked by the kernel from a counter, two epochs, the last batch short."""
    x = rng.integers(0, 256, (21, 6), dtype=np.uint8)
    y = rng.integers(0, 4, 21)
    mean, std = 100.0, 50.0
    eager, replayed = both(cuda, lambda: net(dropout=0.2), OPTIMIZERS["adam"])
    options = dict(batch_size=8, seed=3, drop_last=drop_last, dtype="float64")
    resident = TracedBatches(
        traced(x), traced(y), mean=mean, std=std, gather=graph.gather, **options
    )
    from xpmlp.data import Batches, Normalization

    normalization = Normalization(np.asarray(mean), np.asarray(std))
    expected = Batches(x, y, normalization=normalization, **options)
    assert len(resident) == len(expected) == (2 if drop_last else 3)
    for epoch in (0, 1, 5):
        losses, hits = replayed.run_epoch(resident, epoch)
        wanted = []
        for index, (xb, yb) in enumerate(expected.epoch(epoch)):
            wanted.append(eager.by_layers(xb, yb))
            right = (np.argmax(eager.outputs, -1) == yb).sum()
            assert int(hits[index]) == right
        np.testing.assert_allclose(losses, wanted, rtol=1e-9)


# --- The graph itself


def recorded(cuda, resident=False, loss=SoftmaxCrossEntropy, **options):
    """The names of a step's nodes, for three linear layers."""
    rng = np.random.default_rng(1)
    model = FullyConnectedNet([20, 16, 16, 5], normalization=None, dropout=0.0)
    step = CapturedStep(trace(model), loss(), optim.Adam(0.01), cuda=cuda, **options)
    labels = traced(rng.integers(0, 5, 32))
    if resident:
        x = traced(rng.integers(0, 256, (32, 20), dtype=np.uint8))
        step.run_epoch(TracedBatches(x, labels, batch_size=32, gather=graph.gather))
    else:
        step(traced(rng.standard_normal((32, 20)).astype(np.float32)), labels)
    (recording,) = step._recordings.by_batch.values()
    return recording.replay.graph.nodes


@pytest.mark.parametrize("precision", [None, "tf32", "bf16"])
@pytest.mark.parametrize("resident", [False, True])
def test_a_step_is_few_nodes(cuda, precision, resident):
    """Products, one kernel after each, the loss, all sums, the update: no cast and no copy."""
    nodes = recorded(cuda, resident, precision=precision)
    kinds = {
        "product": 8,
        "bias_activation": 3,
        "softmax_cross_entropy_thread": 1,
        "bias_activation_backward": 2,
        "finish": 1,
        "adam_update": 1,
        **({"gather_uint8": 1} if resident else {}),
    }
    half = "bf16" if precision == "bf16" else "f32"
    found = Counter(node.removesuffix(f"_{half}").removesuffix("_f32") for node in nodes)
    assert found == kinds and len(nodes) == 16 + resident


def test_a_step_with_a_loss_scale_and_clipping_is_few_more(cuda):
    """Overflows are looked for before the step is counted, and the norm is one that is not."""
    nodes = recorded(cuda, precision="fp16", clip_norm=1.0)
    more = {"find_nonfinite_f32", "squared_norm_f32", "clip_scale_f32", "tick_f32"}
    assert len(nodes) == 16 + 5 and more | {"adjust_scale_f32"} <= set(nodes)


@pytest.mark.parametrize("options", [{}, {"population": 2, "seed": [1, 2]}], ids=["one", "two"])
def test_what_runs_beside_may_come_first_or_last(cuda, rng, monkeypatch, options):
    """The weights' gradients beside the rest of the backward: both orders give the same bits."""
    lead = options.get("population")
    data = [(traced(x), traced(y)) for x, y in batches(rng, 4, members=lead)]
    states = []
    for side_first in (False, True):
        monkeypatch.setattr(device_streams.Graph, "side_first", side_first)
        model = trace(net(dropout=0.2, **options))
        step = CapturedStep(model, SoftmaxCrossEntropy(), optim.Adam(0.01), cuda=cuda)
        values = [np.array(step(x, y)) for x, y in data]
        (recording,) = step._recordings.by_batch.values()
        _, side = recording.replay.graph._work
        assert [what[0] for kind, what in side if kind == "do"] == ["product"] * 2
        states.append((values, model.state_dict()))
    (first, one), (second, other) = states
    np.testing.assert_array_equal(first, second)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_losses_of_an_epoch_need_no_copy_beside_the_graph(cuda, rng, monkeypatch):
    """The graph writes them to their places; what the host enqueues is the launches."""
    x = traced(rng.integers(0, 256, (24, 6), dtype=np.uint8))
    resident = TracedBatches(x, traced(rng.integers(0, 4, 24)), batch_size=8, gather=graph.gather)
    model = trace(net(dtype="float32"))
    step = CapturedStep(model, SoftmaxCrossEntropy(), optim.SGD(0.1), cuda=cuda)
    first, _ = step.run_epoch(resident, 0)
    launched, called, call = [], [], numpy_graph._call
    monkeypatch.setattr(device_streams, "launch", lambda *a, name, **k: launched.append(name))

    def counted(function, *arguments):
        called.append(function.__name__)
        return call(function, *arguments)

    monkeypatch.setattr(numpy_graph, "_call", counted)
    step.run_epoch(resident, 1)
    assert launched == [] and called == ["copy", "copy"]  # of an epoch's losses and hits
    assert first.shape == (3,) and np.isfinite(first).all()
