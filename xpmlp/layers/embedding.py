"""Vectors for codes: one trained row of a table for each number, by itself or among columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..backend import Array, array_namespace, asarray
from ..choices import FloatName, InitializerName
from ..errors import ConfigError, DataError, ShapeError
from ..initializers import Initializer, as_initializer, drawn
from ..ops.recordable import concat
from ..ops.shapes import sum_to_shape
from ..options import Number
from ..random import Generator, as_generator
from .base import FLOAT, Layer, Parameter, check_array
from .containers import Container

_SIZE = Number("[1, 1099511627776)", whole=True)
_MEMBERS = Number("[1, 1099511627776)", whole=True, optional=True)


class Embedding(Layer):
    """A vector for each code: ``y[…] = W[x[…]]``.

    Parameters
    ----------
    count, dim : int
        V codes 0…V−1, and D numbers for each.
    padding : int, optional
        A code that starts at 0 and is not trained.
    init : float, str or Initializer
        How W starts; a number is a standard deviation, and 1 is that of ``torch.nn.Embedding``.
    population : int, optional
        P: W (P, V, D).
    rng : Generator, int or P ints, optional
        Where the draws come from. None takes the next stream of the process-wide generator.
    dtype : str

    Attributes
    ----------
    W, dW : array, shape (V, D) or (P, V, D)

    Notes
    -----
    x (…) holds integers, or floats that are whole, and y is (…, D). In a population x is
    (…, P, N, K), or (N, K) or (N,), shared by all members. ``dW[v]`` is the sum of dy where x is
    v, the same in every run; dx is 0, for codes have no slope. It is ``Linear`` without a bias on
    one-hot rows, and like that layer's W, its own is under weight decay.

    In host memory a code that there is not is a DataError; on a device its vector is NaN.
    """

    W = Parameter(weight=True)

    def __init__(
        self,
        count: int,
        dim: int,
        *,
        padding: int | None = None,
        init: float | InitializerName | Initializer = 1.0,
        population: int | None = None,
        rng: Generator | int | Sequence[int] | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__()
        count, dim = (_SIZE.check("Embedding", *it) for it in (("count", count), ("dim", dim)))
        population = _MEMBERS.check("Embedding", "population", population)
        if padding is not None and (not isinstance(padding, int) or not 0 <= padding < count):
            raise ConfigError(
                f"`Embedding`: expected padding to be a code in 0…{count - 1} or None, got "
                f"{padding!r:.80}"
            )
        self.padding, self.population = padding, population
        dtype = FLOAT.check("Embedding", "dtype", dtype)
        generator = as_generator(rng, population).spawn()
        start = drawn(as_initializer(init), count, dim, generator, bias=False)
        if padding is not None:
            start = np.array(start)
            start[..., padding, :] = 0.0
        self.W = asarray(start, dtype)

    def describe(self) -> str:
        V, D = self.W.shape[-2:]
        return f"{V}, {D}" + ("" if self.padding is None else f", padding={self.padding}")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape, self.W.shape[-1])

    def forward(self, x: Array, training: bool = False) -> Array:
        """Codes (…) to their vectors (…, D)."""
        check_array("Embedding.forward", "x", x)
        y = ops.embedding(x, self.W)
        self._saved = x
        return y

    def backward(self, dy: Array) -> Array:
        """0, in x's shape; assigns dW."""
        x = self._recall()
        xp = array_namespace(dy, x)
        self.grads = {"W": ops.embedding_backward(dy, x, self.W, self.padding)}
        return xp.zeros_like(x, dtype=dy.dtype)


def _are_codes(codes: Any, features: int) -> bool:
    return (
        isinstance(codes, Mapping)
        and len(codes) > 0
        and all(type(place) is int and 0 <= place < features for place in codes)
        and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in codes.values())
    )


class Piece(NamedTuple):
    """Columns that stay together: first and past the last of x and of y, and whose codes."""

    first: int
    last: int
    begin: int
    end: int
    layer: Embedding | None


