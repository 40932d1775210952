"""Normalization layers as instructions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ... import layers
from ...layers import masked
from .program import Activation, Lowered, NotCompiled, Program
from .shared import share_slopes, share_statistics


def batch_norm(program: Program, name: str, layer: layers.BatchNorm, x: Activation) -> Lowered:
    """In training, the batch's statistics and the running ones are instructions of their own."""
    program.watch(layer, "keep", "eps", "unbiased")
    N, F, members = program.rows, x.features, program.members
    _check(program, name, layer, x)
    share = program.share
    if program.training:
        alone = N
        if share is not None and share.ranks.statistics == "global":
            alone = share.of_all(N)
        if alone == 1 and (share is None or share.rows):
            raise NotCompiled(f"{name}BatchNorm has only one row")  # which the layer refuses
        mean, var = program.buffer(members, F), program.buffer(members, F)
    else:
        mean, var = (program.state(f"{name}running_{statistic}") for statistic in ("mean", "var"))
    gamma, y = program.parameter(name + "gamma"), program.activation(F)
    kinds, work = program.instructions, N * F / 20
    norm = {"gamma": gamma, "eps": layer.eps, "mean": mean, "var": var}
    given = {**norm, "x": x, "beta": program.parameter(name + "beta"), "y": y}
    if program.training:
        program.add(kinds.batch_statistics, columns=F, **given, work=work)
        batch = mean, var, N
        if share is not None:
            batch = share_statistics(program, share, mean, var)
        correction = batch[2] / (batch[2] - 1) if layer.unbiased else 1.0
        for statistic, value, factor in (("mean", batch[0], 1.0), ("var", batch[1], correction)):
            moved = {"value": value, "running": program.state(f"{name}running_{statistic}")}
            rates = {"keep": layer.keep, "move": 1.0 - layer.keep, "correction": factor}
            program.add(kinds.running, columns=F, **moved, **rates, work=F / 20)
    program.add(kinds.batch_norm_rows, columns=F, **given, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        steps = kinds.batch_norm_slopes, kinds.batch_norm_backward_rows
        between = None
        if share is not None and share.ranks.statistics == "global":
            between = partial(share_slopes, program, share)
        return _backward(program, steps, name, x, dy, wanted, between, **norm)

    return y, backward


def layer_norm(program: Program, name: str, layer: layers.LayerNorm, x: Activation) -> Lowered:
    """The slopes of γ and β are an instruction of their own."""
    program.watch(layer, "eps")
    _check(program, name, layer, x)
    kinds, F = program.instructions, x.features
    y, work = program.activation(F), program.rows * F / 20
    norm = {"gamma": program.parameter(name + "gamma"), **_statistics(program)}
    beta = program.parameter(name + "beta")
    given = {**norm, "beta": beta, "eps": layer.eps, "x": x, "y": y}
    program.add(kinds.layer_norm_rows, columns=F, **given, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        steps = kinds.layer_norm_slopes, kinds.layer_norm_backward_rows
        return _backward(program, steps, name, x, dy, wanted, **norm)

    return y, backward


def narrow_norm(
    program: Program,
    name: str,
    layer: layers.RMSNorm | masked.MaskedRMSNorm | masked.MaskedLayerNorm,
    x: Activation,
) -> Lowered:
    """Over all features or over those that each member has; with a mean, or without."""
    program.watch(layer, "eps")
    _check(program, name, layer, x)
    kinds, members, N, F = program.instructions, program.members, program.rows, x.features
    centred, y = isinstance(layer, masked.MaskedLayerNorm), program.activation(F)
    kind, work = "masked_layer_norm" if centred else "rms_norm", N * F / (10 if centred else 20)
    width = program.buffer(members, dtype=np.int64)
    width[:] = getattr(layer, "widths", F)
    gamma, statistics = program.parameter(name + "gamma"), _statistics(program)
    given = {"width": width, "gamma": gamma, "eps": layer.eps, "inverse": statistics["inverse"]}
    if centred:
        given |= {"mean": statistics["mean"], "beta": program.parameter(name + "beta")}
    program.add(getattr(kinds, kind), columns=F, x=x, **given, y=y, work=work)
    mask = mask_of(program, layer) if centred else None

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        dy = dy if mask is None else scaled_by(program, dy, mask, F)
        norm: Any = {
            "dy": dy,
            "x": x,
            "gamma": gamma,
            **statistics,
        }  # means of 0, where there are none
        dbeta = program.gradient(name + "beta") if centred else program.buffer(members, F)
        slopes: Any = {"dgamma": program.gradient(name + "gamma"), "dbeta": dbeta}
        program.add(kinds.layer_norm_slopes, columns=F, **norm, **slopes, dx=0, work=N * F / 20)
        if not wanted:
            return None
        dx = program.buffer(members, N, F)
        instruction = getattr(kinds, kind + "_backward")
        program.add(instruction, columns=F, **norm, width=width, dx=dx, work=work)
        return program.gate(dx, x)

    return y, backward


def _statistics(program: Program) -> dict[str, np.ndarray]:
    """Room for each row's mean and inverse deviation."""
    members, N = program.members, program.rows
    return {"mean": program.buffer(members, N), "inverse": program.buffer(members, N)}


def _backward(
    program: Program,
    steps: tuple[Any, Any],
    name: str,
    x: Activation,
    dy: np.ndarray,
    wanted: bool,
    between: Callable[..., dict[str, np.ndarray]] | None = None,
    **norm: Any,
) -> np.ndarray | None:
    """The slopes of γ and β and, if it is wanted, dx: two instructions with one record.

    Or with two, where ``between`` gives the slopes that dx takes.
    """
    F, work = x.features, program.rows * x.features / 20
    dx = program.buffer(program.members, program.rows, F) if wanted else None
    given = {"dy": dy, "x": x, **norm, "dx": 0 if dx is None else dx}
    given |= {f"d{each}": program.gradient(name + each) for each in ("gamma", "beta")}
    program.add(steps[0], columns=F, **given, work=work)
    if wanted:
        if between is not None:
            given |= between(given["dgamma"], given["dbeta"])
        program.add(steps[1], columns=F, **given, work=work)
    return None if dx is None else program.gate(dx, x)


def mask_of(program: Program, layer: Any) -> np.ndarray:
    """A masked layer's mask, (P, D)."""
    mask = program.buffer(program.members, layer.mask.shape[-1])
    mask[:] = layer.mask[:, 0]
    return mask


def scaled_by(program: Program, x: Any, scale: Any, features: int) -> np.ndarray:
    """``x ⊙ scale``, in a new buffer: of each member a number for each feature, as of a mask."""
    y, work = program.buffer(program.members, program.rows, features), program.rows * features / 20
    apart = x.batch if isinstance(x, Activation) else program.rows * features
    given: Any = {"x": x, "apart": apart, "scale": scale, "y": y}
    program.add(program.instructions.scaled_columns, columns=features, **given, work=work)
    return y


def _check(program: Program, name: str, layer: Any, x: Activation) -> None:
    if layer.features != x.features or layer.population != program.population:
        raise NotCompiled(f"{name}{type(layer).__name__} is for other inputs")
    refuse_shared_batch(program, name, layer, x)


def refuse_shared_batch(program: Program, name: str, layer: Any, x: Activation) -> None:
    """Only products read one batch for all members."""
    if x.array is None and x.batch == 0 and program.members > 1:
        raise NotCompiled(f"{name}{type(layer).__name__} acts on a batch that members share")
