"""How weights and biases start: the spreads that keep signals from growing or dying.

An initializer is called with the fan-in D, the fan-out M and a generator, and returns a host array
in float64 of shape (D, M), or (P, D, M) for a generator of P seeds; one of biases, of shape (M,) or
(P, M). The draws come from the counter-based generator, so one seed gives the same start on every
backend, and the weights of a seed are the same whatever its biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .choices import BiasInitializerName, InitializerName
from .errors import ConfigError, DataError, DTypeError, ShapeError
from .options import Number, is_function
from .random import Generator

Initializer = Callable[[int, int, Generator], np.ndarray]

DEFAULT = "glorot_uniform"
"""How weights and biases start unless told otherwise; why: ``docs/defaults.md``."""

DEFAULT_OUTPUT = "fan_in_uniform"
"""The same of a ready-made network's last layer."""

_BIAS_DRAW = 1  # the number of the draw from a layer's stream; its weights are draw 0


@dataclass(frozen=True)
class HeNormal:
    """``N(0, 2/D)``, for ReLU and its relatives (He et al. 2015)."""

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        return rng.normal((fan_in, fan_out)) * math.sqrt(2.0 / fan_in)


@dataclass(frozen=True)
class HeUniform:
    """``U(−a, a)`` with ``a = √(6/D)`` (He et al. 2015)."""

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        return (2.0 * rng.uniform((fan_in, fan_out)) - 1.0) * math.sqrt(6.0 / fan_in)


@dataclass(frozen=True)
class GlorotNormal:
    """``N(0, 2/(D + M))``, for tanh and sigmoid (Glorot and Bengio 2010); also called Xavier.

    Kernels have ``positions`` numbers for each of M outputs, and a fan-out of M times as many.
    """

    positions: int = field(default=1, repr=False)

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        deviation = math.sqrt(2.0 / (fan_in + self.positions * fan_out))
        return rng.normal((fan_in, fan_out)) * deviation


@dataclass(frozen=True)
class GlorotUniform:
    """``U(−a, a)`` with ``a = √(6/(D + M))`` (Glorot and Bengio 2010).

    ``positions`` as in :class:`GlorotNormal`.
    """

    positions: int = field(default=1, repr=False)

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        bound = math.sqrt(6.0 / (fan_in + self.positions * fan_out))
        return (2.0 * rng.uniform((fan_in, fan_out)) - 1.0) * bound


@dataclass(frozen=True)
class FanInUniform:
    """``U(−a, a)`` with ``a = 1/√D``, the start of ``torch.nn.Linear``.

    Smaller than :class:`GlorotUniform` for a layer of few outputs: a network whose last layer
    starts so begins near 0. In all of many layers the signal dies; see ``docs/defaults.md``.
    """

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        return (2.0 * rng.uniform((fan_in, fan_out)) - 1.0) / math.sqrt(fan_in)


@dataclass(frozen=True)
class LeCunNormal:
    """``N(0, 1/D)``, for linear outputs and SELU (LeCun et al. 1998)."""

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        return rng.normal((fan_in, fan_out)) * math.sqrt(1.0 / fan_in)


@dataclass(frozen=True)
class ScaledNormal:
    """``N(0, std²)`` with a fixed standard deviation, as in many course notes."""

    std: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", Number("[0, inf)").check("ScaledNormal", "std", self.std))

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        return rng.normal((fan_in, fan_out)) * self.std


@dataclass(frozen=True)
class Zeros:
    """All zero."""

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        return np.zeros((*_lead(rng), fan_in, fan_out))


@dataclass(frozen=True)
class FromArray:
    """Given values of shape (D, M), or (P, D, M) for a population."""

    values: np.ndarray

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        values = np.asarray(self.values)
        if values.dtype.kind not in "biuf":
            raise DTypeError(f"`FromArray`: expected values that are numbers, got {values.dtype}")
        values = values.astype(np.float64)
        lead = _lead(rng)
        if values.shape not in ((fan_in, fan_out), (*lead, fan_in, fan_out)):
            raise ShapeError(
                f"`FromArray`: expected values of shape {(*lead, fan_in, fan_out)}, got "
                f"{values.shape}"
            )
        return np.broadcast_to(values, (*lead, fan_in, fan_out))


@dataclass(frozen=True)
class GlorotUniformBias:
    """``U(−a, a)`` with ``a = √(6/(D + M))``: biases that start like :class:`GlorotUniform`.

    They spread the kinks of a layer's rectifiers over the inputs. With biases of 0 all of them lie
    at the origin, and a network of one input starts as two straight lines.
    """

    positions: int = field(default=1, repr=False)

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        bound = math.sqrt(6.0 / (fan_in + self.positions * fan_out))
        return (2.0 * rng.uniform((fan_out,), _BIAS_DRAW) - 1.0) * bound


