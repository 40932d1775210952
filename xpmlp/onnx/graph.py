"""A graph under construction: nodes, constants and the shapes between them."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .. import __version__

OPSET = 17
IR_VERSION = 8  # of the time of opset 17; a newer one would shut out older runtimes
BATCH = "N"
"""Stands in shapes for the size of the batch, which the file leaves open."""


class Value:
    """A tensor of the graph: its name, and its shape with BATCH for the batch's size."""

    def __init__(self, name: str, shape: tuple[int | str, ...]):
        self.name, self.shape = name, shape

    def text(self) -> str:
        """The shape, for messages."""
        return "(" + ", ".join(map(str, self.shape)) + ")"


class Graph:
    """Collects nodes and constants; all tensors but the input have the dtype of the model."""

    def __init__(self, onnx: ModuleType, dtype: str):
        self.onnx, self.dtype = onnx, dtype
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.source: Any = None

    def input(self, name: str, shape: tuple[int | str, ...], dtype: str) -> Value:
        """Declare the graph's input; what comes back has the model's dtype."""
        self.source = self._declare(name, shape, dtype)
        x = Value(name, shape)
        return x if dtype == self.dtype else self.cast(x, self.dtype, "input")

    def node(
        self,
        op: str,
        inputs: Sequence[Value | str],
        at: str,
        shape: tuple[int | str, ...] | None = None,
        **attributes: Any,
    ) -> Value:
        """Add an operator for the layer ``at``; the result has the first input's shape."""
        name = f"{at}/{op}_{len(self.nodes)}"
        names = [value.name if isinstance(value, Value) else value for value in inputs]
        self.nodes.append(self.onnx.helper.make_node(op, names, [name], name, **attributes))
        if shape is None:
            shape = next(value.shape for value in inputs if isinstance(value, Value))
        return Value(name, shape)

    def constant(self, name: str, values: Any, dtype: str | None = None) -> str:
        """Add an array, or a number, under a name."""
        array = np.asarray(values, dtype=self.dtype if dtype is None else dtype)
        self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def cast(self, x: Value, dtype: str, at: str) -> Value:
        """x in another dtype."""
        return self.node("Cast", [x], at, to=self._type(dtype))

    def reshape(self, x: Value, shape: tuple[int | str, ...], at: str) -> Value:
        """x with other trailing axes; all axes up to the batch's must stay as they are."""
        sizes = [0 if size == BATCH else size for size in shape]  # 0 copies x's own size
        target = self.constant(f"{at}/shape", sizes, "int64")
        return self.node("Reshape", [x, target], at, shape)

    def finish(self, y: Value, name: str) -> bytes:
        """The checked file, with y as its output under that name."""
        if not self.nodes:
            y = self.node("Identity", [y], "output")
        self.nodes[-1].output[0] = name  # every node works on the last one's result
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes,
            "network",
            [self.source],
            [self._declare(name, y.shape, self.dtype)],
            list(self.constants.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="xpmlp",
            producer_version=__version__,
        )
        self.onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _declare(self, name: str, shape: tuple[int | str, ...], dtype: str) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, self._type(dtype), list(shape))

    def _type(self, dtype: str) -> int:
        return self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
