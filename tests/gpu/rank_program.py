"""What each rank of test_ranks.py runs: ``python rank_program.py nccl|host PATH``"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings

import numpy as np

import xpmlp
from xpmlp.communication import Share, communicator
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.training import Trainer, TrainStep

ROWS, STEPS = 54, 24


def main(by: str, path: str) -> None:
    """Train by steps, then by epochs, and leave what came of it."""
    if by == "nccl" and importlib.util.find_spec("pretend_device"):
        from pretend_device import nccl

        nccl.install()
    if by == "host":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may be missing as it is
            importlib.import_module("cupy.cuda.nccl").available = False
    xpmlp.set_backend("cupy")
    ranks = communicator("mpi")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, 13)), rng.integers(0, 4, ROWS)
    net = FullyConnectedNet(
        [13, 24, 21, 4], normalization="batchnorm", dropout=0.3, dtype="float64", seed=0
    )
    step = TrainStep(net, SoftmaxCrossEntropy(), SGD(0.02, momentum=0.9), comm=ranks)
    losses, own = [], ()
    for number in range(STEPS):
        rows = slice(number % 4 * 16, number % 4 * 16 + 16)  # the last batch has 6
        share = None if ranks is None else Share.of(len(y[rows]), ranks)
        part = slice(None) if share is None else share.slice
        own = xpmlp.asarray(x[rows][part]), xpmlp.asarray(y[rows][part])
        losses.append(float(step(*own, share=share)))
    way = step.explain(*own)
    optimizer = SGD(0.05, momentum=0.9)
    trainer = Trainer(
        net, optimizer=optimizer, epochs=2, batch_size=16, progress=False, parallel=ranks
    )
    history = trainer.fit(x, y, (x[:30], y[:30]))
    rank = 0 if ranks is None else ranks.rank
    found = {"way": way, "losses": losses, "epochs": history["train_loss"]}
    found["accuracy"] = history["val_accuracy"]
    np.savez(f"{path}-{rank}.npz", **found, **net.state_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
