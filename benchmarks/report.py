"""From saved JSON to Markdown.

    xpmlp bench --out run.json
    python -m benchmarks.report run.json                     # to the terminal
    python -m benchmarks.report run.json --name epyc-2       # to benchmarks/results/epyc-2.md
    python -m benchmarks.report run.json --docs              # into docs/benchmarks.md

It also takes what ``pytest benchmarks --benchmark-only --benchmark-json run.json`` writes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from xpmlp.bench.report import markdown
from xpmlp.bench.suite import FORMAT
from xpmlp.errors import DataError
from xpmlp.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin: made by benchmarks/report.py -->", "<!-- end -->"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("json", type=Path, help="what xpmlp bench --out wrote")
    parser.add_argument("--name", help="write benchmarks/results/NAME.md")
    parser.add_argument(
        "--docs", action="store_true", help="put the tables into docs/benchmarks.md"
    )
    options = parser.parse_args(arguments)
    try:
        text = markdown(read_record(options.json))
        if options.name:
            heading = f"# {options.name}\n\nMade by `python -m benchmarks.report`.\n\n"
            RESULTS.mkdir(exist_ok=True)
            write_atomically(RESULTS / f"{options.name}.md", (heading + text).encode())
        if options.docs:
            page = put_between(PAGE.read_text(encoding="utf-8"), text)
            write_atomically(PAGE, page.encode())
    except DataError as error:
        print(f"benchmarks.report: {error}", file=sys.stderr)
        return 1
    if not options.name and not options.docs:
        print(text, end="")
    return 0


def read_record(path: Path) -> dict[str, Any]:
    """A record of either kind; DataError if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"expected JSON of xpmlp bench in {path}: {error}") from error
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return content
    if isinstance(content, dict) and content.get("benchmarks"):
        return from_pytest_benchmark(content)
    raise DataError(f"expected JSON written by xpmlp bench or pytest-benchmark, got {path}")


def put_between(page: str, text: str) -> str:
    """The page with what stands between the two marks replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"expected the marks {BEGIN} and {END} on the page, got none")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def from_pytest_benchmark(content: dict[str, Any]) -> dict[str, Any]:
    """pytest-benchmark's file in the form of xpmlp bench's."""
    rows: dict[str, dict[str, Any]] = {}
    info: dict[str, Any] = {}
    for benchmark in content["benchmarks"]:
        info = benchmark.get("extra_info", {})
        if "contestant" not in info:
            raise DataError("expected benchmarks of this suite: extra_info has no contestant")
        row = rows.setdefault(
            f"{info['kind']} {info['case']}",
            {
                "kind": info["kind"],
                "name": info["case"],
                "group": info["case_group"],
                "floor_seconds": info["floor_seconds"],
                "kernels": {},
                "results": {},
                "not_run": {},
                "wrong": {},
            },
        )
        if info["kernels"]:
            row["kernels"][info["contestant"]] = info["kernels"]
        row["results"][info["contestant"]] = _summary(benchmark["stats"], info)
    return {
        "format": FORMAT,
        "date": content.get("datetime", "unknown"),
        "quick": False,
        "machine": info["machine"],
        "versions": info["versions"],
        "backends": ["numpy"],
        "threads": info["threads"],
        "missing": info["missing"],
        "floors": {"copy_gb_per_second": {}, "product_gflop_per_second": None},
        "cases": list(rows.values()),
    }


def _summary(stats: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Percentiles; from all values where they were saved, else from the quartiles."""
    median = info["own_clock"]["seconds"] if "own_clock" in info else stats["median"]
    low, high = stats["q1"], stats["q3"]
    if stats.get("data"):
        low, high = np.percentile(stats["data"], (20, 80)).tolist()
    if "own_clock" in info:
        low = high = median
    return {
        "median": median,
        "p20": low,
        "p80": high,
        "samples": stats["rounds"],
        "calls": stats["iterations"],
    }


if __name__ == "__main__":
    sys.exit(main())
