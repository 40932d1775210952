"""Parameter updates: what an optimizer does to one array, as pure functions.

``w`` is the parameter, ``g`` its gradient; both (…) or (P, …). Hyperparameters are numbers, or
arrays that broadcast over w (see :func:`xpmlp.ops.shapes.per_member`). Every function returns new
arrays, in the order its docstring gives, and raises a ShapeError where gradient or state are not of
w's shape.

With ``out=`` the results are written into arrays that there are, one for each result, which are
returned: ``adam_update(w, g, m, v, …, out=(w, m, v))`` is an update in place, for which the kernels
read and write each array once. They are of w's shape and dtype and do not overlap; a BackendError
says where a library's arrays, or these, cannot be written to. Results agree with those without it
to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any

from ..backend import Array, array_namespace, can_be_written, dtype_name
from ..errors import BackendError, ConfigError, DTypeError
from .dispatch import choose
from .matmul import matmul
from .shapes import check_same_shape, check_shapes, transpose

# Quintic iteration that pushes singular values towards 1 (Jordan et al. 2024, "Muon").
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def _update(
    op: str, reference: Callable, arrays: tuple[Array, ...], out: Any, **options: Any
) -> Any:
    """The chosen implementation's results for w, its gradient and its state, all of one shape."""
    own = arrays[:1] + arrays[2:]
    if out is not None and _is_own(out, own):
        kernel = choose(op, reference, *arrays, **options, in_place=True)
        if kernel is not reference:
            kernel(*arrays, **options, in_place=True)
            return out
    run = choose(op, reference, *arrays, **options)
    if run is reference:  # a kernel has looked at the shapes itself
        for name, array in zip(_NAMES[op], arrays[1:], strict=True):
            check_same_shape(op, name, array, tuple(arrays[0].shape))
    if out is None:
        return run(*arrays, **options)
    targets = _check_out(op, out, own)
    _write(targets, run(*arrays, **options))
    return out


def _is_own(out: Any, own: tuple[Array, ...]) -> bool:
    """Whether w and the state are to be written into themselves."""
    if not isinstance(out, tuple):
        return len(own) == 1 and out is own[0]
    return len(out) == len(own) > 1 and all(map(is_, out, own))


def _check_out(op: str, out: Any, own: tuple[Array, ...]) -> tuple[Array, ...]:
    """Where results go: as many arrays as there are, of w's kind, that can be written to."""
    w, targets = own[0], out if isinstance(out, tuple) else (out,)
    if len(targets) != len(own) or isinstance(out, tuple) != (len(own) > 1):
        expected = "an array" if len(own) == 1 else f"a tuple of {len(own)} arrays"
        got = f"{len(out)} of them" if isinstance(out, tuple) else type(out).__name__
        raise ConfigError(f"`{op}`: expected out to be {expected}, got {got}")
    array_namespace(w, *targets)  # refuses arrays of two libraries
    for target in targets:
        check_same_shape(op, "out", target, tuple(w.shape))
        if target.dtype != w.dtype:
            raise DTypeError(
                f"`{op}`: expected out to be {dtype_name(w.dtype)} as w is, got "
                f"{dtype_name(target.dtype)}"
            )
        if not can_be_written(target):
            raise BackendError(
                f"`{op}`: expected arrays in out that can be written to, got a "
                f"{type(target).__name__} that cannot; without out= results are new arrays"
            )
    return targets


def _write(targets: tuple[Array, ...], results: Any) -> None:
    results = results if isinstance(results, tuple) else (results,)
    for target, result in zip(targets, results, strict=True):
        target[...] = result


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


def sgd_update(w: Array, g: Array, *, lr: Any, out: Array | None = None) -> Array:
    """``w − lr · g``."""
    return _update("sgd_update", sgd_reference, (w, g), out, lr=lr)


def sgd_reference(w: Array, g: Array, *, lr: Any) -> Array:
    """The definition."""
    array_namespace(w, g)
    return w - lr * g


def momentum_update(
    w: Array,
    g: Array,
    velocity: Array,
    *,
    lr: Any,
    momentum: Any,
    nesterov: bool,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """``v ← momentum · v + g``; ``w ← w − lr · v``, or ``w − lr · (g + momentum · v)`` (Nesterov).

    Returns w, v. Sources: Polyak 1964; Nesterov 1983 in the form of Sutskever et al. 2013.
    """
    options = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
    return _update("momentum_update", momentum_reference, (w, g, velocity), out, **options)


def momentum_reference(
    w: Array, g: Array, velocity: Array, *, lr: Any, momentum: Any, nesterov: bool
) -> tuple[Array, Array]:
    """The definition."""
    array_namespace(w, g, velocity)
    velocity = momentum * velocity + g
    direction = g + momentum * velocity if nesterov else velocity
    return w - lr * direction, velocity


def adagrad_update(
    w: Array,
    g: Array,
    squares: Array,
    *,
    lr: Any,
    eps: float,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """``s ← s + g²``; ``w ← w − lr · g / (√s + ε)``. Returns w, s. Source: Duchi et al. 2011."""
    return _update("adagrad_update", adagrad_reference, (w, g, squares), out, lr=lr, eps=eps)


def adagrad_reference(
    w: Array, g: Array, squares: Array, *, lr: Any, eps: float
) -> tuple[Array, Array]:
    """The definition."""
    xp = array_namespace(w, g, squares)
    squares = squares + g * g
    return w - lr * g / (xp.sqrt(squares) + eps), squares


def rmsprop_update(
    w: Array,
    g: Array,
    squares: Array,
    *,
    lr: Any,
    gain: Any,
    eps: float,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """``s ← s + gain · (g² − s)``; ``w ← w − lr · g / (√s + ε)``.

    The mean is formed as ``_moved`` does. ``gain`` is 1 − decay, taken whole: formed in float32
    from a decay of 0.999 it would lose half its digits. Returns w, s. Source: Tieleman and Hinton
    2012.
    """
    options = {"lr": lr, "gain": gain, "eps": eps}
    return _update("rmsprop_update", rmsprop_reference, (w, g, squares), out, **options)


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
    out: tuple[Array, Array, Array] | None = None,
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
    return _update("adam_update", adam_reference, (w, g, m, v), out, **options)


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
    for _ in range(steps):
        gram = matmul(x, transpose(xp, x))
        x = a * x + matmul(b * gram + c * matmul(gram, gram), x)
    return transpose(xp, x) if tall else x


def muon_update(
    w: Array,
    g: Array,
    velocity: Array,
    *,
    lr: Any,
    momentum: Any,
    nesterov: bool,
    steps: int,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Momentum whose direction is made orthogonal: every singular value becomes about 1.

    ``v ← momentum · v + g``; ``w ← w − lr · √max(1, M/D) · orthogonalize(v)`` for w of shape
    (…, D, M). Returns w, v. Source: Jordan et al. 2024.
    """
    array_namespace(w, g, velocity)
    check_shapes("muon_update", tuple(w.shape), g=g, velocity=velocity)
    targets = None if out is None else _check_out("muon_update", out, (w, velocity))
    velocity = momentum * velocity + g
    direction = orthogonalize(g + momentum * velocity if nesterov else velocity, steps)
    scale = max(1.0, w.shape[-1] / w.shape[-2]) ** 0.5
    results = w - lr * scale * direction, velocity
    if targets is None:
        return results
    _write(targets, results)
    return targets
