"""Formulas as MathML, which browsers draw by themselves: no script, and nothing from a network.

docutils, which Sphinx is built on, translates them from LaTeX.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def translated(formula: str, **options: Any) -> str:
    """LaTeX as MathML, with what docutils has no name for in other words."""
    formula = re.sub(r"\\mathrel\{(.*?)\}", r"\1", formula.replace("…", r"\ldots "))
    return tex2mathml(formula, **options)


def inline(writer: Any, node: nodes.math) -> None:
    """A formula within a line."""
    writer.body.append(translated(node.astext()))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """A formula by itself; in a box that can be moved sideways where the screen is narrow."""
    formula = node.astext().strip()
    if r"\\" in formula and r"\begin" not in formula:
        formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
    formula = formula.replace("align*}", "aligned}").replace("align}", "aligned}")
    writer.body.append(f'<div class="math">{translated(formula, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline, None), block_renderers=(block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
