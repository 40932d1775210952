"""A step of several ranks is the step that one process makes with all rows."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from parallel.ranks import run_ranks

from xpmlp import layers, losses, optim
from xpmlp.communication import Share
from xpmlp.errors import ConfigError, DataError
from xpmlp.models import FullyConnectedNet
from xpmlp.penalties import L2
from xpmlp.training import TrainStep

ROWS, INPUTS, CLASSES = 54, 13, 4
SIZES = (2, 3, 7)  # with 7 some ranks have no rows of any batch, with 3 one has none of the last


@pytest.fixture(params=["compiled", "by layers"])
def way(request, monkeypatch):
    if request.param == "by layers":
        monkeypatch.setattr(TrainStep, "_program", lambda *arguments: "asked for")
    else:
        pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')
    return request.param


def network(**options):
    options = {"normalization": "batchnorm", "dropout": 0.3, "dtype": "float64"} | options
    return FullyConnectedNet([INPUTS, 24, 21, CLASSES], seed=0, **options)


def batches(y, size=16):
    x = np.random.default_rng(0).normal(size=(ROWS, INPUTS))
    return [(x[i : i + size], y[i : i + size]) for i in range(0, ROWS, size)] * 3


def class_numbers():
    return np.random.default_rng(1).integers(0, CLASSES, ROWS)


def trained(comm, data, make=network, **options):
    """Losses, right answers, parameters and running statistics after some steps."""
    loss = copy.deepcopy(options.pop("loss", losses.SoftmaxCrossEntropy()))
    optimizer = options.pop("optimizer", optim.SGD(0.1, momentum=0.9)).fresh()
    step = TrainStep(make(), loss, optimizer, comm=comm, **options)
    told, right = [], []
    for x, y in data:
        share = Share(0, len(x), len(x), comm) if comm is None else Share.of(len(x), comm)
        given = {} if comm is None else {"share": share}
        x = x[share.slice].astype(next(iter(step.model.params.values())).dtype)
        told.append(float(step(x, y[share.slice], **given)))
        right.append(step.correct)
    return told, right, step.model.state_dict()


def assert_alike(found, one, tolerance=1e-12):
    told, right, arrays = found
    np.testing.assert_allclose(told, one[0], rtol=tolerance)
    assert [None if n is None else int(n) for n in right] == one[1]
    assert_same_arrays(arrays, one[2], tolerance)


def assert_same_arrays(found, expected, tolerance=1e-12):
    """By the largest: biases before batch norm are nothing but rounding errors."""
    atol = tolerance * max(np.abs(array).max() for array in expected.values())
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=atol, err_msg=name)


def check(data, sizes=SIZES, statistics="global", tolerance=1e-12, **options):
    one = trained(None, data, **options)
    one = one[0], [None if n is None else int(n) for n in one[1]], one[2]
    for size in sizes:
        ranks = run_ranks(size, lambda comm: trained(comm, data, **options), statistics)
        for found in ranks:
            assert_alike(found, one, tolerance)
            for name, array in ranks[0][2].items():
                np.testing.assert_array_equal(found[2][name], array)
            assert found[0] == ranks[0][0]


def test_any_number_of_ranks_makes_the_steps_of_one_process(way):
    check(batches(class_numbers()), penalty=L2(1e-3), clip_norm=0.5)


def test_in_single_precision(way):
    data = batches(class_numbers())
    check(data, (2, 3), make=lambda: network(dtype="float32"), tolerance=1e-5)


def test_adam(way):
    make = lambda: network(normalization="layernorm")  # noqa: E731
    check(batches(class_numbers()), (3,), make=make, optimizer=optim.Adam(1e-2))


@pytest.mark.parametrize(
    "loss",
    [
        losses.SoftmaxCrossEntropy(reduction="sum"),
        losses.SoftmaxCrossEntropy(class_weights=[1.0, 0.5, 3.0, 2.0], label_smoothing=0.1),
        losses.SoftmaxCrossEntropy(ignore_index=2),
        losses.MulticlassHinge(),
        losses.MulticlassHinge(ignore_index=2, class_weights=[1.0, 0.5, 3.0, 2.0]),
        losses.NLL(ignore_index=2, class_weights=[1.0, 0.5, 3.0, 2.0]),
    ],
    ids=lambda loss: type(loss).__name__ + loss.describe(),
)
def test_losses_of_class_numbers(way, loss):
    check(batches(class_numbers()), (3,), loss=loss, optimizer=optim.SGD(0.01))


@pytest.mark.parametrize(
    "loss",
    [
        losses.MSE(),
        losses.HalfSSE(),
        losses.BCEWithLogits(),
        losses.BCEWithLogits(pos_weight=2.0, ignore_index=-1.0),
    ],
    ids=lambda loss: str(loss),
)
def test_losses_of_numbers(way, loss):
    y = np.random.default_rng(2).integers(0, 2, (ROWS, CLASSES)).astype(float)
    if getattr(loss, "ignore_index", None) is not None:
        y[::3, :2] = y[20:40] = -1.0
    make = lambda: network(output="identity")  # noqa: E731
    check(batches(y), (3,), make=make, loss=loss, optimizer=optim.SGD(0.01))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_rows_with_weights(way, reduction):
    weights = np.random.default_rng(3).integers(0, 3, ROWS) * 0.5
    weights[48:] = 0.0  # those of the last batch

    def work(comm):
        loss = losses.SoftmaxCrossEntropy(ignore_index=1, reduction=reduction)
        step = TrainStep(network(), loss, optim.SGD(0.01), comm=comm)
        told = []
        for number, (x, y) in enumerate(batches(class_numbers())):
            weight = weights[16 * (number % 4) :][: len(y)]
            part = slice(None) if comm is None else Share.of(len(x), comm).slice
            told.append(float(step(x[part], y[part], weight[part])))
        return told, step.model.state_dict()

    told, arrays = work(None)
    for found in run_ranks(3, work):
        np.testing.assert_allclose(found[0], told, rtol=1e-12)
        assert_same_arrays(found[1], arrays)


def test_rows_that_nobody_counts(way):
    loss = losses.SoftmaxCrossEntropy(ignore_index=2)
    check(batches(np.full(ROWS, 2)), (2,), loss=loss)


def test_members_of_a_population(way):
    def work(comm):
        make = lambda: network(population=2, dropout=0.3)  # noqa: E731
        step = TrainStep(make(), losses.SoftmaxCrossEntropy(), optim.SGD(0.1), comm=comm)
        told = []
        for x, y in batches(class_numbers()):
            x = np.stack([x, x])
            share = Share(0, len(y), len(y), comm) if comm is None else Share.of(len(y), comm)
            given = {} if comm is None else {"share": share}
            told.append(step(x[:, share.slice], y[share.slice], **given))
        return np.array(told), step.model.state_dict()

    told, arrays = work(None)
    for found in run_ranks(3, work):
        np.testing.assert_allclose(found[0], told, rtol=1e-12)
        assert_same_arrays(found[1], arrays)


@pytest.mark.parametrize("statistics", ["global", "rank"])
def test_images(way, statistics):
    def work(comm):
        parts = (
            layers.Conv2D(1, 4, 3, rng=0, dtype="float64"),
            layers.BatchNorm2D(4, dtype="float64"),
        )
        net = layers.Sequential(
            *parts,
            layers.ReLU(),
            layers.Dropout(0.3, rng=1),
            layers.Flatten(3),
            layers.Linear(4 * 3 * 4, CLASSES, rng=2, dtype="float64"),
        )
        step = TrainStep(net, losses.SoftmaxCrossEntropy(), optim.SGD(0.1), comm=comm)
        told = []
        for x, y in batches(class_numbers()):
            images = np.tile(x, 3)[:, :30].reshape(-1, 1, 5, 6)
            part = slice(None) if comm is None else Share.of(len(x), comm).slice
            told.append(float(step(images[part], y[part])))
        if way == "compiled" and comm is not None:
            assert step.explain(images[part], y[part]).startswith("compiled")
        return told, step.model.state_dict()

    told, arrays = work(None)
    everyone = run_ranks(3, work, statistics)
    for found in everyone:
        for name, array in everyone[0][1].items():
            np.testing.assert_array_equal(found[1][name], array)
        if statistics == "global":
            np.testing.assert_allclose(found[0], told, rtol=1e-12)
            assert_same_arrays(found[1], arrays)


def test_an_optimizer_without_instructions(way):
    class Own(optim.SGD):
        pass

    check(batches(class_numbers()), (3,), optimizer=Own(0.1))


def test_ranks_may_divide_a_batch_as_they_like(way):
    """And ask each other how; masks begin within four random words then."""

    def work(comm):
        step = TrainStep(
            network(), losses.SoftmaxCrossEntropy(), optim.SGD(0.1, momentum=0.9), comm=comm
        )
        for x, y in batches(class_numbers()):
            cut = min(len(x), 5)
            part = slice(None) if comm is None else [slice(0, cut), slice(cut, None)][comm.rank]
            step(x[part], y[part])
        return step.model.state_dict()

    one = work(None)
    for found in run_ranks(2, work):
        assert_same_arrays(found, one)


def test_statistics_of_each_rank_cost_no_sums_in_the_backward(way):
    def work(comm):
        result = trained(comm, batches(class_numbers(), size=25))
        return *result, len(comm.sums) / len(result[0])

    everyone = run_ranks(2, work, "rank")
    assert everyone[0][3] == 3  # running statistics of two layers, and the gradients
    for name, array in everyone[0][2].items():
        np.testing.assert_array_equal(everyone[1][2][name], array)
    one = trained(None, batches(class_numbers(), size=25))
    assert abs(everyone[0][0][-1] - one[0][-1]) > 1e-6  # another step than one process's
    everyone = run_ranks(2, work, "global")
    assert everyone[0][3] == 7


def test_statistics_of_each_rank_are_those_of_its_rows(way):
    """Each rank's rows are a batch of their own to batch norm; gradients are of the mean."""
    x, y = batches(class_numbers())[0]
    make = lambda: network(dropout=0.0)  # noqa: E731

    def work(comm):
        step = TrainStep(make(), losses.SoftmaxCrossEntropy(), optim.SGD(0.1), comm=comm)
        share = Share.of(len(x), comm)
        value = step(x[share.slice], y[share.slice], share=share)
        return float(value), step.model.grads

    value, grads = run_ranks(2, work, "rank")[1]
    halves = []
    for part in (slice(0, 8), slice(8, 16)):
        step = TrainStep(make(), losses.SoftmaxCrossEntropy(), optim.SGD(0.1))
        halves.append((float(step(x[part], y[part])), step.model.grads))
    np.testing.assert_allclose(value, (halves[0][0] + halves[1][0]) / 2, rtol=1e-12)
    for name, grad in grads.items():
        both = (halves[0][1][name] + halves[1][1][name]) / 2
        np.testing.assert_allclose(grad, both, rtol=0, atol=1e-14, err_msg=name)


