"""What data-parallel steps cost: the split, the sum between ranks, and a network of 1 Gbit/s.

    mpiexec -n 2 python benchmarks/ranks.py          # ranks on this machine
    python benchmarks/ranks.py --hosts               # two hosts made of network namespaces, as root

Each rank trains on its half of batches of MNIST's shape. Needs mpi4py and MPICH, whose mpiexec can
be told how to start a process on another host. The namespaces and the link between them are
removed at the end, or by the next run. docs/machines.md has figures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from xpmlp.communication import MPI, Communicator, Share
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.training import TrainStep

HIDDEN = {"0.32 MB": [100], "0.94 MB": [256, 128], "2.14 MB": [512, 256]}
BATCH = 512
OURS = "xpmlp-host-"
LINK = "xpmlp-link"
ADDRESSES = "10.231.77.1", "10.231.77.2"
GBIT = 1.0


class Silent(Communicator):
    """As if there were two ranks, which send each other nothing: the split alone."""

    def __init__(self):
        super().__init__(0, 2)

    def allreduce(self, buffer: np.ndarray) -> None:
        pass


def new_step(hidden: list[int], comm: Communicator | None) -> TrainStep:
    net = FullyConnectedNet([784, *hidden, 10], seed=0)
    return TrainStep(net, SoftmaxCrossEntropy(), Adam(1e-3), comm=comm)


def milliseconds(
    ways: dict[str, Callable[[], object]], rounds: int, ranks: MPI | None = None
) -> dict[str, float]:
    """The least time of each, all in turn; of a round that ranks begin at once, the slowest's."""
    times, nothing = np.zeros((len(ways), rounds)), np.zeros(1)
    for number in range(rounds):
        for position, way in enumerate(ways.values()):
            if ranks is not None:
                ranks.allreduce(nothing)
            begin = time.perf_counter()
            way()
            times[position, number] = 1000 * (time.perf_counter() - begin)
    if ranks is not None:
        times = ranks.gather(times).max(0)
    return dict(zip(ways, times.min(1).tolist(), strict=True))


