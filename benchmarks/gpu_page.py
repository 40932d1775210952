"""What ``benchmarks.gpu`` knows of the machine, and its results as a page."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpmlp.files import write_atomically


def write(record: dict[str, Any], stem: Path) -> None:
    """The record as JSON and as a page."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomically(stem.with_name(f"{stem.name}.json"), content.encode())
    write_atomically(stem.with_name(f"{stem.name}.md"), markdown(record).encode())


def numbers_libraries() -> dict[str, str]:
    """Which NumPy and numba are here, and whether numba takes this NumPy: else cases of NumPy are
    measured without kernels."""
    found = {}
    for name in ("numpy", "numba"):
        try:
            found[name] = importlib.import_module(name).__version__
        except Exception as error:
            found[name] = f"cannot be imported ({type(error).__name__}: {error})"
    return found


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
        f"Made by `{record['command']}`.",
        "",
        f"- date: {record['date']}",
        *(f"- {name.replace('_', ' ')}: {value}" for name, value in machine.items()),
        "- " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    ]
    if record.get("small"):
        lines += ["", "**Small sizes: these figures mean nothing.**"]
    for outcome in record["parts"].values():
        lines += ["", f"## {outcome['title']}", ""]
        if outcome["problem"]:
            lines += [f"**{outcome['problem']}**", ""]
        if outcome["rows"]:
            lines += [
                "| figure | value | bar | met | beside it | host's time for a call |",
                "| --- | ---: | --- | --- | --- | --- |",
            ]
            lines += [_table_row(row) for row in outcome["rows"]]
        lines.append(f"\n{outcome['seconds']:.0f} s")
    if record.get("left_out"):
        lines += ["", "## Left out", "", *(f"- {text}" for text in record["left_out"])]
    return "\n".join(lines) + "\n"


def _table_row(row: dict[str, Any]) -> str:
    value = "·" if row["value"] is None else f"{row['value']:.4g} {row['unit']}".strip()
    met = {None: "·", True: "yes", False: "**no**"}[row["met"]]
    cells = row["what"], value, row["bar"] or "·", met, row["note"] or "·", row["host"] or "·"
    return (
        "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |"
    )


def plot(record: dict[str, Any], stem: Path) -> None:
    """How many times as fast the GPU is, over batch and width, as a picture."""
    rows = [row["data"] for row in record["parts"].get("places", {}).get("rows", ()) if row["data"]]
    if not rows:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for width in sorted({row["width"] for row in rows}):
        own = sorted(
            (row["batch"], row["cpu"] / row["gpu"]) for row in rows if row["width"] == width
        )
        axes.loglog(*zip(*own, strict=True), "o-", base=2, label=f"{width} wide")
    axes.axhline(1, color="grey", linewidth=1)
    axes.set(xlabel="batch", ylabel="CPU's time / GPU's time", title=record["machine"]["gpu"])
    axes.legend()
    figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=150)