def test_gradients_and_figures_are_one_sum(way):
    def work(comm):
        trained(comm, batches(class_numbers()), make=lambda: network(normalization=None))
        return len(comm.sums)

    assert run_ranks(2, work) == [12, 12]  # of 12 steps


def test_the_same_bits_in_every_run(way):
    def work(comm):
        return trained(comm, batches(class_numbers()))

    first, second = run_ranks(3, work), run_ranks(3, work)
    for name, array in first[0][2].items():
        np.testing.assert_array_equal(second[0][2][name], array)


def test_the_wish_of_one_rank_is_known_to_all(way):
    def work(comm):
        step = TrainStep(network(), losses.SoftmaxCrossEntropy(), optim.SGD(0.1), comm=comm)
        known = []
        for number, (x, y) in enumerate(batches(class_numbers())[:4]):
            step.wish = comm.rank == 1 and number == 2
            share = Share.of(len(x), comm)
            step(x[share.slice], y[share.slice], share=share)
            known.append(step.figures.stopping)
        return known

    assert run_ranks(3, work) == [[False, False, True, False]] * 3


def test_what_is_told_how_it_runs(way):
    def work(comm):
        step = TrainStep(network(), losses.SoftmaxCrossEntropy(), optim.SGD(0.1), comm=comm)
        x, y = batches(class_numbers())[0]
        return step.explain(x[:8], y[:8])

    for text in run_ranks(2, work):
        kind = "compiled" if way == "compiled" else "layer by layer (asked for)"
        assert text == f"{kind}, summed over 2 ranks"


