"""Random numbers from a counter: the same on every array library, and never stored.

Philox4x32-10 [1]_ turns a counter of four 32-bit words and a key of two into four random words.
There is no state: the numbers of a dropout mask are a function of (seed, stream, step, element), so
the backward pass can recompute them, a population of networks draws exactly what its members would
draw alone, and NumPy, CuPy, torch and JAX agree to the last bit.

The counter's words are used like this::

    word 0: element number / 4      word 2: stream (which layer, which purpose)
    word 1: step (or epoch)         word 3: 0
    key:    the seed, low and high 32 bits

.. [1] Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC'11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .backend import Array, Namespace, has_wide_types
from .errors import ConfigError

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF

# Streams below this number are for layers; those above have a fixed purpose.
_PERMUTATION_STREAM = 0xFFFF0001
_PIECE = 16_384  # elements of a permutation that are computed at a time


def philox(xp: Namespace, counter: Sequence[Any], key: Sequence[Any]) -> list[Array]:
    """Philox4x32-10 on arrays.

    Parameters
    ----------
    xp : module
        An array-API namespace.
    counter : sequence of four integer arrays or ints
        Words in [0, 2³²), shapes broadcastable; at least one is an array. Arrays are int64, or
        int32 holding the same bits where the library has no 64-bit integers.
    key : sequence of two
        Likewise.

    Returns
    -------
    list of four arrays
        Random words, as int64 in [0, 2³²) (or the same bits in int32).
    """
    if has_wide_types(xp):
        multiply, wrap = _multiply_wide, _LOW
    else:
        multiply, wrap = _multiply_narrow, None
    c0, c1, c2, c3 = (_word(c, wrap) for c in counter)
    k0, k1 = (_word(k, wrap) for k in key)
    for _ in range(_ROUNDS):
        high0, low0 = multiply(c0, _MULTIPLIERS[0])
        high1, low1 = multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = _add(k0, _WEYL[0], wrap)
        k1 = _add(k1, _WEYL[1], wrap)
    return [c0, c1, c2, c3]


def _word(value: Any, wrap: int | None) -> Any:
    """A Python int as a word: as it is in 64 bits, as the same bits with a sign in 32."""
    return _signed(value) if wrap is None and isinstance(value, int) else value


def _signed(value: int) -> int:
    return value - (1 << 32) if value & 0x80000000 else value


def _add(a: Any, constant: int, wrap: int | None) -> Any:
    if isinstance(a, int):
        total = (a + constant) & _LOW
        return total if wrap is not None else _signed(total)
    return (a + constant) & wrap if wrap is not None else a + _signed(constant)


def _multiply_wide(a: Any, m: int) -> tuple[Any, Any]:
    """High and low word of a 32×32-bit product, in wrapping 64-bit arithmetic."""
    if isinstance(a, int):
        return (a * m) >> 32, (a * m) & _LOW
    # The product may overflow int64, but its 64 bits are right: shift, then drop the sign's copies.
    product = a * m
    return (product >> 32) & _LOW, product & _LOW


def _multiply_narrow(a: Any, m: int) -> tuple[Any, Any]:
    """The same from 16-bit halves, in wrapping 32-bit arithmetic (JAX without 64-bit types)."""
    if isinstance(a, int):
        product = (a & _LOW) * m
        return _signed(product >> 32), _signed(product & _LOW)
    a_low, a_high = a & 0xFFFF, (a >> 16) & 0xFFFF
    m_low, m_high = m & 0xFFFF, m >> 16
    low = a_low * m_low
    middle = a_low * m_high + ((low >> 16) & 0xFFFF)
    middle_low = a_high * m_low + (middle & 0xFFFF)
    high = a_high * m_high + ((middle >> 16) & 0xFFFF) + ((middle_low >> 16) & 0xFFFF)
    return high, a * _signed(m)


class Generator:
    """A seed and a stream number; makes the draws for one layer, or hands out further streams.

    Parameters
    ----------
    seed : int or sequence of int
        A sequence of P seeds makes every draw of shape ``(P, *shape)``, member p drawing exactly
        what ``Generator(seed[p])`` draws.
    stream : int
        Which of the seed's independent streams to draw from.

    Examples
    --------
    >>> rng = Generator(seed=0)
    >>> first, second = rng.spawn(), rng.spawn()   # two layers: different weights, one seed
    """

    def __init__(self, seed: int | Sequence[int] = 0, stream: int = 0):
        several = isinstance(seed, Sequence | np.ndarray) and getattr(seed, "ndim", 1) > 0
        several = several and not isinstance(seed, bytes | bytearray | memoryview)
        seeds: tuple[Any, ...] = tuple(seed) if several else (seed,)  # type: ignore[arg-type]
        if not seeds:
            raise ConfigError("Generator: expected at least one seed, got an empty sequence")
        for value in seeds:
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not 0 <= value < 1 << 64:
                raise ConfigError(
                    f"Generator: expected seeds that are integers in [0, 2**64), got {value!r}"
                )
        self.seeds: tuple[int, ...] = tuple(int(value) for value in seeds)
        self.population: int | None = len(self.seeds) if several else None
        self.stream = stream
        # Unlike itertools.count, a range's iterator can be copied with the layer that holds it.
        self._next_stream = iter(range(stream + 1, _PERMUTATION_STREAM))

    def spawn(self) -> Generator:
        """A generator of the same seed on the next unused stream."""
        seed = self.seeds[0] if self.population is None else self.seeds
        return self._relative(seed, next(self._next_stream))

    def of_member(self, number: int) -> Generator:
        """The generator of one member of a population, on the same stream."""
        return self._relative(self.seeds[number], self.stream)

    def _relative(self, seed: int | Sequence[int], stream: int) -> Generator:
        """A generator that takes its streams from the same count: none is ever given twice."""
        relative = Generator(seed, stream)
        relative._next_stream = self._next_stream
        return relative

    def key(self, xp: Namespace, ndim: int, device: Any = None) -> tuple[Any, Any]:
        """The key's two words: ints, or for a population arrays of shape ``(P, 1, …)``."""
        if self.population is None:
            return self.seeds[0] & _LOW, self.seeds[0] >> 32
        words = np.asarray([[s & _LOW, s >> 32] for s in self.seeds], dtype=np.int64)
        shape = (len(self.seeds),) + (1,) * (ndim - 1)
        low, high = (_words_to(xp, words[:, i].reshape(shape), device) for i in (0, 1))
        return low, high

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal numbers in float64, on the host, of shape ``shape`` or ``(P, *shape)``.

        Box–Muller on 53-bit uniforms: ``√(−2 ln u₁)·cos 2πu₂``. Made in float64 by NumPy on every
        backend, so that initial weights are equal everywhere.
        """
        uniform = self._host_uniform(2 * math.prod(shape))
        radius = np.sqrt(-2.0 * np.log1p(-uniform[..., 0::2]))
        values = radius * np.cos(2.0 * np.pi * uniform[..., 1::2])
        return values.reshape(self._lead() + tuple(shape))

    def uniform(self, shape: tuple[int, ...], step: int = 0) -> np.ndarray:
        """Uniform float64 numbers in [0, 1), on the host, of shape ``shape`` or ``(P, *shape)``.

        Another ``step``, other numbers.
        """
        return self._host_uniform(math.prod(shape), step).reshape(self._lead() + tuple(shape))

    def _lead(self) -> tuple[int, ...]:
        return () if self.population is None else (self.population,)

    def _host_uniform(self, count: int, step: int = 0) -> np.ndarray:
        """``count`` (per member) float64 uniforms of 53 bits, from two words each."""
        blocks = -(-count // 2)
        element = np.arange(blocks, dtype=np.int64)
        if self.population is not None:
            element = element[None, :]
        words = philox(np, (element, step, self.stream, 0), self.key(np, 2))
        first, second = _to_53_bits(words[0], words[1]), _to_53_bits(words[2], words[3])
        pairs = np.stack([first, second], axis=-1)
        return pairs.reshape(*self._lead(), -1)[..., :count]


def _to_53_bits(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return ((high >> 5) * float(1 << 26) + (low >> 6)) / float(1 << 53)


def _words_to(xp: Namespace, words: np.ndarray, device: Any) -> Array:
    if not has_wide_types(xp):
        words = words.astype(np.uint32).view(np.int32)
    return xp.asarray(words, device=device) if device is not None else xp.asarray(words)


def random_bits(
    xp: Namespace,
    shape: tuple[int, ...],
    generator: Generator,
    step: int,
    device: Any = None,
    first: int = 0,
) -> Array:
    """24 random bits for every element, on the arrays' own device.

    Parameters
    ----------
    xp : module
        An array-API namespace.
    shape : tuple of int
        The result's shape. With a generator of P seeds the leading axis is P, and each member's
        numbers are those it would get alone.
    generator : Generator
        Seed and stream.
    step : int
        The draw's number: another step, other numbers.
    device : optional
        Where to make them.
    first : int
        The number of the first element, of each member: those of a part of a larger array.

    Returns
    -------
    array of int64 (int32 where the library has no 64-bit integers), shape ``shape``
        Integers in [0, 2²⁴).
    """
    population = generator.population
    if population is not None and (not shape or shape[0] != population):
        raise ConfigError(
            f"random_bits: expected a leading axis of {population} (one for each seed), got "
            f"shape {shape}"
        )
    member_shape = shape if population is None else shape[1:]
    count = math.prod(member_shape)
    dtype = xp.int64 if has_wide_types(xp) else xp.int32
    before, skipped = divmod(first, 4)
    end = before + -(-(count + skipped) // 4)
    element = xp.arange(before, end, dtype=dtype, device=device)
    if population is not None:
        element = element[None, :]
    words = philox(xp, (element, step & _LOW, generator.stream, 0), generator.key(xp, 2, device))
    bits = xp.stack(words, axis=-1)
    lead = () if population is None else (population,)
    flat = xp.reshape(bits, (*lead, bits.shape[-2] * 4))[..., skipped : skipped + count]
    return xp.reshape((flat >> 8) & 0xFFFFFF, shape)


def permutation(n: int, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """The order of the rows in one epoch: a pure function of (n, seed, epoch).

    A Feistel network [1]_ permutes the integers of 2b bits, b = ⌈log₂(n)/2⌉; numbers that land
    outside of 0…n−1 are sent through again until they land inside (cycle walking), which keeps it a
    permutation. Each row's place can be computed alone, without sorting and without a table, so a
    device can do it too. Its rounds take their keys from :func:`philox`.

    Parameters
    ----------
    n : int
        How many rows, n ≥ 0.
    seed, epoch : int
        Another seed or epoch, another order.

    Returns
    -------
    ndarray of int64, shape (n,)
        Each of 0…n−1 once.

    .. [1] Luby, Rackoff: How to construct pseudorandom permutations from pseudorandom functions.
       SIAM J. Comput. 17 (1988).
    """
    return permutations([n], [seed], epoch)[0]


def permutations(sizes: Sequence[int], seeds: Sequence[int], epoch: int = 0) -> list[np.ndarray]:
    """:func:`permutation` of several sizes, each of its seed, whose keys are drawn together."""
    for n in sizes:
        if n < 0:
            raise ConfigError(f"`permutation`: expected n ≥ 0, got {n}")
    generator = Generator(list(seeds), _PERMUTATION_STREAM)
    blocks = np.arange(2, dtype=np.int64)[None, :]
    words = philox(np, (blocks, epoch & _LOW, generator.stream, 0), generator.key(np, 2))
    keys = np.stack(words, axis=-1).reshape(len(generator.seeds), -1).tolist()
    return [_permuted(n, own) for n, own in zip(sizes, keys, strict=True)]


def _permuted(n: int, round_keys: Sequence[int]) -> np.ndarray:
    """0 … n−1 in the order of a Feistel network with these keys."""
    if n < 2:
        return np.arange(n, dtype=np.int64)
    half_bits = max(1, -(-(n - 1).bit_length() // 2))
    mask = (1 << half_bits) - 1
    # Where the network sends each integer, as a table: at most 4n of them, and then walking a cycle
    # is looking up. Made piece by piece, so that a piece's intermediate values stay in the cache.
    table = np.empty(1 << 2 * half_bits, np.uint32 if half_bits <= 16 else np.int64)
    for begin in range(0, table.size, _PIECE):
        values = np.arange(begin, min(begin + _PIECE, table.size), dtype=table.dtype)
        left, right = (v.astype(np.uint32) for v in (values >> half_bits, values & mask))
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right, round_key) & mask)
        table[begin : begin + _PIECE] = (left.astype(table.dtype) << half_bits) | right

    order = table[:n].astype(np.int64)
    pending = np.flatnonzero(order >= n)
    while pending.size:
        moved = table[order[pending]]
        order[pending] = moved
        pending = pending[moved >= n]
    return order


def _mix(value: np.ndarray, round_key: int) -> np.ndarray:
    """A 32-bit hash of (value, key): the finalizer of MurmurHash3 (Appleby, public domain)."""
    h = value ^ np.uint32(round_key)
    h ^= h >> 16
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> 13
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> 16
    return h


_shared = Generator(0)


def seed_everything(seed: int) -> None:
    """Start over the process-wide generator that layers made without ``rng=`` take streams from."""
    global _shared
    _shared = Generator(seed)


def as_generator(
    rng: Generator | int | Sequence[int] | None, population: int | None = None
) -> Generator:
    """Turn what a user may pass as ``rng=`` into a generator for ``population`` members.

    None takes the next stream of the process-wide generator (see :func:`seed_everything`). One
    seed s for a population of P stands for the seeds s, s+1, …, s+P−1.

    Raises
    ------
    ConfigError
        If the number of seeds is not the population's size.
    """
    if rng is None:
        shared = _shared.spawn()
        if population is None:
            return shared
        return shared._relative(_member_seeds(shared.seeds[0], population), shared.stream)
    if not isinstance(rng, Generator):
        if isinstance(rng, int | np.integer) and population is not None:
            rng = _member_seeds(int(rng), population)
        rng = Generator(rng)
    if rng.population != population:
        raise ConfigError(
            f"expected {population or 'no'} population seeds, got {rng.population or 'one seed'}; "
            "give one seed, or as many as the population has members"
        )
    return rng


def _member_seeds(seed: int, population: int) -> tuple[int, ...]:
    return tuple((seed + member) % (1 << 64) for member in range(population))
