"""The whole check on one NVIDIA GPU, in under eight minutes: right first, then fast.

    python -m benchmarks.gpu --results DIR
    python -m benchmarks.gpu --results DIR --parts correctness --seconds 350
    python -m benchmarks.gpu --results DIR --parts figures --seconds 350
    python -m benchmarks.gpu --results DIR --parts step,mnist

Each part runs in a process of its own with a time limit, so that none takes another with it: not by
an error, not by a hung kernel; inside of a part, a case that fails leaves the others. After each
part ``DIR/gpu-<device>.json`` and ``.md`` are written anew, with device, driver, versions and date,
and every figure beside its bar. All that the parts print, tracebacks too, goes to ``.log`` at once.
MNIST is read from ``XPMLP_DATA``; without it those figures are left out, and it says so.

The exit status is 0 if every part ran and every check passed, 1 without a GPU, else 2. A figure
that misses its bar is shown as such and changes nothing about the status.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xpmlp.backend import use_backend
from xpmlp.bench.machine import describe_machine, versions
from xpmlp.errors import BackendError
from xpmlp.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TOTAL_SECONDS = 470.0
SMALL = "XPMLP_GPU_SMALL"
FORMAT = "xpmlp-gpu-2"
_MOST_LOG = 1 << 20  # bytes of a part's output that are kept; its middle goes


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes
    ----------
    name, title : str
    target : str
        ``"module:function"``; the function gets the moment when it must be done and returns rows.
    seconds : float
        Its share of the time. What one does not need goes to those after it.
    """

    name: str
    title: str
    target: str
    seconds: float


_COMPILE = Part("compile", "Compiling", "gpu_compile:kernels", 30)
GROUPS = {
    "correctness": (
        _COMPILE,
        Part("tests", "Tests marked gpu", "gpu_checks:tests", 100),
        Part("sanitizer", "compute-sanitizer", "gpu_checks:sanitizer", 50),
        Part("library", "The ordinary tests on CuPy", "gpu_checks:library", 40),
    ),
    "figures": (
        _COMPILE,
        Part("peers", "Compiling torch's", "gpu_compile:peers", 35),
        Part("floors", "Speed of the device", "gpu_figures:floors", 12),
        Part("softmax", "Softmax cross-entropy", "gpu_figures:softmax_cross_entropy", 40),
        Part("step", "Training step", "gpu_training:step", 40),
        Part("mnist", "MNIST", "gpu_training:mnist", 35),
        Part("matmul", "Batched products", "gpu_figures:matmul", 40),
        Part("population", "64 networks at once", "gpu_training:population", 15),
        Part("places", "CPU against GPU", "gpu_places:places", 33),
    ),
}
PARTS = tuple(dict.fromkeys(part for parts in GROUPS.values() for part in parts))


@dataclass
class Row:
    """A figure.

    Attributes
    ----------
    what : str
    value : float or None
    unit : str
    bar : str
        What was promised, in words; empty if nothing was.
    met : bool or None
        Whether it is; None where there is no bar, or nothing to compare with.
    note : str
        Times of the others, or why there is no value.
    host : str
        How long the host is busy with a call, where the device's time alone is the value.
    data : dict or None
        Numbers for a plot.
    """

    what: str
    value: float | None = None
    unit: str = ""
    bar: str = ""
    met: bool | None = None
    note: str = ""
    host: str = ""
    data: dict[str, float] | None = None


