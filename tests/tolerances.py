"""One table of tolerances: what is compared, in which dtype, and why the number is what it is.

``actual`` and ``expected`` agree where ``|actual − expected| ≤ atol + rtol · |expected|``. Expected
values are computed in float64. Widening a number needs a reason; write it here.
"""

from __future__ import annotations

EPS = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
"""The distance from 1 to the next number."""

# (what, dtype): (rtol and atol in units of EPS, reason)
_TABLE = {
    ("elementwise", "float64"): (16, 16, "a handful of rounded operations and one exp or tanh"),
    ("elementwise", "float32"): (16, 16, "the same; libraries differ by 2 ulp in exp and tanh"),
    ("elementwise", "float16"): (8, 8, "computed in float16 steps, rounded after each"),
    ("body", "float64"): (4, 0, "a recurrence of 25 steps, one exp, one division: 2 ulp seen"),
    ("body", "float32"): (4, 0, "the same with 14 terms; with 9 the error is 15 ulp"),
    ("tail", "float64"): (4096, 0, "exp(−z²) multiplies the rounding of z² by z², up to 676"),
    ("tail", "float32"): (512, 0, "the same, z² up to 81; JAX flushes subnormals beyond"),
    ("reduction", "float64"): (64, 64, "sums of tens of terms of order 1 in any order"),
    ("reduction", "float32"): (64, 64, "the same"),
    ("reduction", "float16"): (4, 4, "accumulated in float32, so only inputs and result round"),
    ("normalization", "float64"): (256, 256, "differences of sums, scaled by 1/σ"),
    ("normalization", "float32"): (256, 256, "the same"),
    ("normalization", "float16"): (16, 16, "x̂ and γ·dy round to float16, sums do not"),
    ("large mean", "float32"): (0, 16384, "inputs of 1e4 keep 1e4·EPS = 1e-3 of a deviation of 1"),
    ("update", "float64"): (64, 64, "a few steps, each of a handful of roundings"),
    ("update", "float32"): (64, 64, "the same"),
    ("orthogonal", "float64"): (4096, 4096, "five steps of products, each amplifying by 3.4"),
    ("orthogonal", "float32"): (4096, 4096, "the same"),
}


def tolerance(what: str, dtype: str) -> dict[str, float]:
    """``rtol`` and ``atol`` for a kind of computation in a dtype."""
    relative, absolute, _ = _TABLE[what, dtype]
    return {"rtol": relative * EPS[dtype], "atol": absolute * EPS[dtype]}
