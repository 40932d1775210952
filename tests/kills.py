"""Trainings killed at any moment, also inside of writes, go on and end with the same bits.

``python tests/kills.py 50`` kills fifty: by SIGKILL after a random time, or when a file is half
written, not yet on the disk, or not yet renamed. Some are killed again when they go on. It says how
many ended as the training that nobody killed, how many checkpoints could not be read, and how many
temporary files were left at the end.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("train", "population", "sweep")
POINTS = ("time", "write", "fsync", "replace")
_TIMES = {"seconds", "samples_per_second", "train_seconds"}
_ALWAYS = ["--quiet", "--no-plots", "--save-every", "0"]
_ASKED = {
    "train": ["train", "digits", "--epochs", "120", "--hidden", "24,16", "--patience", "100"],
    "sweep": [
        *("sweep", "digits", "--lr", "1e-3,1e-2", "--dropout", "0,0.2", "--hidden", "6,10"),
        *("--batch-size", "64,128", "--epochs", "16", "--halving"),
    ],
}


def arguments(kind: str, folder: Path) -> list[str]:
    """What is run: from the beginning, or to go on with what is there."""
    if kind == "population":
        return ["population", str(folder)]
    begun = (folder / "config.json").is_file()
    way = [kind, "--resume", str(folder)] if begun else [*_ASKED[kind], "--out", str(folder)]
    return [*way, *_ALWAYS]


def run_population(folder: Path) -> None:
    """Train a population as a program in Python would, that is started again and again."""
    import numpy as np

    from xpmlp.data import load_digits
    from xpmlp.files import remove_strays
    from xpmlp.models import FullyConnectedNet
    from xpmlp.optim import AdamW
    from xpmlp.training import Checkpoint, EarlyStopping, PopulationTrainer
    from xpmlp.training.state_file import write_state

    folder.mkdir(exist_ok=True)
    remove_strays(folder)
    x, y = load_digits().x_train.reshape(-1, 64) / 16.0, load_digits().y_train
    rates = np.geomspace(1e-4, 3e-2, 6)
    net = FullyConnectedNet([64, [8, 8, 8, 12, 12, 16], 10], population=6, dropout=0.1, seed=3)
    trainer = PopulationTrainer(
        net,
        optimizer=AdamW(rates, schedule="cosine"),
        sampling="own",
        epochs=60,
        callbacks=[EarlyStopping(4), Checkpoint(folder / "checkpoint.npz", every=0.0)],
        progress=False,
    )
    there = folder / "checkpoint.npz"
    resume = there if there.is_file() else None
    trainer.fit(x[:1000], y[:1000], (x[1000:], y[1000:]), resume=resume)
    end = {"model": net.state_dict(), "history": trainer.history.state_dict()}
    write_state(folder / "end.npz", end)


@dataclass
class Tally:
    """What came of a number of kills."""

    kills: Counter = field(default_factory=Counter)
    same: int = 0
    different: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    resumed: int = 0

    def __str__(self) -> str:
        total = sum(self.kills.values())
        ways = ", ".join(f"{count} {way}" for way, count in sorted(self.kills.items()))
        return (
            f"{total} kills ({ways}); {self.resumed} went on from a checkpoint; {self.same} of "
            f"{self.same + len(self.different)} trainings ended with the same bits; "
            f"{len(self.unreadable)} unreadable checkpoints; {len(self.strays)} strays\n"
            + "\n".join([*self.different, *self.unreadable, *self.strays])
        )


def start(kind: str, folder: Path, point: str = "never", number: int = 0) -> subprocess.Popen:
    """A process that trains, and kills itself at the given call of a function."""
    own = [sys.executable, __file__, "--child", point, str(number), *arguments(kind, folder)]
    return subprocess.Popen(own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def end_of(kind: str, folder: Path) -> Any:
    """What a training has left, but for times."""
    if kind == "population":
        from xpmlp.training.state_file import read_state

        state = read_state(folder / "end.npz")
        return repr(_without_times(_as_bytes(state)))
    result = json.loads((folder / "result.json").read_text())
    with open(folder / ("history.csv" if kind == "train" else "sweep.csv")) as file:
        rows = list(csv.DictReader(file))
    model = (folder / "model.safetensors").read_bytes()
    return model, _without_times(result), _without_times(rows)


def checkpoints(folder: Path) -> Iterator[Path]:
    """Those in the folder of a run."""
    yield from folder.rglob("checkpoint.*")
    yield from folder.rglob("population-*.safetensors")


def kill_and_go_on(
    kind: str,
    point: str,
    rng: random.Random,
    whole: tuple[Any, float, dict[str, int]],
    tally: Tally,
) -> None:
    """One training, killed once or twice, to its end."""
    from xpmlp.errors import CheckpointError
    from xpmlp.training.state_file import read_state

    expected, seconds, calls = whole
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        for again in range(1 + (rng.random() < 0.25)):
            number = rng.randint(1, calls[point]) if point != "time" else 0
            process = start(kind, folder, point, number)
            if point == "time":
                time.sleep(rng.uniform(0.2, 1.0) * seconds)
                process.kill()
            process.communicate()
            what = f"{kind} {point} {number} ({again + 1})"
            if process.returncode != -signal.SIGKILL:
                continue  # it was faster
            tally.kills[f"{kind} {point}"] += 1
            for file in checkpoints(folder):
                if file.name.startswith("."):
                    continue
                try:
                    read_state(file)
                except CheckpointError as error:
                    tally.unreadable.append(f"{what}: {error}")
        tally.resumed += any(True for _ in checkpoints(folder))
        process = start(kind, folder)
        errors = process.communicate()[1]
        if process.returncode == 1 and "has come to its end" in errors:
            errors, process.returncode = "", 0
        found = end_of(kind, folder) if process.returncode == 0 else errors
        if found == expected:
            tally.same += 1
        else:
            tally.different.append(f"{what}: {found if process.returncode else 'other bits'}")
        tally.strays += [f"{what}: {file.name}" for file in folder.rglob(".*.tmp")]


def undisturbed(kind: str) -> tuple[Any, float, dict[str, int]]:
    """The end of a training that nobody kills, its seconds, and how often it calls what."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        begin = time.monotonic()
        process = start(kind, folder, "count")
        errors = process.communicate()[1]
        if process.returncode:
            raise RuntimeError(errors)
        calls = json.loads(errors.strip().splitlines()[-1])
        return end_of(kind, folder), time.monotonic() - begin, calls


