"""Windows of an image: what convolution and pooling look at, one output pixel each."""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat

from ..backend import Array, Namespace
from ..errors import ConfigError, ShapeError
from .recordable import stack

Pair = tuple[int, int]


class Windows(NamedTuple):
    """Where windows lie, each number for height and width.

    Attributes
    ----------
    size : pair
        kH, kW.
    stride : pair
        From one window to the next.
    padding : pair
        Rows and columns outside of the image, on each side.
    dilation : pair
        From one place inside a window to the next.
    """

    size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def count(self, where: str, height: int, width: int) -> Pair:
        """How many windows an image has, Ho and Wo.

        Raises
        ------
        ShapeError
            If not even one fits into the padded image.
        """
        padded = height + 2 * self.padding[0], width + 2 * self.padding[1]
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.size, strict=True)]
        if padded[0] < spans[0] or padded[1] < spans[1]:
            raise ShapeError(
                f"`{where}`: expected images of at least {spans[0]} × {spans[1]}, what a window "
                f"covers, got {height} × {width}, padded {padded[0]} × {padded[1]}; raise padding, "
                "or make windows smaller"
            )
        Ho, Wo = (
            (n - span) // step + 1 for n, span, step in zip(padded, spans, self.stride, strict=True)
        )
        return Ho, Wo


def pair(where: str, name: str, value: Any, least: int) -> Pair:
    """An integer for both axes, or one for each.

    Raises
    ------
    ConfigError
        For anything else, or what is below ``least``.
    """
    given = tuple(value) if isinstance(value, tuple | list) else (value, value)
    whole = all(hasattr(n, "__index__") and not isinstance(n, bool) for n in given)
    if len(given) != 2 or not whole or not all(least <= n < 2**31 for n in given):
        raise ConfigError(
            f"`{where}`: expected {name} as an integer ≥ {least}, or one for height and one for "
            f"width, got {value!r:.200}"
        )
    return int(given[0]), int(given[1])


def windows_of(
    where: str, size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Windows:
    """Windows of checked options."""
    return Windows(
        pair(where, "size", size, 1),
        pair(where, "stride", stride, 1),
        pair(where, "padding", padding, 0),
        pair(where, "dilation", dilation, 1),
    )


def check_images(where: str, name: str, x: Array, channels: int | None = None) -> None:
    """Raise ShapeError unless x is (…, C, H, W) with so many channels."""
    if x.ndim < 3 or channels not in (None, x.shape[-3]):
        C = "C" if channels is None else channels
        raise ShapeError(
            f"`{where}`: expected {name} of shape (…, {C}, H, W), got {tuple(x.shape)}"
        )


def parts_of(xp: Namespace, x: Array, windows: Windows, fill: float) -> list[Array]:
    """For each place inside a window, row by row, what all windows have there: (…, Ho, Wo)."""
    Ho, Wo = windows.count("windows", *x.shape[-2:])
    (top, left), (down, right) = windows.padding, windows.stride
    x = _padded(xp, _padded(xp, x, -1, left, fill), -2, top, fill)
    parts = []
    for i in range(windows.size[0]):
        first = i * windows.dilation[0]
        rows = slice(first, first + down * (Ho - 1) + 1, down)
        for j in range(windows.size[1]):
            first = j * windows.dilation[1]
            columns = slice(first, first + right * (Wo - 1) + 1, right)
            parts.append(x[..., rows, columns])
    return parts


def sum_of_parts(xp: Namespace, parts: list[Array], windows: Windows, image: Pair) -> Array:
    """The backward of :func:`parts_of`: each pixel's sum over the windows that it is in."""
    (top, left), (height, width) = windows.padding, image
    total = None
    for place, part in enumerate(parts):
        i, j = divmod(place, windows.size[1])
        first = i * windows.dilation[0], j * windows.dilation[1]
        part = _spread(xp, part, -1, first[1], windows.stride[1], width + 2 * left)
        part = _spread(xp, part, -2, first[0], windows.stride[0], height + 2 * top)
        total = part if total is None else total + part
    assert total is not None
    return total[..., top : top + height, left : left + width]


def _padded(xp: Namespace, x: Array, axis: int, by: int, fill: float) -> Array:
    if by == 0:
        return x
    edge = _full(xp, x, axis, by, fill)
    return xp.concat([edge, x, edge], axis=axis)


def _spread(xp: Namespace, x: Array, axis: int, first: int, step: int, size: int) -> Array:
    """An axis of ``size`` with x at first, first + step, … and 0 elsewhere."""
    if step > 1:
        between = [xp.zeros_like(x)] * (step - 1)
        x = stack(xp, [x, *between], axis=x.ndim + axis + 1)
        shape = list(x.shape)
        joined = x.ndim + axis - 1
        shape[joined : joined + 2] = [shape[joined] * step]
        x = xp.reshape(x, tuple(shape))
    missing = size - first - x.shape[axis]
    if missing < 0:  # zeros behind the last one
        cut = [slice(None)] * x.ndim
        cut[axis] = slice(0, size - first)
        x, missing = x[tuple(cut)], 0
    edges = [_full(xp, x, axis, n, 0.0) for n in (first, missing)]
    return xp.concat([edges[0], x, edges[1]], axis=axis) if first or missing else x


def _full(xp: Namespace, like: Array, axis: int, size: int, fill: float) -> Array:
    shape = list(like.shape)
    shape[axis] = size
    return xp.full(tuple(shape), fill, dtype=like.dtype, device=array_api_compat.device(like))
