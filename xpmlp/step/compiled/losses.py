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
    members, rows, C, own = program.members, program.rows, outputs.features, loss.class_weights
    kinds, mean = program.instructions, _is_mean(loss)
    smoothing, z_loss = (program.buffer(size, dtype=np.float64) for size in (members, 1))
    smoothing[:], z_loss[:] = loss.label_smoothing, loss.z_loss
    if own is not None and own.shape != (C,):
        raise NotCompiled(f"there are {own.size} class weights, not {C}")
    weights: Any = 0
    if own is not None:
        weights = program.buffer(C)
        weights[:] = own
    scales, gradient = program.buffer(members), program.buffer(members, rows, C)
    given: Any = {"columns": C, "x": outputs, "weights": weights, "weighted": own is not None}
    given |= {"smoothing": smoothing, "z": z_loss, "scale": scales, "gradient": gradient}
    given |= {"losses": program.buffer(members, rows), "total": to}
    if y.dtype.kind in "iu":
        labels, ignored = _labels(program, y), loss.ignore_index
        given |= labels | {"has_ignore": ignored is not None, "ignored": ignored or 0}
        given["mean"] = loss.reduction == "mean"
        program.add(kinds.check_labels, **given, work=rows, check=True)
        program.add(kinds.cross_entropy, **given, work=rows * C * 4)
        if ignored is None or not 0 <= ignored < C:  # ignored rows are never right
            _count_hits(program, outputs, labels)
        _weigh(program, loss, outputs, given)
        program.add(kinds.total_loss, **given, work=rows)
    elif y.dtype.kind == "f" and loss.ignore_index is None:
        targets = program.bind_targets(y, program.dtype, (C,))
        _check_shares(program, targets, np.inf)
        scales[:] = 1.0 / rows if mean else 1.0
        given |= {"targets": targets, "apart": 0 if y.ndim == 2 else rows * C}
        program.add(kinds.cross_entropy_of_shares, **given, work=rows * C * 6)
        _weigh(program, loss, outputs, given)
        program.add(kinds.total_loss_of_shares, **given, work=rows)
    else:
        raise NotCompiled(f"targets are {y.dtype}")
    return gradient


def _labels(program: Program, y: np.ndarray) -> dict[str, Any]:
    """Class numbers, and how far those of two members are apart."""
    labels = program.bind_targets(y, np.dtype(np.int64), ())
    return {"labels": labels, "apart": 0 if y.ndim == 1 else program.rows}


def _check_labels(program: Program, labels: dict[str, Any], classes: int) -> None:
    """Refuse a batch with a class number that does not exist."""
    nothing = ("weights", "weighted", "has_ignore", "ignored", "mean", "smoothing", "z")
    given: Any = dict.fromkeys((*nothing, "x", "gradient", "losses", "total"), 0)
    given |= {"scale": program.buffer(program.members), "columns": classes, **labels}
    for name, count in (("smoothing", program.members), ("z", 1)):  # numbers are always read
        given[name] = program.buffer(count, dtype=np.float64)
    program.add(program.instructions.check_labels, **given, work=program.rows, check=True)


def _count_hits(program: Program, outputs: Activation, labels: dict[str, Any]) -> None:
    program.hits = program.buffer(program.members, dtype=np.int64)
    given = {"columns": outputs.features, "x": outputs, "hits": program.hits, **labels}
    program.add(program.instructions.hits, **given, work=0)


def _is_mean(loss: losses.Loss) -> bool:
    if loss.reduction == "none":
        raise NotCompiled("reduction is 'none'")
    return loss.reduction == "mean"


def _check_shares(program: Program, targets: np.ndarray, most: float) -> None:
    """Refuse a batch with a target outside of 0 … most."""
    sizes = {"members": 1, "rows": 1, "columns": targets.size}
    work, check_shares = targets.size / 20, program.instructions.check_shares
    program.add(check_shares, **sizes, targets=targets, most=most, work=work, check=True)


def _elementwise(
    kind: str,
    constant: str | None = None,
    most: float | None = None,
    without: tuple[str, ...] = (),
    by_rows: bool = False,
) -> Callable[..., np.ndarray]:
    """The lowering of a sum or mean over elements, whose constant is an attribute of the loss.

    Targets are in 0 … most, if there is one; a mean may be that over rows. There are no
    instructions for the options ``without`` which it is.
    """

    def lower(program: Program, loss: losses.Loss, outputs: Activation, y: np.ndarray, to: Any):
        M, size = outputs.features, program.rows * outputs.features
        _check_without(program, loss, without)
        targets = program.bind_targets(y, program.dtype, (M,))
        if most is not None:
            _check_shares(program, targets, most)
        given = _options(program, loss, constant, program.rows if by_rows else size)
        given |= {"y": outputs, "targets": targets, "apart": 0 if y.ndim == 2 else size}
        instruction = program.instructions.ELEMENTWISE_LOSSES[kind]
        return _reduced(program, loss, outputs, instruction, given, to)

    return lower


