"""exp and log that LLVM can vectorize: straight-line arithmetic, no calls, no tables.

Compiled code that calls the C library's exp does so once for each element. These become part of the
caller's loop and run on whole vectors. Their errors stay below 2 units in the last place, those of
functions made of exp and log below 4, and those of Φ's tail below 6.

Multiply-adds may be contracted to FMA, but nothing may be reassociated, whatever the caller allows:
the subtraction of ``n ln 2`` in two parts (Cody and Waite 1980) would lose its second part. That is
why these are functions with options of their own and not inlined as source.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

# Not Python's error on dividing by zero: LLVM makes no vectors of a loop that may raise.
_OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy"}


def exp_nonpositive(x):
    """``exp(x)`` for x ≤ 0: 0 where that is below the normal numbers, NaN for NaN."""
    raise NotImplementedError("for compiled code")


def log_positive(x):
    """``ln(x)`` for normal finite x > 0, NaN for NaN and infinity."""
    raise NotImplementedError("for compiled code")


def tanh(x):
    """``tanh(x)``, NaN for NaN."""
    raise NotImplementedError("for compiled code")


def sigmoid(x):
    """``1/(1 + e⁻ˣ)``, NaN for NaN."""
    raise NotImplementedError("for compiled code")


def expm1_nonpositive(x):
    """``exp(x) − 1`` for x ≤ 0, NaN for NaN."""
    raise NotImplementedError("for compiled code")


def log1p_of_unit(x):
    """``ln(1 + x)`` for 0 ≤ x ≤ 1, NaN for NaN."""
    raise NotImplementedError("for compiled code")


def normal(x):
    """Φ(x) and φ(x), the standard normal distribution and its density; NaN for NaN."""
    raise NotImplementedError("for compiled code")


@overload(exp_nonpositive, jit_options=_OPTIONS)
def _exp_nonpositive(x):
    return _exp32 if x == types.float32 else _exp64


@overload(log_positive, jit_options=_OPTIONS)
def _log_positive(x):
    return _log32 if x == types.float32 else _log64


def _exp32(x):
    least = np.float32(-87.33654)
    # n from a value inside the range, also for NaN: it becomes an integer, and NaN has none.
    inside = x if x > least else least
    n = np.floor(inside * np.float32(1.4426950408889634) + np.float32(0.5))
    f = x - n * np.float32(0.693359375)  # exact: this half of ln 2 has few bits
    f = f - n * np.float32(-2.12194440054690583e-4)
    # e^f for |f| ≤ ½ ln 2, Taylor's series to f⁷: the next term is 3e-9.
    p = np.float32(1.0 / 5040.0)
    p = p * f + np.float32(1.0 / 720.0)
    p = p * f + np.float32(1.0 / 120.0)
    p = p * f + np.float32(1.0 / 24.0)
    p = p * f + np.float32(1.0 / 6.0)
    p = p * f + np.float32(0.5)
    p = p * (f * f) + f + np.float32(1.0)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(0.0) if x < least else p * power


def _exp64(x):
    least = -708.396418532264
    inside = x if x > least else least
    n = np.floor(inside * 1.4426950408889634 + 0.5)
    f = x - n * 6.93145751953125e-1
    f = f - n * 1.42860682030941723212e-6
    # Taylor's series to f¹³: the next term is 4e-18.
    p = 1.0 / 6227020800.0
    p = p * f + 1.0 / 479001600.0
    p = p * f + 1.0 / 39916800.0
    p = p * f + 1.0 / 3628800.0
    p = p * f + 1.0 / 362880.0
    p = p * f + 1.0 / 40320.0
    p = p * f + 1.0 / 5040.0
    p = p * f + 1.0 / 720.0
    p = p * f + 1.0 / 120.0
    p = p * f + 1.0 / 24.0
    p = p * f + 1.0 / 6.0
    p = p * f + 0.5
    p = p * (f * f) + f + 1.0
    power = np.int64((np.int64(n) + np.int64(1023)) << np.int64(52)).view(np.float64)
    return 0.0 if x < least else p * power


def _log32(x):
    bits = np.float32(x).view(np.int32)
    # x = 2ⁿ m with m in [√½, √2): subtracting √½'s bits moves the border of n there.
    n = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    m = np.int32(bits - (n << np.int32(23))).view(np.float32)
    z = (m - np.float32(1.0)) / (m + np.float32(1.0))
    w = z * z
    # ln m = 2 artanh z; |z| < 0.172, the next term is 1e-9.
    p = np.float32(1.0 / 9.0)
    p = p * w + np.float32(1.0 / 7.0)
    p = p * w + np.float32(1.0 / 5.0)
    p = p * w + np.float32(1.0 / 3.0)
    small = np.float32(2.0) * (z * (w * p) + z)
    k = np.float32(n)
    nothing = x - x  # but NaN for NaN, which the bits above do not heed
    small = k * np.float32(-2.12194440054690583e-4) + (small + nothing)
    return k * np.float32(0.693359375) + small


def _log64(x):
    bits = np.float64(x).view(np.int64)
    n = (bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)
    m = np.int64(bits - (n << np.int64(52))).view(np.float64)
    z = (m - 1.0) / (m + 1.0)
    w = z * z
    p = 1.0 / 23.0
    p = p * w + 1.0 / 21.0
    p = p * w + 1.0 / 19.0
    p = p * w + 1.0 / 17.0
    p = p * w + 1.0 / 15.0
    p = p * w + 1.0 / 13.0
    p = p * w + 1.0 / 11.0
    p = p * w + 1.0 / 9.0
    p = p * w + 1.0 / 7.0
    p = p * w + 1.0 / 5.0
    p = p * w + 1.0 / 3.0
    small = 2.0 * (z * (w * p) + z)
    k = np.float64(n)
    nothing = x - x
    return k * 6.93145751953125e-1 + (k * 1.42860682030941723212e-6 + (small + nothing))


@overload(tanh, jit_options=_OPTIONS)
def _tanh(x):
    return _tanh32 if x == types.float32 else _tanh64


@overload(sigmoid, jit_options=_OPTIONS)
def _sigmoid(x):
    return _sigmoid_of(np.float32(1) if x == types.float32 else 1.0)


def _tanh32(x):
    # Near 0 by a polynomial for tanh(x)/x in x², else by exponentials (Moshier 1992, Cephes).
    size = abs(x)
    z = x * x
    p = np.float32(-5.70498872745e-3)
    p = p * z + np.float32(2.06390887954e-2)
    p = p * z + np.float32(-5.37397155531e-2)
    p = p * z + np.float32(1.33314422036e-1)
    p = p * z + np.float32(-3.33332819422e-1)
    near = x + x * (z * p)
    e = exp_nonpositive(np.float32(-2) * size)
    far = (np.float32(1) - e) / (np.float32(1) + e)
    return near if size < np.float32(0.625) else (-far if x < np.float32(0) else far)


def _tanh64(x):
    size = abs(x)
    z = x * x
    p = -9.64399179425052238628e-1
    p = p * z + -9.92877231001918586564e1
    p = p * z + -1.61468768441708447952e3
    q = z + 1.12811678491632931402e2
    q = q * z + 2.23548839060100448583e3
    q = q * z + 4.84406305325125486048e3
    near = x + x * (z * (p / q))
    e = exp_nonpositive(-2.0 * size)
    far = (1.0 - e) / (1.0 + e)
    return near if size < 0.625 else (-far if x < 0.0 else far)


def _sigmoid_of(one):
    def implementation(x):
        e = exp_nonpositive(-abs(x))
        return (e if x < 0 else one) / (one + e)

    return implementation


# --- By way of exp and log ------------------------------------------------------------------------

# With u = eˣ rounded, (u − 1)/ln u errs as little as x/(eˣ − 1) varies; so for 1 + x and its
# logarithm. Both are W. Kahan's (Higham, Accuracy and Stability of Numerical Algorithms, 1.14.1).


@overload(expm1_nonpositive, jit_options=_OPTIONS)
def _expm1_nonpositive(x):
    real = np.float32 if x == types.float32 else np.float64
    one, half = real(1), real(0.5)

    def implementation(x):
        u = exp_nonpositive(x)
        small = (u - one) * (x / log_positive(u))
        return x if u == one else (small if u > half else u - one)

    return implementation


@overload(log1p_of_unit, jit_options=_OPTIONS)
def _log1p_of_unit(x):
    one = np.float32(1) if x == types.float32 else np.float64(1)

    def implementation(x):
        u = one + x
        away = u - one
        return x if u == one else log_positive(u) * (x / away)

    return implementation


# --- The normal distribution ----------------------------------------------------------------------

# For a = |x|, 1 − Φ(a) is exp(−a²/2) u p(u) with u = 1/(a + k): p varies by a factor of 3 in all,
# and k is where a polynomial needs the fewest terms. Its variable w is u, mapped to −1 … 1. The
# coefficients are Chebyshev interpolants, computed with 40 digits and written as powers.


def gaussian(x):
    """``exp(−x²/2)`` for |x| ≤ 40, NaN for NaN."""
    raise NotImplementedError("for compiled code")


# No contraction here: what x² was rounded by would be lost.
@overload(gaussian, jit_options={"error_model": "numpy"})
def _gaussian(x):
    if x == types.float32:
        real, whole, upper = np.float32, np.int32, np.int32(-0x1000)
    else:
        real, whole, upper = np.float64, np.int64, np.int64(-0x8000000)
    half = real(0.5)

    def implementation(x):
        top = whole(real(x).view(whole) & upper).view(real)  # its square is exact
        square = x * x
        missed = (top * top - square) + (x + top) * (x - top)
        e = exp_nonpositive(-half * square)
        return e - half * missed * e

    return implementation


@overload(normal, jit_options=_OPTIONS)
def _normal(x):
    return _normal32 if x == types.float32 else _normal64


def _normal32(x):
    size = abs(x)
    size = np.float32(40) if size > np.float32(40) else size
    e = gaussian(size)
    u = np.float32(1) / (size + np.float32(2))
    w = u * np.float32(4.601503759) + np.float32(-1.30075188)
    p = np.float32(-1.328385661e-5)
    p = p * w + np.float32(-3.689524651e-5)
    p = p * w + np.float32(1.916348518e-4)
    p = p * w + np.float32(-6.269594063e-5)
    p = p * w + np.float32(-1.008262526e-3)
    p = p * w + np.float32(2.50208472e-3)
    p = p * w + np.float32(1.931902696e-3)
    p = p * w + np.float32(-0.02359005809)
    p = p * w + np.float32(0.01094996863)
    p = p * w + np.float32(0.292996578)
    p = p * w + np.float32(0.7161390157)
    tail = e * (u * p)
    return (tail if x < np.float32(0) else np.float32(1) - tail), e * np.float32(0.3989422804014327)


def _normal64(x):
    size = abs(x)
    size = 40.0 if size > 40.0 else size
    e = gaussian(size)
    u = 1.0 / (size + 2.5)
    w = u * 5.3246753246753247 + -1.1298701298701299
    p = 1.8592137036143646e-9
    p = p * w + -4.6544478719345322e-9
    p = p * w + -7.746966403582191e-9
    p = p * w + 3.5931198439939456e-8
    p = p * w + -2.0635450526077394e-8
    p = p * w + -8.4531293939095749e-8
    p = p * w + 2.1086588617159421e-7
    p = p * w + -1.6819416378240197e-7
    p = p * w + -3.6024387152725606e-7
    p = p * w + 1.4968409246642424e-6
    p = p * w + -1.9358175862443223e-6
    p = p * w + -2.0962408880130298e-6
    p = p * w + 1.3022428846622558e-5
    p = p * w + -1.7632907231832807e-5
    p = p * w + -2.6064985849435035e-5
    p = p * w + 1.37006340649845e-4
    p = p * w + -1.1190104890650537e-4
    p = p * w + -5.6842785452353594e-4
    p = p * w + 1.4981963690619509e-3
    p = p * w + 1.8184416102220599e-3
    p = p * w + -0.012253096067076383
    p = p * w + -0.010900789811903704
    p = p * w + 0.11457303199522274
    p = p * w + 0.42225143447708631
    p = p * w + 0.7335897120218472
    tail = e * (u * p)
    return (tail if x < 0.0 else 1.0 - tail), e * 0.3989422804014327