def batch(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((rows, 784), np.float32), rng.integers(0, 10, rows)


def split(rounds: int) -> None:
    """A step of one process, and the same in two halves with nothing sent between them."""
    print(f"the split: a step of {BATCH} rows, milliseconds")
    x, y = batch(BATCH)
    share = Share(0, BATCH, BATCH, Silent())
    for name, hidden in HIDDEN.items():
        one, two = new_step(hidden, None), new_step(hidden, share.ranks)
        ways = {
            "whole": lambda step=one: step(x, y),
            "split": lambda step=two: step(x, y, share=share),
        }
        found = milliseconds(ways, rounds)
        more = 100 * (found["split"] / found["whole"] - 1)
        print(f"  {name}: {found['whole']:.3f}, split {found['split']:.3f} ({more:+.1f} %)")


def between_ranks(ranks: MPI, rounds: int, gbit: float | None) -> None:
    """Steps of each rank's half of a batch, with the sum between ranks and without."""
    rows = BATCH // ranks.size
    x, y = batch(rows)
    if ranks.rank == 0:
        threads = os.environ.get("XPMLP_NUM_THREADS", "all")
        print(f"{ranks.size} ranks of {threads} threads, {rows} rows each, milliseconds")
    for name, hidden in HIDDEN.items():
        share = Share(ranks.rank * rows, rows, BATCH, ranks)
        alone = Share(0, rows, BATCH, Silent())
        together, apart = new_step(hidden, ranks), new_step(hidden, alone.ranks)
        ways = {
            "apart": lambda step=apart, share=alone: step(x, y, share=share),
            "together": lambda step=together, share=share: step(x, y, share=share),
        }
        found = milliseconds(ways, rounds, ranks)
        size = together._memory.summed.nbytes / 1e6
        more = found["together"] - found["apart"]
        line = f"  {name}: {found['apart']:.3f}, summed {found['together']:.3f}: {more:.3f} more"
        if gbit is None:
            line += f" (60 µs + 0.15 ms a MB are {0.06 + 0.15 * size:.3f})"
        else:
            expected = 2 * (ranks.size - 1) / ranks.size * size * 8 / gbit
            line += f" (2(N−1)/N · bytes / speed is {expected:.3f})"
        if ranks.rank == 0:
            print(line)


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces, which a link of 1 Gbit/s connects."""
    remove_what_killed_runs_left()
    names = first, second = f"{OURS}{os.getpid()}-1", f"{OURS}{os.getpid()}-2"
    try:
        for name in names:
            call("ip", "netns", "add", name)
        call("ip", "link", "add", LINK, "netns", first, "type", "veth", "peer", "name", LINK,
             "netns", second)  # fmt: skip
        for name, address in zip(names, ADDRESSES, strict=True):
            inside = "ip", "-n", name
            call(*inside, "address", "add", f"{address}/24", "dev", LINK)
            call(*inside, "link", "set", LINK, "up")
            call(*inside, "link", "set", "lo", "up")
            call("tc", "-n", name, "qdisc", "add", "dev", LINK, "root", "tbf", "rate",
                 f"{GBIT:g}gbit", "burst", "128kb", "latency", "50ms")  # fmt: skip
        for name in names:
            wait_for_the_link(name)
        yield names
    finally:
        for name in names:
            remove(name)


def wait_for_the_link(name: str) -> None:
    """The kernel may take a second to say that it is up, and UCX goes by what the kernel says."""
    for _ in range(100):
        if "state UP" in output("ip", "-n", name, "link", "show", LINK):
            return
        time.sleep(0.05)
    raise SystemExit(f"the link of {name} does not come up")


def remove_what_killed_runs_left() -> None:
    for line in output("ip", "netns", "list").splitlines():
        name = line.split()[0]
        number = name.removeprefix(OURS).partition("-")[0]
        if name.startswith(OURS) and not Path(f"/proc/{number}").exists():
            remove(name)


def remove(name: str) -> None:
    """A namespace, with its end of the link and what runs there."""
    for number in output("ip", "netns", "pids", name).split():
        with suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)


def bytes_sent(name: str) -> int:
    """Over a host's end of the link."""
    path = f"/sys/class/net/{LINK}/statistics/tx_bytes"
    return int(output("ip", "netns", "exec", name, "cat", path))


def call(*command: str) -> None:
    subprocess.run(command, check=True)


def output(*command: str) -> str:
    """Empty where the command fails."""
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    return found.stdout


def on_hosts(names: tuple[str, str], *command: str) -> None:
    """Run a command as one rank on each, started by a program in place of ssh."""
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"
    with tempfile.TemporaryDirectory() as folder:
        launcher = Path(folder) / "launch"
        cases = "".join(f"{a}) name={n};; " for n, a in zip(names, ADDRESSES, strict=True))
        launcher.write_text(
            '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\n'
            f'case "$1" in {cases}esac\nshift\nexec ip netns exec "$name" sh -c "$*"\n'
        )
        launcher.chmod(0o755)
        environment = os.environ | {
            "XPMLP_NUM_THREADS": "1",
            "FI_PROVIDER": "tcp",  # MPICH on libfabric, or on UCX: neither may use the memory
            "FI_TCP_IFACE": LINK,  # that both hosts have, being one machine
            "UCX_TLS": "tcp,self",
            "UCX_NET_DEVICES": LINK,
            "MPIR_CVAR_NOLOCAL": "1",
        }
        call_there = ["ip", "netns", "exec", names[0], mpiexec, "-launcher", "ssh"]
        call_there += ["-launcher-exec", str(launcher), "-iface", LINK]
        call_there += ["-localhost", ADDRESSES[0], "-hosts", ",".join(ADDRESSES)]
        subprocess.run([*call_there, "-ppn", "1", "-n", "2", *command], check=True, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", action="store_true", help="on two hosts made for it")
    parser.add_argument("--gbit", type=float, help="the network's speed, for the formula")
    parser.add_argument("--rounds", type=int, default=300)
    given = parser.parse_args()
    if given.hosts:
        with two_hosts() as names:
            own = sys.executable, str(Path(__file__).resolve())
            before = bytes_sent(names[0])
            on_hosts(names, *own, "--gbit", f"{GBIT:g}", "--rounds", "40")
            print(f"  {(bytes_sent(names[0]) - before) / 1e6:.0f} MB went over the link each way")
            with tempfile.TemporaryDirectory() as folder:
                out = str(Path(folder) / "run")
                train = "train", "mnist", "--epochs", "2", "--batch-size", str(BATCH), "--out", out
                on_hosts(names, sys.executable, "-m", "xpmlp", *train, "--no-plots", "--no-report")
        return
    ranks = MPI()
    if ranks.size == 1:
        split(given.rounds)
    else:
        between_ranks(ranks, given.rounds, given.gbit)


if __name__ == "__main__":
    main()