def _by_class(kind: str, constant: str | None = None) -> Callable[..., np.ndarray]:
    """The lowering of a sum or mean over rows, of outputs and class numbers."""

    def lower(program: Program, loss: losses.Loss, outputs: Activation, y: np.ndarray, to: Any):
        if y.dtype.kind not in "iu":
            raise NotCompiled("targets are not class numbers")
        _check_without(program, loss, ("ignore_index", "class_weights"))
        labels, C = _labels(program, y), outputs.features
        _check_labels(program, labels, C)
        _count_hits(program, outputs, labels)
        given = _options(program, loss, constant, program.rows) | {"x": outputs, **labels}
        instruction = program.instructions.CLASS_LOSSES[kind]
        return _reduced(program, loss, outputs, instruction, given, to)

    return lower


def _check_without(program: Program, loss: losses.Loss, options: tuple[str, ...]) -> None:
    """Refuse a loss some of whose options have been given."""
    program.watch(loss, *options)
    for name in options:
        if getattr(loss, name) is not None:
            raise NotCompiled(f"{type(loss).__name__} has {name}")


def _options(
    program: Program, loss: losses.Loss, constant: str | None, count: int
) -> dict[str, Any]:
    """What each element or row is multiplied by, and the loss's constant."""
    program.watch(loss, "reduction")
    if constant is not None:
        program.watch(loss, constant)
    value = 0.0 if constant is None else getattr(loss, constant)
    return {"factor": 1.0 / count if _is_mean(loss) else 1.0, "constant": value}


def _reduced(
    program: Program,
    loss: losses.Loss,
    outputs: Activation,
    instruction: Any,
    given: dict[str, Any],
    to: Any,
) -> np.ndarray:
    members, rows, kinds = program.members, program.rows, program.instructions
    columns = outputs.features
    values, gradient = program.buffer(members, rows), program.buffer(members, rows, columns)
    given = {"columns": columns, **given, "gradient": gradient, "losses": values}
    program.add(instruction, **given, work=rows * columns)
    _weigh(program, loss, outputs, given)
    program.add(kinds.row_total, columns=1, losses=values, value=to, work=rows)
    return gradient


def _weigh(program: Program, loss: losses.Loss, outputs: Activation, given: dict[str, Any]) -> None:
    """Multiply each row's loss and gradient by its weight, if rows have weights.

    They have been divided by what the rows count for without: of a mean, the factors make up for
    that, ``wᵢ Σ u / Σ w u`` with the notation of :meth:`~xpmlp.losses.Loss.weighted`.
    """
    weights = program.weights
    if weights is None:
        return
    columns, rows, mean = outputs.features, program.rows, loss.reduction == "mean"
    factors = program.buffer(program.members if weights.ndim == 2 or loss.weighs_rows else 1, rows)
    like = np.empty((program.members, rows, columns), program.dtype)  # for its shape alone

    def prepare() -> None:
        if not mean:
            factors[...] = weights
            return
        targets = program.targets
        before = loss.units(like, targets)
        after = np.asarray(loss.units(like, targets, weights))
        ratio = before / np.where(after > 0, after, np.inf)
        np.multiply(weights, np.expand_dims(ratio, -1), out=factors)

    program.before.append(prepare)
    apart = 0 if factors.shape[0] == 1 else rows
    each = {name: given[name] for name in ("gradient", "losses")}
    each |= {"columns": columns, "factors": factors, "apart": apart}
    program.add(program.instructions.weighed, **each, work=rows * columns / 10)


LOSSES: dict[type, Callable[[Program, Any, Activation, np.ndarray, Any], np.ndarray]] = {
    losses.SoftmaxCrossEntropy: _cross_entropy,
    losses.MSE: _elementwise("squared"),
    losses.HalfSSE: _elementwise("half_squared"),
    losses.MAE: _elementwise("absolute"),
    losses.Huber: _elementwise("huber", "delta"),
    losses.BCEWithLogits: _elementwise("binary", most=1.0, without=("pos_weight", "ignore_index")),
    losses.PoissonNLL: _elementwise("poisson", most=np.inf),
    losses.KLDivergence: _elementwise("divergence", most=np.inf, by_rows=True),
    losses.NLL: _by_class("log_likelihood"),
    losses.MulticlassHinge: _by_class("hinge", "margin"),
}


def lower_loss(
    program: Program,
    loss: losses.Loss,
    outputs: Activation,
    y: np.ndarray,
    to: np.ndarray,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """The loss of each member into ``to``; the gradient of the outputs, (P, N, M).

    Parameters
    ----------
    program : Program
    loss : Loss
    outputs : Activation
    y, weight : array
        Targets of a batch, and what its rows count for, if they do not all count the same.
    to : array, shape (P,)

    Raises
    ------
    NotCompiled
        If there are no instructions for it.
    """
    lower = LOSSES.get(type(loss))
    if lower is None:
        raise NotCompiled(f"there are no instructions for {type(loss).__name__}")
    if weight is not None:
        most = float(np.finfo(program.dtype).max)
        _check_shares(program, program.bind_weights(weight), most)
    return lower(program, loss, outputs, y, to)