def kill_many(
    count: int,
    seed: int = 0,
    kinds: tuple[str, ...] = KINDS,
    points: tuple[str, ...] = POINTS,
) -> Tally:
    """Kill so many, kinds and places in turn."""
    tally, rng = Tally(), random.Random(seed)
    wholes: dict[str, Any] = {}
    turn = 0
    while sum(tally.kills.values()) < count:
        kind, point = kinds[turn % len(kinds)], points[turn // len(kinds) % len(points)]
        if kind not in wholes:
            wholes[kind] = undisturbed(kind)
        kill_and_go_on(kind, point, rng, wholes[kind], tally)
        turn += 1
    return tally


def _child(point: str, number: int, arguments: list[str]) -> None:
    """Run a training that kills itself at a call; or counts the calls, and says so at its end."""
    calls = Counter()

    def at(name: str) -> bool:
        calls[name] += 1
        return name == point and calls[name] == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    sync, replace, open_file = os.fsync, os.replace, os.fdopen

    class Half:
        """A file of which only half gets written before the end."""

        def __init__(self, file: Any):
            self.file = file

        def __enter__(self) -> Any:
            self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> Any:
            return self.file.__exit__(*error)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, content: bytes) -> int:
            if at("write"):
                self.file.write(content[: len(content) // 2])
                self.file.flush()
                die()
            return self.file.write(content)

    def fsync(handle: int) -> None:
        if at("fsync"):
            die()
        sync(handle)

    def rename(*names: Any) -> None:
        if at("replace"):
            die()
        replace(*names)

    os.fsync, os.replace = fsync, rename
    os.fdopen = lambda handle, *rest, **options: Half(open_file(handle, *rest, **options))
    if arguments[0] == "population":
        run_population(Path(arguments[1]))
    else:
        from xpmlp.cli import main

        sys.argv = ["xpmlp", *arguments]
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                raise
    if point == "count":
        print(json.dumps(calls), file=sys.stderr)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {n: _without_times(v) for n, v in value.items() if n not in _TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _as_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {n: _as_bytes(v) for n, v in value.items()}
    if isinstance(value, list):
        return [_as_bytes(v) for v in value]
    return value.tobytes() if hasattr(value, "tobytes") else value


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _child(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    else:
        print(kill_many(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
