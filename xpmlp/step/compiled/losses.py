"""Losses as instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import losses
from .program import Activation, NotCompiled, Program


def _cross_entropy(
    program: Program, loss: losses.SoftmaxCrossEntropy, outputs: Activation, y: np.ndarray, to: Any
) -> np.ndarray:
    program.watch(loss, "label_smoothing", "ignore_index", "class_weights", "z_loss", "reduction")
    members, rows, C = program.members, program.rows, outputs.features
    mean = _is_mean(loss)
    smoothing = program.buffer(members, dtype=np.float64)
    smoothing[:] = loss.label_smoothing
    z_loss = program.buffer(1, dtype=np.float64)
    z_loss[:] = loss.z_loss
    own = loss.class_weights
    weighted = own is not None
    if own is not None and own.shape != (C,):
        raise NotCompiled(f"there are {own.size} class weights, not {C}")
    weights = program.buffer(C if weighted else 0)
    if weighted:
        weights[:] = loss.class_weights
    scales, values = program.buffer(members), program.buffer(members, rows)
    gradient = program.buffer(members, rows, C)
    results = scales, smoothing, z_loss, gradient, values
    if y.dtype.kind in "iu":
        _by_class_numbers(program, loss, outputs, y, (weights, weighted), results)
    elif y.dtype.kind == "f" and loss.ignore_index is None:
        targets = program.bind_targets(y, program.dtype, (C,))
        _check_shares(program, targets, np.inf)
        scales[:] = 1.0 / rows if mean else 1.0
        sizes = 0 if y.ndim == 2 else rows * C, members, rows, C
        program.add(
            program.instructions.cross_entropy_of_shares,
            *(outputs, targets, *sizes, weights, weighted, *results),
            work=rows * C * 6,
        )
    else:
        raise NotCompiled(f"targets are {y.dtype}")
    program.add(program.instructions.row_total, values, members, rows, to, work=rows)
    return gradient


def _by_class_numbers(
    program: Program,
    loss: losses.SoftmaxCrossEntropy,
    outputs: Activation,
    y: np.ndarray,
    weights: tuple[np.ndarray, bool],
    results: tuple[np.ndarray, ...],
) -> None:
    members, rows, C = program.members, program.rows, outputs.features
    labels = program.bind_targets(y, np.dtype(np.int64), ())
    ignored = loss.ignore_index
    options = *weights, ignored is not None, ignored or 0
    kinds, shared = program.instructions, y.ndim == 1
    program.add(
        kinds.check_labels,
        *(labels, 1 if shared else members, members, rows, C, *options),
        *(loss.reduction == "mean", results[0]),
        work=rows,
        check=True,
    )
    where = outputs, labels, 0 if shared else rows, members, rows, C
    program.add(kinds.cross_entropy, *where, *options, *results, work=rows * C * 4)
    _count_hits(program, where)


def _check_labels(program: Program, y: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """Refuse a batch with a class number that does not exist."""
    problems = 1 if y.ndim == 1 else program.members
    nothing, scales = program.buffer(0), program.buffer(program.members)
    program.add(
        program.instructions.check_labels,
        *(labels, problems, program.members, program.rows, classes, nothing, False, False, 0),
        *(False, scales),
        work=program.rows,
        check=True,
    )


def _count_hits(program: Program, where: tuple[Any, ...]) -> None:
    program.hits = program.buffer(program.members, dtype=np.int64)
    program.add(program.instructions.hits, *where, program.hits, work=0)


def _is_mean(loss: losses.Loss) -> bool:
    if loss.reduction == "none":
        raise NotCompiled("reduction is 'none'")
    return loss.reduction == "mean"


def _check_shares(program: Program, targets: np.ndarray, most: float) -> None:
    """Refuse a batch with a target outside of 0 … most."""
    bound = program.buffer(1, dtype=np.float64)
    bound[:] = most
    kinds, size = program.instructions, targets.size
    program.add(kinds.check_shares, targets, size, bound, work=size / 20, check=True)


def _elementwise(
    kind: str, constant: str | None = None, most: float | None = None
) -> Callable[..., np.ndarray]:
    """The lowering of a sum or mean over elements, whose constant is an attribute of the loss.

    Targets are in 0 … most, if there is one.
    """

    def lower(program: Program, loss: losses.Loss, outputs: Activation, y: np.ndarray, to: Any):
        M, size = outputs.features, program.rows * outputs.features
        targets = program.bind_targets(y, program.dtype, (M,))
        if most is not None:
            _check_shares(program, targets, most)
        instruction = program.instructions.ELEMENTWISE_LOSSES[kind]
        batch, options = 0 if y.ndim == 2 else size, _options(program, loss, constant, size)
        return _reduced(program, instruction, outputs, targets, batch, options, to)

    return lower


def _by_class(kind: str, constant: str | None = None) -> Callable[..., np.ndarray]:
    """The lowering of a sum or mean over rows, of outputs and class numbers."""

    def lower(program: Program, loss: losses.Loss, outputs: Activation, y: np.ndarray, to: Any):
        if y.dtype.kind not in "iu":
            raise NotCompiled("targets are not class numbers")
        labels, rows = program.bind_targets(y, np.dtype(np.int64), ()), program.rows
        _check_labels(program, y, labels, outputs.features)
        instruction = program.instructions.CLASS_LOSSES[kind]
        batch, options = 0 if y.ndim == 1 else rows, _options(program, loss, constant, rows)
        where = outputs, labels, batch, program.members, rows, outputs.features
        _count_hits(program, where)
        return _reduced(program, instruction, outputs, labels, batch, options, to)

    return lower


def _options(program: Program, loss: losses.Loss, constant: str | None, count: int) -> np.ndarray:
    """What each element or row is multiplied by, and the loss's constant."""
    options = program.buffer(2, dtype=np.float64)
    options[0] = 1.0 / count if _is_mean(loss) else 1.0
    program.watch(loss, "reduction")
    if constant is not None:
        program.watch(loss, constant)
        options[1] = getattr(loss, constant)
    return options


