"""What the products of a compiled step are computed in."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...choices import Precision
from ...ops.dispatch import load_kernels
from .program import NotCompiled


def product_of(precision: Precision | None, dtype: np.dtype) -> Any:
    """The instruction for that precision of arrays of a dtype.

    Raises
    ------
    NotCompiled
        If there is none for such numbers, or on this processor.
    """
    gemm = load_kernels("numba", "gemm")
    if precision is None:
        return gemm.product
    if precision != "bf16":
        raise NotCompiled(f"on NumPy there is 'bf16' and no {precision!r}")
    if not load_kernels("numba", "simd").target().bfloat16:
        raise NotCompiled("this processor has no products of bfloat16 numbers (AVX512-BF16)")
    if dtype != np.float32:
        raise NotCompiled(f"its numbers are {dtype}, and only float32 ones are rounded")
    return gemm.bfloat16_product
