"""Many settings trained together: grids, what they are trained with, and successive halving."""

from .checkpoints import SweepCheckpoints
from .grid import expand, parse_axes
from .halving import Halving
from .result import SweepResult, Trial
from .run import sweep
from .settings import AXES, Settings

__all__ = [
    "AXES",
    "Halving",
    "Settings",
    "SweepCheckpoints",
    "SweepResult",
    "Trial",
    "expand",
    "parse_axes",
    "sweep",
]
