"""The whole check on one NVIDIA GPU, in under eight minutes: right first, then fast.

    python -m benchmarks.gpu                     # everything
    python -m benchmarks.gpu --only step,mnist   # some parts

Each part runs in a process of its own with a time limit, so that none takes another with it: not by
an error, not by a hung kernel; inside of a part, a case that fails leaves the others. After each
part ``benchmarks/results/gpu-<device>.json`` and ``.md`` are written anew, with device, driver,
versions and date, and every figure beside its bar. MNIST is read from ``XPMLP_DATA``; without it
those figures are left out, and it says so.

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
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
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
FORMAT = "xpmlp-gpu-1"


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes
    ----------
    name, title : str
    target : str
        ``"module:function"``; the function gets the seconds it may take and returns rows.
    seconds : float
    """

    name: str
    title: str
    target: str
    seconds: float


PARTS = (
    Part("tests", "Tests marked gpu", "gpu_checks:tests", 110),
    Part("sanitizer", "compute-sanitizer", "gpu_checks:sanitizer", 50),
    Part("floors", "Speed of the device", "gpu_figures:floors", 20),
    Part("step", "Training step", "gpu_training:step", 65),
    Part("softmax", "Softmax cross-entropy", "gpu_figures:softmax_cross_entropy", 65),
    Part("matmul", "Batched products", "gpu_figures:matmul", 60),
    Part("mnist", "MNIST", "gpu_training:mnist", 50),
    Part("suite", "CPU against GPU", "gpu_training:suite", 50),
)


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
    """

    what: str
    value: float | None = None
    unit: str = ""
    bar: str = ""
    met: bool | None = None
    note: str = ""


@dataclass
class Outcome:
    """What came of a part: its rows, whether all its checks passed, and what went wrong."""

    rows: list[Row] = field(default_factory=list)
    passed: bool = True
    problem: str = ""
    seconds: float = 0.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--only", help=f"parts, separated by commas: {', '.join(map(_name, PARTS))}"
    )
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="for everything")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        return run_here(options.part, options.seconds, options.to)
    names = [name.strip() for name in options.only.split(",")] if options.only else None
    unknown = set(names or ()) - set(map(_name, PARTS))
    if unknown:
        parser.error(f"expected some of {', '.join(map(_name, PARTS))}, got {', '.join(unknown)}")
    try:
        with use_backend("cupy"):
            machine = describe_machine(("cupy",)) | driver()
    except BackendError as error:
        print(f"benchmarks.gpu: there is nothing to measure on: {error}", file=sys.stderr)
        return 1
    stem = "gpu-" + re.sub(r"[^a-z0-9]+", "-", machine["gpu"].lower()).strip("-")
    stem += "" if names is None else "-" + "-".join(names)
    record: dict[str, Any] = {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions(),
        "parts": {},
    }
    parts = [part for part in PARTS if names is None or part.name in names]
    passed = True
    for part, outcome in run_parts(parts, options.seconds):
        record["parts"][part.name] = asdict(outcome)
        write(record, options.results / stem)  # now: whatever ends the next part, this one is kept
        passed &= outcome.passed
    print(markdown(record))
    return 0 if passed else 2


def write(record: dict[str, Any], stem: Path) -> None:
    """The record as JSON and as a page."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomically(stem.with_name(f"{stem.name}.json"), content.encode())
    write_atomically(stem.with_name(f"{stem.name}.md"), markdown(record).encode())


def _name(part: Part) -> str:
    return part.name


def run_parts(parts: list[Part], seconds: float) -> Iterator[tuple[Part, Outcome]]:
    """Each part in its own process; the time that one leaves goes to those after it."""
    begin = time.perf_counter()
    for number, part in enumerate(parts):
        later = sum(p.seconds for p in parts[number + 1 :])
        left = seconds - (time.perf_counter() - begin)
        share = max(min(part.seconds, left), left - later)
        print(f"benchmarks.gpu: {part.title} (at most {share:.0f} s)", file=sys.stderr, flush=True)
        outcome = run_apart(part, share)
        if outcome.problem:
            print(f"benchmarks.gpu: {outcome.problem}", file=sys.stderr, flush=True)
        yield part, outcome


