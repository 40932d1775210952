"""A table of a module's public names, each in a line, above their descriptions."""

from __future__ import annotations

import importlib
from typing import Any

from sphinx.application import Sphinx


def add_table(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Put the table behind the module's own words."""
    if what == "module":
        module = importlib.import_module(name)
        names = [one for one in getattr(module, "__all__", ()) if callable(getattr(module, one))]
        if names:
            lines += ["", ".. autosummary::", "   :nosignatures:", ""]
            lines += [f"   {one}" for one in names]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", add_table, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
