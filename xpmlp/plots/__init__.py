"""Pictures of a training: curves, confusion matrix, worst mistakes, first-layer weights.

Also of a sweep, of several trainings, and of how far probabilities can be relied on.

Each function returns a matplotlib ``Figure`` and, given a path, saves it; the suffix chooses the
format (``.png``, ``.svg``, ``.pdf``, …). No window is opened and pyplot's state is not touched, so
they work without a display and from any thread. Colours are those of Okabe and Ito (2008), which
readers with any kind of colour vision can tell apart, and lines differ in their dashes as well.
"""

from .confusion import plot_confusion
from .first_layer import plot_first_layer
from .history import plot_history
from .mistakes import plot_mistakes
from .rates import plot_rates
from .reliability import plot_reliability
from .runs import plot_runs
from .sweep import plot_sweep

__all__ = [
    "plot_confusion",
    "plot_first_layer",
    "plot_history",
    "plot_mistakes",
    "plot_rates",
    "plot_reliability",
    "plot_runs",
    "plot_sweep",
]