def _reduced(
    program: Program,
    instruction: Callable,
    outputs: Activation,
    targets: np.ndarray,
    batch: int,
    options: np.ndarray,
    to: Any,
) -> np.ndarray:
    sizes = program.members, program.rows, outputs.features
    values, gradient = program.buffer(*sizes[:2]), program.buffer(*sizes)
    arguments = outputs, targets, batch, *sizes, options, gradient, values
    program.add(instruction, *arguments, work=sizes[1] * sizes[2])
    program.add(program.instructions.row_total, values, *sizes[:2], to, work=sizes[1])
    return gradient


LOSSES: dict[type, Callable[[Program, Any, Activation, np.ndarray, Any], np.ndarray]] = {
    losses.SoftmaxCrossEntropy: _cross_entropy,
    losses.MSE: _elementwise("squared"),
    losses.HalfSSE: _elementwise("half_squared"),
    losses.MAE: _elementwise("absolute"),
    losses.Huber: _elementwise("huber", "delta"),
    losses.BCEWithLogits: _elementwise("binary", most=1.0),
    losses.NLL: _by_class("log_likelihood"),
    losses.MulticlassHinge: _by_class("hinge", "margin"),
}


def lower_loss(
    program: Program, loss: losses.Loss, outputs: Activation, y: np.ndarray, to: np.ndarray
) -> np.ndarray:
    """The loss of each member into ``to``; the gradient of the outputs, (P, N, M).

    Raises
    ------
    NotCompiled
        If there are no instructions for it.
    """
    lower = LOSSES.get(type(loss))
    if lower is None:
        raise NotCompiled(f"there are no instructions for {type(loss).__name__}")
    return lower(program, loss, outputs, y, to)
