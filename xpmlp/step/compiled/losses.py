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
    own = _class_weights(loss, C)
    kinds, mean = program.instructions, _is_mean(loss)
    smoothing, z_loss = (program.buffer(size, dtype=np.float64) for size in (members, 1))
    smoothing[:], z_loss[:] = loss.label_smoothing, loss.z_loss
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
        _count_hits(program, outputs, labels, ignored)
        _weigh(program, _row_factors(program, loss, outputs), given)
        program.add(kinds.total_loss, **given, work=rows)
    elif y.dtype.kind == "f" and loss.ignore_index is None:
        targets = program.bind_targets(y, program.dtype, (C,))
        _check_shares(program, targets, np.inf)
        scales[:] = 1.0 / rows if mean else 1.0
        given |= {"targets": targets, "apart": 0 if y.ndim == 2 else rows * C}
        program.add(kinds.cross_entropy_of_shares, **given, work=rows * C * 6)
        _weigh(program, _row_factors(program, loss, outputs), given)
        program.add(kinds.total_loss_of_shares, **given, work=rows)
    else:
        raise NotCompiled(f"targets are {y.dtype}")
    return gradient


def _class_weights(loss: Any, classes: int) -> np.ndarray | None:
    """Those of the loss, if it has any, once there is one for each class."""
    weights = loss.class_weights
    if weights is not None and weights.shape != (classes,):
        raise NotCompiled(f"there are {weights.size} class weights, not {classes}")
    return weights


def _labels(program: Program, y: np.ndarray) -> dict[str, Any]:
    """Class numbers, and how far those of two members are apart."""
    labels = program.bind_targets(y, np.dtype(np.int64), ())
    return {"labels": labels, "apart": 0 if y.ndim == 1 else program.rows}


def _check_labels(
    program: Program, labels: dict[str, Any], classes: int, ignored: int | None
) -> None:
    """Refuse a batch with a class number that does not exist."""
    nothing = ("weights", "weighted", "mean", "smoothing", "z")
    given: Any = dict.fromkeys((*nothing, "x", "gradient", "losses", "total"), 0)
    given |= {"scale": program.buffer(program.members), "columns": classes, **labels}
    given |= {"has_ignore": ignored is not None, "ignored": ignored or 0}
    for name, count in (("smoothing", program.members), ("z", 1)):  # numbers are always read
        given[name] = program.buffer(count, dtype=np.float64)
    program.add(program.instructions.check_labels, **given, work=program.rows, check=True)


def _count_hits(
    program: Program, outputs: Activation, labels: dict[str, Any], ignored: int | None
) -> None:
    if ignored is not None and 0 <= ignored < outputs.features:
        return  # ignored rows are never right
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
    kind: str, constant: str | None = None, most: float | None = None, by_rows: bool = False
) -> Callable[..., np.ndarray]:
    """The lowering of a sum or mean over elements, whose constant is an attribute of the loss.

    Targets are in 0 … most, if there is one; a mean may be that over rows.
    """

    def lower(program: Program, loss: losses.Loss, outputs: Activation, y: np.ndarray, to: Any):
        M, size = outputs.features, program.rows * outputs.features
        targets = program.bind_targets(y, program.dtype, (M,))
        if most is not None:
            _check_shares(program, targets, most)
        given = _options(program, loss, constant, program.rows if by_rows else size)
        given |= {"columns": M, "y": outputs, "targets": targets}
        given["apart"] = 0 if y.ndim == 2 else size
        instruction = program.instructions.ELEMENTWISE_LOSSES[kind]
        return _reduced(program, instruction, given, _row_factors(program, loss, outputs), to)

    return lower


_plain_binary = _elementwise("binary", most=1.0)


def _binary(
    program: Program, loss: losses.BCEWithLogits, outputs: Activation, y: np.ndarray, to: Any
) -> np.ndarray:
    """Yes/no questions. Those with options are rows of one element, each with a weight:

    ``p t softplus(−y) + (1 − t) softplus(y)`` is ``w [softplus(y) − (p t / w) y]``, where
    ``w = p t + 1 − t``; and w is 0 where there is no answer.
    """
    program.watch(loss, "pos_weight", "ignore_index")
    if loss.pos_weight is None and loss.ignore_index is None:
        return _plain_binary(program, loss, outputs, y, to)
    rows, M, p = program.rows, outputs.features, loss.pos_weight
    if p is not None and p.shape not in ((), (M,)):
        raise NotCompiled(f"there are {p.size} weights of yes, not {M}")
    targets, weights = program.bind_targets(y, program.dtype, (M,)), program.weights
    own = y.ndim == 3 or (weights is not None and weights.ndim == 2)
    answers, factors = (program.buffer(program.members if own else 1, rows, M) for _ in range(2))
    given = _options(program, loss, None, 1)
    mean, like = _is_mean(loss), _shape_of(program, outputs)

    def prepare() -> None:
        loss.check_targets(targets, M)
        kept = loss.counted_elements(targets)
        t = targets if kept is None else np.where(kept, targets, 0)
        yes = t if p is None else t * p.astype(program.dtype)
        each = yes + (1 - t)
        answers[...] = yes / np.where(each > 0, each, 1)
        factors[...] = each if kept is None else each * kept
        if weights is not None:
            np.multiply(factors, weights[..., None], out=factors)
        if mean:
            units = np.asarray(loss.units(like, targets, weights)) * M
            np.divide(factors, np.where(units > 0, units, 1)[..., None, None], out=factors)

    program.before.append(prepare)
    given |= {"columns": 1, "y": outputs, "targets": answers, "apart": rows * M if own else 0}
    with program.rows_are(rows * M):
        instruction = program.instructions.ELEMENTWISE_LOSSES["binary"]
        gradient = _reduced(program, instruction, given, factors.reshape(-1, rows * M), to)
    return gradient.reshape(program.members, rows, M)


