"""A training step on NumPy arrays: each layer, loss and optimizer as instructions of a program.

One function for each type. A layer's gets the program and its input, appends the forward's
instructions, and gives its output and a function that appends the backward's. Types that are not
in the tables here, subclasses among them, make the step run layer by layer as before.
"""

from .evaluation import CompiledForward
from .memory import StepMemory
from .program import NotCompiled
from .step import CompiledStep, compile_step

__all__ = ["CompiledForward", "CompiledStep", "NotCompiled", "StepMemory", "compile_step"]
