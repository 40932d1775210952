"""Two-dimensional convolution (cross-correlation, as in all frameworks) and its gradients."""

from __future__ import annotations

from typing import Any

from ..backend import Array, Namespace, array_namespace
from ..errors import ConfigError, ShapeError
from .matmul import matmul
from .recordable import stack
from .shapes import check_same_shape, sum_wide, transpose
from .windows import Windows, check_images, parts_of, sum_of_parts, windows_of


def conv2d(
    x: Array,
    W: Array,
    b: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Array:
    """``y[m, h, w] = b[m] + Σ_{c,i,j} W[m, c, i, j] · x[c, s h + d i − p, s w + d j − p]``.

    Parameters
    ----------
    x : array, shape (…, N, C, H, W)
        With population weights, either (P, N, C, H, W), one batch a member, or (N, C, H, W),
        shared by all. What lies outside of an image is 0.
    W : array, shape (M, C/G, kH, kW) or (P, M, C/G, kH, kW)
    b : array, shape (M,) or (P, M), optional
    stride, padding, dilation : int or (int, int)
        s, p and d, for both axes or for height and width; padding is on both sides.
    groups : int
        G: the m-th part of the outputs sees the m-th part of the channels alone.

    Returns
    -------
    array, shape (…, N, M, Ho, Wo)
        With ``Ho = ⌊(H + 2p − d (kH − 1) − 1) / s⌋ + 1``, and so on.

    Raises
    ------
    ShapeError
        If the shapes do not fit together, or an image is smaller than a kernel.
    ConfigError
        For options out of range, or groups that do not divide C and M.

    Notes
    -----
    Source of the formulas: Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep
    learning".
    """
    windows = windows_of("conv2d", W.shape[-2:], stride, padding, dilation)
    _check("conv2d", x, W, groups)
    if b is not None:
        check_same_shape("conv2d", "b", b, (*W.shape[:-4], W.shape[-4]))
    xp = array_namespace(x, W) if b is None else array_namespace(x, W, b)
    Ho, Wo = windows.count("conv2d", *x.shape[-2:])
    patches = _patches(xp, _canonical(xp, x, W), windows, groups)
    y = matmul(_as_matrices(xp, W, groups)[:, None, ...], patches)
    y = xp.reshape(y, (*y.shape[:2], W.shape[-4], Ho, Wo))
    if b is not None:
        y = y + xp.reshape(b, (-1, 1, b.shape[-1], 1, 1))
    return _as_given(xp, y, x, W)


def conv2d_backward(
    dy: Array,
    x: Array,
    W: Array,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    input_grad: bool = True,
) -> tuple[Array | None, Array, Array]:
    """Gradients of :func:`conv2d`.

    With patches ``X[(c, i, j), (h, w)]``, of which the forward is the product ``Y = W X``,
    ``dW = Σₙ dY Xᵀ``, ``db = Σ dy``, and ``dX = Wᵀ dY``, whose elements are added to the pixels
    that they were copied from.

    Parameters
    ----------
    dy : array, shape (…, N, M, Ho, Wo)
    x, W : array
        As in :func:`conv2d`; so are the options.
    input_grad : bool
        Whether dx is wanted.

    Returns
    -------
    dx : array of x's shape, or None
    dW : array of W's shape
    db : array, shape (M,) or (P, M)

    Raises
    ------
    ShapeError
        If the shapes are not those of one forward.
    """
    where = "conv2d_backward"
    windows = windows_of(where, W.shape[-2:], stride, padding, dilation)
    _check(where, x, W, groups)
    xp = array_namespace(dy, x, W)
    of_y = (W.shape[-4], *windows.count(where, *x.shape[-2:]))
    members = W.shape[:1] if W.ndim == 5 and x.ndim == 4 else ()
    check_same_shape(where, "dy", dy, (*members, *x.shape[:-3], *of_y))
    matrices, images = _as_matrices(xp, W, groups), _canonical(xp, x, W)
    dy = _canonical(xp, dy, W)
    P, R, M, Ho, Wo = dy.shape
    db = xp.reshape(sum_wide(xp, dy, (1, 3, 4)), (*W.shape[:-4], M))
    dY = xp.reshape(dy, (P, R, groups, M // groups, Ho * Wo))
    X = _patches(xp, images, windows, groups)
    dW = matmul(_rows_joined(xp, dY), transpose(xp, _rows_joined(xp, X)))
    dW = xp.reshape(dW, W.shape)
    if not input_grad:
        return None, dW, db
    dX = matmul(transpose(xp, matrices)[:, None, ...], dY)
    if images.shape[0] < P:  # members share the batch
        dX = sum_wide(xp, dX, 0, keepdims=True)
    (kH, kW), C = windows.size, images.shape[2]
    dX = xp.reshape(dX, (*dX.shape[:2], C, kH * kW, Ho, Wo))
    parts = [dX[:, :, :, place, :, :] for place in range(kH * kW)]
    dx = sum_of_parts(xp, parts, windows, (x.shape[-2], x.shape[-1]))
    return _as_given(xp, dx, x, W, images.shape[0] < P), dW, db


def _check(where: str, x: Array, W: Array, groups: int) -> None:
    if W.ndim not in (4, 5) or 0 in W.shape:
        raise ShapeError(
            f"`{where}`: expected W of shape (M, C, kH, kW) or (P, M, C, kH, kW), got "
            f"{tuple(W.shape)}"
        )
    if not isinstance(groups, int) or groups < 1 or W.shape[-4] % groups:
        raise ConfigError(
            f"`{where}`: expected groups to divide the {W.shape[-4]} outputs, got {groups!r:.80}"
        )
    check_images(where, "x", x, groups * W.shape[-3])
    if W.ndim == 5 and (x.ndim < 4 or (x.ndim > 4 and x.shape[-5] != W.shape[0])):
        raise ShapeError(
            f"`{where}`: expected x of shape (N, C, H, W) or ({W.shape[0]}, N, C, H, W) for a "
            f"population, got {tuple(x.shape)}"
        )


def _canonical(xp: Namespace, x: Array, W: Array) -> Array:
    """(…, P, N, C, H, W) as (P, …·N, C, H, W); (1, …) where all members have the same."""
    image = x.shape[-3:]
    if W.ndim == 4 or x.ndim == 4:
        return xp.reshape(x, (1, -1, *image)) if x.size else xp.reshape(x, (1, 0, *image))
    P, N = x.shape[-5:-3]
    if x.ndim > 5:
        x = xp.moveaxis(xp.reshape(x, (-1, P, N, *image)), 0, 1)
    return xp.reshape(x, (P, -1 if x.size else 0, *image))


def _as_given(xp: Namespace, y: Array, x: Array, W: Array, shared: bool = False) -> Array:
    """The way back: y (P, …·N, M, Ho, Wo) with the leading axes that go with x."""
    lead, image = tuple(x.shape[:-3]), tuple(y.shape[-3:])
    if W.ndim == 4 or shared:
        return xp.reshape(y, (*lead, *image))
    if x.ndim == 4:
        return y
    if x.ndim > 5:
        y = xp.moveaxis(xp.reshape(y, (y.shape[0], -1, lead[-1], *image)), 0, 1)
    return xp.reshape(y, (*lead, *image))


def _patches(xp: Namespace, x: Array, windows: Windows, groups: int) -> Array:
    """All windows of (P, R, C, H, W) as columns: (P, R, G, C/G · kH · kW, Ho · Wo)."""
    parts = stack(xp, parts_of(xp, x, windows, 0.0), axis=3)
    P, R, C, places, Ho, Wo = parts.shape
    return xp.reshape(parts, (P, R, groups, C // groups * places, Ho * Wo))


def _as_matrices(xp: Namespace, W: Array, groups: int) -> Array:
    """The kernels as (P or 1, G, M/G, C/G · kH · kW)."""
    M, *kernel = W.shape[-4:]
    depth = kernel[0] * kernel[1] * kernel[2]
    return xp.reshape(W, (-1, groups, M // groups, depth))


def _rows_joined(xp: Namespace, x: Array) -> Array:
    """(P, R, G, A, Q) as (P, G, A, R · Q), so that one product sums over all images."""
    P, R, G, A, Q = x.shape
    return xp.reshape(xp.permute_dims(x, (0, 2, 3, 1, 4)), (P, G, A, R * Q))
