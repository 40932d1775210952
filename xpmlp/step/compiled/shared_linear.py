"""A matrix that all members share, as instructions: their rows are those of one product."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import layers
from .normalization import scaled_by
from .program import Activation, Backward, NotCompiled, Program


def shared_linear(
    program: Program, name: str, layer: layers.SharedLinear, x: Activation
) -> tuple[Activation, Backward]:
    """``y_p = ((x ⊙ r_p) W) ⊙ s_p + b_p``, of which dW is one sum over the rows of all members."""
    D, M = layer.W.shape
    if x.features != D or layer.population != program.population:
        raise NotCompiled(f"{name}SharedLinear is for other inputs")
    program.tape.share_instructions()
    kinds, N, members = program.instructions, program.rows, program.members
    W, row = program.parameter(name + "W"), program.memory.row(name + "W")
    r, s = program.parameter(name + "r"), program.parameter(name + "s")
    b = program.buffer(members, M) if layer.b is None else program.parameter(name + "b")
    rows, whole, work = members * N, {"cut": kinds.ROWS, "count": 1}, N * M / 25
    z, h, y = scaled_by(program, x, r, D), program.buffer(members, N, M), program.activation(M)
    program.product(rows, M, D, (z, 0, D, 1), (W, 0, row, 1), (h, 0, M), **whole)
    made: Any = {"x": h, "scale": s, "shift": b, "y": y, "rectified": 0}
    made_by = program.add(kinds.adapted, columns=M, **made, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if layer.b is not None:
            db = program.gradient(name + "b")
            program.add(kinds.column_sums, columns=M, x=dy, out=db, work=work)
        slopes: Any = {"dy": dy, "x": h, "apart": N * M, "out": program.gradient(name + "s")}
        program.add(kinds.scale_slopes, columns=M, **slopes, work=work)
        dh, dz = scaled_by(program, dy, s, M), program.buffer(members, N, D)
        of_dW = program.gradient(name + "W"), 0, row
        program.product(D, M, rows, (z, 0, 1, D), (dh, 0, M, 1), of_dW, **whole)
        program.product(rows, D, M, (dh, 0, M, 1), (W, 0, 1, row), (dz, 0, D), **whole)
        slopes = {"dy": dz, "x": x, "apart": x.batch, "out": program.gradient(name + "r")}
        program.add(kinds.scale_slopes, columns=D, **slopes, work=N * D / 25)
        return program.gate(scaled_by(program, dz, r, D), x) if wanted else None

    return Activation(y.array, M, y.batch, product=made_by), backward
