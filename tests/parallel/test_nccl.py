"""Sums between GPUs: what NCCL is given, on which GPU, and what is said where it cannot be.

NCCL's stand-in is numpy_nccl.py: no test here has seen a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
from parallel.numpy_nccl import Library
from parallel.ranks import run_ranks
from step.numpy_graph import traced

from xpmlp import communication
from xpmlp.communication import Share, communicator
from xpmlp.communication.nccl import NCCL
from xpmlp.errors import BackendError, DTypeError
from xpmlp.layers import BatchNorm
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.penalties import L2
from xpmlp.step.together import own_memory
from xpmlp.training import TrainStep


@pytest.fixture(autouse=True)
def nothing_is_computed_unseen(without_kernels):
    """Numba's kernels give plain arrays."""


def ranks_with_gpus(size, work, statistics="global", **options):
    """What ``work(ranks, library)`` gives on each of several threads."""

    def run(words):
        library = Library(words, **options)
        return work(NCCL(words, library=library), library)

    return run_ranks(size, run, statistics)


@pytest.mark.parametrize(
    ("dtype", "code"), [("float32", 7), ("float64", 8), ("int32", 2), ("int64", 4), ("float16", 6)]
)
def test_arrays_are_summed_where_they_are(dtype, code):
    def work(ranks, library):
        array = traced(np.arange(6, dtype=dtype).reshape(2, 3) + ranks.rank)
        address = array.data.ptr
        ranks.allreduce(array)
        assert array.data.ptr == address
        assert library.sums[-1][:3] == (address, 6, code)
        return np.array(array)

    for found in ranks_with_gpus(2, work):
        np.testing.assert_array_equal(found, 2 * np.arange(6).reshape(2, 3) + 1)


def test_arrays_of_the_host_go_by_the_words():
    def work(ranks, library):
        before, array = len(library.sums), np.ones(3)
        ranks.allreduce(array)
        assert len(library.sums) == before
        return array.tolist(), ranks.everyone(ranks.rank), ranks.broadcast(ranks.rank + 5)

    assert ranks_with_gpus(2, work) == [([2.0] * 3, [0, 1], 5)] * 2


def test_several_arrays_are_one_group():
    def work(ranks, library):
        arrays = [traced(np.full(n, ranks.rank, "float32")) for n in (1, 4)]
        ranks.allreduce_each(arrays)
        return [s.group for s in library.sums], [a.tolist() for a in arrays]

    groups = [0, 1, 1]  # the first sum is the one that connects the GPUs
    assert ranks_with_gpus(3, work, gpus=3) == [(groups, [[3.0], [3.0] * 4])] * 3


def test_a_transposed_matrix_is_dense_and_a_part_is_not():
    def work(ranks, library):
        matrix = traced(np.arange(12.0).reshape(3, 4))
        ranks.allreduce(matrix.T)
        with pytest.raises(BackendError, match="gaps"):
            ranks.allreduce(matrix[:, :2])
        return np.array(matrix)

    for found in ranks_with_gpus(2, work):
        np.testing.assert_array_equal(found, 2 * np.arange(12.0).reshape(3, 4))


def test_other_types_are_refused():
    def work(ranks, library):
        with pytest.raises(DTypeError, match="float16, float32, float64, int32, int64, got bool"):
            ranks.allreduce(traced(np.ones(3, bool)))

    ranks_with_gpus(2, work)


def test_a_rank_takes_the_first_gpu_that_is_free():
    def work(ranks, library):
        assert library.current == [ranks.device]
        return ranks.device

    assert ranks_with_gpus(3, work, gpus=4) == [0, 1, 2]


def test_ranks_that_see_a_gpu_each_take_it():
    def work(words):
        return NCCL(words, library=Library(words, [f"0000:0{words.rank}:00.0"])).device

    assert run_ranks(3, work) == [0, 0, 0]


def test_more_ranks_than_gpus():
    with pytest.raises(BackendError, match=r"a GPU for each of 3 ranks, got 2 that rank 2 can see"):
        ranks_with_gpus(3, lambda ranks, library: None, gpus=2)


def test_an_array_on_another_gpu():
    class Elsewhere:
        class device:
            id = 0

    def work(ranks, library):
        if ranks.rank:
            with pytest.raises(BackendError, match=r"GPU 1, .* of rank 1, got one on GPU 0; make"):
                ranks.allreduce(Elsewhere())

    ranks_with_gpus(2, work)


def test_a_sum_that_is_wrong_from_the_start():
    def work(words):
        library = Library(words)
        library.rank = words
        library.ones = lambda size, dtype: traced(np.full(size, 2, dtype))
        NCCL(words, library=library)

    with pytest.raises(BackendError, match=r"2 ranks to be 2, got 4.0; NCCL_DEBUG=INFO"):
        run_ranks(2, work)


