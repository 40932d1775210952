"""Where the numba kernels hand over more than a reader can tell apart by place.

``python -m tests.argument_lists`` prints what there is; tests/kernels/test_records.py holds it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import xpmlp

KERNELS = Path(xpmlp.__file__).parent / "kernels" / "numba"
MOST_UNPACKED, MOST_ARGUMENTS = 6, 12


def long_lists(folder: Path = KERNELS) -> Iterator[tuple[str, int, int]]:
    """File, line and length of each tuple of more than six names that is unpacked in compiled
    code, and of each function with more than twelve arguments by place.

    Code that writes LLVM itself is left out: there, a function's arguments are unpacked as LLVM
    has them, and the kernels' ops have the signatures of the ops.
    """
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                count = len(node.args.posonlyargs) + len(node.args.args)
                if count > MOST_ARGUMENTS:
                    yield path.name, node.lineno, count
            elif isinstance(node, ast.Assign) and not _of_llvm(node.value):
                if isinstance(node.value, ast.Tuple):  # each name beside its value
                    continue
                for target in node.targets:
                    if isinstance(target, ast.Tuple) and len(target.elts) > MOST_UNPACKED:
                        yield path.name, node.lineno, len(target.elts)


def _of_llvm(value: ast.expr) -> bool:
    """Whether it is ``function.args`` or the ``arguments`` of an intrinsic."""
    if isinstance(value, ast.Attribute):
        return value.attr == "args"
    return any(isinstance(n, ast.Name) and n.id == "arguments" for n in ast.walk(value)) and (
        not isinstance(value, ast.Call)
    )


if __name__ == "__main__":
    for name, line, count in long_lists():
        print(f"{name}:{line}: {count}")
