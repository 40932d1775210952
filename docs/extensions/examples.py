"""A worked example's file in parts, and what it prints.

``:::{example} NAME`` shows ``examples/NAME.py`` a function or class at a time, and runs it for its
numbers; with ``:run: no`` it only shows it.
"""

from __future__ import annotations

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from example_parts import ROOT, parts, printed_by
from sphinx.application import Sphinx


class Example(Directive):
    """A file's parts, each below its name, and its numbers."""

    required_arguments = 1
    option_spec = {"run": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        path = ROOT / "docs" / "examples" / f"{self.arguments[0]}.py"
        self.state.document.settings.env.note_dependency(str(path))
        found: list[nodes.Node] = []
        for name, text in parts(path.read_text(encoding="utf-8")):
            if name:
                found.append(nodes.rubric("", "", nodes.literal("", name)))
            found.append(nodes.literal_block(text, text, language="python"))
        if self.options.get("run") != "no":
            text = printed_by(path)
            found.append(nodes.rubric("", "It prints"))
            found.append(nodes.literal_block(text, text, language="text"))
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("example", Example)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
