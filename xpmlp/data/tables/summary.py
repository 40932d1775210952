"""What was understood of a table, in words: target, inputs, what is left out, what is in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...choices import TargetKind
from .columns import BOOLEAN, CATEGORY, DATE, NUMBER, TEXT, Column, Table, listed, shown
from .encoder import TableEncoder
from .info import TableInfo
from .kinds import Inputs
from .roles import Roles

_SHOWN_CLASSES = 12


def summarize(
    info: TableInfo,
    table: Table,
    roles: Roles,
    known: np.ndarray,
    raw: np.ndarray,
    y: np.ndarray,
    classes: tuple[str, ...] | None,
    task: TargetKind | None,
    inputs: Inputs,
    split: str,
    where: str,
) -> None:
    """Write what was understood into ``info``."""
    gone = int((~known).sum())
    rows = f"{len(known)} rows, {len(table.columns)} columns"
    if gone:
        rows += f"; {gone} without a target left out"
    info.summary = [
        ("data", f"{where}: {rows}"),
        *([("read", "; ".join(table.how))] if table.how else []),
        ("target", _describe_target(roles, raw, y, classes, task, table.column(roles.target))),
        ("inputs", describe_inputs(inputs.columns, info.encoder)),
    ]
    if inputs.left_out:
        info.summary.append(("left out", describe_left_out(inputs.left_out) + " (--keep NAME)"))
    by_hand = {"dropped": roles.drop, "id": roles.ids}
    for word, names in by_hand.items():
        if names:
            info.summary.append((word, listed(names)))
    info.summary.append(("rows", split))
    info.doubts = [
        *table.doubts,
        *_target_doubts(roles, raw, y, classes, task, table.column(roles.target)),
        *inputs.doubts,
    ]
    if len(table) < 50:
        info.doubts.append(f"{len(table)} rows are few; scores on so few say little")


def _describe_target(
    roles: Roles,
    raw: np.ndarray,
    y: np.ndarray,
    classes: tuple[str, ...] | None,
    task: TargetKind | None,
    column: Column,
) -> str:
    text = shown(roles.target)
    if roles.default:
        text += ", the last column (--target names another)"
    if classes is None:
        why = "as asked" if task else "numbers"
        if task is None and raw.dtype.kind in "iu":
            why = f"whole numbers, {len(np.unique(raw))} different ones"
        return f"{text}: regression ({why}), {raw.min():.6g} to {raw.max():.6g}"
    why = "as asked" if task else "text"
    if task is None and column.kind == BOOLEAN:
        why = "two values"
    elif task is None and raw.dtype.kind in "iuf":
        why = "whole numbers of few values"
    counts = np.bincount(y, minlength=len(classes))
    parts = [
        f"{shown(name, 24)[1:-1]} ({count})"
        for name, count in zip(classes[:_SHOWN_CLASSES], counts.tolist(), strict=False)
    ]
    more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
    return f"{text}: classification ({why}), {len(classes)} classes: {', '.join(parts)}{more}"


def _target_doubts(
    roles: Roles,
    raw: np.ndarray,
    y: np.ndarray,
    classes: tuple[str, ...] | None,
    task: TargetKind | None,
    column: Column,
) -> list[str]:
    name, doubts = shown(roles.target), []
    if classes is None:
        if task is None and raw.dtype.kind in "iu" and len(np.unique(raw)) <= 64:
            doubts.append(
                f"the target {name} is taken for numbers; --task classification if its "
                f"{len(np.unique(raw))} values are classes"
            )
        return doubts
    if task is None and raw.dtype.kind in "iuf" and len(classes) > 2:
        doubts.append(
            f"the target {name} is taken for {len(classes)} classes; --task regression if its "
            "values are numbers, such as counts or grades"
        )
    counts = np.bincount(y, minlength=len(classes))
    single = [classes[place] for place in np.flatnonzero(counts == 1)]
    if single:
        doubts.append(
            f"{len(single)} of the classes of {name} have one row each ({listed(single, 4)}), "
            "which cannot be learnt and tested"
        )
    if column.kind in (TEXT, CATEGORY):
        folded: dict[str, list[str]] = {}
        for label in classes:
            folded.setdefault(" ".join(label.lower().split()).rstrip("."), []).append(label)
        for alike in folded.values():
            if len(alike) > 1:
                doubts.append(
                    f"classes of {name} that differ in spelling only: {listed(alike, 4)}; "
                    "write them alike if they are one"
                )
    return doubts


def describe_inputs(columns: Sequence[Column], encoder: TableEncoder) -> str:
    """The inputs by kind, with their levels and missing values."""
    by_kind: dict[str, list[str]] = {}
    codes = {code.name: code for code in encoder.codes}
    for column in columns:
        code, gone = codes[column.name], int(column.missing.sum())
        more = [f"{gone} missing"] if gone else []
        if code.kind == CATEGORY:
            rare = f" and {column.distinct() - len(code.levels)} rare" if code.rare else ""
            more = [f"{len(code.levels)} levels{rare}", *more]
        by_kind.setdefault(code.kind, []).append(
            shown(column.name) + (f" ({', '.join(more)})" if more else "")
        )
    words = {NUMBER: "numbers", BOOLEAN: "truth values", CATEGORY: "categories", DATE: "dates"}
    return "; ".join(
        f"{words[kind]} {len(names)}: {', '.join(names[:12])}"
        + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        for kind, names in by_kind.items()
    )


def describe_left_out(left_out: Mapping[str, Sequence[str]]) -> str:
    """Columns left out, by reason."""
    return "; ".join(f"{reason}: {listed(names)}" for reason, names in left_out.items())
