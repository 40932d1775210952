"""What each rank of test_mpi.py runs: ``python programs.py NAME ARGUMENT…``"""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from xpmlp.communication import MPI, Share
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.training import Callback, Checkpoint, Trainer, TrainStep

ROWS, STEPS = 54, 200


def steps(path: str, dtype: str) -> None:
    """Train by steps, and leave losses and parameters; alone where there is one rank."""
    ranks = MPI()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, 13)).astype(dtype), rng.integers(0, 4, ROWS)
    net = FullyConnectedNet(
        [13, 24, 21, 4], normalization="batchnorm", dropout=0.3, dtype=dtype, seed=0
    )
    step = TrainStep(net, SoftmaxCrossEntropy(), SGD(0.02, momentum=0.9), comm=ranks)
    losses = []
    for number in range(STEPS):
        begin = number % 4 * 16  # the last batch has 6 rows
        xb, yb = x[begin : begin + 16], y[begin : begin + 16]
        share = Share.of(len(xb), ranks)
        losses.append(float(step(xb[share.slice], yb[share.slice], share=share)))
    np.savez(f"{path}-{ranks.rank}.npz", losses=losses, **net.state_dict())


def sums(dtype: str) -> None:
    """Sum hostile numbers in memory that ranks share, beside the same by one rank alone."""
    ranks = MPI()
    for size in (1, 2, 5, 16, 17, 1000, 200_001):
        buffer = ranks.zeros(size, dtype)
        assert (buffer is None) == (ranks.size == 1)
        buffer = np.zeros(size, dtype) if buffer is None else buffer
        for _ in range(20):
            buffer[...] = np.random.default_rng(ranks.rank).normal(size=size)
            buffer[:3] = [np.nan if ranks.rank else 1.0, np.inf, (-np.inf) ** ranks.rank][:size]
            first, *others = ranks.everyone(buffer.copy())
            with np.errstate(invalid="ignore"):
                expected = sum(others, first)
            ranks.allreduce(buffer)
            np.testing.assert_array_equal(buffer, expected)
            assert len(set(ranks.everyone(buffer.tobytes()))) == 1
    empty = np.zeros(0, dtype)
    ranks.allreduce(empty)
    print(f"rank {ranks.rank} is content")


class Slow(Callback):
    """Tells that the training runs, and gives a test time to break it."""

    def __init__(self, ranks: MPI, folder: str, way: str):
        self.ranks, self.folder, self.way = ranks, folder, way

    def on_step(self, trainer, loss):
        time.sleep(0.01)
        if trainer.optimizer.steps == 4:
            with open(f"{self.folder}/pid-{self.ranks.rank}", "w") as file:
                file.write(str(os.getpid()))
        if self.ranks.rank != 1 or trainer.optimizer.steps != 12:
            return
        if self.way == "raise":
            raise RuntimeError("no more of this")
        if self.way == "exit":
            sys.exit(3)
        if self.way == "catch":
            raise ZeroDivisionError
        if self.way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)


def fit(folder: str, way: str, resume: str = "") -> None:
    """A training with a checkpoint after every epoch, which the second rank may break."""
    ranks = MPI()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 13)), rng.integers(0, 4, 80)
    net = FullyConnectedNet([13, 16, 4], dropout=0.2, dtype="float64", seed=0)
    path = f"{folder}/run.npz"
    trainer = Trainer(
        net,
        optimizer=SGD(0.05, momentum=0.9),
        epochs=6,
        batch_size=16,
        callbacks=[Slow(ranks, folder, way), Checkpoint(path, every=0.0, share=1.0)],
        progress=False,
        parallel=ranks,
    )
    try:
        history = trainer.fit(x, y, resume=path if resume else None)
    except ZeroDivisionError:
        return  # and so it comes to its end, while the others wait
    if ranks.rank == 0:
        np.savez(f"{folder}/end.npz", **net.state_dict())
        print(f"{history.ending} after {len(history)} epochs")


if __name__ == "__main__":
    {"steps": steps, "sums": sums, "fit": fit}[sys.argv[1]](*sys.argv[2:])
