"""Sums in memory that ranks share, on threads in place of MPI's processes."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xpmlp import communication
from xpmlp.communication import guard, shared_sums
from xpmlp.communication.shared_sums import SharedSums
from xpmlp.errors import ConfigError
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.training import TrainStep

from .ranks import ThreadRank, run_ranks


class Window:
    """What MPI's shared windows promise: a rank's memory is everyone's, after a fence."""

    made: list[Window]

    def __init__(self, nbytes: int, rank: ThreadRank):
        self._rank, self.freed = rank, False
        self._blocks = rank._exchange(bytearray(b"\xff" * nbytes))
        Window.made.append(self)

    def Shared_query(self, rank: int) -> tuple[bytearray, int]:
        return self._blocks[rank], 1

    def Fence(self) -> None:
        assert not self.freed
        self._rank._exchange("fence")

    def Free(self) -> None:
        self._rank._exchange("free")
        self.freed = True


class Comm:
    """Of mpi4py, what is asked for; ``together`` ranks are on one machine."""

    def __init__(self, rank: ThreadRank, together: int | None = None):
        self._rank, self._together = rank, together or rank.size

    def Get_rank(self) -> int:
        return self._rank.rank

    def Get_size(self) -> int:
        return self._rank.size

    def allgather(self, value: Any) -> list[Any]:
        return self._rank._exchange(value)

    def Allreduce(self, _: Any, buffer: np.ndarray) -> None:
        self._rank.allreduce(buffer)

    def Split_type(self, kind: str) -> Any:
        assert kind == "machine"
        return SimpleNamespace(Get_size=lambda: self._together, Free=lambda: None)


LIBRARY = SimpleNamespace(
    Win=SimpleNamespace(
        Allocate_shared=lambda nbytes, unit, comm: Window(nbytes * unit, comm._rank)
    ),
    COMM_TYPE_SHARED="machine",
    IN_PLACE=None,
)


@pytest.fixture(autouse=True)
def windows(monkeypatch):
    monkeypatch.setattr(SharedSums, "_known", [])
    monkeypatch.setattr(Window, "made", [], raising=False)
    return Window.made


def sums_of(rank: ThreadRank) -> SharedSums:
    return SharedSums(LIBRARY, Comm(rank))


def made(sums: SharedSums, size: int, dtype: str = "float32") -> np.ndarray:
    array = sums.zeros(size, dtype)
    assert array is not None
    return array


def hostile(rank: int, size: int, dtype: str) -> np.ndarray:
    values = np.random.default_rng(rank).normal(size=size) * 10.0 ** (3 * rank)
    values = values.astype(dtype)
    special = [np.nan if rank else 1.0, np.inf, np.inf * (-1) ** rank, -0.0, np.finfo(dtype).max]
    values[: len(special)] = special[:size]
    return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_the_sum_is_that_in_the_ranks_order(ranks, dtype):
    sizes = 1, 2, 5, 16, 17, 100, 3 * shared_sums._PIECE * ranks + 7

    def work(rank):
        sums = sums_of(rank)
        found = []
        for size in sizes:
            buffer = made(sums, size, dtype)
            assert not buffer.any() and buffer.ctypes.data % 64 == 0
            for _ in range(3):
                buffer[...] = hostile(rank.rank, size, dtype)
                assert sums.sum(buffer)
            found.append(buffer.copy())
        return found

    everyone = run_ranks(ranks, work)
    for position, size in enumerate(sizes):
        with np.errstate(all="ignore"):
            expected = sum(
                (hostile(rank, size, dtype) for rank in range(1, ranks)), hostile(0, size, dtype)
            )
        for found in everyone:  # to the bit
            assert found[position].tobytes() == expected.tobytes()


def test_every_rank_adds_up_its_part():
    def work(rank):
        sums = sums_of(rank)
        buffer = made(sums, 1000)
        (window,) = sums._windows.values()
        return buffer.size, sum(piece[0].size for piece in window._pieces)

    assert run_ranks(3, work) == [(1000, 336), (1000, 336), (1000, 328)]  # cut at cache lines


