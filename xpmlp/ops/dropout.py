"""Inverted dropout with a mask that is recomputed, never stored."""

from __future__ import annotations

from collections.abc import Sequence

import array_api_compat
import numpy as np

from ..backend import Array, array_namespace
from ..errors import ConfigError
from ..options import Number
from ..random import Generator, random_bits
from .dispatch import choose

_BITS = 24

_STEP = Number(whole=True)
RATE = Number("[0, 1)", each_member=True, hint="0.2 drops a fifth of the units")
"""What a probability to drop may be."""


def dropout(
    x: Array, p: float | Sequence[float], rng: Generator, step: int, first: int = 0
) -> Array:
    """``y = x ⊙ keep / (1 − p)``, where each element is kept with probability 1 − p.

    The mask is a function of (seed, stream, step, element). Calling this on dy with the same rng
    and step is therefore the backward pass: ``dx = dy ⊙ keep / (1 − p)``.

    Parameters
    ----------
    x : array of floats, shape (…), or (P, …) for a generator of P seeds
    p : float in [0, 1), or P of them
        The probability to drop, for all or for each member.
    rng : Generator
        Seed and stream of the mask.
    step : int
        Which mask: raise it by one for a new one.
    first : int
        The place of x's first element in that mask, or of each member's first: where x is a part of
        a larger array that several processes share.

    Returns
    -------
    array of x's shape and dtype

    Raises
    ------
    ConfigError
        If a probability is outside [0, 1), or there are not as many as members.

    Notes
    -----
    Source: Srivastava et al. 2014. p is compared with 24 random bits, so it is exact to 2⁻²⁴.
    """
    rates = check_rates(p, rng.population)
    # In a traced step the number is of a type of its own.
    if isinstance(step, bool | np.bool_ | np.ndarray):
        _STEP.check("dropout", "step", step)
    if rng.population is not None and tuple(x.shape[:1]) != (rng.population,):
        raise ConfigError(
            f"`dropout`: expected a leading axis of {rng.population} in x, one for each seed, "
            f"got shape {tuple(x.shape)}"
        )
    if not any(rates):
        return x
    if first:
        return reference(x, rates, rng, step, first)
    return choose("dropout", reference, x, rates=rates)(x, rates, rng, step)


def check_rates(p: float | Sequence[float], population: int | None) -> tuple[float, ...]:
    """The dropout rates as a tuple of one, or of one a member."""
    if type(p) is float and 0.0 <= p < 1.0:
        return (p,)
    rates = tuple(np.atleast_1d(RATE.check("dropout", "the probability to drop", p)).tolist())
    if len(rates) != 1 and len(rates) != population:
        raise ConfigError(
            f"`dropout`: expected one rate or {population or 1}, one a member, got {len(rates)}"
        )
    return rates


def reference(
    x: Array, rates: tuple[float, ...], rng: Generator, step: int, first: int = 0
) -> Array:
    """The definition."""
    xp = array_namespace(x)
    device = array_api_compat.device(x)
    bits = random_bits(xp, tuple(x.shape), rng, step, device, first)
    thresholds = [round(rate * (1 << _BITS)) for rate in rates]
    scales = [1.0 / (1.0 - rate) for rate in rates]
    if len(rates) == 1:
        threshold, scale = thresholds[0], scales[0]
    else:
        shape = (len(rates),) + (1,) * (x.ndim - 1)
        threshold = xp.reshape(xp.asarray(thresholds, dtype=bits.dtype, device=device), shape)
        scale = xp.reshape(xp.asarray(scales, dtype=x.dtype, device=device), shape)
    return xp.where(bits >= threshold, x * scale, xp.zeros_like(x))
