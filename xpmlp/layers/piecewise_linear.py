"""The first layer of networks on tables: from numbers and levels, without ever writing codes."""

from __future__ import annotations

from collections.abc import Sequence

from .. import ops
from ..backend import Array
from ..choices import BiasInitializerName, FloatName, InitializerName
from ..errors import ShapeError
from ..initializers import DEFAULT, Initializer
from ..ops.piecewise_linear import check_columns, count_codes
from ..random import Generator
from .base import Layer, Parameter
from .linear import in_dtype_of, new_parameters


class PiecewiseLinear(Layer):
    """``y = c(x) W + b``: each output is a sum of functions of one column of x each.

    Parameters
    ----------
    columns : sequence of (str, int)
        What each of the D columns of x is, and how many codes c(x) it has:

        - ``("linear", 1)``: the number itself.
        - ``("bins", K)``: a position in [0, K] among K bins, its whole part the bin and its
          fraction how far inside. Codes are 1 for the bins below, that fraction for its own, 0 for
          those above, so that y is linear inside of each bin; outside of all it is constant.
        - ``("levels", K)``: one of 0 … K − 1, with a code of 1 for that; any other number has none.
    outputs : int
        M.
    bias, init, bias_init, population, rng, dtype
        As in :class:`Linear`; W has a row for each of J codes.

    Attributes
    ----------
    W, b, dW, db : array
        Parameters (J, M), (M,), with a leading P in a population, and their gradients.

    Raises
    ------
    ConfigError
        For columns or options out of range.

    Notes
    -----
    The same numbers as ``Linear(J, M)`` gives for the codes, which on NumPy arrays are never
    written: a bin's part of y is a row of W's running sums, or lies between two of them, so that a
    row of x takes 2 D M multiply-adds rather than J M. Where x is not a whole number, ``dx`` is the
    slope of the bin that it is in.

    Source: Gorishniy, Rubachev and Babenko 2022, "On embeddings for numerical features in tabular
    deep learning".

    Examples
    --------
    >>> layer = PiecewiseLinear([("bins", 32), ("levels", 5), ("linear", 1)], 128)
    >>> y = layer.forward(x)                        # x (N, 3) to (N, 128)
    """

    W = Parameter(weight=True)
    b = Parameter()

    def __init__(
        self,
        columns: Sequence[tuple[str, int]],
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
        self.columns = check_columns("PiecewiseLinear", columns)
        sizes = {"codes": count_codes(self.columns), "outputs": outputs}
        start = {"bias": bias, "init": init, "bias_init": bias_init, "rng": rng, "dtype": dtype}
        self.params.update(new_parameters("PiecewiseLinear", sizes, population, start))
        self.population = population

    def describe(self) -> str:
        J, M = self.W.shape[-2:]
        bias = "" if self.b is not None else ", bias=False"
        return f"{len(self.columns)} columns of {J} codes, {M}{bias}"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape[-1:] != (len(self.columns),):
            raise ShapeError(
                f"`PiecewiseLinear`: expected x of shape (…, {len(self.columns)}), got {shape}"
            )
        return (*shape[:-1], self.W.shape[-1])

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, N, D) to (…, N, M)."""
        W = self.W
        x = in_dtype_of("PiecewiseLinear.forward", x, W)
        if x.ndim < 2 or x.shape[-1] != len(self.columns):
            raise ShapeError(
                f"`PiecewiseLinear.forward`: expected x of shape (N, {len(self.columns)}), a "
                f"number for each column, got {tuple(x.shape)}"
            )
        self._saved = x
        return ops.piecewise_linear(x, W, self.b, columns=self.columns)

    def backward(self, dy: Array, input_grad: bool = True) -> Array:
        """dx, or None if ``input_grad`` is False; assigns ``dW = c(x)ᵀ dy`` and ``db = Σ dy``."""
        x = self._recall()
        options = {"columns": self.columns, "input_grad": input_grad}
        dx, dW, db = ops.piecewise_linear_backward(dy, x, self.W, **options)
        self.grads = {"W": dW} if self.b is None else {"W": dW, "b": db}
        return dx