def test_an_old_nccl_and_none_at_all():
    with pytest.raises(BackendError, match="on every rank, got NCCL's version 2804, older than"):
        ranks_with_gpus(2, lambda *all: None, version=2804)

    def work(words):
        library = Library(words)
        library.cuda.nccl.available = words.rank == 0
        with pytest.raises(BackendError, match="every rank, got a CuPy that does not find NCCL"):
            NCCL(words, library=library)

    run_ranks(2, work)


@pytest.mark.parametrize("there", [True, False])
def test_with_cupy_mpi_stands_for_nccl_where_it_is(monkeypatch, there):
    """And is said where it is not."""

    class Backend:
        name = "cupy"

    set_to = []
    monkeypatch.setattr(communication, "get_backend", Backend)
    monkeypatch.setattr(communication, "set_backend", lambda *place: set_to.append(place))

    def run(words):
        library = Library(words)
        library.cuda.nccl.available = there
        return communication.between_gpus(words, library)

    if there:
        assert [type(ranks) for ranks in run_ranks(2, run)] == [NCCL, NCCL]
        assert sorted(set_to) == [("cupy", "0"), ("cupy", "1")]
        return
    with pytest.warns(UserWarning, match="host memory, for want of NCCL: a CuPy that does"):
        found = run_ranks(2, run)
    assert not set_to and not any(isinstance(ranks, NCCL) for ranks in found)


def test_without_cupy_nothing_changes():
    def run(words):
        return communicator(words) is words and communication.between_gpus(words) is words

    assert run_ranks(2, run) == [True, True]


def test_batch_norm_by_all_rows_asks_nothing_of_the_host():
    x = np.random.default_rng(0).normal(size=(12, 5))
    dy = np.random.default_rng(1).normal(size=x.shape)

    def layer(make=np.array):
        found = BatchNorm(5, dtype="float64")
        for group in (found.params, found.state):
            for name, array in group.items():
                group[name] = make(array)
        return found

    one = layer()
    y, dx = one.forward(x, training=True), one.backward(dy)

    def work(ranks, library):
        own, share = layer(traced), Share.of(len(x), ranks)
        own.share, before = share, len(ranks._words.sums)
        out = own.forward(traced(x[share.slice]), training=True)
        back = own.backward(traced(dy[share.slice]))
        assert len(library.sums) == 4  # two in the forward, one in the backward, one at first
        assert len(ranks._words.sums) - before == 3
        return out, back, own.running_mean, own.running_var

    parts = [[np.array(each) for each in found] for found in ranks_with_gpus(2, work)]
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts]), y, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), dx, rtol=0, atol=1e-12)
    for part in parts:
        np.testing.assert_allclose(part[2], one.running_mean, rtol=1e-12)
        np.testing.assert_allclose(part[3], one.running_var, rtol=1e-12)


def network():
    options = {"normalization": "batchnorm", "dropout": 0.3, "dtype": "float64"}
    return FullyConnectedNet([13, 24, 4], seed=0, **options)


def on_device(net):
    """The network with its arrays on the pretended device."""
    for _, layer in net.named_layers():
        for group in (layer.params, layer.state):
            for name, array in group.items():
                group[name] = traced(array)
    return net


def batches():
    rng = np.random.default_rng(0)
    for rows in (16, 16, 6, 3) * 2:  # of the last, the first of two ranks has none
        yield rng.normal(size=(rows, 13)), rng.integers(0, 4, rows)


def test_steps_by_layers_are_those_of_one_process():
    def make(net, comm=None):
        loss, optimizer = SoftmaxCrossEntropy(label_smoothing=0.1), SGD(0.1, momentum=0.9)
        return TrainStep(net, loss, optimizer, penalty=L2(1e-3), clip_norm=0.5, comm=comm)

    one, told = make(network()), []
    for x, y in batches():
        told.append((float(one.by_layers(x, y)), int(one.correct)))

    def work(ranks, library):
        step, found = make(on_device(network()), ranks), []
        for number, (x, y) in enumerate(batches()):
            share, before = Share.of(len(x), ranks), len(library.sums)
            step.wish = ranks.rank == 1 and number == 2
            value = step(traced(x[share.slice]), traced(y[share.slice]), share=share)
            assert step.figures.stopping == (number == 2)
            found.append((float(value), int(step.correct)))
            new = library.sums[before:]
            assert len(new) == 3 + len(step.model.params)  # batch norm and gradients
            assert len({one.group for one in new[3:]}) == 1
        return found, {name: np.array(a) for name, a in step.model.params.items()}

    for found, params in ranks_with_gpus(2, work):
        np.testing.assert_allclose(found, told, rtol=1e-12)
        for name, array in one.model.params.items():
            np.testing.assert_allclose(params[name], array, rtol=0, atol=1e-12, err_msg=name)


def test_gradients_that_are_one_array_are_summed_once():
    grad, other = traced(np.ones(3)), traced(np.ones((3, 4)))
    first, again, part = own_memory([grad, grad, other[:, :2]])
    assert first is grad and again is not grad and part.flags.c_contiguous
