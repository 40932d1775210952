"""Penalties and clipping as instructions, between the gradients and the update."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import penalties
from .program import Program

PENALTIES: dict[type, str] = {penalties.L1: "l1", penalties.L2: "l2"}


def can_penalise(penalty: penalties.Penalty | None, population: int | None) -> bool:
    """Whether there are instructions for this penalty."""
    if penalty is None:
        return True
    return type(penalty) in PENALTIES and np.shape(penalty.strength) in ((), (population,))


def lower_penalty(
    program: Program, penalty: penalties.Penalty | None, value: np.ndarray
) -> dict[str, np.ndarray]:
    """Add the penalty to ``value``, (P,), and its gradient to those of the parameters it is on.

    Returns
    -------
    dict of str to array
        For each parameter the buffer that its gradient is in. Layers keep theirs as it was.
    """
    memory, members = program.memory, program.members
    grads = dict.fromkeys(memory.names, memory.grads)
    if penalty is None:
        return grads
    program.watch(penalty, "biases")
    names = [name for name in memory.names if penalty.biases or memory.is_weight(name)]
    strengths = program.buffer(members, dtype=np.float64)

    def write_strength() -> None:
        strengths[:] = penalty.strength

    program.before.append(write_strength)
    sums, places = _sums(program, names)
    for name in names:
        begin, _ = memory.offsets[name]
        grads[name] = memory.adjusted()
        w, g, h = (buffer[begin:] for buffer in (memory.params, memory.grads, grads[name]))
        instruction = program.instructions.PENALTIES[PENALTIES[type(penalty)]]
        where = _rows(program, name, sums, places)
        work = memory.offsets[name][1] / (10 * members)
        program.add(instruction, w=w, g=g, h=h, strength=strengths, **where, work=work)
    given: Any = {"rows": sums.shape[1], "columns": 1, "sums": sums, "value": value}
    instruction = program.instructions.penalty_value
    program.add(instruction, **given, strength=strengths, work=sums.size)
    return grads


def lower_clipping(
    program: Program, clip_norm: Any, grads: dict[str, np.ndarray], tables: dict[str, Any]
) -> None:
    """Write ``min(1, clip_norm / norm)`` of all gradients together into the rates of the update."""
    memory, members = program.memory, program.members
    bounds = program.buffer(members, dtype=np.float64)
    bounds[:] = clip_norm
    sums, places = _sums(program, memory.names)
    for name in memory.names:
        begin, size = memory.offsets[name]
        given = _rows(program, name, sums, places)
        work = size / (20 * members)
        program.add(program.instructions.norms, g=grads[name][begin:], **given, work=work)
    columns = tables["of_weights"].shape[1]
    given: Any = {"rows": sums.shape[1], "columns": columns, "sums": sums, "bound": bounds}
    program.add(program.instructions.clipping, **given, **tables, work=sums.size)


def _rows(program: Program, name: str, sums: np.ndarray, places: dict[str, int]) -> dict[str, Any]:
    """A parameter's size, and where its rows' numbers are."""
    rows, columns = program.memory.matrix(name, program.members)
    own = sums.reshape(-1)[places[name] :]
    return {"rows": rows, "columns": columns, "sums": own, "apart": sums.shape[1]}


def _sums(program: Program, names: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Room for a number for each row of these parameters, and where each one's rows begin."""
    places, end = {}, 0
    for name in names:
        places[name] = end
        end += program.memory.matrix(name, program.members)[0]
    return program.buffer(program.members, end), places
