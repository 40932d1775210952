"""A fully connected layer whose matrix the members of a population share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from .. import ops
from ..backend import Array, array_namespace, asarray
from ..choices import Adapters, BiasInitializerName, FloatName, InitializerName
from ..errors import ShapeError
from ..initializers import DEFAULT, Initializer, as_bias_initializer, default_bias, drawn
from ..ops.shapes import check_choice, check_same_shape, sum_to_shape, sum_wide
from ..options import FLAG, Number
from ..random import Generator, as_generator
from .base import FLOAT, Layer, Parameter
from .linear import Linear, flattened, new_parameters, rows_for

_POPULATION = Number("[1, 1099511627776)", whole=True)
ADAPTERS = get_args(Adapters)


class SharedLinear(Layer):
    """``y_p = ((x ⊙ r_p) W) ⊙ s_p + b_p``: one W for all members, vectors for each.

    Parameters
    ----------
    inputs, outputs : int
        D and M.
    population : int
        P.
    adapters : {"ones", "signs"}
        How r starts: at 1, or each number at 1 or −1, which makes members differ from the first
        step on and belongs into the first layer of a network. s starts at 1.
    bias, init, bias_init, dtype : optional
        As in :class:`Linear`.
    rng : Generator, int or P ints, optional
        Where the draws come from: W from the first member's seed, r and b from each one's own. None
        takes the next stream of the process-wide generator.

    Attributes
    ----------
    W, dW : array, shape (D, M)
        Shared by all members; dW is the sum of their gradients.
    r, dr : array, shape (P, D)
    s, ds : array, shape (P, M)
    b, db : array, shape (P, M)

    Notes
    -----
    x (P, N, D), or (N, D), shared by all, becomes (P, N, M). Trailing axes of x whose product is D
    are flattened as by :class:`Linear`. The rows of all members go through W as one product.

    To the optimizer, the network is one: a learning rate for each member needs parameters of its
    own. :meth:`separate` gives them.

    Source: Wen, Tran and Ba 2020, "BatchEnsemble: an alternative approach to efficient ensemble and
    lifelong learning"; for tables, Gorishniy, Kotelnikov and Babenko 2024, "TabM: advancing tabular
    deep learning with parameter-efficient ensembling", from which the start is.
    """

    W = Parameter(weight=True, shared=True)
    r = Parameter()
    s = Parameter()
    b = Parameter()

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        population: int,
        adapters: Adapters = "ones",
        bias: bool = True,
        init: InitializerName | float | Initializer = DEFAULT,
        bias_init: BiasInitializerName | float | Initializer | None = None,
        rng: Generator | int | Sequence[int] | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__()
        where = "SharedLinear"
        check_choice(where, "adapters", adapters, ADAPTERS)
        dtype = FLOAT.check(where, "dtype", dtype)
        self.population = P = _POPULATION.check(where, "population", population)
        draws = as_generator(rng, P)
        sizes = {"inputs": inputs, "outputs": outputs}
        start = {"bias": False, "init": init, "bias_init": bias_init, "dtype": dtype}
        of_first = draws.of_member(0)
        self.params.update(new_parameters(where, sizes, None, start | {"rng": of_first}))
        own, r = draws.spawn(), np.ones((P, inputs))
        if adapters == "signs":
            r[own.uniform((inputs,)) < 0.5] = -1.0
        self.r, self.s = asarray(r, dtype), asarray(np.ones((P, outputs)), dtype)
        if FLAG.check(where, "bias", bias):
            bias_init = default_bias(init) if bias_init is None else bias_init
            b = drawn(as_bias_initializer(bias_init), inputs, outputs, own, bias=True)
            self.b = asarray(b, dtype)

    def describe(self) -> str:
        D, M = self.W.shape
        return f"{D}, {M}" + ("" if self.b is not None else ", bias=False")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return flattened(shape, self.W, "SharedLinear")

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (P, N, D) or (N, D) to (P, N, M)."""
        rows, (P, D) = rows_for("SharedLinear.forward", x, self.W), self.r.shape
        if rows.ndim not in (2, 3) or (rows.ndim == 3 and rows.shape[0] != P):
            raise ShapeError(
                f"`SharedLinear.forward`: expected x of shape (N, {D}) or ({P}, N, {D}), got "
                f"{tuple(x.shape)}"
            )
        xp = array_namespace(rows, self.W)
        z = xp.reshape(rows * self.r[:, None, :], (P * rows.shape[-2], D))
        h = xp.reshape(ops.linear(z, self.W), (P, rows.shape[-2], self.W.shape[1]))
        self._saved = rows, tuple(x.shape), z, h
        y = h * self.s[:, None, :]
        return y if self.b is None else y + self.b[:, None, :]

    def backward(self, dy: Array, input_grad: bool = True) -> Array:
        """dx, in x's shape, or None if ``input_grad`` is False.

        With ``dh_p = dy_p ⊙ s_p`` and ``dz_p = dh_p Wᵀ``: ``dW = Σ_p (x ⊙ r_p)ᵀ dh_p``,
        ``ds_p = Σ dy_p ⊙ h_p``, ``dr_p = Σ dz_p ⊙ x``, ``db_p = Σ dy_p``, sums over rows.
        """
        rows, shape, z, h = self._recall()
        check_same_shape("SharedLinear.backward", "dy", dy, tuple(h.shape))
        xp = array_namespace(dy, z)
        dh = xp.reshape(dy * self.s[:, None, :], (z.shape[0], h.shape[-1]))
        dz, dW, _ = ops.linear_backward(dh, z, self.W)
        dz = xp.reshape(dz, (*h.shape[:-1], z.shape[-1]))
        sums = {"r": dz * rows, "s": dy * h}
        self.grads = {"W": dW} | {name: sum_wide(xp, each, -2) for name, each in sums.items()}
        if self.b is not None:
            self.grads["b"] = sum_wide(xp, dy, -2)
        if not input_grad:
            return None
        dx = sum_to_shape(xp, dz * self.r[:, None, :], tuple(rows.shape))
        return xp.reshape(dx, shape)

    def separate(self) -> Linear:
        """A layer of P matrices ``r_p W s_p`` that gives the same, for members on their own."""
        W = self.r[:, :, None] * self.W * self.s[:, None, :]
        return Linear.from_arrays(W, self.b)
