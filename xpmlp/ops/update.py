"""Parameter updates: what an optimizer does to one array, as pure functions.

``w`` is the parameter, ``g`` its gradient; both (…) or (P, …). Hyperparameters are numbers, or
arrays that broadcast over w (see :func:`xpmlp.ops.shapes.per_member`). Every function returns new
arrays, in the order its docstring gives, and raises a ShapeError where gradient or state are not of
w's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import Array, array_namespace
from ..options import Number
from .dispatch import choose
from .matmul import matmul
from .shapes import check_same_shape, check_shapes, transpose

_STEPS = Number("[0, 1000]", whole=True)

# Quintic iteration that pushes singular values towards 1 (Jordan et al. 2024, "Muon").
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def _update(op: str, reference: Callable, w: Array, *others: Array, **options: Any) -> Any:
    """The chosen implementation's result, for arrays that are all of w's shape."""
    run = choose(op, reference, w, *others, **options)
    if run is reference:  # a kernel has looked at the shapes itself
        for name, array in zip(_NAMES[op], others, strict=True):
            check_same_shape(op, name, array, tuple(w.shape))
    return run(w, *others, **options)


_NAMES = {
    "sgd_update": ("g",),
    "momentum_update": ("g", "velocity"),
    "adagrad_update": ("g", "squares"),
    "rmsprop_update": ("g", "squares"),
    "adam_update": ("g", "m", "v"),
}


def _moved(old: Array, new: Array, gain: Any) -> Array:
    """``old + gain · (new − old)``, a running mean's next value, for a gain in (0, 1].

    Counted from the nearer end: from ``old`` a gain near 1 would cancel where new is much smaller,
    and what is left of a mean of squares be rounding, or negative. From ``new`` a small gain would.
    """
    if not hasattr(gain, "shape"):
        return old + gain * (new - old) if gain < 0.5 else new - (1.0 - gain) * (new - old)
    xp = array_namespace(old, new, gain)
    from_old = gain < 0.5
    return xp.where(from_old, old, new) + (gain - xp.astype(~from_old, gain.dtype)) * (new - old)


def sgd_update(w: Array, g: Array, *, lr: Any) -> Array:
    """``w − lr · g``."""
    return _update("sgd_update", sgd_reference, w, g, lr=lr)


def sgd_reference(w: Array, g: Array, *, lr: Any) -> Array:
    """The definition."""
    array_namespace(w, g)
    return w - lr * g


def momentum_update(
    w: Array, g: Array, velocity: Array, *, lr: Any, momentum: Any, nesterov: bool
) -> tuple[Array, Array]:
    """``v ← momentum · v + g``; ``w ← w − lr · v``, or ``w − lr · (g + momentum · v)`` (Nesterov).

    Returns w, v. Sources: Polyak 1964; Nesterov 1983 in the form of Sutskever et al. 2013.
    """
    options = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
    return _update("momentum_update", momentum_reference, w, g, velocity, **options)


def momentum_reference(
    w: Array, g: Array, velocity: Array, *, lr: Any, momentum: Any, nesterov: bool
) -> tuple[Array, Array]:
    """The definition."""
    array_namespace(w, g, velocity)
    velocity = momentum * velocity + g
    direction = g + momentum * velocity if nesterov else velocity
    return w - lr * direction, velocity


def adagrad_update(
    w: Array, g: Array, squares: Array, *, lr: Any, eps: float
) -> tuple[Array, Array]:
    """``s ← s + g²``; ``w ← w − lr · g / (√s + ε)``. Returns w, s. Source: Duchi et al. 2011."""
    return _update("adagrad_update", adagrad_reference, w, g, squares, lr=lr, eps=eps)


def adagrad_reference(
    w: Array, g: Array, squares: Array, *, lr: Any, eps: float
) -> tuple[Array, Array]:
    """The definition."""
    xp = array_namespace(w, g, squares)
    squares = squares + g * g
    return w - lr * g / (xp.sqrt(squares) + eps), squares


def rmsprop_update(
    w: Array, g: Array, squares: Array, *, lr: Any, gain: Any, eps: float
) -> tuple[Array, Array]:
    """``s ← s + gain · (g² − s)``; ``w ← w − lr · g / (√s + ε)``.

    The mean is formed as ``_moved`` does. ``gain`` is 1 − decay, taken whole: formed in float32
    from a decay of 0.999 it would lose half its digits. Returns w, s. Source: Tieleman and Hinton
    2012.
    """
    options = {"lr": lr, "gain": gain, "eps": eps}
    return _update("rmsprop_update", rmsprop_reference, w, g, squares, **options)


def rmsprop_reference(
    w: Array, g: Array, squares: Array, *, lr: Any, gain: Any, eps: float
) -> tuple[Array, Array]:
    """The definition."""
    xp = array_namespace(w, g, squares)
    squares = _moved(squares, g * g, gain)
    return w - lr * g / (xp.sqrt(squares) + eps), squares


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: Any,
    gain1: Any,
    gain2: Any,
    correction1: Any,
    correction2: Any,
    eps: float,
) -> tuple[Array, Array, Array]:
    """``m ← m + gain₁ (g − m)``; ``v ← v + gain₂ (g² − v)``;
    ``w ← w − lr · (m/c₁) / (√(v/c₂) + ε)``.

    The means are formed as ``_moved`` does. The gains are 1 − β₁ and 1 − β₂, the corrections c
    are 1 − βᵗ with t counted from 1. Returns w, m, v. Source: Kingma and Ba 2015.
    """
    options = {
        "lr": lr,
        "gain1": gain1,
        "gain2": gain2,
        "correction1": correction1,
        "correction2": correction2,
        "eps": eps,
    }
    return _update("adam_update", adam_reference, w, g, m, v, **options)


def adam_reference(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: Any,
    gain1: Any,
    gain2: Any,
    correction1: Any,
    correction2: Any,
    eps: float,
) -> tuple[Array, Array, Array]:
    """The definition."""
    xp = array_namespace(w, g, m, v)
    m, v = _moved(m, g, gain1), _moved(v, g * g, gain2)
    return w - lr * (m / correction1) / (xp.sqrt(v / correction2) + eps), m, v


def orthogonalize(g: Array, steps: int = 5, eps: float = 1e-7) -> Array:
    """An approximation of ``U Vᵀ`` for ``g = U S Vᵀ``, shape (…, D, M), by Newton–Schulz.

    Each step is ``X ← aX + (bA + cA²)X`` with ``A = X Xᵀ``, starting from ``X = g/‖g‖``: batched
    products only. Source: Jordan et al. 2024.
    """
    xp = array_namespace(g)
    a, b, c = NEWTON_SCHULZ
    tall = g.shape[-2] > g.shape[-1]
    x = transpose(xp, g) if tall else g
    largest = xp.max(xp.abs(x), axis=(-2, -1), keepdims=True)
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))
    x = x / unit  # or squares might be infinite
    x = x / (xp.sqrt(xp.sum(x * x, axis=(-2, -1), keepdims=True)) + eps / unit)
    for _ in range(_STEPS.check("orthogonalize", "steps", steps)):
        gram = matmul(x, transpose(xp, x))
        x = a * x + matmul(b * gram + c * matmul(gram, gram), x)
    return transpose(xp, x) if tall else x


def muon_update(
    w: Array, g: Array, velocity: Array, *, lr: Any, momentum: Any, nesterov: bool, steps: int
) -> tuple[Array, Array]:
    """Momentum whose direction is made orthogonal: every singular value becomes about 1.

    ``v ← momentum · v + g``; ``w ← w − lr · √max(1, M/D) · orthogonalize(v)`` for w of shape
    (…, D, M). Returns w, v. Source: Jordan et al. 2024.
    """
    array_namespace(w, g, velocity)
    check_shapes("muon_update", tuple(w.shape), g=g, velocity=velocity)
    velocity = momentum * velocity + g
    direction = orthogonalize(g + momentum * velocity if nesterov else velocity, steps)
    scale = max(1.0, w.shape[-1] / w.shape[-2]) ** 0.5
    return w - lr * scale * direction, velocity
