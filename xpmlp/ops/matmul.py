"""Matrix product over any leading axes."""

from __future__ import annotations

import math

from ..backend import Array, array_namespace
from ..errors import ShapeError
from .dispatch import choose
from .shapes import leading_shape


def matmul(a: Array, b: Array) -> Array:
    """Product of the last two axes, ``c[…, i, j] = Σₖ a[…, i, k] · b[…, k, j]``.

    Parameters
    ----------
    a : array, shape (…, I, K)
    b : array, shape (…, K, J)
        Leading axes broadcast against each other. Transposed views are welcome.

    Returns
    -------
    array, shape (…, I, J)

    Raises
    ------
    ShapeError
        If the inner sizes differ, leading axes do not broadcast, or there are fewer than two axes.
    """
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"`matmul`: expected shapes (…, I, K) and (…, K, J), got {tuple(a.shape)} and "
            f"{tuple(b.shape)}; the last axis of the first must equal the second-to-last of the "
            "second"
        )
    leading_shape("matmul", a, b)
    return choose("matmul", reference, a, b)(a, b)


def reference(a: Array, b: Array) -> Array:
    """The definition, and one improvement: a batch times one matrix is one large product."""
    xp = array_namespace(a, b)
    if a.ndim > 2 and b.ndim == 2:
        rows = xp.matmul(xp.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1])), b)
        return xp.reshape(rows, (*a.shape[:-1], b.shape[-1]))
    return xp.matmul(a, b)
