"""Numbers as waves of several frequencies: ``sin 2πcx`` and ``cos 2πcx``."""

from __future__ import annotations

import math

from ..backend import Array, Namespace, array_namespace
from ..errors import ShapeError
from .shapes import check_floating, check_same_shape, leading_shape, sum_to_shape, working_dtype


def periodic(x: Array, c: Array) -> Array:
    """``y[…, f] = (sin 2π c₁ x_f, …, sin 2π c_K x_f, cos 2π c₁ x_f, …)`` with c of each f.

    Parameters
    ----------
    x : array of floats, shape (…, N, F)
    c : array, shape (F, K) or (P, F, K)
        Frequencies.

    Returns
    -------
    array, shape (…, N, F, 2K)

    Notes
    -----
    Whole turns are taken off before the sine, so that large x cost no more digits than x has.
    """
    check_floating("periodic", "x", x)
    xp = array_namespace(x, c)
    each = _check("periodic", xp, x, c)
    turns = xp.expand_dims(x, axis=-1) * each
    angle = (2.0 * math.pi) * (turns - xp.round(turns))
    return xp.concat([xp.sin(angle), xp.cos(angle)], axis=-1)


def periodic_backward(dy: Array, x: Array, c: Array, y: Array) -> tuple[Array, Array]:
    """``dx_f = Σ_k 2π c_k s_k`` and ``dc_k = Σ 2π x_f s_k``, where ``s = dsin·cos − dcos·sin``.

    Parameters
    ----------
    dy : array, shape of y
    x, c
        As in :func:`periodic`.
    y : array
        Its result.

    Returns
    -------
    dx, dc : array
        In the shapes of x and c.
    """
    xp = array_namespace(dy, x, c, y)
    each, K = _check("periodic_backward", xp, x, c), c.shape[-1]
    lead = leading_shape("periodic_backward", x, c if c.ndim == 2 else each[..., 0, :, :])
    check_same_shape("periodic_backward", "y", y, (*lead, *x.shape[-2:], 2 * K))
    check_same_shape("periodic_backward", "dy", dy, tuple(y.shape))
    wide = working_dtype(xp, x)
    dy, y = xp.astype(dy, wide, copy=False), xp.astype(y, wide, copy=False)
    slope = (2.0 * math.pi) * (dy[..., :K] * y[..., K:] - dy[..., K:] * y[..., :K])
    dx = xp.sum(slope * each, axis=-1)
    dc = sum_to_shape(xp, slope * xp.expand_dims(x, axis=-1), tuple(each.shape))
    dx = sum_to_shape(xp, dx, tuple(x.shape))
    return xp.astype(dx, x.dtype, copy=False), xp.astype(xp.reshape(dc, c.shape), c.dtype)


def _check(where: str, xp: Namespace, x: Array, c: Array) -> Array:
    """The frequencies so that they broadcast over the batch, (1, F, K) or (P, 1, F, K)."""
    members = () if c.ndim == 2 else tuple(c.shape[:1])
    if (
        c.ndim not in (2, 3)
        or x.ndim < 2
        or x.shape[-1] != c.shape[-2]
        or (members and x.ndim > 2 and tuple(x.shape[-3:-2]) != members)
    ):
        raise ShapeError(
            f"`{where}`: expected x of shape (…, N, F) for c of shape (F, K), or (P, N, F) or (N, "
            f"F) for (P, F, K), got {tuple(x.shape)} and {tuple(c.shape)}"
        )
    return xp.expand_dims(c, axis=-3)
