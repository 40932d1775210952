"""What ready-made networks have in common: predictions, and a table of their layers."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np

from .. import ops
from ..backend import Array, array_namespace, asarray, has_wide_types, to_numpy
from ..choices import FloatName, Output
from ..data.dataset import check_finite
from ..data.loader import as_array
from ..errors import ConfigError, DataError, ShapeError
from ..layers import Sequential
from ..step import Evaluation

OUTPUTS = get_args(Output)


class Network(Sequential):
    """A network that knows what its outputs mean, and from what it can be built again.

    Attributes
    ----------
    config : dict
        Everything needed to build it again: ``type(model)(**model.config)``.
    output : {"softmax", "sigmoid", "identity"}
    dtype : str
    """

    config: dict[str, Any]
    output: Output
    dtype: FloatName

    def predict_proba(self, x: Any, batch_size: int = 4096) -> Array:
        """Class probabilities.

        Parameters
        ----------
        x : array_like, shape (N, …)
            Put on the current backend, in the model's dtype.
        batch_size : int
            Rows at a time, to bound memory; in a population those of all members together.

        Returns
        -------
        array, shape (N, M), or (P, N, M) for a population

        Raises
        ------
        ConfigError
            For a network whose outputs are plain numbers.
        DataError
            If inputs on the host, or outputs, are not finite. Looking at outputs waits for the
            device.
        """
        if self.output == "identity":
            raise ConfigError(
                "`predict_proba`: expected a classifier, got output='identity'; use predict"
            )
        outputs = _finite("predict_proba", self.outputs(x, batch_size))
        return ops.sigmoid(outputs) if self.output == "sigmoid" else ops.softmax(outputs)

    def predict(self, x: Any, batch_size: int = 4096) -> Array:
        """Class numbers (N,) for softmax, 0/1 (N, M) for sigmoid, numbers (N, M) otherwise.

        With a population, the leading axis is P. Parameters and errors as in
        :meth:`predict_proba`.
        """
        outputs = self.outputs(x, batch_size)
        if self.output == "identity":
            return outputs
        xp = array_namespace(_finite("predict", outputs))
        if self.output == "softmax":
            return xp.argmax(outputs, axis=-1)
        return xp.astype(outputs > 0, xp.int64 if has_wide_types(xp) else xp.int32)

    def outputs(self, x: Any, batch_size: int = 4096) -> Array:
        """The raw outputs for x, in evaluation mode; parameters as in :meth:`predict_proba`."""
        batch_size = max(1, batch_size // (self.population or 1))
        x = as_array(x)
        if len(x.shape) < 2:
            raise ShapeError(
                f"`{type(self).__name__}`: expected x of shape (N, …), got {tuple(x.shape)}; "
                "a single sample is x[None]"
            )
        axis = 0
        if self.population is not None and x.ndim > 2 and x.shape[0] == self.population:
            axis = 1 if math.prod(x.shape[1:]) != self.config["sizes"][0] else 0
        evaluation, parts = Evaluation(self), []
        for start in range(0, x.shape[axis], batch_size):
            stop = min(start + batch_size, x.shape[axis])
            rows = x[start:stop, ...] if axis == 0 else x[:, start:stop, ...]
            if isinstance(rows, np.ndarray):
                check_finite(rows, f"{type(self).__name__}: x", first_row=start if axis == 0 else 0)
            parts.append(evaluation.outputs(asarray(rows, self.dtype)))
        if not parts:
            raise ShapeError(f"`{type(self).__name__}`: expected at least one sample, got none")
        if len(parts) == 1:
            return parts[0]
        return array_namespace(*parts).concat(parts, axis=0 if self.population is None else 1)

    def summary(self) -> str:
        """A table of the layers, the shapes of their outputs and their parameter counts."""
        shape: tuple[int, ...] = (self.config["sizes"][0],)
        rows = [("layer", "output", "parameters"), ("input", _shape_text(shape), "")]
        total = 0
        for number, layer in enumerate(self.layers):
            shape = layer.output_shape(shape)
            count = sum(math.prod(p.shape) for p in layer.params.values())
            total += count
            rows.append((f"{number} {layer!r}", _shape_text(shape), f"{count:,}" if count else ""))
        rows.append(("total", "", f"{total:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        layout = f"{{:<{widths[0]}}}  {{:<{widths[1]}}}  {{:>{widths[2]}}}"
        lines = [layout.format(*row).rstrip() for row in rows]
        rule = "-" * (sum(widths) + 4)
        text = "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
        return text + (f"\n{self.population} networks" if self.population else "")


def _finite(where: str, outputs: Array) -> Array:
    """Outputs that a class may be read from; of NaN, class 0 would be."""
    xp = array_namespace(outputs)
    wrong = ~xp.isfinite(outputs)
    if bool(xp.any(wrong)):
        places = np.argwhere(to_numpy(xp.any(wrong, axis=-1)))
        raise DataError(
            f"`{where}`: expected finite outputs, got NaN or infinity in {len(places)} rows, the "
            f"first {places[0].tolist()}; check the inputs of that row, and that the network's "
            "parameters are finite"
        )
    return outputs


def _shape_text(shape: tuple[int, ...]) -> str:
    return "(N, " + ", ".join(str(size) for size in shape) + ")"
