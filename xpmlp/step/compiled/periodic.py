"""Numbers as waves, and a rectified linear map of each number's, as instructions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ... import layers
from .program import Activation, Backward, NotCompiled, Program


def periodic(
    program: Program, name: str, layer: layers.Periodic, x: Activation
) -> tuple[Activation, Backward]:
    """The waves, and if there is a linear map, a product for each number."""
    F, K = layer.c.shape[-2:]
    if x.features != F or layer.population != program.population:
        raise NotCompiled(f"{name}Periodic is for other inputs")
    kinds, N, members = program.instructions, program.rows, program.members
    u, columns, work = program.activation(2 * F * K), F * K, N * F * K
    given: Any = {"columns": columns, "x": x, "apart": x.batch, "inputs": F, "waves": K, "y": u}
    given["c"] = program.parameter(name + "c")
    program.add(kinds.waves, **given, work=20 * work)
    y, map_backward = u, None
    if layer.W is not None:
        y, map_backward = _maps(program, name, layer, u)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        du = dy if map_backward is None else map_backward(dy)
        dx = program.buffer(members, N, F) if wanted else None
        slopes = {"dy": du, "dc": program.gradient(name + "c"), "dx": 0 if dx is None else dx}
        program.add(kinds.wave_slopes, **given, **slopes, work=work)
        if dx is None:
            return None
        program.add(kinds.waves_backward, **given, **slopes, work=work)
        return program.gate(dx, x)

    return y, backward


def _maps(program: Program, name: str, layer: layers.Periodic, u: Activation) -> Any:
    """``y_f = max(0, u_f W_f + b_f)``, and what appends its backward, which gives du."""
    F, depth, E = layer.W.shape[-3:]
    kinds, N, members = program.instructions, program.rows, program.members
    W, b = program.parameter(name + "W"), program.parameter(name + "b")
    row = program.memory.row(name + "W")
    y = replace(program.activation(F * E), gated=True)

    def of(array: Any, f: int, size: int, apart: int, *strides: int) -> tuple[Any, ...]:
        """The part of the number f, each of which has so many elements."""
        return (getattr(array, "array", array).reshape(-1)[f * size :], apart, *strides)

    whole = (F * depth * row, row, 1)
    for f in range(F):
        operands = of(u, f, depth, N * F * depth, F * depth, 1), of(W, f, depth * row, *whole)
        result = of(y, f, E, N * F * E, F * E)
        made = program.product(
            N, E, depth, *operands, result, cut=kinds.ROWS, bias=b[f * E :], bias_apart=F * E
        )
        program.rectify_product(made)

    def backward(dy: np.ndarray) -> np.ndarray:
        du, dW = program.buffer(members, N, F * depth), program.gradient(name + "W")
        for f in range(F):
            slopes = of(dy, f, E, N * F * E, F * E, 1)
            turned = of(u, f, depth, N * F * depth, 1, F * depth)
            result = of(dW, f, depth * row, F * depth * row, row)
            program.product(depth, E, N, turned, slopes, result, cut=kinds.ROWS)
            weights = of(W, f, depth * row, F * depth * row, 1, row)
            result = of(du, f, depth, N * F * depth, F * depth)
            program.product(N, depth, E, slopes, weights, result, cut=kinds.ROWS)
        db = program.gradient(name + "b")
        program.add(kinds.column_sums, columns=F * E, x=dy, out=db, work=N * F * E / 25)
        return du

    return y, backward