class EmbedColumns(Container):
    """Rows of numbers and codes with a vector in the place of each code.

    Parameters
    ----------
    features : int
        F columns.
    codes : mapping of int to (int, int)
        Of a column with codes: how many there are, and how many numbers stand for each. The others
        are numbers and stay as they are.
    init, population, rng, dtype
        As in :class:`Embedding`.

    Notes
    -----
    x (…, N, F) of floats becomes (…, N, F′), columns in their order; in a population x is
    (…, P, N, F), or (N, F), shared by all members. The parameters are ``"2.W"`` for the column 2.
    """

    def __init__(
        self,
        features: int,
        codes: Mapping[int, tuple[int, int]],
        *,
        init: float | InitializerName | Initializer = 1.0,
        population: int | None = None,
        rng: Generator | int | Sequence[int] | None = None,
        dtype: FloatName = "float32",
    ):
        self.features = _SIZE.check("EmbedColumns", "features", features)
        population = _MEMBERS.check("EmbedColumns", "population", population)
        if not _are_codes(codes, self.features):
            raise ConfigError(
                f"`EmbedColumns`: expected codes of columns among 0…{features - 1}, such as "
                f"{{0: (1000, 16)}} for 1000 codes with 16 numbers each, got {codes!r:.200}"
            )
        columns = sorted(codes)
        generator = as_generator(rng, population)
        options = {"init": init, "population": population, "rng": generator, "dtype": dtype}
        super().__init__({str(place): Embedding(*codes[place], **options) for place in columns})
        self.pieces = [*self._pieces({place: codes[place][1] for place in columns})]
        self._saved = None

    def describe(self) -> str:
        layers: Any = self.children
        codes = {int(place): tuple(layer.W.shape[-2:]) for place, layer in layers.items()}
        return f"{self.features}, {codes}"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.pieces[-1].end)

    def _pieces(self, dims: dict[int, int]) -> Iterator[Piece]:
        start = place = 0
        layers: Any = self.children
        for column, dim in (*dims.items(), (self.features, 0)):
            if start < column:
                yield Piece(start, column, place, place + column - start, None)
                place += column - start
            if dim:
                yield Piece(column, column + 1, place, place + dim, layers[str(column)])
                place += dim
            start = column + 1

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, N, F) to (…, N, F′)."""
        check_array("EmbedColumns.forward", "x", x)
        if x.ndim < 2 or x.shape[-1] != self.features:
            raise ShapeError(
                f"`EmbedColumns.forward`: expected x of shape (…, N, {self.features}), got "
                f"{tuple(x.shape)}; a single sample is x[None, :]"
            )
        xp = array_namespace(x)
        shared = self.population is not None and x.ndim == 2
        lead = (self.population, x.shape[0]) if shared else tuple(x.shape[:-1])
        parts = []
        for first, last, begin, end, layer in self.pieces:
            part = x[..., first:last]
            if layer is not None:
                try:
                    vectors = layer.forward(part, training)
                except DataError as error:
                    raise DataError(f"{error}; this is column {first} of x") from None
                part = xp.reshape(vectors, (*lead, end - begin))
            parts.append(xp.broadcast_to(part, (*lead, end - begin)))
        y = concat(xp, parts, axis=-1)
        self._saved = tuple(x.shape)
        return y

    def backward(self, dy: Array) -> Array:
        """dx in x's shape, 0 at the codes; assigns each column's dW."""
        shape = self._recall()
        xp = array_namespace(dy)
        parts = []
        for first, last, begin, end, layer in self.pieces:
            part = dy[..., begin:end]
            if layer is None:
                parts.append(sum_to_shape(xp, part, (*shape[:-1], last - first)))
            else:
                parts.append(layer.backward(xp.expand_dims(part, axis=-2)))
        return concat(xp, parts, axis=-1)
