"""Changed files into every loader: ``python files.py COUNT [--seed N] [--seconds S]``.

Each ends in a right answer or in one of the library's errors, within 10 s of processor time, within
20 times the file and 500 MB of memory, and without running anything from the file. Prints what came
of them as JSON, and files that did not end like that, with what was seen.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from seeds import Seed, seeds

from xpmlp.cli.predict import evaluate, predict
from xpmlp.data import load_cifar10, load_features, load_table
from xpmlp.data.cifar10 import parse_binary, parse_pickle
from xpmlp.data.idx import read_idx
from xpmlp.errors import XpmlpError
from xpmlp.training import load_model

SECONDS = 10
MESSAGE = 2000


class TooLong(BaseException):
    """Past every ``except Exception``."""


def table(path: Path) -> None:
    dataset = load_table(path)
    assert np.isfinite(dataset.x_train).all() and np.isfinite(dataset.x_test).all()
    with contextlib.suppress(XpmlpError):
        load_features(path)


def model(path: Path) -> None:
    net, _ = load_model(path)
    net.predict(np.zeros((2, net.config["sizes"][0]), np.float32))
    if not all(np.isfinite(array).all() for array in net.state_dict().values()):
        raise AssertionError("took weights that are not finite")


def run(path: Path) -> None:
    """A run's folder in which one file was changed."""
    folder = path.parent / "run"
    original = (folder / path.name).read_bytes()
    shutil.copy(path, folder / path.name)
    try:
        with contextlib.suppress(XpmlpError):
            evaluate(folder, None, None, False)
        predict(folder, str(path.parent / "table.csv"), None)
    finally:
        (folder / path.name).write_bytes(original)


def cifar_archive(path: Path) -> None:
    load_cifar10(path.parent, download=False)


LOADERS: dict[str, Callable[[Path], Any]] = {
    "table": table,
    "idx": read_idx,
    "cifar pickle": lambda path: parse_pickle(path.read_bytes(), str(path)),
    "cifar binary": lambda path: parse_binary(path.read_bytes(), str(path)),
    "cifar archive": cifar_archive,
    "model": model,
    "run": run,
}
ran: list[str] = []


def watch(event: str, arguments: tuple) -> None:
    """An audit hook: what a file must never bring about."""
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
        ran.append(f"{event} {arguments!r:.100}")


def attempt(load: Callable[[Path], Any], path: Path) -> tuple[str, str]:
    """What came of it, and details."""
    ran.clear()
    size = path.stat().st_size
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = used + 20 * size + (500 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    begin = time.process_time()
    try:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                load(path)
            outcome, details = "accepted", ""
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    except TooLong:
        outcome, details = "hang", traceback.format_exc()[-1500:]
    except XpmlpError as error:
        outcome, details = "clear", str(error)
        if len(str(error)) > MESSAGE or (not str(error).isprintable() and "\x1b" in str(error)):
            outcome = "message"
        if _memory(error):
            outcome, details = "memory", traceback.format_exc()[-1500:]
    except BaseException as error:
        outcome, details = "raw", traceback.format_exc()[-1500:]
        if _memory(error):
            outcome = "memory"
    if time.process_time() - begin > SECONDS:
        outcome = "hang"
    if ran:
        outcome, details = "code", ran[0]
    return outcome, details


def _memory(error: BaseException | None) -> bool:
    """Whether the limit was hit, whatever was made of that."""
    while error is not None:
        if isinstance(error, MemoryError) or "malloc" in str(error) or "bad_alloc" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def prepare() -> None:
    """Limits and watchers of this process."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _too_long)
    sys.addaudithook(watch)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    prepare()
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    end = time.monotonic() + asked.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = [s for s in seeds(folder) if asked.only in s.name]
        for seed in chosen:  # as they are, they are taken
            outcome, details = one(folder, seed, seed.content)
            assert outcome == "accepted", (seed.name, details)
        for number in range(asked.count):
            if time.monotonic() > end:
                break
            rng = random.Random(f"{asked.seed} {number}")
            seed = rng.choice(chosen)
            content = rng.choice(seed.changes)(seed.content, rng)
            outcome, details = one(folder, seed, content)
            counts[seed.name][outcome] += 1
            if outcome not in ("accepted", "clear"):
                print(f"{outcome}: {seed.name}, number {number}\n{details}", file=sys.stderr)
                if asked.keep:
                    (asked.keep / f"{number}-{outcome}-{seed.name}").write_bytes(content)
    total = sum(counts.values(), collections.Counter())
    print(json.dumps({"all": total, **counts}))


def one(folder: Path, seed: Seed, content: bytes) -> tuple[str, str]:
    path = folder / seed.name
    path.write_bytes(content)
    try:
        return attempt(LOADERS[seed.loader], path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _too_long(number: int, frame: Any) -> None:
    raise TooLong


if __name__ == "__main__":
    main()
