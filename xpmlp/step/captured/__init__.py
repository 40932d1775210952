"""A training step on CuPy arrays as one recorded graph."""

from .step import CapturedStep

__all__ = ["CapturedStep"]
