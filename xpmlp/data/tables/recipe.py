"""How networks on tables are trained: what suits a table of so many rows."""

from __future__ import annotations


def batch_rows(rows: int) -> int:
    """Rows of a minibatch."""
    return 64 if rows < 2_000 else 128 if rows < 6_400 else 256


def drops_last(rows: int, batch: int) -> bool:
    """Whether to leave out an epoch's last batch: few rows would move weights as far as many."""
    return rows > batch and rows % batch < batch // 2
