"""Optimizers as instructions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import optim
from ..task import Task
from .penalties import can_penalise, lower_clipping, lower_penalty
from .program import Program

OPTIMIZERS = (
    *(optim.SGD, optim.AdaGrad, optim.RMSProp, optim.Adam, optim.AdamW, optim.AMSGrad),
    *(optim.NAdam, optim.RAdam, optim.Adamax, optim.Adadelta, optim.Lion),
)
"""Those whose rule has an instruction of its name, which takes the rates in their order."""


def can_update(task: Task) -> bool:
    """Whether there are instructions for all of this."""
    optimizer, population = task.optimizer, task.model.population
    if task.model.shared_params and (task.clip_norm is not None or task.penalty is not None):
        return False  # norms and penalties are each member's own here
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
    memory, members, shared = program.memory, program.members, set(task.model.shared_params)
    named = instruction.record.__annotations__["rates"]  # decay, shrink and clip are the last
    own = optimizer.rates(optimizer.lr)
    if (*own, "decay", "shrink", "clip") != named._fields:
        raise TypeError(
            f"`{optimizer.rule}`: expected the rates {named._fields[:-3]}, got {tuple(own)}"
        )
    of_weights, of_others = (
        program.buffer(members, len(named._fields), dtype=np.float64) for _ in range(2)
    )
    for table in (of_weights, of_others):
        table[:, named._fields.index("clip")] = 1.0
    grads = lower_penalty(program, task.penalty, value)
    if task.clip_norm is not None:
        tables = {"of_weights": of_weights, "of_others": of_others}
        lower_clipping(program, task.clip_norm, grads, tables)
    for name in memory.names:
        begin, size = memory.offsets[name]
        state: Any = dict(zip("mvu", (slot[begin:] for slot in memory.slots), strict=False))
        state = {"m": 0, "v": 0, **state, "w": memory.params[begin:], "g": grads[name][begin:]}
        count = 1 if name in shared else members
        rows, columns = memory.matrix(name, count)
        table = of_weights if memory.is_weight(name) else of_others
        given = {"members": count, "rows": rows, "columns": columns, "rates": table}
        program.add(instruction, **given, **state, work=size / 10)
    written: list[tuple[Any, ...]] = [()]

    def write_rates() -> None:
        lr = optimizer.lr * optimizer.factor(optimizer.steps)
        optimizer.steps += 1
        values = (*optimizer.rates(lr).values(), *optimizer.decay_of_weights(lr))
        if program.population is None:
            if values != written[0]:
                of_weights[0, :-1] = values
                of_others[0, :-1] = *values[:-2], 0.0, 1.0
                written[0] = values
            return
        for column, value in enumerate(values):
            of_weights[:, column] = value
        of_others[:, :-1] = of_weights[:, :-1]
        of_others[:, named._fields.index("decay")] = 0.0
        of_others[:, named._fields.index("shrink")] = 1.0

    program.before.append(write_rates)
