"""Export a trained network as ONNX, to run it where there is no Python."""

from .export import export_onnx

__all__ = ["export_onnx"]
