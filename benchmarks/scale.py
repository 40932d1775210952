"""``python -m benchmarks.scale``: time as a network grows, and memory as the data grow.

One axis at a time leaves a network of 784-256-256-10 with batches of 128: rows of a batch, units of
a layer, hidden layers, networks trained at once. Beside the time of a step stands how many times as
long the peers take, interleaved and checked as by ``xpmlp bench``. Then a training on data of a
thousand to ten million rows, each in a process of its own: seconds an epoch, and the most memory
that it took beyond the data (on Linux, which tells).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from xpmlp.bench import free_choice, suite
from xpmlp.bench.cases import Case
from xpmlp.bench.floors import Floors
from xpmlp.bench.peers import choose_peers
from xpmlp.bench.report import duration, ratio
from xpmlp.bench.shapes import Net
from xpmlp.bench.threads import equal_threads, limit_loaded, thread_count

BATCHES = (32, 128, 512, 2048, 8192)
WIDTHS = (32, 128, 256, 512, 1024, 2048, 4096)
DEPTHS = (1, 2, 4, 8)
POPULATIONS = (1, 4, 16, 64, 256, 1024)
ROWS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
FEATURES = 28
PEERS = "torch,jax"


def nets() -> Iterator[tuple[str, Net]]:
    """Each axis with its networks."""
    for batch in BATCHES:
        yield "rows of a batch", Net((784, 256, 256, 10), batch)
    for width in WIDTHS:
        yield "units of a layer", Net((784, width, width, 10), 128)
    for depth in DEPTHS:
        yield "hidden layers", Net((784, *[256] * depth, 10), 128)
    for members in POPULATIONS:
        yield "networks at once", Net((16, 32, 32, 1), 64, lr=0.01, members=members, loss="mse")


def measure_steps(seconds: float) -> Iterator[dict]:
    """A row for each network; ``kind`` and ``results`` as in a record of ``xpmlp bench``."""
    count = thread_count()
    with equal_threads(count) as notes:
        contestants, missing = suite.open_contestants(("numpy",), choose_peers(PEERS), False, print)
        limit_loaded(count, notes)
        for name, why in missing.items():
            print(f"{name}: {why}")
        floors = Floors(count)
        for axis, net in nets():
            kind = "step" if net.members is None else "population_step"
            case = Case(kind, net.name, {"net": net}, "training", checked_calls=5)
            yield {"axis": axis} | suite.run_case(case, contestants, floors, seconds)


def print_steps(seconds: float) -> None:
    """The table, a line as soon as it is measured."""
    axis = None
    for row in measure_steps(seconds):
        ours, results = row["results"].get(suite.OURS), row["results"]
        if row["axis"] != axis:
            axis, names = row["axis"], [name for name in results if name != suite.OURS]
            print(f"\n| {axis} | xpmlp | {' | '.join(names)} |")
            print(f"| --- | ---: |{' ---: |' * len(names)}")
        if ours is None:
            print(f"| {row['name']} | {row['wrong'] or row['not_run']} |")
            continue
        times = [ratio(row, name, suite.OURS) for name in names]
        texts = ["·" if value is None else f"{value:.2f}×" for value in times]
        print(f"| {row['name']} | {duration(ours['median'])} | {' | '.join(texts)} |", flush=True)


def train_on(rows: int) -> dict[str, float]:
    """Two epochs of 28-100-2 on made-up numbers, and the memory that they took."""
    import time

    import numpy as np

    from xpmlp.models import FullyConnectedNet
    from xpmlp.training import Trainer

    rng = np.random.default_rng(0)
    net = FullyConnectedNet([FEATURES, 100, 2], dtype="float32")
    small = rng.standard_normal((1000, FEATURES), dtype=np.float32)
    Trainer(net, epochs=1, batch_size=256, progress=False).fit(small, np.arange(1000) % 2)
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    Path("/proc/self/clear_refs").write_text("5")  # the most from now on, not from the compiler's
    before, start = _memory("VmRSS"), time.perf_counter()
    Trainer(net, epochs=2, batch_size=256, progress=False).fit(x, y)
    seconds = (time.perf_counter() - start) / 2
    return {"data": x.nbytes + y.nbytes, "more": _memory("VmHWM") - before, "seconds": seconds}


def _memory(what: str) -> int:
    """Bytes that Linux counts under this name: what is in memory now (VmRSS), or was (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


def print_rows() -> None:
    """A line for each number of rows."""
    print("\n| rows | data | more memory in training | seconds an epoch |")
    print("| ---: | ---: | ---: | ---: |")
    for rows in ROWS:
        command = [sys.executable, "-m", "benchmarks.scale", "--rows", str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        got = json.loads(done.stdout)
        data, more = got["data"] / 1e6, got["more"] / 1e6
        print(f"| {rows:,} | {data:,.1f} MB | {more:,.1f} MB | {got['seconds']:.3g} |", flush=True)


def main() -> None:
    """Measure all, or be the process that trains on so many rows."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing a network")
    parser.add_argument("--rows", type=int, help="train on so many rows and print JSON")
    options = parser.parse_args()
    if options.rows is not None:
        print(json.dumps(train_on(options.rows)))
        return
    if variables := free_choice.forced():
        parser.error(
            f"unset {free_choice.as_text(variables)}: products would be slower than theirs"
        )
    print_steps(options.seconds)
    print_rows()


if __name__ == "__main__":
    main()
