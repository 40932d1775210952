"""Numbers as inputs that a network learns well from: scaled robustly, and coded piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from ...choices import FloatName
from ...errors import ConfigError, DataError
from ...ops.piecewise_linear import BINS, LEVELS, LINEAR, Columns
from ...ops.piecewise_linear import codes as codes_of
from .telling_values import telling_values
from .tree_edges import tree_edges

CLIP = 3.0
"""What scaled numbers stay below in magnitude."""
MOST_INPUTS = 2048
"""As many inputs the codes of all columns together may be."""
_QUANTILES = 16  # bins at most that are so; the others are leaves
_TRIED = 16  # leaves for classes that there may be for any gain; those for numbers are certain
_FEWEST_BINS = 4  # fewer are not worth their inputs
_ROWS = 16_384  # at a time, so that work arrays stay in a cache
_FITTED_ROWS = 100_000  # as many tell where the quantiles are


@dataclass
class NumberCode:
    """How one column is written.

    Attributes
    ----------
    name : str
    kept : bool
        Whether it is written at all; a column of one value is not.
    center, spread : float
        What is subtracted, and divided by; a spread of 0 leaves the column as it is.
    edges : list of float
        Of the bins, ascending; fewer than three are no code.
    values : list of float
        Those with an input of their own.
    category : str
        What it is 0 or 1 for a level of; empty for what is no level.
    """

    name: str
    kept: bool = True
    center: float = 0.0
    spread: float = 0.0
    edges: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    category: str = ""

    def names(self) -> list[str]:
        """Names of the inputs that it becomes."""
        if not self.kept:
            return []
        return [
            self.name,
            *(f"{self.name} from {edge:.6g}" for edge in self.edges[:-1]),
            *(f"{self.name}={value:.6g}" for value in self.values),
        ]


class NumberCodes:
    """Writes columns of numbers as inputs of a network.

    - Scaled: ``z = (x − median) / IQR``, by half the range where the quartiles are equal, then
      bounded smoothly: ``z / √(1 + (z/3)²)``.
    - Coded: with edges ``e₀ < e₁ < … < e_K``, K inputs ``clip((x − e_k) / (e_{k+1} − e_k), 0, 1)``:
      1 for the bins below x, a part for its own, 0 for those above, so that a linear layer is any
      function that is linear between the edges. At most 17 of the edges are quantiles; the others
      are where a regression tree of the targets cuts: the more, the more the targets change, for
      only cuts that noise seldom makes count. (For classes, the first 15 count in any case.)
    - Values whose targets are unlike those of their neighbours (such as 0 for none) have an input
      of 0 and 1 beside; see :func:`~xpmlp.data.tables.telling_values.telling_values`.
    - Columns of one value are left out.

    Parameters
    ----------
    bins : int
        As many quantile bins and leaves together, at most; 0 for no codes. Of more than 16 columns
        of numbers each has fewer, down to 4, and then none, so that they are 2048 inputs at most.

    Notes
    -----
    Sources: Gorishniy, Rubachev and Babenko 2022, "On embeddings for numerical features in tabular
    deep learning" (the codes, from quantiles and from trees); Holzmüller, Grinsztajn and Steinwart
    2024, "Better by default" (robust scaling and the smooth clip).

    Examples
    --------
    >>> import numpy as np
    >>> from xpmlp.data.tables import NumberCodes
    >>> codes = NumberCodes(bins=4).fit(np.arange(9.0)[:, None])
    >>> codes.transform(np.array([[5.0]])).tolist()
    [[0.2466..., 1.0, 0.25]]
    """

    def __init__(self, bins: int = 128):
        if not isinstance(bins, int | np.integer) or bins < 0:
            raise ConfigError(f"`NumberCodes`: expected bins to be a whole number ≥ 0, got {bins}")
        self.bins = int(bins)
        self.codes: list[NumberCode] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs that :meth:`transform` gives."""
        return tuple(name for code in self.codes for name in code.names())

    @property
    def columns(self) -> Columns:
        """What the columns of :meth:`positions` are, for a layer that takes them."""
        found: list[tuple[str, int]] = []
        for category, codes in self._together():
            if category:
                found.append((LEVELS, len(codes)))
                continue
            code = self.codes[codes[0]]
            found.append((LINEAR, 1))
            found += [(BINS, len(code.edges) - 1)] if code.edges else []
            found += [(LEVELS, len(code.values))] if code.values else []
        return tuple(found)

    @property
    def of_network(self) -> Columns | None:
        """The ``columns`` of a network that takes :meth:`positions`; None if nothing is coded.

        These are then the inputs, and a plain first layer is quicker.
        """
        columns = self.columns
        return columns if any(kind != LINEAR for kind, _ in columns) else None

    def _together(self) -> Iterator[tuple[str, list[int]]]:
        """The numbers of columns that are written, those of one category together."""
        kept = [number for number, code in enumerate(self.codes) if code.kept]
        for category, numbers in groupby(kept, lambda number: self.codes[number].category):
            if category:
                yield category, list(numbers)
            else:
                yield from (("", [number]) for number in numbers)

    def fit(
        self,
        x: np.ndarray,
        targets: np.ndarray | None = None,
        *,
        numbers: Sequence[bool] | None = None,
        names: Sequence[str] | None = None,
        categories: Sequence[str] | None = None,
    ) -> NumberCodes:
        """Learn from training rows.

        Parameters
        ----------
        x : ndarray of finite numbers, shape (N, D)
        targets : ndarray, shape (N,) of class numbers, or (N,) or (N, M) of floats, optional
            What trees cut by, and values are compared by. Without, all edges are quantiles.
        numbers : D booleans, optional
            Which columns are scaled and coded; the others stay as they are. Default: all.
        names : D texts, optional
        categories : D texts, optional
            Which category a column of 0 and 1 is a level of, and nothing for those that are none.

        Raises
        ------
        DataError
            If no column has more than one value.
        """
        x = np.asarray(x)
        given = [True] * x.shape[1] if numbers is None else list(numbers)
        labels = [f"x{place}" for place in range(x.shape[1])] if names is None else list(names)
        self._bins = min(self.bins, MOST_INPUTS // max(1, sum(given)))
        self._bins = self._bins if self._bins >= min(self.bins, _FEWEST_BINS) else 0
        classes = targets is not None and np.asarray(targets).dtype.kind in "iu"
        self._tried = _TRIED if classes else 1
        step = -(-len(x) // _FITTED_ROWS)
        wanted = None if targets is None else _as_numbers(np.asarray(targets))[::step]
        self.codes = [
            self._fit_one(labels[place], x[:, place], given[place], wanted, step)
            for place in range(x.shape[1])
        ]
        for code, category in zip(self.codes, categories or [], strict=False):
            code.category = category
        if not any(code.kept for code in self.codes):
            raise DataError(
                "`NumberCodes.fit`: expected a column with more than one value, got none"
            )
        return self

    def _fit_one(
        self, name: str, column: np.ndarray, number: bool, targets: Any, step: int
    ) -> NumberCode:
        low, high = float(column.min()), float(column.max())
        if not low < high:
            return NumberCode(name, kept=False)
        if not number:
            return NumberCode(name)
        if not np.isfinite(high - low):
            raise DataError(
                f"`NumberCodes.fit`: expected numbers whose range is finite in {name!r}, got "
                f"{low:g}…{high:g}; take their logarithm"
            )
        values = np.asarray(column[::step], dtype=np.float64)
        first, center, third = np.quantile(values, (0.25, 0.5, 0.75))
        spread = third - first if third > first else (high - low) / 2
        code = NumberCode(name, True, float(center), float(spread))
        bins = self._bins
        if bins:
            half = bins if targets is None else max(1, min(bins // 2, _QUANTILES))
            found = np.quantile(values, np.linspace(0.0, 1.0, half + 1))
            found[0], found[-1] = low, high
            if targets is not None:
                least = max(16, len(values) // 250)
                cuts = tree_edges(values, targets, bins - half, least, self._tried)
                found = np.concatenate([found, cuts])
            edges = np.unique(found)
            # Edges so near that their distance is rounding would make codes of noise.
            apart = np.diff(edges) > 1e-12 * (high - low)
            edges = edges[np.concatenate([[True], apart])]
            code.edges = edges.tolist() if len(edges) > 2 else []
            # Where every value is an edge, the code tells them apart by itself.
            if targets is not None and len(np.unique(values)) > len(edges) > 2:
                code.values = telling_values(values, targets).tolist()
        return code

    def transform(self, x: np.ndarray, dtype: FloatName = "float32") -> np.ndarray:
        """The inputs, (N, D') of ``dtype``, for rows (N, D).

        Raises
        ------
        DataError
            If rows have another length than those of :meth:`fit`.
        """
        columns = self.columns
        return self._in_blocks(
            x, dtype, len(self.names), lambda part: codes_of(self._positions(part, dtype), columns)
        )

    def positions(self, x: np.ndarray, dtype: FloatName = "float32") -> np.ndarray:
        """The same inputs as :class:`~xpmlp.layers.PiecewiseLinear` takes them, not yet written.

        Parameters
        ----------
        x : ndarray, shape (N, D)
        dtype : str

        Returns
        -------
        ndarray, shape (N, D")
            A column for each of :attr:`columns`: scaled numbers, their positions among the bins,
            and numbers of levels, -1 for none.

        Raises
        ------
        DataError
            If rows have another length than those of :meth:`fit`.
        """
        return self._in_blocks(
            x, dtype, len(self.columns), lambda part: self._positions(part, dtype)
        )

    def inputs(self, x: np.ndarray, columns: Any) -> np.ndarray:
        """What a network with these ``columns`` takes: positions, or without any the codes."""
        return self.transform(x) if columns is None else self.positions(x)

    def _in_blocks(
        self, x: np.ndarray, dtype: str, width: int, write: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != len(self.codes):
            raise DataError(
                f"`NumberCodes.transform`: expected rows of {len(self.codes)} numbers, got shape "
                f"{x.shape}"
            )
        out = np.empty((len(x), width), dtype=dtype)
        for start in range(0, len(x), _ROWS):
            out[start : start + _ROWS] = write(x[start : start + _ROWS])
        return out

    def _positions(self, x: np.ndarray, dtype: str) -> np.ndarray:
        columns: list[np.ndarray] = []
        for category, numbers in self._together():
            if category:
                # Of ones and zeros, the sum of the numbers of those that are one.
                columns.append(x[:, numbers] @ np.arange(1.0, len(numbers) + 1.0) - 1.0)
                continue
            code, column = self.codes[numbers[0]], x[:, numbers[0]]
            if code.spread == 0.0:
                columns.append(column)
                continue
            values = np.asarray(column, dtype=np.float64)
            z = (values - code.center) / code.spread
            # As hypot, which does not overflow: a number far outside becomes 3.
            columns.append(z / np.hypot(1.0, z / CLIP))
            if code.edges:
                edges = np.asarray(code.edges)
                columns.append(np.interp(values, edges, np.arange(float(len(edges)))))
            if code.values:
                known = np.asarray(code.values)
                place = np.minimum(np.searchsorted(known, values), len(known) - 1)
                columns.append(np.where(known[place] == values, place, -1.0))
        return np.stack(columns, axis=1, dtype=dtype, casting="unsafe")

    def to_dict(self) -> dict[str, Any]:
        """All that was learnt, as JSON can hold it."""
        return {"bins": self.bins, "columns": [vars(code) for code in self.codes]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NumberCodes:
        """Undo :meth:`to_dict`.

        Raises
        ------
        DataError
            If it was not written by :meth:`to_dict`.
        """
        try:
            codes = cls(values["bins"])
            codes.codes = [NumberCode(**code) for code in values["columns"]]
        except (KeyError, TypeError) as error:
            raise DataError(
                f"`NumberCodes.from_dict`: expected what to_dict wrote, got {values!r:.80} "
                f"({error})"
            ) from error
        return codes


def _as_numbers(targets: np.ndarray) -> np.ndarray:
    """Targets (N, M) for a regression tree: shares of classes, or standardized numbers."""
    if targets.dtype.kind in "iu":
        return np.eye(int(targets.max()) + 1)[targets]
    columns = targets.reshape(len(targets), -1).astype(np.float64)
    std = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(std > 0, std, 1.0)
