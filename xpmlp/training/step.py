"""Where the step was before :mod:`xpmlp.step`; kept for code that imports it from here."""

from ..step import TrainStep

__all__ = ["TrainStep"]
