"""What the package looks like in numbers: ``python -m tests.structure``.

Lines a folder, circles of imports, the longest files, tuples of unnamed integers in kernels, and
how many files each kind of new thing touches (from the table on the page about adding a layer).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "xpmlp"
MOST_UNNAMED = 6


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


def unnamed_integers() -> Iterator[tuple[str, int, int]]:
    """(file, line, how many) wherever kernels take more unnamed integers than a reader can hold."""
    for path in sorted((PACKAGE / "kernels" / "numba").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Tuple)
                and isinstance(node.value, ast.Call)
                and getattr(node.value.func, "id", "") == "integers"
                and len(node.targets[0].elts) > MOST_UNNAMED
            ):
                yield path.name, node.lineno, len(node.targets[0].elts)


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
    folders = lines_by_folder()
    for folder, count in folders.most_common():
        print(f"{count:7,}  {folder}")
    print(f"{folders.total():7,}  in all")
    print(f"\nimports in a circle: {' → '.join(circle()) or 0}")
    unnamed = list(unnamed_integers())
    print(f"tuples of more than {MOST_UNNAMED} unnamed integers in kernels/numba: {len(unnamed)}")
    print("longest files:")
    for path in sorted(modules().values(), key=lines, reverse=True)[:8]:
        print(f"{lines(path):7,}  {path.relative_to(ROOT)}")
    print("files touched by adding")
    for kind, files in places().items():
        print(f"{len(files):7,}  {kind}")


if __name__ == "__main__":
    main()
