"""A captured step of several ranks is the step of one process, its sums a part of the graph.

CUDA's graphs and NCCL are stand-ins (step/numpy_graph.py, numpy_nccl.py), ranks are threads.
"""

from __future__ import annotations

import numpy as np
import pytest
from parallel.numpy_nccl import Library
from parallel.ranks import run_ranks
from step import numpy_graph
from step.numpy_graph import traced

from xpmlp import layers, losses, optim
from xpmlp.communication import Share
from xpmlp.communication.nccl import NCCL
from xpmlp.models import FullyConnectedNet
from xpmlp.ops import normalization
from xpmlp.penalties import L2
from xpmlp.step import CapturedStep
from xpmlp.step.captured import step as captured
from xpmlp.training import TrainStep

INPUTS, CLASSES = 13, 4


@pytest.fixture(autouse=True)
def references_are_recorded(monkeypatch, without_kernels):
    """Numba's kernels would compute unseen by the recording; CUDA's kernels count as on."""
    monkeypatch.setattr(captured, "why_kernels_are_off", lambda: "")
    on_host = normalization.on_host  # of a device, variances are not looked at
    monkeypatch.setattr(
        normalization, "on_host", lambda array: type(array) is np.ndarray and on_host(array)
    )


def network(**options):
    options = {"normalization": "batchnorm", "dropout": 0.3, "dtype": "float64"} | options
    return FullyConnectedNet([INPUTS, 24, 21, CLASSES], seed=0, **options)


def on_device(model):
    for _, layer in model.named_layers():
        for group in (layer.params, layer.state):
            group.update({name: traced(array) for name, array in group.items()})
    return model


def batches(rounds=3, sizes=(16, 16, 6, 3), yes_no=False):
    """Of the last one, the first of two ranks has no rows."""
    rng = np.random.default_rng(0)
    for rows in sizes * rounds:
        x = rng.normal(size=(rows, INPUTS))
        y = rng.integers(0, 2, (rows, CLASSES)).astype(float) if yes_no else None
        yield x, rng.integers(0, CLASSES, rows) if y is None else y


def parts(make=network, loss=losses.SoftmaxCrossEntropy, optimizer=None, **options):
    made = optim.SGD(0.1, momentum=0.9) if optimizer is None else optimizer()
    return (make(), loss(), made), options


def one_process(data, **options):
    given, more = parts(**options)
    step = TrainStep(*given, **more)
    told = [(step.by_layers(x, y).tolist(), step.correct) for x, y in data]
    return told, step.model.state_dict()


class Rank:
    """A captured step of one rank, and its CuPy."""

    def __init__(self, words, **options):
        (model, *given), more = parts(**options)
        self.library = Library(words, gpus=words.size)
        self.ranks = NCCL(words, library=self.library)
        self.step = CapturedStep(on_device(model), *given, cuda=numpy_graph.make(), **more)

    def __call__(self, x, y, wish=False):
        share = Share.of(len(x), self.ranks)
        rows = slice(share.first, share.first + max(1, share.rows))
        x, y = (np.resize(a[rows], (rows.stop - rows.start, *a.shape[1:])) for a in (x, y))
        if not share.rows:
            x, y = np.zeros_like(x), np.zeros_like(y)
        x, y = traced(x), traced(y)
        figures = self.step.together(x, y, share, wish)
        self.way = self.step.explain(x, y, share)
        return figures


def check(data, tolerance=1e-12, sizes=(2, 3), way="captured", **options):
    data = list(data)
    told, arrays = one_process(data, **options)
    largest = max(np.abs(array).max() for array in arrays.values())

    def work(words):
        rank, found = Rank(words, **options), []
        for x, y in data:
            figures = rank(x, y)
            found.append((np.array(figures.value).tolist(), figures.correct))
            assert rank.way == way and figures.rows == len(x)
        return found, {name: np.array(a) for name, a in rank.step.model.state_dict().items()}

    for size in sizes:
        everyone = run_ranks(size, work)
        for found, own in everyone:
            values, hits = zip(*found, strict=True)
            np.testing.assert_allclose(values, [value for value, _ in told], rtol=tolerance)
            for one, (_, other) in zip(hits, told, strict=True):
                np.testing.assert_array_equal(one, other)
            for name, array in arrays.items():
                np.testing.assert_allclose(own[name], array, 0, tolerance * largest, err_msg=name)
                np.testing.assert_array_equal(own[name], everyone[0][1][name])


def test_any_number_of_ranks_makes_the_steps_of_one_process():
    check(batches(), penalty=L2(1e-3), clip_norm=0.5)


def test_adam_without_statistics():
    make = lambda: network(normalization="layernorm")  # noqa: E731
    check(batches(), make=make, optimizer=lambda: optim.Adam(1e-2), sizes=(3,))


def test_an_update_outside_of_the_graph():
    make = lambda: network(normalization=None)  # noqa: E731
    own = type("Own", (optim.SGD,), {})
    way = "captured, but for the update"
    check(batches(), make=make, optimizer=lambda: own(0.1), clip_norm=0.5, way=way, sizes=(2,))


@pytest.mark.parametrize(
    "loss",
    [
        lambda: losses.SoftmaxCrossEntropy(reduction="sum"),
        lambda: losses.SoftmaxCrossEntropy(label_smoothing=0.1, z_loss=1e-3),
        losses.MulticlassHinge,
    ],
    ids=["sum", "smoothed", "hinge"],
)
def test_losses_of_class_numbers(loss):
    check(batches(), loss=loss, optimizer=lambda: optim.SGD(0.01), sizes=(2,))


