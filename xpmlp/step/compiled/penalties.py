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
        arrays = [buffer[begin:] for buffer in (memory.params, memory.grads, grads[name])]
        shape = memory.matrix(name, members)
        program.add(
            program.instructions.PENALTIES[PENALTIES[type(penalty)]],
            *(*arrays, members, *shape, strengths, sums, sums.shape[1], places[name]),
            work=shape[0] * shape[1] / 10,
        )
    program.add(
        program.instructions.penalty_value,
        *(sums, members, sums.shape[1], strengths, value),
        work=sums.size,
    )
    return grads


def lower_clipping(
    program: Program, clip_norm: Any, grads: dict[str, np.ndarray], rates: tuple[Any, ...]
) -> None:
    """Write ``min(1, clip_norm / norm)`` of all gradients together into the rates of the update."""
    memory, members = program.memory, program.members
    bounds = program.buffer(members, dtype=np.float64)
    bounds[:] = clip_norm
    sums, places = _sums(program, memory.names)
    for name in memory.names:
        begin, _ = memory.offsets[name]
        shape = memory.matrix(name, members)
        program.add(
            program.instructions.squares,
            *(grads[name][begin:], members, *shape, sums, sums.shape[1], places[name]),
            work=shape[0] * shape[1] / 20,
        )
    program.add(
        program.instructions.clipping, sums, members, sums.shape[1], bounds, *rates, work=sums.size
    )


def _sums(program: Program, names: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Room for a number for each row of these parameters, and where each one's rows begin."""
    places, end = {}, 0
    for name in names:
        places[name] = end
        end += program.memory.matrix(name, program.members)[0]
    return program.buffer(program.members, end), places
