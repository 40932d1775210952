"""When the CUDA kernels refuse, by op: metadata in, a reason or None out. Nothing imports CuPy."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..errors import BackendError

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INDICES = ("uint8", "int8", "int16", "uint16", "int32", "int64")


def same_type(*arrays: Array | None) -> str | None:
    """CuPy arrays of one floating type; None stands for an array that is not there.

    Raises
    ------
    BackendError
        If they are on different devices, where no kernel and no reference could take them.
    """
    there = [array for array in arrays if array is not None]
    first = there[0]
    for array in there:
        if not type(array).__module__.startswith("cupy"):
            return f"an operand is a {type(array).__name__}, not a CuPy array"
        if array.dtype != first.dtype:
            return f"operands are {first.dtype} and {array.dtype}"
        if array.size == 0:
            return "an operand is empty"
    devices = [getattr(array, "device", None) for array in there]
    if any(device != devices[0] for device in devices):
        shapes = ", ".join(
            f"{tuple(array.shape)} on {device}"
            for array, device in zip(there, devices, strict=True)
        )
        raise BackendError(
            f"expected arrays on one device, got {shapes}; make them with one XPMLP_DEVICE"
        )
    if first.dtype.name not in _FLOATS:
        return f"operands are {first.dtype}, not {', '.join(_FLOATS)}"
    return None


def softmax_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    label_smoothing: Any = 0.0,
    ignore_index: int | None = None,
    class_weights: Array | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> str | None:
    """Any shape and option; class numbers of any usual integer type, or the logits' type."""
    problem = same_type(logits)
    if problem is not None:
        return problem
    kind = targets.dtype.name
    if kind not in _INDICES and kind != logits.dtype.name:
        return f"targets are {kind}, logits {logits.dtype}"
    return None


def matmul(a: Array, b: Array) -> str | None:
    """Any strides; nothing copied unless neither of a matrix's axes has unit steps."""
    return same_type(a, b)


def linear(x: Array, W: Array, b: Array | None, *, activation: str | None) -> str | None:
    """One batch, or one a member."""
    return same_type(x, W, b) or _population(x, W)


def linear_backward(dz: Array, x: Array, W: Array, *, input_grad: bool) -> str | None:
    """One batch, or one a member."""
    return same_type(dz, x, W) or _population(x, W)


def _population(x: Array, W: Array) -> str | None:
    if W.ndim == 2 or x.ndim <= 2 or (x.ndim == W.ndim == 3 and x.shape[0] == W.shape[0]):
        return None
    return f"x has shape {tuple(x.shape)} for weights {tuple(W.shape)}"


def elementwise(*arrays: Array) -> str | None:
    """Arrays of one shape and type, with an axis at least."""
    first = arrays[0]
    if first.ndim == 0 or any(array.shape != first.shape for array in arrays):
        return "the arrays have no axis, or differ in shape"
    return same_type(*arrays)


def dropout(x: Array, *, rates: tuple[float, ...]) -> str | None:
    """Any shape."""
    return elementwise(x)


def normalization(x: Array, gamma: Array, beta: Array) -> str | None:
    """x (…, N, D) with γ (D,), or (P, N, D) with γ (P, D)."""
    if beta.shape != gamma.shape:
        return f"beta has shape {tuple(beta.shape)}, gamma {tuple(gamma.shape)}"
    return same_type(x, gamma, beta) or _layout(x, gamma)


def batch_norm_backward(dy: Array, x: Array, gamma: Array, mean: Array, var: Array) -> str | None:
    """As :func:`normalization`, with statistics of γ's shape."""
    if dy.shape != x.shape or mean.shape != gamma.shape or var.shape != gamma.shape:
        return "dy differs from x, or the statistics from gamma, in shape"
    return same_type(dy, x, gamma) or _statistics(mean, var) or _layout(x, gamma)


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
) -> str | None:
    """As :func:`normalization`, with one mean and deviation a row."""
    rows = (*x.shape[:-1], 1)
    if dy.shape != x.shape or mean.shape != rows or inv_std.shape != rows:
        return "dy, or the statistics, do not fit x's shape"
    return same_type(dy, x, gamma) or _statistics(mean, inv_std) or _layout(x, gamma)


def _statistics(*arrays: Array) -> str | None:
    return next(filter(None, (same_type(array) for array in arrays)), None)


def _layout(x: Array, gamma: Array) -> str | None:
    population = gamma.ndim == 2
    fits = x.ndim > gamma.ndim and x.shape[-1] == gamma.shape[-1] and gamma.ndim in (1, 2)
    if fits and population:
        fits = x.ndim == 3 and x.shape[0] == gamma.shape[0]
    return None if fits else f"x has shape {tuple(x.shape)} for parameters {tuple(gamma.shape)}"
