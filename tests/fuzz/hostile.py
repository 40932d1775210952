"""What nobody should give: values out of the blue, and values a little off what works."""

from __future__ import annotations

import datetime
import decimal
import fractions
import functools
import pathlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np


class Odd:
    """Neither a number nor an array."""


class Failing:
    """Of which nothing can be had."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no array")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


OUT_OF_THE_BLUE: list[Callable[[], Any]] = [
    *(lambda v=v: v for v in (None, True, False, "", "abc", "1", b"1", 0, 1, -1, 2, 3, 10**30)),
    *(lambda v=v: v for v in (0.5, -0.5, 1.5, 1e300, -0.0, float("nan"), float("inf"), 1j)),
    *(lambda v=v: v for v in ((), [], {}, [None], ["a"], [1, 2], [[1.0, 2.0], [3.0]], (0.5, 2))),
    *(lambda v=v: v for v in (decimal.Decimal("0.5"), fractions.Fraction(1, 3), Odd, range(3))),
    *(lambda v=v: v for v in (-(10**30), 10**400, "0.5", "nan", "relu", "mean", "µ\0", "a" * 9999)),
    *(lambda v=v: v for v in (-float("inf"), 5e-324, {1, 2}, {"a": 1}, slice(3), ..., print, int)),
    *(lambda v=v: v for v in (float, type, np, np.float32, pathlib.Path("x"), bytearray(b"1"))),
    lambda: datetime.date(2024, 1, 1),
    lambda: datetime.timedelta(1),
    lambda: Odd(),
    lambda: Failing(),
    lambda: lambda *a: None,
    lambda: lambda: 1.0,
    lambda: lambda *a: "abc",
    lambda: lambda *a: float("nan"),
    lambda: functools.partial(print, end=""),
    lambda: (x for x in (1, 2)),
    lambda: memoryview(b"abcd"),
    lambda: np.float32(0.5),
    lambda: np.float16("nan"),
    lambda: np.int8(-3),
    lambda: np.bool_(True),
    lambda: np.str_("abc"),
    lambda: np.datetime64("2024-01-01"),
    lambda: np.random.default_rng(0),
    lambda: np.array(0.5),
    lambda: np.array(None),
    lambda: np.array("relu"),
    lambda: np.zeros(0),
    lambda: np.zeros((0, 4), np.float32),
    lambda: np.zeros((4, 0), np.float32),
    lambda: np.ones((12, 4)),
    lambda: np.ones((12, 5), np.float32),
    lambda: np.ones((2, 12, 4), np.float32),
    lambda: np.ones((12, 4), np.float16),
    lambda: np.ones((12, 4), ">f4"),
    lambda: np.ones((4, 4), complex),
    lambda: np.ones((4, 4), np.longdouble),
    lambda: np.full((12, 4), np.nan, np.float32),
    lambda: np.full((4, 4), np.inf, np.float32),
    lambda: np.full((12, 4), None),
    lambda: np.full((12, 4), "a", object),
    lambda: np.full((12,), "a"),
    lambda: np.full((12,), "1.5"),
    lambda: np.full((12,), np.datetime64("2024-01-01")),
    lambda: np.full((4, 4), np.timedelta64(3)),
    lambda: np.arange(12) + 90,
    lambda: np.arange(12) - 5,
    lambda: np.arange(12) / 3,
    lambda: np.arange(12, dtype=np.uint8) % 3,
    lambda: np.array([2**63], np.uint64).repeat(12),
    lambda: np.ma.masked_array(np.ones((12, 4)), np.eye(12, 4)),
    lambda: np.ones((12, 4), [("a", "f4")]),
    lambda: np.broadcast_to(np.float32(1), (12, 4)),
]

Off = Callable[[Any, random.Random], Any]


def _array(change: Callable[[np.ndarray], Any]) -> Off:
    """A change of an array; of anything else, one of an array of it."""
    return lambda usual, draw: change(np.array(usual))


A_LITTLE_OFF: list[Off] = [
    *map(_array, (np.negative, np.transpose, np.ravel, np.zeros_like, np.ones_like, np.atleast_3d)),
    *map(_array, (np.asfortranarray, np.flip, np.squeeze, np.isnan, np.ndarray.tolist, np.shape)),
    *(
        _array(lambda a, dtype=dtype: a.astype(dtype))
        for dtype in ("f8", "f2", ">f4", "i1", "u8", "?", "O", "U", "S", "c8", "g", "M8[s]")
    ),
    _array(lambda a: a[..., :-1]),
    _array(lambda a: a[:-1]),
    _array(lambda a: a[:0]),
    _array(lambda a: a[None]),
    _array(lambda a: a[..., None]),
    _array(lambda a: a[::2]),
    _array(lambda a: a[..., ::-1]),
    _array(lambda a: np.concatenate([a, a])),
    _array(lambda a: a * 1e30),
    _array(lambda a: a * 1e-30),
    _array(lambda a: a + 100),
    _array(lambda a: a * np.nan),
    _array(lambda a: a.flat[0]),
    _array(lambda a: np.matrix(a)),
    _array(lambda a: np.rec.array(a)),
    _array(lambda a: np.ma.masked_equal(a, a.flat[0])),
    _array(lambda a: np.broadcast_to(a, (2, *a.shape))),
    lambda usual, draw: [usual],
    lambda usual, draw: (usual, usual),
    lambda usual, draw: {"value": usual},
    lambda usual, draw: iter([usual]),
    lambda usual, draw: str(usual),
    lambda usual, draw: repr(usual).encode(),
    lambda usual, draw: type(usual),
    lambda usual, draw: lambda *a: usual,
    lambda usual, draw: np.array(usual, object),
    lambda usual, draw: -usual,
    lambda usual, draw: usual * draw.choice([2, 0.5, 1e-9, 1e9, -3]),
    lambda usual, draw: fractions.Fraction(usual),
    lambda usual, draw: decimal.Decimal(usual),
]


def hostile_libraries() -> None:
    """Arrays of other libraries too, where they are installed."""
    try:
        import torch
    except ImportError:
        pass
    else:
        OUT_OF_THE_BLUE.extend(
            [
                lambda: torch.ones(12, 4),
                lambda: torch.ones(12, 4, requires_grad=True),
                lambda: torch.ones(12, 4, device="meta"),
                lambda: torch.ones(12, 4).to_sparse(),
                lambda: torch.ones(12, 4, dtype=torch.bfloat16),
                lambda: torch.ones(4, 4, dtype=torch.complex64).conj(),
                lambda: torch.ones(4, 4, dtype=torch.complex64).conj().imag,
                lambda: torch.tensor(0.5),
                lambda: torch.nn.Parameter(torch.ones(4, 4)),
            ]
        )
        A_LITTLE_OFF.append(_array(torch.tensor))
        A_LITTLE_OFF.append(_array(lambda a: torch.tensor(a * 1.0, requires_grad=True)))
    try:
        import pandas
    except ImportError:
        pass
    else:
        OUT_OF_THE_BLUE.extend(
            [
                lambda: pandas.DataFrame({"a": [1, None], "b": ["x", "y"]}),
                lambda: pandas.DataFrame(np.full((12, 4), "a"), dtype=object),
                lambda: pandas.DataFrame(np.full((12, 4), "a"), dtype="string"),
                lambda: pandas.Series([None] * 12, dtype=object),
                lambda: pandas.Series(["a", "b"] * 6, dtype="category"),
                lambda: pandas.array([1, None] * 6, dtype="Int64"),
            ]
        )
        A_LITTLE_OFF.append(_array(lambda a: pandas.DataFrame(np.atleast_2d(a))))
        A_LITTLE_OFF.append(_array(lambda a: pandas.Series(a.ravel())))
    try:
        import jax.numpy as jnp
    except ImportError:
        pass
    else:
        A_LITTLE_OFF.append(_array(jnp.asarray))
    try:
        from scipy import sparse
    except ImportError:
        pass
    else:
        A_LITTLE_OFF.append(_array(lambda a: sparse.csr_array(np.atleast_2d(a))))


def draw_value(usual: Any, draw: random.Random) -> Any:
    """A value to give where ``usual`` works; one out of the blue where none a little off is."""
    if draw.random() < 0.5:
        off = draw.choice(A_LITTLE_OFF)
        try:
            return off(usual, draw)
        except Exception:  # there is no such change of what is usual
            pass
    return draw.choice(OUT_OF_THE_BLUE)()