@dataclass(frozen=True)
class FanInUniformBias:
    """``U(−a, a)`` with ``a = 1/√D``: biases that start like :class:`FanInUniform`."""

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        return (2.0 * rng.uniform((fan_out,), _BIAS_DRAW) - 1.0) / math.sqrt(fan_in)


@dataclass(frozen=True)
class ConstantBias:
    """Every bias the same number."""

    value: float = 0.0

    def __call__(self, fan_in: int, fan_out: int, rng: Generator) -> np.ndarray:
        return np.full((*_lead(rng), fan_out), float(self.value))


def _lead(rng: Generator) -> tuple[int, ...]:
    """The leading axis of a population."""
    return () if rng.population is None else (rng.population,)


_BY_NAME = {
    "he_normal": HeNormal(),
    "he_uniform": HeUniform(),
    "glorot_normal": GlorotNormal(),
    "glorot_uniform": GlorotUniform(),
    "xavier_normal": GlorotNormal(),
    "xavier_uniform": GlorotUniform(),
    "fan_in_uniform": FanInUniform(),
    "lecun_normal": LeCunNormal(),
    "zeros": Zeros(),
}
_BIASES_BY_NAME = {
    "glorot_uniform": GlorotUniformBias(),
    "fan_in_uniform": FanInUniformBias(),
    "zeros": ConstantBias(),
}


def as_initializer(init: InitializerName | float | Initializer) -> Initializer:
    """An initializer from its name, from a standard deviation, or as it is.

    Raises
    ------
    ConfigError
        For an unknown name; the message lists the known ones.
    """
    if isinstance(init, str):
        if init not in _BY_NAME:
            raise ConfigError(
                f"expected an initializer among {', '.join(_BY_NAME)}, a standard deviation or a "
                f"function, got {init!r}"
            )
        return _BY_NAME[init]
    if isinstance(init, int | float | np.number):
        return ScaledNormal(init)  # type: ignore[arg-type]
    if not is_function(init, 3):
        raise ConfigError(
            "expected an initializer such as HeNormal(), its name, a standard deviation or a "
            "function of the fan-in, the fan-out and a generator, got "
            f"{init!r:.200}; arrays go through FromArray(values)"
        )
    return init


def as_bias_initializer(init: BiasInitializerName | float | Initializer) -> Initializer:
    """An initializer of biases from its name, from the number they all get, or as it is.

    Raises
    ------
    ConfigError
        For an unknown name; the message lists the known ones.
    """
    if isinstance(init, str) and init in _BIASES_BY_NAME:
        return _BIASES_BY_NAME[init]
    if isinstance(init, int | float | np.number):
        return ConstantBias(Number().check("Linear", "bias_init", init))
    if not is_function(init, 3):
        raise ConfigError(
            f"expected bias_init among {', '.join(_BIASES_BY_NAME)}, a number or a function of the "
            f"fan-in, the fan-out and a generator, got {init!r:.200}"
        )
    return init


def of_kernels(initializer: Initializer, positions: int) -> Initializer:
    """The same for kernels of so many numbers for each input and output channel.

    Their fan-in counts all of them by itself; of those with a fan-out, it does too.
    """
    if isinstance(initializer, GlorotNormal | GlorotUniform | GlorotUniformBias):
        return replace(initializer, positions=positions)
    return initializer


def drawn(initializer: Initializer, fan_in: int, fan_out: int, rng: Generator, bias: bool) -> Any:
    """What an initializer gives, which may be anyone's function.

    Raises
    ------
    ShapeError, DataError
        If it is not of the shape of weights or biases, or not finite.
    """
    values = initializer(fan_in, fan_out, rng)
    shape = (*_lead(rng), fan_out) if bias else (*_lead(rng), fan_in, fan_out)
    if np.shape(values) != shape:
        raise ShapeError(
            f"`{initializer!r:.80}`: expected an array of shape {shape}, got {np.shape(values)}"
        )
    if not np.isfinite(values).all():
        raise DataError(f"`{initializer!r:.80}`: expected finite numbers, got NaN or infinity")
    return values


def default_bias(init: InitializerName | float | Initializer) -> BiasInitializerName:
    """How biases start unless told: as weights that start by default do; beside others at 0."""
    if isinstance(init, str) and (init == "glorot_uniform" or init == "fan_in_uniform"):
        return init
    return "zeros"
