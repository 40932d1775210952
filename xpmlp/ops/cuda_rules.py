"""When the CUDA kernels refuse, by op: metadata in, a reason or None out. Nothing imports CuPy."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..errors import BackendError

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INDICES = ("uint8", "int8", "int16", "uint16", "int32", "int64")


def same_type(**arrays: Array | None) -> str | None:
    """CuPy arrays of one floating type; None stands for an array that is not there.

    Raises
    ------
    BackendError
        If they are on different devices, where no kernel and no reference could take them.
    """
    there = {name: array for name, array in arrays.items() if array is not None}
    first_name, first = next(iter(there.items()))
    for name, array in there.items():
        if not type(array).__module__.startswith("cupy"):
            return f"{name} is a {type(array).__name__}, not a CuPy array"
        if array.dtype != first.dtype:
            return f"operands are {first.dtype} and {array.dtype}"
        if array.size == 0:
            return f"{name} is empty"
    devices = {name: getattr(array, "device", None) for name, array in there.items()}
    if any(device != devices[first_name] for device in devices.values()):
        places = ", ".join(
            f"{name} {tuple(there[name].shape)} on {device}" for name, device in devices.items()
        )
        raise BackendError(
            f"expected arrays on one device, got {places}; make them with one XPMLP_DEVICE"
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
    problem = same_type(logits=logits)
    if problem is not None:
        return problem
    kind = targets.dtype.name
    if kind not in _INDICES and kind != logits.dtype.name:
        return f"targets are {kind}, logits {logits.dtype}"
    return None


def matmul(a: Array, b: Array) -> str | None:
    """Any strides; nothing copied unless neither of a matrix's axes has unit steps."""
    return same_type(a=a, b=b)


def linear(
    x: Array, W: Array, b: Array | None = None, *, activation: str | None = None
) -> str | None:
    """One batch, or one a member."""
    return same_type(x=x, W=W, b=b) or _population(x, W)


def linear_backward(
    dy: Array,
    x: Array,
    W: Array,
    y: Array | None = None,
    *,
    activation: str | None = None,
    input_grad: bool = True,
) -> str | None:
    """One batch, or one a member."""
    return same_type(dy=dy, x=x, W=W, y=y) or _population(x, W)


def _population(x: Array, W: Array) -> str | None:
    if W.ndim == 2 or x.ndim <= 2 or (x.ndim == W.ndim == 3 and x.shape[0] == W.shape[0]):
        return None
    return f"x has shape {tuple(x.shape)} for weights {tuple(W.shape)}"


def elementwise(*arrays: Array) -> str | None:
    """Arrays of one shape and type, with an axis at least."""
    first = arrays[0]
    if first.ndim == 0 or any(array.shape != first.shape for array in arrays):
        return "the arrays have no axis, or differ in shape"
    names = ("x",) if len(arrays) == 1 else ("dy", "x", "y")
    return same_type(**dict(zip(names, arrays, strict=True)))


def dropout(x: Array, *, rates: tuple[float, ...]) -> str | None:
    """Any shape."""
    return elementwise(x)


def normalization(x: Array, gamma: Array, beta: Array) -> str | None:
    """x (…, N, D) with γ (D,), or (P, N, D) with γ (P, D)."""
    if beta.shape != gamma.shape:
        return f"beta has shape {tuple(beta.shape)}, gamma {tuple(gamma.shape)}"
    return same_type(x=x, gamma=gamma, beta=beta) or _layout(x, gamma)


def batch_norm_backward(dy: Array, x: Array, gamma: Array, mean: Array, var: Array) -> str | None:
    """As :func:`normalization`, with statistics of γ's shape."""
    if dy.shape != x.shape or mean.shape != gamma.shape or var.shape != gamma.shape:
        return "dy differs from x, or the statistics from gamma, in shape"
    return (
        same_type(dy=dy, x=x, gamma=gamma) or _statistics(mean=mean, var=var) or _layout(x, gamma)
    )


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, inv_std: Array
) -> str | None:
    """As :func:`normalization`, with one mean and deviation a row."""
    rows = (*x.shape[:-1], 1)
    if dy.shape != x.shape or mean.shape != rows or inv_std.shape != rows:
        return "dy, or the statistics, do not fit x's shape"
    return (
        same_type(dy=dy, x=x, gamma=gamma)
        or _statistics(mean=mean, inv_std=inv_std)
        or _layout(x, gamma)
    )


def _statistics(**arrays: Array) -> str | None:
    each = (same_type(**{name: array}) for name, array in arrays.items())
    return next(filter(None, each), None)


def _layout(x: Array, gamma: Array) -> str | None:
    population = gamma.ndim == 2
    fits = x.ndim > gamma.ndim and x.shape[-1] == gamma.shape[-1] and gamma.ndim in (1, 2)
    if fits and population:
        fits = x.ndim == 3 and x.shape[0] == gamma.shape[0]
    return None if fits else f"x has shape {tuple(x.shape)} for parameters {tuple(gamma.shape)}"
