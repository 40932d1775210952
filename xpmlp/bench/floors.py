"""What this machine can do at best: the speed of a plain copy, and of a large matrix product.

A case that moves B bytes and computes F floating-point operations cannot take less than
``max(B / copy speed, F / product speed)``, its floor. Both speeds are measured here, with as many
threads as the contestants have, and the copy at the size of the case: what fits into a cache is
copied faster.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .timing import WARM_SECONDS, come_to_rest

_ALONE_BYTES = 1 << 18  # traffic below this is one thread's work
_LEAST_BYTES = 1 << 12
_MOST_BYTES = 1 << 29
_MEASURE_BYTES = 1 << 28  # small copies are repeated until this much has moved
_PRODUCT_SIZES = (512, 1024, 2048)


class Floors:
    """Measures each speed once, when it is first needed.

    Parameters
    ----------
    threads : int
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._copy: dict[int, float] = {}
        self._product: float | None = None
        self.rivals: list[Callable[[int], float]] = []
        """Further ways to compute: given n, the seconds of 2 n³ operations in products. The fastest
        counts."""

    def seconds(self, moved: float | None, flops: float | None) -> float | None:
        """The floor of a case, or None if its work is not known."""
        if moved is None or flops is None:
            return None
        return max(moved / self.copy_speed(moved), flops / self.product_speed() if flops else 0.0)

    def copy_speed(self, moved: float) -> float:
        """Bytes read and written in a second, when about ``moved`` bytes are."""
        size = 1 << round(math.log2(min(max(moved, _LEAST_BYTES), _MOST_BYTES)))
        if size not in self._copy:
            threads = self.threads if size >= _ALONE_BYTES else 1
            self._copy[size] = max(_copy_speed(size, n) for n in {1, threads})
        return self._copy[size]

    def product_speed(self) -> float:
        """FLOPs in a second of the best float32 product of square matrices."""
        if self._product is not None:
            return self._product
        ways = [_numpy_product, *self.rivals]
        fastest = max(2.0 * n**3 / way(n) for n in _PRODUCT_SIZES for way in ways)
        self._product = fastest
        return fastest

    def to_json(self) -> dict[str, object]:
        """What was measured, in GB/s by size and GFLOP/s."""
        speeds = {str(size): speed / 1e9 for size, speed in sorted(self._copy.items())}
        product = None if self._product is None else self._product / 1e9
        return {"copy_gb_per_second": speeds, "product_gflop_per_second": product}


def _copy_speed(size: int, threads: int) -> float:
    """Half of ``size`` is read and half written, divided over the threads."""
    length = max(1, size // 8 // threads)  # float32 elements of one thread
    repeats = max(1, min(_MEASURE_BYTES // size, length // 8))
    pairs = [(_repeated(length, repeats), _repeated(length, repeats)) for _ in range(threads)]

    def copy(pair: tuple[np.ndarray, np.ndarray]) -> None:
        np.copyto(pair[0], pair[1])  # lets go of the interpreter lock

    best = math.inf
    come_to_rest()
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(8):
            begin = time.perf_counter()
            if threads == 1:
                copy(pairs[0])
            else:
                list(pool.map(copy, pairs))
            best = min(best, time.perf_counter() - begin)
    return 8.0 * length * threads * repeats / best


def _repeated(length: int, repeats: int) -> np.ndarray:
    """Rows that are all nearly the same memory: a copy of it copies that memory many times, with no
    Python in between.

    Each row begins two elements after the one before, for NumPy would turn rows of exactly the same
    memory around and copy their first elements first. Ones, for zeros would all be one page.
    """
    memory = np.ones(length + 2 * repeats, np.float32)
    step = memory.itemsize
    return np.lib.stride_tricks.as_strided(memory, (repeats, length), (2 * step, step))


def _numpy_product(n: int) -> float:
    """Seconds of NumPy's n×n product, the best of a few."""
    a = np.ones((n, n), np.float32)
    return best_of(lambda: np.matmul(a, a))


def best_of(run: Callable[[], object], times: int = 4) -> float:
    """The shortest time of a call, of a process at rest and after some that do not count."""
    come_to_rest()
    best, warm = math.inf, time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < warm:
        run()
    for _ in range(times):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best