def _by_class(kind: str, constant: str | None = None) -> Callable[..., np.ndarray]:
    """The lowering of a sum or mean over rows, of outputs and class numbers."""

    def lower(program: Program, loss: losses.NLL, outputs: Activation, y: np.ndarray, to: Any):
        if y.dtype.kind not in "iu":
            raise NotCompiled("targets are not class numbers")
        program.watch(loss, "ignore_index", "class_weights")
        labels, C = _labels(program, y), outputs.features
        _class_weights(loss, C)
        _check_labels(program, labels, C, loss.ignore_index)
        _count_hits(program, outputs, labels, loss.ignore_index)
        given = _options(program, loss, constant, program.rows)
        given |= {"columns": C, "x": outputs, **labels}
        factors = _row_factors(program, loss, outputs, alike=True)
        return _reduced(program, program.instructions.CLASS_LOSSES[kind], given, factors, to)

    return lower


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
    program: Program, instruction: Any, given: dict[str, Any], factors: np.ndarray | None, to: Any
) -> np.ndarray:
    """Each row's loss and gradient, times its factor, and the sum of the losses."""
    members, rows, columns = program.members, program.rows, given["columns"]
    values, gradient = program.buffer(members, rows), program.buffer(members, rows, columns)
    given = {**given, "gradient": gradient, "losses": values}
    program.add(instruction, **given, work=rows * columns)
    _weigh(program, factors, given)
    program.add(program.instructions.row_total, columns=1, losses=values, value=to, work=rows)
    return gradient


def _shape_of(program: Program, outputs: Activation) -> np.ndarray:
    """Outputs for their shape alone."""
    return np.empty((program.members, program.rows, outputs.features), program.dtype)


def _row_factors(
    program: Program, loss: losses.Loss, outputs: Activation, *, alike: bool = False
) -> np.ndarray | None:
    """What each row's loss and gradient are yet to be multiplied by; None where all are 1.

    They have been divided by what the rows count for without weights: of a mean, the factors make
    up for that, ``wᵢ Σ u / Σ w u`` with the notation of :meth:`~xpmlp.losses.Loss.weighted`. Where
    the instruction has taken all rows ``alike``, they are ``wᵢ uᵢ N / Σ w u``.
    """
    weights, alike = program.weights, alike and loss.weighs_rows
    if weights is None and not alike:
        return None
    mean, like = loss.reduction == "mean", _shape_of(program, outputs)
    own = loss.weighs_rows or (weights is not None and weights.ndim == 2)
    factors = program.buffer(program.members if own else 1, program.rows)

    def prepare() -> None:
        targets = program.targets
        factors[...] = 1.0 if weights is None else weights
        if alike:
            units: Any = loss.row_units(like, targets)
            np.multiply(factors, units, out=factors)
        if mean:
            before = program.rows if alike else loss.units(like, targets)
            after = np.asarray(loss.units(like, targets, weights))
            ratio = before / np.where(after > 0, after, np.inf)
            np.multiply(factors, np.expand_dims(ratio, -1), out=factors)

    program.before.append(prepare)
    return factors


def _weigh(program: Program, factors: np.ndarray | None, given: dict[str, Any]) -> None:
    """Multiply each row's loss and gradient by its factor, if there are any."""
    if factors is None:
        return
    columns, rows = given["columns"], program.rows
    each = {name: given[name] for name in ("columns", "gradient", "losses")}
    each |= {"factors": factors, "apart": 0 if factors.shape[0] == 1 else rows}
    program.add(program.instructions.weighed, **each, work=rows * columns / 10)


LOSSES: dict[type, Callable[[Program, Any, Activation, np.ndarray, Any], np.ndarray]] = {
    losses.SoftmaxCrossEntropy: _cross_entropy,
    losses.MSE: _elementwise("squared"),
    losses.HalfSSE: _elementwise("half_squared"),
    losses.MAE: _elementwise("absolute"),
    losses.Huber: _elementwise("huber", "delta"),
    losses.BCEWithLogits: _binary,
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
