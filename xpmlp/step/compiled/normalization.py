"""Normalization layers as instructions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import layers
from ...layers import masked
from .program import Activation, Backward, NotCompiled, Program

Lowered = tuple[Activation, Backward]
"""What the lowering of a layer gives: its output, and what appends its backward."""


def batch_norm(program: Program, name: str, layer: layers.BatchNorm, x: Activation) -> Lowered:
    """The batch's statistics, and the running ones, are instructions of their own."""
    program.watch(layer, "keep", "eps", "unbiased")
    N, F, members = program.rows, x.features, program.members
    _check(program, name, layer, x)
    if N == 1:
        raise NotCompiled(f"{name}BatchNorm has only one row")  # which the layer refuses
    options = program.buffer(3, dtype=np.float64)
    options[:] = layer.eps, layer.keep, N / (N - 1) if layer.unbiased else 1.0
    gamma, beta = program.parameter(name + "gamma"), program.parameter(name + "beta")
    mean, var = program.buffer(members, F), program.buffer(members, F)
    running = program.state(name + "running_mean"), program.state(name + "running_var")
    y = program.activation(F)
    sizes, kinds, work = (members, N, F), program.instructions, N * F / 20
    program.add(kinds.batch_statistics, x, *sizes, options, mean, var, *running, work=work)
    program.add(kinds.batch_norm, x, *sizes, gamma, beta, options, mean, var, y, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        slopes = program.gradient(name + "gamma"), program.gradient(name + "beta")
        statistics = options, mean, var
        program.add(kinds.batch_norm_slopes, dy, x, *sizes, *statistics, *slopes, work=work)
        if not wanted:
            return None
        dx = program.buffer(members, N, F)
        arguments = dy, x, *sizes, gamma, *statistics, *slopes, dx
        program.add(kinds.batch_norm_backward, *arguments, work=work)
        return program.gate(dx, x)

    return y, backward


def layer_norm(program: Program, name: str, layer: layers.LayerNorm, x: Activation) -> Lowered:
    """The slopes of γ and β are an instruction of their own."""
    program.watch(layer, "eps")
    N, F, members = program.rows, x.features, program.members
    _check(program, name, layer, x)
    options = program.buffer(1, dtype=np.float64)
    options[:] = layer.eps
    gamma, beta = program.parameter(name + "gamma"), program.parameter(name + "beta")
    mean, inv_std = program.buffer(members, N), program.buffer(members, N)
    y = program.activation(F)
    sizes, kinds, work = (members, N, F), program.instructions, N * F / 20
    program.add(kinds.layer_norm, x, *sizes, gamma, beta, options, y, mean, inv_std, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        slopes = program.gradient(name + "gamma"), program.gradient(name + "beta")
        program.add(kinds.layer_norm_slopes, dy, x, *sizes, mean, inv_std, *slopes, work=work)
        if not wanted:
            return None
        dx = program.buffer(members, N, F)
        arguments = dy, x, *sizes, gamma, mean, inv_std, dx
        program.add(kinds.layer_norm_backward, *arguments, work=work)
        return program.gate(dx, x)

    return y, backward


def rms_norm(
    program: Program, name: str, layer: layers.RMSNorm | masked.MaskedRMSNorm, x: Activation
) -> Lowered:
    """Over all features, or over those that each member has."""
    program.watch(layer, "eps")
    N, F, members = program.rows, x.features, program.members
    _check(program, name, layer, x)
    options = program.buffer(1, dtype=np.float64)
    options[:] = layer.eps
    widths = _widths(program, layer, F)
    gamma = program.parameter(name + "gamma")
    inv_rms, y = program.buffer(members, N), program.activation(F)
    sizes, kinds, work = (members, N, F), program.instructions, N * F / 20
    program.add(kinds.rms_norm, x, *sizes, widths, gamma, options, y, inv_rms, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        # Layer norm's, with means of 0. Where a member has no features, x is 0.
        no_means, dgamma = program.buffer(members, N), program.gradient(name + "gamma")
        slopes = dgamma, program.buffer(members, F)
        program.add(kinds.layer_norm_slopes, dy, x, *sizes, no_means, inv_rms, *slopes, work=work)
        if not wanted:
            return None
        dx = program.buffer(members, N, F)
        program.add(kinds.rms_norm_backward, dy, x, *sizes, widths, gamma, inv_rms, dx, work=work)
        return program.gate(dx, x)

    return y, backward


def masked_layer_norm(
    program: Program, name: str, layer: masked.MaskedLayerNorm, x: Activation
) -> Lowered:
    """Over the features that each member has."""
    program.watch(layer, "eps")
    N, F, members = program.rows, x.features, program.members
    _check(program, name, layer, x)
    options = program.buffer(1, dtype=np.float64)
    options[:] = layer.eps
    widths, mask = _widths(program, layer, F), mask_of(program, layer)
    gamma, beta = program.parameter(name + "gamma"), program.parameter(name + "beta")
    statistics = program.buffer(members, N), program.buffer(members, N)
    y = program.activation(F)
    sizes, kinds, work = (members, N, F), program.instructions, N * F / 10
    program.add(
        kinds.masked_layer_norm,
        *(x, *sizes, widths, gamma, beta, options, y, *statistics),
        work=work,
    )

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        dy = masked_by(program, dy, mask, F)
        slopes = program.gradient(name + "gamma"), program.gradient(name + "beta")
        program.add(kinds.layer_norm_slopes, dy, x, *sizes, *statistics, *slopes, work=work)
        if not wanted:
            return None
        dx = program.buffer(members, N, F)
        program.add(
            kinds.masked_layer_norm_backward,
            *(dy, x, *sizes, widths, gamma, *statistics, dx),
            work=work,
        )
        return program.gate(dx, x)

    return y, backward


def _widths(program: Program, layer: Any, features: int) -> np.ndarray:
    """How many features each member has."""
    widths = program.buffer(program.members, dtype=np.int64)
    widths[:] = getattr(layer, "widths", features)
    return widths


def mask_of(program: Program, layer: Any) -> np.ndarray:
    """A masked layer's mask, (P, D)."""
    mask = program.buffer(program.members, layer.mask.shape[-1])
    mask[:] = layer.mask[:, 0]
    return mask


def masked_by(program: Program, x: Any, mask: np.ndarray, features: int) -> np.ndarray:
    """``x ⊙ mask``, in a new buffer."""
    members, N = program.members, program.rows
    y = program.buffer(members, N, features)
    kinds, work = program.instructions, N * features / 20
    program.add(kinds.masked, x, mask, y, members, N, features, work=work)
    return y


def _check(program: Program, name: str, layer: Any, x: Activation) -> None:
    if layer.features != x.features or layer.population != program.population:
        raise NotCompiled(f"{name}{type(layer).__name__} is for other inputs")
    refuse_shared_batch(program, name, layer, x)


def refuse_shared_batch(program: Program, name: str, layer: Any, x: Activation) -> None:
    """Only products read one batch for all members."""
    if x.array is None and x.batch == 0 and program.members > 1:
        raise NotCompiled(f"{name}{type(layer).__name__} acts on a batch that members share")