@dataclass
class Outcome:
    """What came of a part: its rows, whether all its checks passed, and what went wrong."""

    rows: list[Row] = field(default_factory=list)
    passed: bool = True
    problem: str = ""
    seconds: float = 0.0


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.small:
        os.environ[SMALL] = "1"  # for the parts' processes
    if options.part:
        return run_here(options.part, options.seconds, options.to)
    from . import gpu_page

    parts = chosen(options.parts)
    print(f"benchmarks.gpu: {gpu_page.numbers_libraries()}", file=sys.stderr, flush=True)
    try:
        with use_backend("cupy"):
            machine = describe_machine(("cupy",)) | gpu_page.driver()
    except BackendError as error:
        print(f"benchmarks.gpu: there is nothing to measure on: {error}", file=sys.stderr)
        return 1
    stem = "gpu-" + re.sub(r"[^a-z0-9]+", "-", machine["gpu"].lower()).strip("-")
    stem += "-" + options.parts.replace(",", "-") if options.parts else ""
    stem = options.results / stem
    stem.parent.mkdir(parents=True, exist_ok=True)
    log = stem.with_name(f"{stem.name}.log")
    log.unlink(missing_ok=True)
    given = sys.argv[1:] if arguments is None else arguments
    record: dict[str, Any] = {
        "format": FORMAT,
        "command": f"python -m benchmarks.gpu {shlex.join(map(str, given))}".strip(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "small": bool(os.environ.get(SMALL)),
        "versions": versions() | gpu_page.numbers_libraries(),
        "parts": {},
        "left_out": [f"{part.title}: not asked for" for part in PARTS if part not in parts],
    }
    gpu_page.write(record, stem)
    passed = True
    for part, outcome in run_parts(parts, options.seconds, log):
        record["parts"][part.name] = {"title": part.title} | asdict(outcome)
        gpu_page.write(record, stem)  # now: whatever ends the next part, this one is kept
        passed &= outcome.passed
    try:
        gpu_page.plot(record, stem)
    except Exception as error:  # a picture less
        print(f"benchmarks.gpu: no plot: {error}", file=sys.stderr)
    print(gpu_page.markdown(record), flush=True)
    return 0 if passed else 2


def sized(number: int, small: int) -> int:
    """A size of a figure, or the one to see by that it runs at all."""
    return small if os.environ.get(SMALL) else number


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*GROUPS, *(part.name for part in PARTS)]
    parser.add_argument("--parts", default="", help=f"separated by commas: {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="for everything")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    parser.add_argument(
        "--small", action="store_true", help="small sizes, whose figures mean nothing: does it run?"
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = {name for name in options.parts.split(",") if name} - set(names)
    if unknown:
        parser.error(f"expected some of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    return options


def chosen(text: str) -> list[Part]:
    """Parts by their names and their groups' names; all, if there are none."""
    names = [name for name in text.split(",") if name]
    return [
        part
        for part in PARTS
        if not names or part.name in names or any(part in GROUPS.get(name, ()) for name in names)
    ]


def run_parts(parts: list[Part], seconds: float, log: Path) -> Iterator[tuple[Part, Outcome]]:
    """Each part in its own process; the time that one leaves goes to those after it."""
    begin = time.perf_counter()
    scale = min(1.0, seconds / sum(part.seconds for part in parts))
    for number, part in enumerate(parts):
        later = scale * sum(p.seconds for p in parts[number + 1 :])
        left = seconds - (time.perf_counter() - begin)
        share = max(min(scale * part.seconds, left), left - later)
        print(f"benchmarks.gpu: {part.title} (at most {share:.0f} s)", file=sys.stderr, flush=True)
        outcome = run_apart(part, share, log)
        for row in outcome.rows:
            if row.what.startswith(FAILED):
                print(f"benchmarks.gpu: {row.what}: {row.note}", file=sys.stderr, flush=True)
        if outcome.problem:
            print(f"benchmarks.gpu: {outcome.problem}", file=sys.stderr, flush=True)
        yield part, outcome


def run_apart(part: Part, seconds: float, log: Path) -> Outcome:
    """A part in a process of its own; what it has measured counts even if it does not end well."""
    if seconds < 5:
        return Outcome(passed=False, problem=f"{part.title}: no time was left")
    begin = time.perf_counter()
    file = log.with_suffix(".part.json")  # stays if all of this is ended from outside
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part.name]
    command += ["--seconds", str(seconds - 4), "--to", str(file.resolve())]
    problem = ""
    try:
        status, printed = run_group(command, seconds, log)
        if status:
            problem = f"{part.title}: status {status}, {_last_lines(printed)}"
    except subprocess.TimeoutExpired:
        problem = f"{part.title}: not done after {seconds:.0f} s"
    outcome = read_outcome(file)
    file.unlink(missing_ok=True)
    outcome.seconds = time.perf_counter() - begin
    if problem:
        outcome.passed, outcome.problem = False, outcome.problem or problem
    return outcome


def run_group(command: list[str], seconds: float, log: Path) -> tuple[int, str]:
    """Run a command, and end whatever it has started: the device belongs to the next one.

    What it prints is added to the log as it comes.

    Returns
    -------
    status : int
    printed : str

    Raises
    ------
    subprocess.TimeoutExpired
    """
    own: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with log.open("ab") as out:
        out.write(f"\n===== {shlex.join(command)}\n".encode())
        out.flush()
        start = out.tell()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment, **own
        )
        try:
            process.wait(seconds)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL) if own else process.kill()
            process.wait()
            printed = _shorten(log, start)
    return process.returncode, printed


def _shorten(log: Path, start: int) -> str:
    """What was added since; of very much, the first and the last remain in the log."""
    with log.open("r+b") as file:
        file.seek(start)
        added = file.read()
        if len(added) > _MOST_LOG:
            half = _MOST_LOG // 2
            added = added[:half] + b"\n[...]\n" + added[-half:]
            file.seek(start)
            file.truncate()
            file.write(added)
    return added.decode(errors="replace")


def run_here(name: str, seconds: float, to: Path) -> int:
    """In the part's own process: rows are written as they come."""
    part = next(part for part in PARTS if part.name == name)
    module, _, function = part.target.partition(":")
    outcome, begin = Outcome(), time.perf_counter()
    deadline = begin + seconds

    def keep() -> None:
        write_atomically(to, json.dumps(asdict(outcome)).encode())

    try:
        with use_backend("cupy"):
            for row in getattr(importlib.import_module(f"benchmarks.{module}"), function)(deadline):
                outcome.rows.append(row)
                outcome.passed &= not row.what.startswith(FAILED)
                keep()
    except Exception as error:
        traceback.print_exc()
        outcome.passed, outcome.problem = False, f"{part.title}: {type(error).__name__}: {error}"
    keep()
    return 0


FAILED = "FAILED "
"""How the name of a row begins whose check did not pass."""


def guarded(what: str, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows of one case; an error becomes a row of its own and the next case runs."""
    try:
        yield from rows
    except Exception as error:
        traceback.print_exc()
        yield Row(f"{FAILED}{what}", note=f"{type(error).__name__}: {error}"[:300])


def read_outcome(file: Path) -> Outcome:
    """What the part's process has written, if anything."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Outcome(passed=False)
    rows = [Row(**row) for row in content.pop("rows")]
    return Outcome(rows, **content)


def _last_lines(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-2:]) or "it ended without a word"


if __name__ == "__main__":
    sys.exit(main())
