"""Where the captured step was before :mod:`xpmlp.step`; kept for code that imports it from here."""

from ..step import CapturedStep

__all__ = ["CapturedStep"]
