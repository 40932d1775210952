"""Run by ``mpiexec -n 3 python -m mpi4py.futures``: units and a sweep on two other ranks."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import unit_work as work

from xpmlp.data import load_digits
from xpmlp.sweep import Settings, expand, sweep
from xpmlp.units import Mpi, Pool, Units


def main() -> None:
    digits = load_digits()
    x = (digits.x_train / 16.0).reshape(-1, 64).astype(np.float32)
    given = x[:300], digits.y_train[:300], (x[300:400], digits.y_train[300:400])
    grid = expand({"lr": [1e-3, 1e-2, 3e-2]}, Settings(hidden=(8,), epochs=2))
    with tempfile.TemporaryDirectory() as folder, Pool(Mpi()) as pool:
        units = [(folder, n) for n in range(64)]
        data = {"x": np.arange(50_000.0), "pause": 0.005}
        outcomes = list(Units(work.note, units, data, pool))
        tries = len(list(Path(folder).iterdir()))
        workers = pool.workers
    found = sweep(*given, grid, outputs=10, executor=Mpi())
    alone = [sweep(*given, [own], outputs=10).trials[0].scores for own in grid]
    print(
        json.dumps(
            {
                "workers": workers,
                "numbers": sorted(outcome.number for outcome in outcomes),
                "sums": sorted({outcome.result[0] for outcome in outcomes}),
                "processes": len({outcome.result[1] for outcome in outcomes}),
                "threads": sorted({outcome.result[2] for outcome in outcomes}),
                "tries": tries,
                "populations": found.populations,
                "same": [trial.scores for trial in found.trials] == alone,
            }
        )
    )


if __name__ == "__main__":
    main()
