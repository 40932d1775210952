"""The step of training: layer by layer, compiled for NumPy arrays, captured for CuPy's."""

from .by_layers import by_layers
from .captured import CapturedStep
from .compiled import CompiledStep
from .task import Task
from .train_step import TrainStep

__all__ = ["CapturedStep", "CompiledStep", "Task", "TrainStep", "by_layers"]
