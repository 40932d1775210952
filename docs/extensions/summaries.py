"""A table of a module's public names with their types, each in a line, above their descriptions."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import inspect as aliases

# How a type is written that is an alias, such as Array, where it is a part of another type.
aliases.TypeAliasForwardRef.__repr__ = lambda self: self.name


def type_of(thing: Any) -> str:
    """What a class is one of, or what a function returns."""
    if inspect.isclass(thing):
        bases = [base.__name__ for base in thing.__mro__[1:-1] if _is_public(base)]
        return f"``{bases[0]}``" if bases else "class"
    given = inspect.signature(thing).return_annotation
    return f"→ ``{given}``" if isinstance(given, str) else "function"


def _is_public(kind: type) -> bool:
    package = importlib.import_module(".".join(kind.__module__.split(".")[:2]))
    return kind.__module__ == "builtins" or kind.__name__ in getattr(package, "__all__", ())


def add_table(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Put the table behind the module's own words."""
    if what != "module":
        return
    module = importlib.import_module(name)
    own = [one for one, thing in vars(module).items() if getattr(thing, "__module__", "") == name]
    names = getattr(module, "__all__", [one for one in own if not one.startswith("_")])
    rows = [(one, getattr(module, one)) for one in names if callable(getattr(module, one))]
    if not rows:
        return
    lines += ["", ".. list-table::", "   :class: summary", "   :header-rows: 1", ""]
    lines += ["   * - name", "     - type", "     - in short"]
    for one, thing in rows:
        summary = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
        lines += [
            f"   * - :py:obj:`{one} <{name}.{one}>`",
            f"     - {type_of(thing)}",
            f"     - {summary}",
        ]
    lines.append("")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", add_table, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
