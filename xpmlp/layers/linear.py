"""Fully connected layers: ``x W + b``, and the lab form ``W x``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array, array_namespace, asarray, detached, dtype_name, native
from ..choices import BiasInitializerName, FloatName, InitializerName
from ..errors import ConfigError, DTypeError, ShapeError
from ..initializers import (
    DEFAULT,
    Initializer,
    as_bias_initializer,
    as_initializer,
    default_bias,
    drawn,
)
from ..ops.shapes import check_floating, sum_to_shape, transpose
from ..options import FLAG
from ..random import Generator, as_generator
from .base import FLOAT, Layer, Parameter, check_array


class Linear(Layer):
    """``y = x W + b``.

    Parameters
    ----------
    inputs, outputs : int
        D and M.
    bias : bool
        Whether there is a b.
    init : str, float or Initializer
        How W starts; a number is a standard deviation.
    bias_init : str, float or Initializer, optional
        How b starts: ``"glorot_uniform"``, ``"fan_in_uniform"``, ``"zeros"``, a number for all, or
        a function. Default: as W does if ``init`` is one of these names, else ``"zeros"``.
    population : int, optional
        P: W (P, D, M) and b (P, M) hold P independent layers, which run as one batched product.
    rng : Generator, int or P ints, optional
        Where the draws come from. None takes the next stream of the process-wide generator.
    dtype : str
        ``"float32"`` or another floating dtype's name.

    Attributes
    ----------
    W, b, dW, db : array
        Parameters (D, M), (M,), with a leading P in a population, and their gradients.

    Notes
    -----
    If ``x.shape[-1] == D``, the layer acts on the last axis. Otherwise trailing axes of x whose
    product is D are flattened, and dx comes back in x's shape.
    """

    W = Parameter(weight=True)
    b = Parameter()

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        init: InitializerName | float | Initializer = DEFAULT,
        bias_init: BiasInitializerName | float | Initializer | None = None,
        population: int | None = None,
        rng: Generator | int | Sequence[int] | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__()
        sizes = {"inputs": inputs, "outputs": outputs}
        start = {"bias": bias, "init": init, "bias_init": bias_init, "rng": rng, "dtype": dtype}
        self.params.update(new_parameters("Linear", sizes, population, start))
        self.population = population

    @classmethod
    def from_arrays(cls, W: Array, b: Array | None = None) -> Linear:
        """A layer around given floating arrays, W (D, M) or (P, D, M) and b (M,) or (P, M)."""
        for name, array in ({"W": W} if b is None else {"W": W, "b": b}).items():
            check_array("Linear.from_arrays", name, array)
            check_floating("Linear.from_arrays", name, array)
        layer = cls.__new__(cls)
        Layer.__init__(layer)
        if W.ndim not in (2, 3) or (b is not None and b.shape != (*W.shape[:-2], W.shape[-1])):
            shapes = f"W {tuple(W.shape)}" + ("" if b is None else f" and b {tuple(b.shape)}")
            raise ShapeError(
                "`Linear.from_arrays`: expected W of shape (D, M) or (P, D, M) and b of shape (M,) "
                f"or (P, M), got {shapes}"
            )
        layer.population = W.shape[0] if W.ndim == 3 else None
        layer.W = detached(W)
        if b is not None:
            layer.b = detached(b)
        return layer

    def describe(self) -> str:
        D, M = self.W.shape[-2:]
        return f"{D}, {M}" + ("" if self.b is not None else ", bias=False")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return flattened(shape, self.W, "Linear")

    def forward(self, x: Array, training: bool = False) -> Array:
        """``x W + b``: x (…, N, D) to (…, N, M)."""
        rows = rows_for("Linear.forward", x, self.W)
        self._saved = rows, tuple(x.shape)
        return ops.linear(rows, self.W, self.b)

    def backward(self, dy: Array, input_grad: bool = True) -> Array:
        """``dx = dy Wᵀ``, ``dW = xᵀ dy``, ``db = Σ dy``; dx is None if ``input_grad`` is False."""
        rows, shape = self._recall()
        dx, dW, db = ops.linear_backward(dy, rows, self.W, input_grad=input_grad)
        self.grads = {"W": dW} if self.b is None else {"W": dW, "b": db}
        return dx if dx is None else array_namespace(dx).reshape(dx, shape)


class Matmul(Layer):
    """``y = W x``, with samples as columns: the form of textbooks that write ``W x``.

    Parameters
    ----------
    W : array, shape (M, D)
        The weights. A bias is a column of W with a row of ones in x.

    Notes
    -----
    x has shape (…, D, N), y (…, M, N); ``dW = dy xᵀ`` and ``dx = Wᵀ dy``.
    """

    W = Parameter(weight=True)

    def __init__(self, W: Array):
        super().__init__()
        self.W = W

    def describe(self) -> str:
        return f"{tuple(self.W.shape)}"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*self.W.shape[:-1], *shape[1:])

    def forward(self, x: Array, training: bool = False) -> Array:
        """``W x``: x (…, D, N) to (…, M, N)."""
        self._saved = x
        return ops.matmul(self.W, x)

    def backward(self, dy: Array) -> Array:
        """``dx = Wᵀ dy``; assigns ``dW = dy xᵀ``, summed over leading axes that W lacks."""
        x = self._recall()
        xp = array_namespace(dy, x)
        dW = ops.matmul(dy, transpose(xp, x))
        self.grads = {"W": sum_to_shape(xp, dW, tuple(self.W.shape))}
        return ops.matmul(transpose(xp, self.W), dy)


def in_dtype_of(where: str, x: Array, W: Array) -> Array:
    """x, in this machine's order of bytes.

    Raises
    ------
    DTypeError
        If it is not of W's dtype.
    """
    if getattr(x, "dtype", None) == W.dtype:
        return x
    check_array(where, "x", x)
    array_namespace(x, W)  # refuses another library, whose float32 also differs from ours
    if isinstance(x, np.ndarray):
        x = native(x)
    if x.dtype != W.dtype:
        raise DTypeError(
            f"`{where}`: expected x of dtype {dtype_name(W.dtype)}, as W has, got "
            f"{dtype_name(x.dtype)}; convert it with xpmlp.asarray(x, "
            f"dtype='{dtype_name(W.dtype)}'), or make the layer with dtype="
        )
    return x


def new_parameters(
    where: str, sizes: Mapping[str, int], population: int | None, start: Mapping[str, Any]
) -> dict[str, Array]:
    """W and b of a fully connected map between two sizes.

    Parameters
    ----------
    where : str
        The layer, for messages.
    sizes : mapping
        Inputs and outputs, under the names that they have there.
    population : int, optional
    start : mapping
        ``bias``, ``init``, ``bias_init``, ``rng`` and ``dtype``, as :class:`Linear` takes them.
    """
    for name, size in (*sizes.items(), ("population", population)):
        given = size is not None or name != "population"
        if given and (not isinstance(size, int) or not 1 <= size < 2**40):
            raise ConfigError(f"`{where}`: expected {name} to be an integer ≥ 1, got {size!r:.80}")
    dtype = FLOAT.check(where, "dtype", start["dtype"])
    init: Any = start["init"]
    bias_init: Any = start["bias_init"]
    bias_init = default_bias(init) if bias_init is None else bias_init
    inputs, outputs = sizes.values()
    of = inputs, outputs, as_generator(start["rng"], population).spawn()
    made = {"W": asarray(drawn(as_initializer(init), *of, bias=False), dtype)}
    if FLAG.check(where, "bias", start["bias"]):
        made["b"] = asarray(drawn(as_bias_initializer(bias_init), *of, bias=True), dtype)
    return made


def rows_for(where: str, x: Any, W: Array) -> Array:
    """x as rows (…, N, D) for W (D, M) or (P, D, M), trailing axes flattened.

    Raises
    ------
    DTypeError, ShapeError
        For what is not that; the message names ``where``.
    """
    if getattr(x, "dtype", None) != W.dtype:
        x = in_dtype_of(where, x, W)
    rows = x
    if x.ndim == 0 or x.shape[-1] != W.shape[-2]:
        kept = axes_kept(tuple(x.shape), W.shape[-2], where)
        rows = array_namespace(x).reshape(x, (*x.shape[:kept], W.shape[-2]))
    if rows.ndim < W.ndim - 1:
        raise ShapeError(
            f"`{where}`: expected x of shape (N, {W.shape[-2]}) or ({W.shape[0]}, N, "
            f"{W.shape[-2]}), got {tuple(x.shape)}; a single sample is x[None, :]"
        )
    return rows


def flattened(shape: tuple[int, ...], W: Array, where: str) -> tuple[int, ...]:
    """The shape of a sample's output, whose trailing axes are flattened for W."""
    return (*shape[: axes_kept(shape, W.shape[-2], where)], W.shape[-1])


def axes_kept(shape: tuple[int, ...], features: int, where: str) -> int:
    """How many leading axes stay, so that the product of the others is ``features``."""
    for kept in range(len(shape) - 1, -1, -1):
        if math.prod(shape[kept:]) == features:
            return kept
    raise ShapeError(
        f"`{where}`: expected x of shape (…, {features}), or trailing axes whose product is "
        f"{features}, got {shape}"
    )