def test_nobody_has_rows():
    def work(comm):
        step = TrainStep(network(), losses.SoftmaxCrossEntropy(), optim.SGD(0.1), comm=comm)
        step(np.zeros((0, INPUTS)), np.zeros(0, int))

    with pytest.raises(DataError, match="none on any rank"):
        run_ranks(2, work)


def test_a_loss_for_each_row_is_refused():
    def work(comm):
        loss = losses.SoftmaxCrossEntropy(reduction="none")
        trained(comm, batches(class_numbers()), loss=loss)

    with pytest.raises(ConfigError, match="one number"):
        run_ranks(2, work)


@pytest.mark.parametrize("total", [1, 3, 4, 5, 16, 127, 128])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_shares_are_all_rows_in_their_order(total, size):
    shares = [Share.of(total, Rank(rank, size)) for rank in range(size)]
    rows = [row for share in shares for row in range(total)[share.slice]]
    assert rows == list(range(total))
    assert all(share.first % 4 == 0 or not share.rows for share in shares)
    counts = [share.rows for share in shares]
    assert max(counts) - min(counts) <= 7  # four, and what the last one lacks


class Rank:
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


def test_batch_norm_takes_a_large_mean(way):
    """Sums of squares would have no digits left."""
    make = lambda: layers.Sequential(  # noqa: E731
        layers.BatchNorm(INPUTS, dtype="float64"),
        layers.Linear(INPUTS, CLASSES, rng=0, dtype="float64"),
    )
    data = [(x + 1e8, y) for x, y in batches(class_numbers())]
    check(data, (3,), make=make, tolerance=1e-8)