def test_answers_of_yes_and_no_are_counted_inside():
    make = lambda: network(output="sigmoid")  # noqa: E731
    check(batches(yes_no=True), make=make, loss=losses.BCEWithLogits, sizes=(2,))


def test_members_of_a_population():
    make = lambda: network(population=2, dropout=0.0)  # noqa: E731
    sizes = 16, 16, 6, 8
    data = [(np.stack([x, x]), y) for x, y in batches(sizes=sizes)]
    told, arrays = one_process(data, make=make)

    def work(words):
        rank, found = Rank(words, make=make), []
        for x, y in data:
            share = Share.of(len(y), rank.ranks)
            own = traced(x[:, share.slice]), traced(y[share.slice])
            figures = rank.step.together(*own, share, False)
            assert rank.step.explain(*own, share) == "captured"
            found.append((np.array(figures.value), figures.correct))
        return found, rank.step.model.state_dict()

    for found, own in run_ranks(2, work):
        for (value, hits), (other, right) in zip(found, told, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-12)
            np.testing.assert_array_equal(hits, right)
        for name, array in arrays.items():
            np.testing.assert_allclose(own[name], array, rtol=0, atol=1e-11, err_msg=name)


def test_a_wish_is_known_to_all_at_once():
    def work(words):
        rank = Rank(words)
        return [
            rank(x, y, wish=words.rank == 1 and number in (0, 4)).stopping
            for number, (x, y) in enumerate(batches())
        ]

    assert run_ranks(2, work) == [[number in (0, 4) for number in range(12)]] * 2


def test_sums_are_recorded_once_and_made_at_every_replay():
    x, y = next(batches())

    def work(words):
        rank = Rank(words)
        rank(x, y)
        recorded = [one for one in rank.library.sums if one.recorded]
        asked, made = len(rank.library.sums), len(words.sums)
        for _ in range(5):
            rank(x, y)
        assert len(rank.library.sums) == asked  # a replay asks nobody
        assert len(words.sums) - made == 5 * len(recorded)  # and sums all anew
        # Two batch norms: two sums forward, one backward; then gradients and figures, at once.
        params = rank.step.model.params
        assert [one.group > 0 for one in recorded] == [False] * 6 + [True] * (len(params) + 1)
        group = [one for one in recorded if one.group]
        assert len({one.group for one in group}) == 1
        sizes = sorted([*(array.size for array in params.values()), 5])
        assert sorted(one.count for one in group) == sizes
        assert {one.code for one in recorded} == {8}
        assert len({one.stream for one in recorded}) == 1

    run_ranks(2, work)


def test_in_single_precision_gradients_and_figures_are():
    x, y = next(batches())

    def work(words):
        rank = Rank(words, make=lambda: network(dtype="float32"))
        rank(x.astype(np.float32), y)
        return [one.code for one in rank.library.sums if one.recorded]

    for codes in run_ranks(2, work):
        assert codes == [8] * 6 + [7] * 11  # statistics are summed in double precision


def test_statistics_of_each_rank():
    x, y = next(batches())

    def work(words):
        rank = Rank(words)
        rank(x, y)
        return sum(one.recorded for one in rank.library.sums)

    assert run_ranks(2, work, "rank") == [2 + 11] * 2  # running ones, one sum a layer


def test_what_one_rank_cannot_record_none_replays():
    class Asks(layers.ReLU):
        """Waits for the device, on one rank."""

        def forward(self, x, training=False):
            if self.waits:
                x.get()
            return super().forward(x, training)

    def work(words):
        def make():
            net = layers.Sequential(
                layers.Linear(INPUTS, 8, rng=0, dtype="float64"),
                Asks(),
                layers.Linear(8, CLASSES, rng=1, dtype="float64"),
            )
            net.layers[1].waits = words.rank == 1
            return net

        rank, found = Rank(words, make=make), []
        for x, y in batches(1):
            found.append(float(rank(x, y).value))
            assert rank.way.startswith("layer by layer (") and "cannot wait" in rank.way
        return found

    with pytest.warns(UserWarning, match="steps run layer by layer: .*cannot wait"):
        first, second = run_ranks(2, work)
    assert first == second


def test_what_is_not_captured_and_why():
    x, y = next(batches())

    def work(words):
        rank = Rank(words, loss=lambda: losses.SoftmaxCrossEntropy(ignore_index=2))
        figures = rank(x, y)
        assert figures.given == (y != 2).sum()
        assert rank.way == "layer by layer (what rows count for is summed first)"
        rank = Rank(words)
        cut = slice(0, 5) if words.rank == 0 else slice(5, None)
        own = traced(x[cut]), traced(y[cut])
        share = Share.found(len(own[0]), rank.ranks)
        text = rank.step.explain(*own, share)
        assert text == "layer by layer (ranks have other rows than Share.of divides)"
        even = Share.found(8, rank.ranks)
        assert even == Share.of(16, rank.ranks) and even.even
        text = rank.step.explain(*own, Share.of(16, words))
        return text, float(rank.step.together(*own, share, False).value)

    (text, value), other = run_ranks(2, work)
    assert text == "captured"  # these threads sum arrays of NumPy, which the stand-in's are
    assert other == (text, value)
    np.testing.assert_allclose(value, one_process([(x, y)])[0][0][0], rtol=1e-12)


def test_arrays_that_only_the_host_can_sum(monkeypatch):
    def work(words):
        rank = Rank(words)
        monkeypatch.setattr(NCCL, "takes", lambda self, array: type(array) is np.ndarray)
        x, y = next(batches())
        figures = rank(x, y)
        assert rank.way == "layer by layer (arrays are summed through host memory)"
        return float(figures.value)

    first, second = run_ranks(2, work)
    assert first == second
