"""What a page is made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..layers.base import Layer


@dataclass
class Scored:
    """Rows that a network had not seen, and what it answered.

    Attributes
    ----------
    name : str
        Of the data.
    x : ndarray, shape (N, …)
        As the data set holds them: images of two or more axes, or rows of numbers.
    y : ndarray
        Class numbers (N,), or numbers (N,) or (N, M).
    answers : ndarray
        Probabilities (N, C), or numbers (N, M) in the targets' units.
    classes : sequence of str, optional
        The names of all C classes; None where the targets are numbers.
    describe : callable, optional
        A row's values by column, in words: ``describe(row)`` gives a mapping of str to str.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    answers: np.ndarray
    classes: tuple[str, ...] | None
    describe: Callable[[np.ndarray], dict[str, str]] | None = None


@dataclass
class Findings:
    """A training, as far as it is known.

    Attributes
    ----------
    title : str
    history : list of dict
        A row an epoch.
    best_epoch : int, optional
        Whose parameters were kept.
    scored : Scored, optional
    figures : mapping of str to number
        The scores on rows that it had not seen.
    model : Layer, optional
        For the weights of its first layer.
    settings, data : list of (str, str)
        What was asked for, and what was understood of the data.
    warnings : list of str
    """

    title: str
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    scored: Scored | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    model: Layer | None = None
    settings: list[tuple[str, str]] = field(default_factory=list)
    data: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
