"""Sums that a training step makes last, all by one kernel (``finish`` in ``update.cu``).

Losses, hits and bias gradients come as parts; each would be a small kernel of its own, which takes
longer to start than to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ShapeError
from . import geometry, launch

if TYPE_CHECKING:
    from .update import FlatUpdate

_PARTS = {"float32": 0, "float64": 0, "bool": 1, "uint8": 1, "float16": 2, "bfloat16": 3}
_OUT_IS_INTEGER = 4
_COLUMNS, _ROWS = 32, 8  # of a block


@dataclass(eq=False)
class Sum:
    """``out[j] = scale · scales[j] · Σᵢ parts[i, j] + extra[j]``.

    Attributes
    ----------
    parts : array, shape (rows, columns)
        With any strides; floats, or bytes.
    shape : tuple of int
        Of the result, in which ``columns`` numbers are.
    out : array, or None until it is known
        In the accumulator's type, or int32. With ``slots``, of shape (slots, *shape).
    scale : float
    scales, extra : array of ``columns`` numbers, or None
        In the accumulator's type; ``extra`` may be one number.
    slots : int
        If not 0, which part of ``out`` is written follows from the number of the batch.
    """

    parts: Any
    shape: tuple[int, ...]
    out: Any = None
    scale: float = 1.0
    scales: Any = None
    extra: Any = None
    slots: int = 0

    def row(self, first_block: int) -> list[int]:
        """As the kernel's table has it."""
        columns = self.parts.shape[1]
        for name, sizes in (("scales", (columns,)), ("extra", (1, columns))):
            given = getattr(self, name)
            if given is not None and given.size not in sizes:
                wanted = " or ".join(map(str, sizes))
                raise ShapeError(
                    f"`Sum`: expected {name} of {wanted} numbers for a result of shape "
                    f"{self.shape}, got shape {tuple(given.shape)}"
                )
        size = self.parts.dtype.itemsize
        kind = _PARTS[self.parts.dtype.name] | _OUT_IS_INTEGER * (self.out.dtype.kind == "i")
        return [
            launch.address(self.parts),
            launch.address(self.out),
            *self.parts.shape,
            *(step // size for step in self.parts.strides),
            kind,
            self.slots,
            int(np.float64(self.scale).view(np.int64)),
            0 if self.scales is None else launch.address(self.scales),
            0 if self.extra is None else launch.address(self.extra),
            int(self.extra is not None and self.extra.size > 1),
            first_block,
        ]

    def blocks(self) -> int:
        """One a column where its rows lie side by side, else one for 32 columns."""
        rows, columns = self.parts.shape
        along = rows > 1 and self.parts.strides[0] == self.parts.dtype.itemsize
        return columns if along else math.ceil(columns / _COLUMNS)


def finish(
    sums: Sequence[Sum],
    *,
    send: Callable[[Callable[[], Any]], None],
    slot: Any = None,
    flat: FlatUpdate | None = None,
) -> None:
    """Make all sums, and the optimizer's numbers of this step.

    Parameters
    ----------
    sums : sequence of Sum
        One at least, whose accumulators are alike.
    send : callable
        Does what travels, as ``Recorder.send`` does.
    slot : int64 array of one element, optional
        On the device, the number of the batch.
    flat : FlatUpdate, optional
        Also does its ``tick``.
    """
    rows, blocks = [], 0
    for one in sums:
        rows.append(one.row(blocks))
        blocks += one.blocks()
    table = launch.empty((len(rows), len(rows[0])), np.int64)
    values = np.array(rows, np.int64)
    send(lambda: table.set(values))
    real = next(one.out.dtype.name for one in sums if one.out.dtype.kind == "f")
    suffix = "f64" if real == "float64" else "f32"
    ticking = 0 if flat is None else 1
    plan = geometry.Launch(f"finish_{suffix}", (blocks + ticking, 1, 1), (_COLUMNS, _ROWS, 1))
    tick = (None, None, None, 0, np.int32(0), None) if flat is None else flat.tick_arguments()
    launch.run("update", suffix, plan, table, np.int32(len(rows)), slot, *tick)