def run_apart(part: Part, seconds: float) -> Outcome:
    """A part in a process of its own; what it has measured counts even if it does not end well."""
    if seconds < 5:
        return Outcome(passed=False, problem=f"{part.title}: no time was left")
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", part.name]
        command += ["--seconds", str(seconds - 4), "--to", str(file)]
        try:
            ended = run_group(command, seconds)
            problem = "" if ended.returncode == 0 else f"{part.title}: {_last_lines(ended.stderr)}"
        except subprocess.TimeoutExpired:
            problem = f"{part.title}: not done after {seconds:.0f} s"
        outcome = read_outcome(file)
    outcome.seconds = time.perf_counter() - begin
    if problem:
        outcome.passed, outcome.problem = False, outcome.problem or problem
    return outcome


def run_group(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command, and end whatever it has started: the device belongs to the next one.

    Raises
    ------
    subprocess.TimeoutExpired
    """
    own: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, not pipes: those stay open as long as anything that it has started.
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err, **own)
        try:
            process.wait(seconds)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL) if own else process.kill()
            process.wait()
        texts = [file.seek(0) or file.read() for file in (out, err)]
    return subprocess.CompletedProcess(command, process.returncode, *texts)


def run_here(name: str, seconds: float, to: Path) -> int:
    """In the part's own process: rows are written as they come."""
    part = next(part for part in PARTS if part.name == name)
    module, _, function = part.target.partition(":")
    outcome, begin = Outcome(), time.perf_counter()
    deadline = begin + seconds

    def keep() -> None:
        to.write_text(json.dumps(asdict(outcome)), encoding="utf-8")

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


def driver() -> dict[str, Any]:
    """What CUDA says of itself."""
    import cupy

    runtime = cupy.cuda.runtime
    questions: dict[str, Callable[[], Any]] = {
        "cupy": lambda: cupy.__version__,
        "driver_cuda": runtime.driverGetVersion,
        "runtime_cuda": runtime.runtimeGetVersion,
        "compute_capability": lambda: cupy.cuda.Device().compute_capability,
        "device_memory_gb": lambda: round(runtime.memGetInfo()[1] / 2**30, 1),
        "device_memory_free_gb": lambda: round(runtime.memGetInfo()[0] / 2**30, 1),
    }
    facts = {}
    for name, ask in questions.items():
        try:
            facts[name] = ask()
        except Exception as error:  # a fact that is missing must not keep the figures away
            facts[name] = f"? ({type(error).__name__})"
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader"]
        shown = subprocess.run(query, capture_output=True, text=True, timeout=10)
        facts["driver"] = shown.stdout.strip().splitlines()[0] if shown.returncode == 0 else "?"
    except (OSError, IndexError, subprocess.TimeoutExpired):
        facts["driver"] = "?"
    return facts


def markdown(record: dict[str, Any]) -> str:
    """The record as a page: the machine, then a table for each part."""
    machine = record["machine"]
    lines = [
        f"# {machine['gpu']}",
        "",
        "Made by `python -m benchmarks.gpu`.",
        "",
        f"- date: {record['date']}",
        *(f"- {name.replace('_', ' ')}: {value}" for name, value in machine.items()),
        "- " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    ]
    for part in PARTS:
        if part.name not in record["parts"]:
            continue
        outcome = record["parts"][part.name]
        lines += ["", f"## {part.title}", ""]
        if outcome["problem"]:
            lines += [f"**{outcome['problem']}**", ""]
        if outcome["rows"]:
            lines += [
                "| figure | value | bar | met | beside it |",
                "| --- | ---: | --- | --- | --- |",
            ]
            lines += [_table_row(row) for row in outcome["rows"]]
        lines.append(f"\n{outcome['seconds']:.0f} s")
    return "\n".join(lines) + "\n"


def _table_row(row: dict[str, Any]) -> str:
    value = "·" if row["value"] is None else f"{row['value']:.4g} {row['unit']}".strip()
    met = {None: "·", True: "yes", False: "**no**"}[row["met"]]
    cells = row["what"], value, row["bar"] or "·", met, row["note"] or "·"
    return (
        "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |"
    )


def _last_lines(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-2:]) or "it ended without a word"


if __name__ == "__main__":
    sys.exit(main())
