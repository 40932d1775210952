"""What the package looks like in numbers: ``python -m tests.structure``.

Lines a folder, circles of imports, the longest files, tuples of unnamed integers in kernels, and
how many files each kind of new thing touches (from the table on the page about adding a layer).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "xpmlp"


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def lines(path: Path) -> int:
    """How long a file is."""
    return len(path.read_text(encoding="utf-8").splitlines())


def lines_by_folder() -> Counter[str]:
    """Lines of Python in each folder, without those of folders inside."""
    found: Counter[str] = Counter()
    for path in modules().values():
        found[str(path.parent.relative_to(ROOT))] += lines(path)
    return found


def imported(name: str, known: dict[str, Path]) -> set[str]:
    """The package's modules that one imports when it is loaded."""
    path = known[name]
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            module = ".".join(part for part in base if part)
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                found.add(inner if inner in known else module)
    return found & known.keys() - {name}


def circle() -> list[str]:
    """Modules that import each other in a circle; empty if there is none."""
    known = modules()
    try:
        TopologicalSorter({name: imported(name, known) for name in known}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def places() -> dict[str, list[Path]]:
    """What each kind of new thing touches, from the page's table."""
    page = (ROOT / "docs" / "add-a-layer.md").read_text(encoding="utf-8")
    table = page.partition("## Every place")[2].partition("\n## ")[0]
    found = {}
    for kind, files, count in re.findall(r"^\| (an? [\w ]+) \| (.+) \| (\d+) \|$", table, re.M):
        names = re.findall(r"`([^`]+)`", files)
        assert len(names) == int(count), f"{kind}: {len(names)} files, not {count}"
        inside = [name.startswith(("tests/", "docs/", "CHANGELOG")) for name in names]
        found[kind] = [
            (ROOT if own else PACKAGE) / name for name, own in zip(names, inside, strict=True)
        ]
    return found


def main() -> None:
    """Print it all."""
    from tests.argument_lists import long_lists  # by the name it has under python -m

    folders = lines_by_folder()
    for folder, count in folders.most_common():
        print(f"{count:7,}  {folder}")
    print(f"{folders.total():7,}  in all")
    print(f"\nimports in a circle: {' → '.join(circle()) or 0}")
    print(f"lists of arguments too long to tell apart in kernels/numba: {len([*long_lists()])}")
    print("longest files:")
    for path in sorted(modules().values(), key=lines, reverse=True)[:8]:
        print(f"{lines(path):7,}  {path.relative_to(ROOT)}")
    print("files touched by adding")
    for kind, files in places().items():
        print(f"{len(files):7,}  {kind}")


if __name__ == "__main__":
    main()
