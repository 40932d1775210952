"""A graph under construction: nodes, constants and the shapes between them."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ConfigError, MissingDependencyError

OPSET = 17
ML, ML_OPSET = "ai.onnx.ml", 2  # for text, where there is any
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
    """Collects nodes and constants; tensors have the dtype of the model unless they are cast."""

    def __init__(self, onnx: ModuleType, dtype: str):
        self.onnx, self.dtype = onnx, dtype
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def input(self, name: str, shape: tuple[int | str, ...], dtype: str) -> Value:
        """An input of the graph, in the model's dtype."""
        x = self.declare(name, shape, dtype)
        return x if dtype == self.dtype else self.cast(x, self.dtype, "input")

    def declare(self, name: str, shape: tuple[int | str, ...], dtype: str) -> Value:
        """An input of the graph as it is."""
        self.inputs.append(self._info(name, shape, dtype))
        return Value(name, shape)

    def output(self, y: Value, name: str, dtype: str | None = None) -> Value:
        """Make y an output of the graph; what is computed from it takes what comes back."""
        if not self.nodes or self.nodes[-1].output[0] != y.name:
            y = self.node("Identity", [y], "output")
        self.nodes[-1].output[0] = name
        self.outputs.append(self._info(name, y.shape, dtype or self.dtype))
        return Value(name, y.shape)

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
        """Add an array, or a number, under a name; text is of dtype ``"str"``."""
        array = np.asarray(values, dtype=object if dtype == "str" else dtype or self.dtype)
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

    def finish(self) -> bytes:
        """The checked file."""
        self._check_names()
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes,
            "network",
            self.inputs,
            self.outputs,
            list(self.constants.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*it) for it in self._operator_sets()],
            ir_version=IR_VERSION,
            producer_name="xpmlp",
            producer_version=__version__,
        )
        self.onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _operator_sets(self) -> list[tuple[str, int]]:
        domains = {node.domain for node in self.nodes}
        return [("", OPSET), *((ML, ML_OPSET) for domain in domains if domain == ML)]

    def _check_names(self) -> None:
        """Raise ConfigError if an input has the name of another tensor."""
        made = {name for node in self.nodes for name in node.output} | self.constants.keys()
        for name in [info.name for info in self.inputs]:
            if name in made:
                raise ConfigError(
                    f"`export_onnx`: expected names of columns that the graph has not itself, got "
                    f"{name!r}; rename the column"
                )

    def _info(self, name: str, shape: tuple[int | str, ...], dtype: str) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, self._type(dtype), list(shape))

    def _type(self, dtype: str) -> int:
        text = np.dtype(object)
        return self.onnx.helper.np_dtype_to_tensor_dtype(
            text if dtype == "str" else np.dtype(dtype)
        )


def import_onnx() -> ModuleType:
    """The onnx library; MissingDependencyError, which says what to install, without it."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingDependencyError(
            "`export_onnx`: expected the onnx library, got none installed; "
            'pip install "xpmlp[onnx]"'
        ) from error
    return onnx