def test_other_arrays_are_not_for_it():
    def work(rank):
        sums = sums_of(rank)
        buffer = made(sums, 20)
        others = np.zeros(20, np.float32), np.zeros(0), buffer[:19], buffer.view(np.int32)
        return [sums.sum(other) for other in (*others, buffer)], sums.zeros(0, "float32")

    assert run_ranks(2, work) == 2 * [([False, False, False, False, True], None)]


def test_without_room_on_one_rank_there_is_none(monkeypatch):
    rooms = iter([1 << 30, 300])
    monkeypatch.setattr(shared_sums, "_room", lambda: next(rooms))
    assert run_ranks(2, lambda rank: sums_of(rank).zeros(20, "float32")) == [None, None]


def test_room_is_that_of_the_machine():
    assert shared_sums._room() > 0


def test_different_sizes_are_refused_on_every_rank():
    def work(rank):
        with pytest.raises(ConfigError, match="same parameters on every rank, got 8 of <f4, 9 of"):
            sums_of(rank).zeros(8 + rank.rank, "float32")

    run_ranks(2, work)


def test_memory_that_every_rank_has_let_go_of_is_given_back(windows):
    def work(rank):
        sums = sums_of(rank)
        kept: Any = [made(sums, 8), made(sums, 9)[3:]]
        first, second = (sums._windows[a] for a in list(sums._windows))
        kept[1][...] = 7
        if rank.rank == 0:
            kept[0] = None
        gc.collect()
        kept.append(made(sums, 10))
        assert not first._window.freed and not second._window.freed
        kept[0] = None
        gc.collect()
        kept.append(made(sums, 11))
        assert first._window.freed and not second._window.freed  # a view of it is left
        assert (kept[1] == 7).all()

    run_ranks(2, work)
    assert len(windows) == 8


def mpi_of(rank: ThreadRank, together: int | None = None) -> communication.MPI:
    return communication.MPI(Comm(rank, together))


@pytest.fixture
def mpi(monkeypatch):
    """communication.MPI on this file's threads."""
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=LIBRARY))
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", LIBRARY)
    monkeypatch.setattr(guard.Guard, "of", lambda ranks: None)
    monkeypatch.setenv("XPMLP_NUM_THREADS", "1")
    monkeypatch.setenv("OMPI_MCA_osc", "sm")


@pytest.mark.usefixtures("mpi")
def test_ranks_of_several_machines_have_none():
    def work(rank):
        ranks, values = mpi_of(rank, together=1), np.full(3, rank.rank + 1.0)
        ranks.allreduce(values)
        return ranks.zeros(20, "float32"), values.tolist(), len(rank.sums)

    assert run_ranks(2, work) == 2 * [(None, [3.0, 3.0, 3.0], 1)]


@pytest.mark.usefixtures("mpi")
def test_a_step_sums_its_gradients_there(windows):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 12, 6)).astype("float32"), rng.integers(0, 3, (5, 12))

    def work(rank, shared):
        ranks = mpi_of(rank, None if shared else 1)
        net = FullyConnectedNet([6, 9, 3], normalization="batchnorm", dtype="float32", seed=0)
        step = TrainStep(net, SoftmaxCrossEntropy(), Adam(0.01), comm=ranks)
        share = communication.Share.of(12, ranks)
        for rows, answers in zip(x, y, strict=True):
            step(rows[share.slice], answers[share.slice], share=share)
        return net.state_dict(), len(rank.sums)

    apart, together = (run_ranks(3, lambda rank, s=s: work(rank, s)) for s in (False, True))
    assert len(windows) == 3
    for (one, sums), (other, fewer) in zip(apart, together, strict=True):
        assert sums == fewer + 5  # those of batch norm stay
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.usefixtures("mpi")
def test_all_who_ask_for_a_communicator_share_its_windows():
    def work(rank):
        comm = Comm(rank)
        first, second = communication.MPI(comm), communication.MPI(comm)
        return first._shared is second._shared

    assert run_ranks(2, work) == [True, True]
