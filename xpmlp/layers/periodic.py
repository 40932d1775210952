"""Embeddings of numbers by waves of learned frequencies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import ops
from ..backend import Array, array_namespace, asarray
from ..choices import FloatName
from ..initializers import FanInUniform
from ..options import Number
from ..random import Generator, as_generator
from .base import FLOAT, Layer, Parameter, check_array

_SIZE = Number("[1, 1099511627776)", whole=True)
_OPTIONAL = Number("[1, 1099511627776)", whole=True, optional=True)
_SCALE = Number("(0, inf)")


class Periodic(Layer):
    """Each number as sines and cosines of learned frequencies, and a rectified linear map of them.

    ``u_f = (sin 2π c_f x_f, cos 2π c_f x_f)``, and with ``dim``, ``y_f = max(0, u_f W_f + b_f)``.

    Parameters
    ----------
    features : int
        F numbers in a row.
    frequencies : int
        K for each of them.
    dim : int, optional
        E, how many numbers stand for each. Default: no linear map, 2K.
    scale : float
        Standard deviation of the frequencies at the start, in turns per unit of x. It matters:
        0.01 to 1 for standardized numbers.
    population : int, optional
        P: parameters with a leading axis for x (P, N, F), or (N, F), shared by all.
    rng : Generator, int or P ints, optional
        Where the draws come from. None takes the next stream of the process-wide generator.
    dtype : str

    Attributes
    ----------
    c, dc : array, shape (F, K)
    W, dW : array, shape (F, 2K, E)
    b, db : array, shape (F, E)
        With a leading P in a population.

    Notes
    -----
    x (…, N, F) becomes (…, N, F · E), or (…, N, F · 2K), one number's after another's. Source:
    Gorishniy, Rubachev and Babenko 2022, "On embeddings for numerical features in tabular deep
    learning" (P and PLR).
    """

    c = Parameter()
    W = Parameter(weight=True)
    b = Parameter()

    def __init__(
        self,
        features: int,
        frequencies: int = 24,
        *,
        dim: int | None = None,
        scale: float = 0.1,
        population: int | None = None,
        rng: Generator | int | Sequence[int] | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__()
        F, K = (
            _SIZE.check("Periodic", *it)
            for it in (("features", features), ("frequencies", frequencies))
        )
        E = _OPTIONAL.check("Periodic", "dim", dim)
        self.population = _OPTIONAL.check("Periodic", "population", population)
        scale = _SCALE.check("Periodic", "scale", scale)
        dtype = FLOAT.check("Periodic", "dtype", dtype)
        draws = as_generator(rng, self.population).spawn()
        self.c = asarray(scale * draws.normal((F, K)), dtype)
        if E is not None:
            lead = () if self.population is None else (self.population,)
            W = FanInUniform()(2 * K, F * E, draws.spawn())  # of each feature the same spread
            W = np.moveaxis(W.reshape(*lead, 2 * K, F, E), -2, -3)
            self.W = asarray(np.ascontiguousarray(W), dtype)
            self.b = asarray(np.zeros((*lead, F, E)), dtype)

    def describe(self) -> str:
        F, K = self.c.shape[-2:]
        return f"{F}, {K}" + ("" if self.W is None else f", dim={self.W.shape[-1]}")

    @property
    def width(self) -> int:
        """How many numbers stand for each."""
        return 2 * self.c.shape[-1] if self.W is None else self.W.shape[-1]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.c.shape[-2] * self.width)

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, N, F) to (…, N, F · E)."""
        check_array("Periodic.forward", "x", x)
        u = ops.periodic(x, self.c)
        xp, z = array_namespace(u), None
        waves, y = u, u
        if self.W is not None:
            waves = xp.moveaxis(u, -2, -3)  # features are members of a product
            z = ops.linear(waves, self.W, self.b, "relu")
            y = xp.moveaxis(z, -3, -2)
        self._saved = x, u, waves, z
        return xp.reshape(y, (*y.shape[:-2], y.shape[-2] * y.shape[-1]))

    def backward(self, dy: Array) -> Array:
        """dx, in x's shape."""
        x, u, waves, z = self._recall()
        xp = array_namespace(dy, u)
        dy = xp.reshape(dy, (*dy.shape[:-1], self.c.shape[-2], self.width))
        grads = {}
        if self.W is not None:
            dz = xp.moveaxis(dy, -2, -3)
            du, grads["W"], grads["b"] = ops.linear_backward(
                dz, waves, self.W, z, activation="relu"
            )
            dy = xp.moveaxis(du, -3, -2)
        dx, dc = ops.periodic_backward(dy, x, self.c, u)
        self.grads = {"c": dc, **grads}
        return dx
