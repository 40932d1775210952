"""Elements of a page. Text becomes text, whatever signs it holds."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from ..errors import readable

SHOWN = 60
"""Characters of a name; the whole of it is in its tooltip."""
_WHOLE = 600
_TEXT_CELL = '<td class="text"'


class Markup(str):
    """HTML that is finished; any other text is escaped where it is put in."""

    __slots__ = ()


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """``<tag …>children</tag>``.

    Parameters
    ----------
    tag : str
    *children
        Markup, or what becomes escaped text.
    **attributes
        ``class_`` is ``class``, ``view_box`` is ``viewBox``, other underscores are dashes; None is
        left out. Markup is put in as it is, of whatever length.
    """
    given = "".join(
        f' {_attribute(name)}="{value if isinstance(value, Markup) else escape(clean(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{given}>{join(children)}</{tag}>")


def join(parts: Iterable[Any]) -> Markup:
    """One behind the other."""
    return Markup("".join(p if isinstance(p, Markup) else escape(clean(p)) for p in parts))


def clean(value: Any) -> str:
    """Without signs that are no text; emoji that are joined stand side by side."""
    return readable(str(value).replace("\N{ZERO WIDTH JOINER}", ""), 100_000)


def name(value: Any, shown: int = SHOWN) -> Markup:
    """A name from the data, which may be long and of any script."""
    text = str(value)
    if len(text) <= shown:
        return element("bdi", text)
    return element("bdi", f"{text[: shown - 1]}…", title=readable(text, _WHOLE))


def void(tag: str, **attributes: Any) -> Markup:
    """An element that holds nothing, such as ``img``."""
    return Markup(element(tag, **attributes).removesuffix(f"</{tag}>"))


def table(
    headers: Iterable[Any], rows: Iterable[Iterable[Any]], *, caption: str, class_: str = ""
) -> Markup:
    """A table that is scrolled sideways where it is too wide; a row's first cell is its name."""
    body, words = [], set()
    for first, *rest in rows:
        cells = [cell if _is_cell(cell) else element("td", cell) for cell in rest]
        words |= {place for place, cell in enumerate(cells, 1) if cell.startswith(_TEXT_CELL)}
        body.append(element("tr", element("th", first, scope="row"), *cells))
    head = element(
        "tr",
        *(
            element("th", cell, scope="col", class_="text" if place in words or not place else None)
            for place, cell in enumerate(headers)
        ),
    )
    whole = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *body),
        class_=class_ or None,
    )
    return element("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)


def text_cell(content: Any) -> Markup:
    """A cell of a table with words in it, which begin on the left."""
    return element("td", content, class_="text")


def pairs(rows: Iterable[tuple[Any, Any]]) -> Markup:
    """Names and what they are, in two columns, or one below the other on a phone."""
    return element("dl", *(join([element("dt", key), element("dd", value)]) for key, value in rows))


def _is_cell(cell: Any) -> bool:
    return isinstance(cell, Markup) and cell.startswith("<td")


def _attribute(name: str) -> str:
    return {"class_": "class", "view_box": "viewBox"}.get(name, name.replace("_", "-"))
