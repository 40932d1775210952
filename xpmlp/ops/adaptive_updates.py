"""Relatives of Adam's update: as in :mod:`xpmlp.ops.update`, pure functions of one array.

Gains are 1 − β, corrections 1 − βᵗ, with t counted from 1; running means are formed from the nearer
end (``update._moved``).
"""

from __future__ import annotations

from typing import Any

from ..backend import Array, array_namespace
from .recordable import sign
from .shapes import check_shapes
from .update import _moved


def amsgrad_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    largest: Array,
    *,
    lr: Any,
    gain1: Any,
    gain2: Any,
    correction1: Any,
    correction2: Any,
    eps: float,
) -> tuple[Array, Array, Array, Array]:
    """Adam's, divided by the largest v so far: ``u ← max(u, v)``;
    ``w ← w − lr · (m/c₁) / (√(u/c₂) + ε)``.

    Returns w, m, v, u. Source: Reddi, Kale and Kumar 2018.
    """
    check_shapes("amsgrad_update", tuple(w.shape), g=g, m=m, v=v, largest=largest)
    xp = array_namespace(w, g, m, v, largest)
    m, v = _moved(m, g, gain1), _moved(v, g * g, gain2)
    largest = xp.maximum(largest, v)
    return w - lr * (m / correction1) / (xp.sqrt(largest / correction2) + eps), m, v, largest


def nadam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: Any,
    ahead: Any,
    gain1: Any,
    gain2: Any,
    correction2: Any,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Adam's with Nesterov's look-ahead: ``w ← w − (lr · g + ahead · m) / (√(v/c₂) + ε)``.

    ``lr`` and ``ahead`` are the shares of the gradient and of its mean; see
    :class:`xpmlp.optim.NAdam`. Returns w, m, v. Source: Dozat 2016.
    """
    check_shapes("nadam_update", tuple(w.shape), g=g, m=m, v=v)
    xp = array_namespace(w, g, m, v)
    m, v = _moved(m, g, gain1), _moved(v, g * g, gain2)
    return w - (lr * g + ahead * m) / (xp.sqrt(v / correction2) + eps), m, v


def radam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: Any,
    adaptive: Any,
    gain1: Any,
    gain2: Any,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Adam's, or the mean's alone while v is too uncertain:
    ``w ← w − m · (lr + adaptive / (√v + ε))``.

    One of ``lr`` and ``adaptive`` is 0; see :class:`xpmlp.optim.RAdam`. Returns w, m, v. Source:
    Liu et al. 2020.
    """
    check_shapes("radam_update", tuple(w.shape), g=g, m=m, v=v)
    xp = array_namespace(w, g, m, v)
    m, v = _moved(m, g, gain1), _moved(v, g * g, gain2)
    return w - m * (lr + adaptive / (xp.sqrt(v) + eps)), m, v


def adamax_update(
    w: Array, g: Array, m: Array, largest: Array, *, lr: Any, gain1: Any, keep: Any, eps: float
) -> tuple[Array, Array, Array]:
    """``u ← max(keep · u, |g| + ε)``; ``w ← w − lr · m / u``.

    ``keep`` is β₂, and ``lr`` already divided by 1 − β₁ᵗ. Returns w, m, u. Source: Kingma and Ba
    2015, section 7.
    """
    check_shapes("adamax_update", tuple(w.shape), g=g, m=m, largest=largest)
    xp = array_namespace(w, g, m, largest)
    m = _moved(m, g, gain1)
    largest = xp.maximum(keep * largest, xp.abs(g) + eps)
    return w - lr * m / largest, m, largest


def adadelta_update(
    w: Array, g: Array, squares: Array, moves: Array, *, lr: Any, gain: Any, eps: float
) -> tuple[Array, Array, Array]:
    """``s ← s + gain (g² − s)``; ``Δ = g √(u + ε) / √(s + ε)``; ``u ← u + gain (Δ² − u)``;
    ``w ← w − lr · Δ``.

    Returns w, s, u. Source: Zeiler 2012.
    """
    check_shapes("adadelta_update", tuple(w.shape), g=g, squares=squares, moves=moves)
    xp = array_namespace(w, g, squares, moves)
    squares = _moved(squares, g * g, gain)
    move = g * xp.sqrt(moves + eps) / xp.sqrt(squares + eps)
    return w - lr * move, squares, _moved(moves, move * move, gain)


def lion_update(
    w: Array, g: Array, m: Array, *, lr: Any, gain1: Any, gain2: Any
) -> tuple[Array, Array]:
    """``w ← w − lr · sign(m + gain₁ (g − m))``; ``m ← m + gain₂ (g − m)``.

    Returns w, m. Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms".
    """
    check_shapes("lion_update", tuple(w.shape), g=g, m=m)
    return w - lr * sign(_moved(m, g, gain1)), _moved(m, g, gain2)
