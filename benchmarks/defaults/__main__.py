"""``python -m benchmarks.defaults``: whether the estimators' defaults learn as scikit-learn's do.

Every data set is learned with the defaults of both, five seeds each, from inputs as they are and
from standardized ones. scikit-learn's bundled and generated sets need nothing; ``--tables`` adds
those of a folder. The exit status is 1 if a median is worse than scikit-learn's by more than 0.005
of accuracy or 0.01 of R², else 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xpmlp.bench.machine import versions
from xpmlp.files import write_atomically

from .comparison import Comparison, compare, table
from .data_sets import bundled, from_folder

PAGE = Path(__file__).parents[2] / "docs" / "defaults.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=__doc__)
    parser.add_argument("--tables", type=Path, help="folder of CSV files, the target last")
    parser.add_argument("--only", help="parts of data sets' names, separated by commas")
    parser.add_argument("--cache", type=Path, help="folder to keep scikit-learn's scores in")
    parser.add_argument("--page", action="store_true", help="write the table into the docs")
    options = parser.parse_args(arguments)
    sets = [*bundled(), *(from_folder(options.tables) if options.tables else [])]
    if options.only:
        parts = options.only.split(",")
        sets = [data for data in sets if any(part in data.name for part in parts)]
    found: list[Comparison] = []
    for data in sets:
        for scaled in (False, True):
            found.append(compare(data, scaled, options.cache))
            print(found[-1].line(), flush=True)
    text = f"{table(found)}\n\n{footer(found)}"
    if options.page:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        page = f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
        write_atomically(PAGE, page.encode("utf-8"))
    print(f"\n{text}")
    return int(any(one.verdict == "worse" for one in found))


def footer(found: Sequence[Comparison]) -> str:
    """The counts of verdicts, and what was compared."""
    counts = {
        word: sum(one.verdict == word for one in found) for word in ("better", "equal", "worse")
    }
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    known = versions()
    named = ", ".join(
        f"{name} {known[name]}" for name in ("xpmlp", "numpy", "scikit-learn") if name in known
    )
    return f"{len(found)} comparisons: {said}. {named}, Python {sys.version.split()[0]}."


if __name__ == "__main__":
    np.seterr(over="ignore")  # scikit-learn's logistic function on raw inputs
    sys.exit(main())
