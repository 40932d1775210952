"""How networks on tables are trained unless told otherwise: by estimators, and by ``xpmlp train``.

What each choice gave is on the page ``docs/tables.md``.
"""

from __future__ import annotations

MEMBERS = 16
FOLDS = 8
HIDDEN = (128, 64)
RATE = 1e-3
DECAY = 1e-4
EPOCHS = 200
PATIENCE = 12
PATIENCE_SHARE = 1 / 4
"""Of the epochs up to the best one; see :class:`~xpmlp.training.EarlyStopping`."""
BINS = 128
AVERAGE = 0.7
"""What stays of the mean over earlier epochs' parameters, which is what is evaluated and kept."""


def batch_rows(rows: int) -> int:
    """Rows of a minibatch."""
    return 64 if rows < 2_000 else 128 if rows < 6_400 else 256


def drops_last(rows: int, batch: int) -> bool:
    """Whether to leave out an epoch's last batch: few rows would move weights as far as many."""
    return rows > batch and rows % batch < batch // 2
