"""Where metrics were before :mod:`xpmlp.metrics`; kept for code that imports them from here."""

from ..metrics import accuracy, confusion_matrix, correct, r2

__all__ = ["accuracy", "confusion_matrix", "correct", "r2"]
