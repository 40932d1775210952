"""Numerical gradients: is the backward the derivative of the forward?

One random direction at a time: for a scalar ``L(x) = Σ dy ⊙ f(x)`` and a direction u, the central
difference ``(L(x + hu) − L(x − hu)) / 2h`` must equal ``⟨dL/dx, u⟩``. One direction sees an error
in any element (unless it is unlucky: three are tried), and costs two forwards, however large x is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from ..backend import Array, asarray_like, dtype_name, to_numpy
from ..errors import DTypeError
from ..layers.base import Layer
from ..losses import Loss


def gradcheck(
    module: Layer | Loss,
    x: Array,
    targets: Array | None = None,
    *,
    training: bool = False,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    directions: int = 3,
    seed: int = 0,
    fixed: Array | None = None,
) -> float:
    """Compare a layer's or a loss's gradients with finite differences.

    Parameters
    ----------
    module : Layer or Loss
        Of float64 parameters; left as it was (state, step counters).
    x : array of float64
        The input, or the loss's outputs argument, away from kinks such as ReLU's 0.
    targets : array, optional
        For a loss.
    training : bool
        Passed to ``forward``. Dropout repeats the same mask in all forwards.
    step : float
        h, for inputs of order 1.
    tolerance : float
        The largest relative error allowed, ``|a − n| / max(1, |a|, |n|)``.
    directions : int
        How many random directions are tried for each array.
    seed : int
    fixed : array of bool, of x's shape, optional
        What of a layer's x is no number but a code: it is not moved, and its gradient is 0.

    Returns
    -------
    float
        The largest relative error seen.

    Raises
    ------
    AssertionError
        If it is above the tolerance, naming the array.
    """
    if isinstance(module, Loss):
        return _check_loss(module, x, targets, step, tolerance, directions, seed)
    return _check_layer(module, x, training, step, tolerance, directions, seed, fixed)


def gradcheck_function(
    forward: Callable[..., Array],
    gradients: Callable[..., Sequence[Array | None]],
    *arrays: Array,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    directions: int = 3,
    seed: int = 0,
) -> float:
    """The same for an op: ``gradients(dy, *arrays)`` against differences of ``forward(*arrays)``.

    Parameters
    ----------
    forward : callable
        Of the arrays, giving y.
    gradients : callable
        Of dy and the arrays, giving one gradient for each array (None to skip one).
    *arrays : array of float64
    step, tolerance, directions, seed
        As in :func:`gradcheck`.

    Returns
    -------
    float
        The largest relative error seen.
    """
    rng = np.random.default_rng(seed)
    y = forward(*arrays)
    dy = asarray_like(rng.normal(size=tuple(y.shape)), y)
    analytic = gradients(dy, *arrays)
    worst = 0.0
    for position, (array, gradient) in enumerate(zip(arrays, analytic, strict=True)):
        if gradient is None:
            continue

        def scalar(value: Array, position: int = position) -> float:
            changed = [*arrays[:position], value, *arrays[position + 1 :]]
            return _dot(dy, forward(*changed))

        error = _directional_error(scalar, array, gradient, step, directions, rng)
        _require(error, tolerance, f"argument {position}")
        worst = max(worst, error)
    return worst


def _check_layer(layer, x, training, step, tolerance, directions, seed, fixed) -> float:
    layer = copy.deepcopy(layer)
    rng = np.random.default_rng(seed)
    counters = [(inner, inner.step) for _, inner in layer.named_layers() if hasattr(inner, "step")]

    def forward(value: Array) -> Array:
        for inner, count in counters:
            inner.step = count
        return layer.forward(value, training)

    y = forward(x)
    dy = asarray_like(rng.normal(size=tuple(y.shape)), y)
    dx = layer.backward(dy)
    grads = dict(layer.grads)
    along = None if fixed is None else 1.0 - to_numpy(fixed)
    if along is not None and _dot(dx, asarray_like(1.0 - along, dx)) != 0.0:
        raise AssertionError("expected gradients of 0 where x is fixed, got others")
    total = lambda v: _dot(dy, forward(v))  # noqa: E731
    worst = _directional_error(total, x, dx, step, directions, rng, along)
    _require(worst, tolerance, "x")
    for name, gradient in grads.items():
        original = layer.params[name]

        def scalar(value: Array, name: str = name) -> float:
            _set(layer, name, value)
            return _dot(dy, forward(x))

        error = _directional_error(scalar, original, gradient, step, directions, rng)
        _set(layer, name, original)
        _require(error, tolerance, name)
        worst = max(worst, error)
    return worst


def _check_loss(loss, outputs, targets, step, tolerance, directions, seed) -> float:
    rng = np.random.default_rng(seed)

    def total(value: Array) -> float:
        return float(np.sum(to_numpy(loss.forward(value, targets))))

    total(outputs)
    gradient = loss.backward()
    error = _directional_error(total, outputs, gradient, step, directions, rng)
    _require(error, tolerance, "outputs")
    return error


def _set(layer: Layer, name: str, value: Array) -> None:
    """Set one parameter by its full name: a container hands it down."""
    if name in layer.params and "." not in name:
        layer.params[name] = value
    else:
        layer.params = {name: value}


def _directional_error(scalar, array, gradient, step, directions, rng, along=None) -> float:
    if dtype_name(array.dtype) != "float64":
        raise DTypeError(
            f"expected float64, got {dtype_name(array.dtype)}; differences of float32 numbers are "
            "too coarse to check a gradient"
        )
    if tuple(gradient.shape) != tuple(array.shape):
        raise AssertionError(
            f"expected a gradient of shape {tuple(array.shape)}, got {tuple(gradient.shape)}"
        )
    worst = 0.0
    for _ in range(directions):
        direction = rng.normal(size=tuple(array.shape)) * (1.0 if along is None else along)
        direction = asarray_like(direction, array)
        numeric = (scalar(array + step * direction) - scalar(array - step * direction)) / (2 * step)
        analytic = _dot(gradient, direction)
        error = abs(analytic - numeric) / max(1.0, abs(analytic), abs(numeric))
        worst = max(worst, error if np.isfinite(error) else np.inf)
    return worst


def _dot(a: Array, b: Array) -> float:
    return float(np.sum(to_numpy(a).astype(np.float64) * to_numpy(b).astype(np.float64)))


def _require(error: float, tolerance: float, what: str) -> None:
    if not error <= tolerance:
        raise AssertionError(
            f"gradient of {what}: relative error {error:.2e} is above {tolerance:.0e}; "
            "either the backward is wrong, or x lies on a kink"
        )
