"""What a program adds where a batch is divided among several ranks: sums between instructions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...communication import Share
from ...layers import Dropout
from ...ops import dropout
from ..together import Sums
from .program import Activation, Lowered, Program


def weigh_gradient(program: Program, sums: Sums, gradient: np.ndarray, outputs: np.ndarray) -> None:
    """Multiply the outputs' gradient by what the rank's rows count for."""
    factor = program.buffer(program.members)
    if sums.known:
        factor[:] = sums.part
    else:
        program.cut(lambda: np.copyto(factor, sums.weigh(outputs, *_answers(program))))
    columns = gradient.shape[-1]
    given: Any = {"columns": columns, "x": gradient, "factor": factor}
    program.add(program.instructions.scaled, **given, work=program.rows * columns / 40)


def _answers(program: Program) -> list[np.ndarray]:
    """Targets of a batch, and weights if its rows have any."""
    return [program.targets, *([] if program.weights is None else [program.weights])]


class SummedStep:
    """The sum between backward and update, of gradients and figures of a step.

    Parameters
    ----------
    program : Program
        Is cut where this is made.
    sums : Sums
    value : array, shape (P,)
        The loss of a rank's rows, which becomes that of the whole batch.
    outputs : array, shape (N, M) or (P, N, M)

    Attributes
    ----------
    wish : bool
        Whether this rank would like to stop.
    figures : Figures
        Of the last step.
    """

    def __init__(self, program: Program, sums: Sums, value: np.ndarray, outputs: np.ndarray):
        self._program, self._share, self._sums = program, sums.share, sums
        self._value, self._outputs = value, outputs
        self._single = program.population is None
        self.wish = False
        self.figures: Any = None
        program.cut(self)

    def __call__(self) -> None:
        memory, hits, sums = self._program.memory, self._program.hits, self._sums
        if not self._share.rows:
            memory.grads[...] = 0.0
        value = self._value[0] if self._single else self._value
        if hits is not None:
            hits = hits[0] if self._single else hits
        sums.tell(memory.tail, value, self._outputs, *_answers(self._program), hits=hits)
        memory.tail[-1] = self.wish
        self._share.ranks.allreduce(memory.summed)
        self.figures = sums.read(memory.tail)
        self._value[...] = self.figures.value


def share_statistics(
    program: Program, share: Share, mean: np.ndarray, var: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and variance, of this rank's rows, become those of all.

    Or stay, where each rank standardises by its own.

    Returns
    -------
    mean, var : array
        What running statistics move towards.
    rows : int
        That they are statistics of.
    """
    if share.ranks.statistics == "global":

        def take() -> None:
            mean[...], var[...] = share.statistics(mean, var)

        program.cut(take)
        return mean, var, share.of_all(program.rows)
    both = program.buffer(2, *mean.shape)
    program.cut(lambda: np.copyto(both, share.average(mean, var)))
    return both[0], both[1], share.on_average(program.rows)


def share_slopes(
    program: Program, share: Share, dgamma: np.ndarray, dbeta: np.ndarray
) -> dict[str, np.ndarray]:
    """Gradients of γ and β by all ranks' rows, as dx takes them: per row of this rank."""
    both = program.buffer(2, program.members, dgamma.size // program.members)
    rows = program.rows / share.of_all(program.rows)

    def take() -> None:
        sums = share.sum(np.stack([dgamma, dbeta]).astype(np.float64))
        np.multiply(sums.reshape(both.shape), rows, out=both, casting="same_kind")

    program.cut(take)
    return {"dgamma": both[0], "dbeta": both[1]}


def dropout_by_mask(program: Program, layer: Dropout, x: Activation) -> Lowered:
    """Dropout of rows that begin within four random words: its mask is made by the op."""
    share, F = program.share, x.features
    assert share is not None
    mask = program.buffer(program.members, program.rows, F)
    ones = np.ones_like(mask if program.population is not None else mask[0])
    first = share.first * F

    def next_mask() -> None:
        layer.step += 1
        mask[...] = dropout(ones, layer.p, layer.rng, layer.step, first)

    program.before.append(next_mask)

    def masked(values: Any) -> np.ndarray:
        y, size = program.buffer(*mask.shape), program.rows * F
        program.add(program.instructions.copied, columns=F, x=values, y=y, work=size / 25)
        given: Any = {"columns": F, "dy": y, "slopes": mask}
        program.add(program.instructions.multiplied, **given, work=size / 25)
        return y

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        return program.gate(masked(dy), x) if wanted else None

    return Activation(masked(x), F, program.rows * F), backward
