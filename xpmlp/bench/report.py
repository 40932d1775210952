"""A record as tables: cells of text for the terminal, and Markdown for the documentation."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from .suite import OURS

Record = dict[str, Any]

EXPLANATION = (
    "Columns of other libraries say how many times as long they take as xpmlp: 2.0× means that "
    "xpmlp needs half of their time, 0.5× twice as much. "
    "“of floor” is xpmlp's time over the least that this machine could take (a plain copy of the "
    "bytes, or the fastest matrix product of as many operations)."
)


@dataclass
class Table:
    """Cells of text.

    Attributes
    ----------
    headers : list of str
    rows : list of (group, cells)
    ratios : list of list of float or None
        For each row, the ratios behind its cells, for colouring.
    """

    headers: list[str] = field(default_factory=list)
    rows: list[tuple[str, list[str]]] = field(default_factory=list)
    ratios: list[list[float | None]] = field(default_factory=list)


def main_contestant(record: Record) -> str:
    """The xpmlp that the others are compared with: NumPy's, or the first one measured."""
    backends = record["backends"]
    return OURS if "numpy" in backends else f"{OURS} on {backends[0]}"


def contestants(record: Record) -> list[str]:
    """All that were measured in some case, ours first, in the order in which they ran."""
    found: dict[str, None] = {main_contestant(record): None}
    for case in record["cases"]:
        for part in ("results", "not_run", "wrong"):
            found |= dict.fromkeys(case[part])
    return list(found)


def ratio(case: dict[str, Any], name: str, ours: str) -> float | None:
    """How many times as long it takes as ours; None if one of them has no time."""
    results = case["results"]
    if name not in results or ours not in results:
        return None
    return results[name]["median"] / results[ours]["median"]


def main_table(record: Record) -> Table:
    """A row for each case."""
    ours = main_contestant(record)
    others = [name for name in contestants(record) if name != ours]
    table = Table(["case", ours, *others, "of floor", "runs"])
    for case in record["cases"]:
        ratios = [ratio(case, name, ours) for name in others]
        cells = [_cell(case, name, value) for name, value in zip(others, ratios, strict=True)]
        time = case["results"].get(ours)
        floor = case["floor_seconds"]
        of_floor = "·" if time is None or not floor else _times(time["median"] / floor)
        own = _missing_cell(case, ours) if time is None else duration(time["median"])
        title = f"{case['kind']} {case['name']}"
        table.rows.append((case["group"], [title, own, *cells, of_floor, _kernel(case, ours)]))
        table.ratios.append([None, None, *ratios, None, None])
    return table


def summary_table(record: Record) -> Table:
    """A row for each kind of case: geometric mean of the ratios, and the least of them."""
    ours = main_contestant(record)
    others = [name for name in contestants(record) if name != ours]
    table = Table(["geometric mean (least)", "cases", *others])
    kinds = dict.fromkeys(case["kind"] for case in record["cases"])
    for kind in kinds:
        cases = [case for case in record["cases"] if case["kind"] == kind]
        means, cells = [], []
        for name in others:
            values = [v for case in cases if (v := ratio(case, name, ours)) is not None]
            mean = math.exp(sum(map(math.log, values)) / len(values)) if values else None
            means.append(mean)
            cells.append("·" if mean is None else f"{_times(mean)} ({_times(min(values))})")
        table.rows.append((cases[0]["group"], [kind, str(len(cases)), *cells]))
        table.ratios.append([None, None, *means])
    return table


def notes(record: Record) -> list[str]:
    """What the tables leave out, line by line: who is missing and why, what went wrong."""
    lines = [f"{name}: missing, {why}" for name, why in record["missing"].items()]
    for case in record["cases"]:
        title = f"{case['kind']} {case['name']}"
        if "skipped" in case:
            lines.append(f"{title}: left out, {case['skipped']}")
        lines += [f"{title}, {name}: WRONG RESULT, {why}" for name, why in case["wrong"].items()]
        lines += [f"{title}, {name}: did not run, {why}" for name, why in case["not_run"].items()]
    return lines


def conditions(record: Record) -> list[str]:
    """Machine, threads and versions, as lines."""
    machine, floors = record["machine"], record["floors"]
    processor = f"{machine['cpu']}, {machine['processors']} processors, {machine['memory_gb']} GB"
    lines = [f"{processor}, {machine['system']}, Python {machine['python']}"]
    if machine.get("gpu"):
        lines.append(f"GPU: {machine['gpu']}")
    threads = ", ".join(f"{name} {text}" for name, text in record["threads"].items())
    lines.append(f"threads: {threads}")
    lines.append(", ".join(f"{name} {version}" for name, version in record["versions"].items()))
    speeds = list(floors["copy_gb_per_second"].values())
    if speeds:
        text = f"floors: copy {min(speeds):.0f}–{max(speeds):.0f} GB/s (by size)"
        product = floors["product_gflop_per_second"]
        lines.append(text + (f", matrix product {product:.0f} GFLOP/s" if product else ""))
    lines.append(f"date: {record['date']}{', --quick' if record['quick'] else ''}")
    return lines


def markdown(record: Record) -> str:
    """The whole report as Markdown."""
    parts = ["\n".join(f"- {line}" for line in conditions(record)), EXPLANATION]
    parts += [_as_markdown(summary_table(record))]
    table = main_table(record)
    for group in dict.fromkeys(group for group, _ in table.rows):
        rows = [row for row in table.rows if row[0] == group]
        parts += [f"**{group.capitalize()}**", _as_markdown(Table(table.headers, rows))]
    lines = notes(record)
    if lines:
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _as_markdown(table: Table) -> str:
    head = "| " + " | ".join(table.headers) + " |"
    rule = "| --- |" + " ---: |" * (len(table.headers) - 1)
    rows = ["| " + " | ".join(cell.replace("|", "/") for cell in r) + " |" for _, r in table.rows]
    return "\n".join([head, rule, *rows])


def duration(seconds: float) -> str:
    """With a unit that suits and three digits: ``6.71 µs``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            value = seconds / size
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    raise AssertionError("unreachable")


def _times(value: float) -> str:
    return f"{value:.2f}×" if value < 10 else f"{value:.1f}×" if value < 100 else f"{value:.0f}×"


def _cell(case: dict[str, Any], name: str, value: float | None) -> str:
    if value is not None:
        return _times(value)
    if name in case["results"]:  # ours has no time to compare with
        return duration(case["results"][name]["median"])
    return _missing_cell(case, name)


def _missing_cell(case: dict[str, Any], name: str) -> str:
    """Explained in the notes, but for the dot: it does not take part in such cases."""
    if name in case["wrong"]:
        return "wrong"
    return "failed" if name in case["not_run"] else "·"


def _kernel(case: dict[str, Any], ours: str) -> str:
    """``numba``, ``reference``, or both, out of what ``ops.explain`` said."""
    found = []
    for line in case["kernels"].get(ours, ()):
        named = re.search(r": (?:kernel (\w+)|array-API (reference)) \(", line)
        found.append((named[1] or named[2]) if named else line)
    return ", ".join(dict.fromkeys(found)) or "·"
