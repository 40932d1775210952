"""Layers whose features are gates of others, and a rectifier with a learned slope."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import ops
from ..backend import Array, asarray
from ..choices import FloatName
from ..errors import ShapeError
from ..ops.windows import check_images
from ..options import Number
from .base import FLOAT, Layer, Parameter, check_array
from .image_norms import pixels_as_rows, rows_as_images


class _Gated(Layer):
    """Of 2 M features to M."""

    op: ClassVar[str]

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, 2 M) to (…, M)."""
        self._saved = x
        return getattr(ops, self.op)(x)

    def backward(self, dy: Array) -> Array:
        """dx (…, 2 M)."""
        return getattr(ops, f"{self.op}_backward")(dy, self._recall())

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or shape[-1] % 2:
            raise ShapeError(
                f"`{type(self).__name__}`: expected an even number of features, got {shape}"
            )
        return (*shape[:-1], shape[-1] // 2)


class GLU(_Gated):
    """``y = a ⊙ σ(b)`` of x = [a, b]: the second half of the features are gates of the first.

    Behind ``Linear(D, 2 * M)`` it leaves M features. Source: Dauphin et al. 2017, "Language
    modeling with gated convolutional networks".
    """

    op = "glu"


class SwiGLU(_Gated):
    """``y = SiLU(a) ⊙ b`` of x = [a, b], with SiLU(a) = a σ(a).

    Behind ``Linear(D, 2 * M)`` it leaves M features. Source: Shazeer 2020, "GLU variants improve
    Transformer".
    """

    op = "swiglu"


class PReLU(Layer):
    """``y = x`` where x > 0, else ``a x``, with a slope a that is learned.

    Parameters
    ----------
    features : int
        D: a slope for each feature; 1: one for all of them.
    init : float
        The slopes at first.
    population : int, optional
        P: slopes (P, D) for x (P, N, D).
    dtype : str

    Attributes
    ----------
    a, da : array, shape (D,) or (P, D)

    Notes
    -----
    ``dx = dy`` where x > 0, else ``a dy``; ``da = Σ dy x`` where x ≤ 0. The slopes are not under
    weight decay. Source: He et al. 2015, "Delving deep into rectifiers".
    """

    a = Parameter()
    features: Any = Number("[1, inf)", whole=True)
    init: Any = Number()

    def __init__(
        self,
        features: int = 1,
        *,
        init: float = 0.25,
        population: int | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__()
        self.features, self.init, self.population = features, init, population
        shape = (features,) if population is None else (population, features)
        self.a = asarray(np.full(shape, init), FLOAT.check("PReLU", "dtype", dtype))

    def describe(self) -> str:
        return str(self.features)

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, N, D) to the same shape."""
        y = ops.prelu(x, self.a)
        self._saved = x
        return y

    def backward(self, dy: Array) -> Array:
        """dx; assigns da."""
        dx, da = ops.prelu_backward(dy, self._recall(), self.a)
        self.grads = {"a": da}
        return dx


class PReLU2D(PReLU):
    """PReLU of images, with a slope for each channel: each pixel is a row.

    Parameters
    ----------
    features : int
        C.
    init, population, dtype
        As in :class:`PReLU`.

    Notes
    -----
    x (…, N, C, H, W), or (P, N, C, H, W) for a population.
    """

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, N, C, H, W) to the same shape.

        Raises
        ------
        ShapeError
            If x has another shape.
        """
        check_array("PReLU2D.forward", "x", x)
        check_images("PReLU2D.forward", "x", x, self.features)
        return rows_as_images(super().forward(pixels_as_rows(x), training), x)

    def backward(self, dy: Array) -> Array:
        """dx; assigns da, summed over pixels too."""
        self._recall()
        check_images("PReLU2D.backward", "dy", dy, self.features)
        return rows_as_images(super().backward(pixels_as_rows(dy)), dy)
