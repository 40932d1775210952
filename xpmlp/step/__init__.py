"""The step of training: layer by layer, compiled for NumPy arrays, captured for CuPy's.

And what comes between: evaluation, compiled for NumPy arrays as well.
"""

from .by_layers import by_layers
from .captured import CapturedStep
from .compiled import CompiledStep
from .evaluation import Evaluation
from .task import Task
from .train_step import TrainStep

__all__ = ["CapturedStep", "CompiledStep", "Evaluation", "Task", "TrainStep", "by_layers"]
