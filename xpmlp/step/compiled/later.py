"""Integers of a program's records that are written before each run."""

from __future__ import annotations

from typing import Any

import numpy as np


class Later(int):
    """An integer of a record that is written before each run: see ``Program.later``."""


class Rows(Later):
    """A multiple of a batch's rows, where batches may have fewer than the program has room for.

    A record's field that depends on rows must be such a multiple: what is made of it otherwise
    than by multiplying stays what it is for the most rows.

    Parameters
    ----------
    most : int
        Rows that there is room for.
    each : int
        What they are multiplied by.
    """

    most: int
    each: int
    __array_ufunc__ = None  # NumPy's numbers leave multiplying to it

    def __new__(cls, most: int, each: int = 1) -> Rows:
        made = super().__new__(cls, most * each)
        made.most, made.each = most, each
        return made

    def __mul__(self, other: Any) -> Any:
        whole = isinstance(other, int | np.integer)
        return Rows(self.most, self.each * int(other)) if whole else int(self) * other

    __rmul__ = __mul__


class Address(Later):
    """Where an array of a model begins, or a part of it: in place of the flat array.

    Parameters
    ----------
    name : str
        Of the parameter or statistic.
    first : int
        The element that it begins with.
    """

    name: str
    first: int

    def __new__(cls, name: str, first: int = 0) -> Address:
        made = super().__new__(cls)
        made.name, made.first = name, first
        return made

    def __getitem__(self, part: slice) -> Address:
        return Address(self.name, self.first + part.start)

    def reshape(self, size: int) -> Address:
        """It is flat."""
        return self
