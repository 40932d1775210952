"""Optimizers as instructions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import optim
from ..task import Task
from .penalties import can_penalise, lower_clipping, lower_penalty
from .program import Program

OPTIMIZERS = (optim.SGD, optim.AdaGrad, optim.RMSProp, optim.Adam, optim.AdamW)
"""Those whose rule has an instruction of its name, which takes the rates in their order."""


def can_update(task: Task) -> bool:
    """Whether there are instructions for all of this."""
    optimizer, population = task.optimizer, task.model.population
    if task.clip_norm is not None:
        bounds = np.asarray(task.clip_norm, np.float64)
        if bounds.shape not in ((), (population,)) or not (bounds > 0).all():
            return False
    own = type(optimizer) in OPTIMIZERS and "update" not in vars(optimizer)  # nor one put over it
    return own and can_penalise(task.penalty, population)


def lower_update(program: Program, task: Task, value: np.ndarray) -> None:
    """The update of all parameters, in place, each cut among the threads as its gradient was.

    The penalty is added to ``value``, (P,).
    """
    optimizer = task.optimizer
    instruction = getattr(program.instructions, optimizer.rule)
    memory, members = program.memory, program.members
    count = len(optimizer.rates(optimizer.lr)) + 3
    of_weights, of_others = tables = [
        program.buffer(members, count, dtype=np.float64) for _ in range(2)
    ]
    for table in tables:
        table[:, -1] = 1.0
    grads = lower_penalty(program, task.penalty, value)
    if task.clip_norm is not None:
        lower_clipping(program, task.clip_norm, grads, (*tables, count))
    for name in memory.names:
        begin, size = memory.offsets[name]
        state = [b[begin:] for b in (memory.params, grads[name], *memory.slots)]
        program.add(
            instruction,
            *(*state, *[0] * (4 - len(state)), members, *memory.matrix(name, members)),
            *(of_weights if memory.is_weight(name) else of_others, count),
            work=size / 10,
        )
    written: list[tuple[Any, ...]] = [()]

    def write_rates() -> None:
        lr = optimizer.lr * optimizer.schedule(optimizer.steps)
        optimizer.steps += 1
        values = *optimizer.rates(lr).values(), *optimizer.decay_of_weights(lr)
        if program.population is None:
            if values != written[0]:
                of_weights[0, :-1] = values
                of_others[0, :-1] = *values[:-2], 0.0, 1.0
                written[0] = values
            return
        for column, value in enumerate(values):
            of_weights[:, column] = value
        of_others[:, :-1] = of_weights[:, :-1]
        of_others[:, -3:-1] = 0.0, 1.0

    program.before.append(write_rates)
