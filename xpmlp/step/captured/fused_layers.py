"""The layers of a captured step, grouped: a product with bias, activation and dropout in one pass.

A block stands for a Linear layer, the activation after it and the dropout after that, each of which
may be missing. Its forward and backward are one product (two in the backward) and one kernel for
all the rest. Layers that are none of these run as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...backend import Array, array_namespace
from ...errors import ShapeError
from ...layers import Dropout, Linear, ReLU, Sequential, Sigmoid, Tanh
from ...layers.base import Layer
from ...layers.linear import axes_kept
from ...ops.dropout import check_rates

ACTIVATIONS: dict[type, str] = {ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid"}


@dataclass(eq=False)
class Block:
    """Layers that run as one.

    Attributes
    ----------
    linear, activation, dropout : layers, or None
    kernels : object
        Has ``linear``, ``weight_gradient``, ``input_gradient``, ``activate`` and
        ``activate_backward``.
    half : dict of str to array
        The linear layer's parameters in half precision, if it computes in that.
    """

    kernels: Any
    linear: Linear | None = None
    activation: Layer | None = None
    dropout: Dropout | None = None
    half: dict[str, Array] = field(default_factory=dict)
    _saved: Any = None
    _apart: Dropout | None = None  # drops by itself, where the mask's first rows are other ranks'

    def forward(self, x: Array) -> Array:
        """``dropout(f(x W + b))``."""
        drop, share = self.dropout, None if self.dropout is None else self.dropout.share
        self._apart = drop if share is not None and share.first else None
        y = self._forward(x)
        return y if self._apart is None else self._apart.forward(y, training=True)

    def _forward(self, x: Array) -> Array:
        kind = None if self.activation is None else ACTIVATIONS[type(self.activation)]
        drop = self._draw()
        if self.linear is None:
            y = self.kernels.activate(x, None, kind, drop)
            self._saved = None, y, kind, drop, tuple(x.shape)
            return y
        W, b = self._parameters()
        rows = _rows(x, W)
        y = self.kernels.linear(rows, W, b, kind, drop)
        self._saved = rows, y, kind, drop, tuple(x.shape)
        return y

    def backward(self, dy: Array, input_grad: bool, recorder: Any, sums: list) -> Array | None:
        """dx; the linear layer's gradients are assigned, that of the bias once ``sums`` are made.

        The weights' gradient is computed beside dx and what follows.
        """
        if self._apart is not None:
            dy = self._apart.backward(dy)
        rows, y, kind, drop, shape = self._saved
        kernels, linear = self.kernels, self.linear
        W, b = (None, None) if linear is None else self._parameters()
        dz, db = dy, None
        if kind is not None or drop is not None or b is not None:
            bias_shape = None if b is None else tuple(b.shape)
            dz, db = kernels.activate_backward(dy, y, kind, drop, want_bias=bias_shape, sums=sums)
        if linear is None:
            return dz
        dx = None
        if input_grad:
            with recorder.beside():
                dW = kernels.weight_gradient(rows, dz, W)
            dx = kernels.input_gradient(dz, rows, W)
            dx = array_namespace(dx).reshape(dx, shape)
        else:
            dW = kernels.weight_gradient(rows, dz, W)
        linear.grads = {"W": dW} if b is None else {"W": dW, "b": db}
        return dx

    def _parameters(self) -> tuple[Array, Array | None]:
        assert self.linear is not None
        params = self.half or self.linear.params
        return params["W"], params.get("b")

    def _draw(self) -> tuple | None:
        layer = self.dropout
        if layer is None or self._apart is not None:
            return None
        layer.step += 1
        return check_rates(layer.p, layer.population), layer.rng, layer.step


@dataclass(eq=False)
class Alone:
    """A layer that runs as it is; in a half-precision step, normalizations run in float32."""

    layer: Layer
    widened: str | None = None
    _narrow: Any = None

    def forward(self, x: Array) -> Array:
        """The layer's."""
        if self.widened is None:
            return self.layer.forward(x, training=True)
        self._narrow = x.dtype
        return _cast(self.layer.forward(_cast(x, self.widened), training=True), x.dtype)

    def backward(self, dy: Array, input_grad: bool, recorder: Any, sums: list) -> Array | None:
        """The layer's."""
        if not input_grad and isinstance(self.layer, Linear | Sequential):
            return self.layer.backward(dy, input_grad=False)
        if self.widened is None:
            return self.layer.backward(dy)
        return _cast(self.layer.backward(_cast(dy, self.widened)), self._narrow)


Part = Block | Alone


def group(model: Layer, kernels: Any) -> list[Part]:
    """The model as blocks and single layers, in order; one single layer if it is no Sequential."""
    if not isinstance(model, Sequential) or kernels is None:
        return [Alone(model)]
    parts: list[Part] = []
    for layer in _in_order(model):
        block = parts[-1] if parts and isinstance(parts[-1], Block) else None
        if type(layer) is Linear:
            parts.append(Block(kernels, linear=layer))
        elif type(layer) in ACTIVATIONS:
            if block is None or block.activation is not None or block.dropout is not None:
                block = Block(kernels)
                parts.append(block)
            block.activation = layer
        elif type(layer) is Dropout and _fits(layer, block):
            assert block is not None
            block.dropout = layer
        else:
            parts.append(Alone(layer))
    return parts


def _in_order(model: Sequential) -> Iterator[Layer]:
    """The layers, those of a Sequential inside in its place."""
    for layer in model.layers:
        if isinstance(layer, Sequential):
            yield from _in_order(layer)
        else:
            yield layer


def _fits(layer: Dropout, block: Block | None) -> bool:
    """Whether the masks are drawn for as many members as the block has."""
    if (
        block is None
        or block.dropout is not None
        or not any(check_rates(layer.p, layer.population))
    ):
        return False
    return block.linear is None or layer.population == block.linear.population


def _rows(x: Array, W: Array) -> Array:
    """x as the Linear layer takes it, with the same complaints."""
    features, rows = W.shape[-2], x
    if x.ndim == 0 or x.shape[-1] != features:
        kept = axes_kept(tuple(x.shape), features, "Linear.forward")
        rows = array_namespace(x).reshape(x, (*x.shape[:kept], features))
    if rows.ndim < W.ndim - 1 or (W.ndim == 3 and rows.ndim == 3 and len(rows) != len(W)):
        raise ShapeError(
            f"`Linear.forward`: expected x of shape (N, {features}) or ({W.shape[0]}, N, "
            f"{features}), got {tuple(x.shape)}"
        )
    return rows


def _cast(x: Array, dtype: Any) -> Array:
    xp = array_namespace(x)
    return xp.astype(x, getattr(xp, dtype) if isinstance(dtype, str) else dtype, copy=False)
