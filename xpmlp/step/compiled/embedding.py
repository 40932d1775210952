"""Vectors for codes as instructions. The codes are looked at before the step begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ... import layers
from .program import Activation, Backward, NotCompiled, Program

Lowered = tuple[Activation, Backward]


def embedding(program: Program, name: str, layer: layers.Embedding, x: Activation) -> Lowered:
    """Every number of the batch is a code."""
    D = layer.W.shape[-1]
    y = program.activation(x.features * D)
    _look_again(program, layer, x)
    codes = _Codes(program, name, layer, x, rows=program.rows * x.features, columns=1)
    codes.write(0, y, D, 0)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        codes.sum(dy, D, 0)

    return replace(y, axes=(x.features, D)), backward


def embed_columns(
    program: Program, name: str, layer: layers.EmbedColumns, x: Activation
) -> Lowered:
    """Codes in some columns, numbers in the others."""
    if x.features != layer.features:
        raise NotCompiled(f"{name}EmbedColumns takes {layer.features} inputs, not {x.features}")
    _look_again(program, layer, x)
    wide = layer.pieces[-1].end
    y, found = program.activation(wide), []
    for piece in layer.pieces:
        if piece.layer is None:
            count = piece.last - piece.first
            given: Any = {"x": x, "apart": x.batch, "place": piece.first, "count": count}
            given |= {"columns": x.features, "y": y, "wide": wide, "begin": piece.begin}
            program.add(program.instructions.passed, **given, work=program.rows * count / 20)
        else:
            child = f"{name}{piece.first}."
            codes = _Codes(program, child, piece.layer, x, program.rows, x.features)
            codes.write(piece.first, y, wide, piece.begin)
            found.append((codes, piece.begin))

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        for codes, begin in found:
            codes.sum(dy, wide, begin)

    return y, backward


class _Codes:
    """One column of codes, and the table that they are rows of."""

    def __init__(
        self, program: Program, name: str, layer: Any, x: Activation, rows: int, columns: int
    ):
        if x.array is not None:
            raise NotCompiled(f"{name}{type(layer).__name__} is not the first layer")
        if layer.population != program.population:
            raise NotCompiled(f"{name}{type(layer).__name__} is for other inputs")
        program.watch(layer, "padding")
        self.program, self.name, self.layer = program, name, layer
        self.V, self.D = layer.W.shape[-2:]
        self.pitch = program.memory.row(name + "W")
        self.given: Any = {"x": x, "apart": x.batch, "rows": rows, "columns": columns}
        self.given["count"] = self.V

    def write(self, place: int, y: Activation, wide: int, begin: int) -> None:
        """The vectors into rows of y, of so many numbers, from a place on."""
        program, rows = self.program, self.given["rows"]
        self.given["place"] = place
        kinds, members = program.instructions, program.members
        program.add(kinds.check_codes, **self.given, work=rows, check=True)
        table = {"W": program.parameter(self.name + "W"), "pitch": self.pitch, "dim": self.D}
        where = {"y": y, "wide": wide, "begin": begin}
        program.add(kinds.embedded, **self.given, **table, **where, work=rows * self.D / 10)
        self.first = program.buffer(members, self.V, dtype=np.int64)
        self.following = program.buffer(members, rows, dtype=np.int64)

    def sum(self, dy: np.ndarray, wide: int, begin: int) -> None:
        """The table's gradient, from rows of dy."""
        program, rows = self.program, self.given["rows"]
        chain: Any = {"first": self.first, "following": self.following}
        program.add(program.instructions.chained, **self.given, **chain, work=rows + self.V / 8)
        padding = program.buffer(program.members, dtype=np.int64)
        padding[:] = -1 if self.layer.padding is None else self.layer.padding
        given: Any = {"rows": self.V, "columns": self.D, "batch": rows, "padding": padding}
        given |= {"dy": dy, "wide": wide, "begin": begin, "pitch": self.pitch}
        given["dW"] = program.gradient(self.name + "W")
        work = (rows + self.V) * self.D / 10
        program.add(program.instructions.code_sums, **chain, **given, work=work)


def _look_again(program: Program, layer: layers.Layer, x: Activation) -> None:
    """Where a batch has no code, the layer itself says it."""
    lead = (program.rows,) if program.population is None or not x.batch else (-1, program.rows)
    program.looks.append(lambda batch: layer.forward(batch.reshape((*lead, x.features))))
