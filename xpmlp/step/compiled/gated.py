"""Gates, and a rectifier with learned slopes, as instructions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import layers
from .normalization import refuse_shared_batch
from .program import Activation, Lowered, NotCompiled, Program


def gate(program: Program, name: str, layer: layers.GLU | layers.SwiGLU, x: Activation) -> Lowered:
    """The forward keeps the slopes of both halves, where the backward makes dx."""
    refuse_shared_batch(program, name, layer, x)
    M, odd = divmod(x.features, 2)
    if odd:
        raise NotCompiled(f"{name}{type(layer).__name__} has no two halves")
    y, kinds = program.activation(M), program.instructions
    slopes, work = program.buffer(program.members, program.rows, x.features), program.rows * M
    program.add(kinds.GATES[layer.op], columns=M, x=x, y=y, slopes=slopes, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if not wanted:
            return None
        program.add(kinds.gate_backward, columns=M, dy=dy, dx=slopes, work=work / 12)
        return program.gate(slopes, x)

    return y, backward


def prelu(program: Program, name: str, layer: layers.PReLU, x: Activation) -> Lowered:
    """The gradient of a is that of a scale of what lies below 0; dx is made where slopes are."""
    refuse_shared_batch(program, name, layer, x)
    F, each = x.features, layer.a.shape[-1]
    if each not in (1, F) or layer.population != program.population:
        raise NotCompiled(f"{name}PReLU is for other inputs")
    kinds, N, members, y = (
        program.instructions,
        program.rows,
        program.members,
        program.activation(F),
    )
    slopes, below = (program.buffer(members, N, F) for _ in range(2))
    given: Any = {"x": x, "each": each, "a": program.parameter(name + "a"), "y": y}
    program.add(kinds.prelu, columns=F, **given, slopes=slopes, below=below, work=N * F / 10)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        da = program.gradient(name + "a")
        of_columns = da if each == F else program.buffer(members, F)
        given: Any = {"dy": dy, "x": below, "apart": N * F, "out": of_columns}
        program.add(kinds.scale_slopes, columns=F, **given, work=N * F / 20)
        if each != F:
            program.add(kinds.column_sums, rows=F, columns=1, x=of_columns, out=da, work=F / 20)
        if not wanted:
            return None
        program.add(kinds.multiplied, columns=F, dy=slopes, slopes=dy, work=N * F / 25)
        return program.gate(slopes, x)

    return y, backward
