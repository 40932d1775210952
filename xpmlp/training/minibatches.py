"""The batches that trainers train and evaluate on, and what is checked before they do."""

from __future__ import annotations

import math
from typing import Any

import array_api_compat

from ..backend import Array, dtype_name, get_backend
from ..data.loader import Batches, as_array
from ..data.resident import batches_on_device
from ..data.sparse_rows import is_sparse
from ..errors import ConfigError, ShapeError, XpmlpError
from ..layers import Linear, PiecewiseLinear
from ..layers.base import Layer
from ..layers.containers import is_sequential
from ..losses import Loss
from ..ops.dispatch import why_kernels_are_off
from .scores import check_outputs


def minibatches(model: Layer, x: Any, y: Any, *, loss: Loss | None = None, **options: Any) -> Any:
    """Batches of the model's dtype, on the current backend.

    On CuPy, of data that stay on the device or stream to it, where steps can be captured. A batch
    may be written over the one before, so one must be done with before the next is asked for.

    Parameters
    ----------
    model : Layer
    x, y : array_like
    loss : Loss, optional
        Looks at all targets, once; see :meth:`Loss.check_targets`.
    **options
        As for :class:`~xpmlp.data.Batches`. With weights of rows, or sparse ones, steps are not
        captured.
    """
    check_rows_of_members(model, x)
    batches = _minibatches(model, x, y, **options)
    check_targets(model, loss, batches.y)
    return batches


def check_targets(model: Layer, loss: Loss | None, y: Any) -> None:
    """Have a loss look at the targets of a whole data set, where the model tells its outputs."""
    outputs = count_outputs(model)
    if loss is not None and y is not None and outputs is not None:
        check_outputs("fit", loss, outputs, y)  # says more than that class 1 does not exist
        loss.check_targets(y, outputs)


def count_outputs(model: Layer) -> int | None:
    """How many outputs a sample has; None where layers that we do not know decide."""
    if not is_sequential(model):
        return None
    for _, layer in reversed(list(model.named_layers())):
        if type(layer) is Linear or type(layer) is PiecewiseLinear:
            return int(layer.W.shape[-1])
        if not type(layer).__module__.startswith("xpmlp."):
            return None
    return None


def _minibatches(model: Layer, x: Any, y: Any, **options: Any) -> Any:
    dtype = floating_dtype(model)
    if options.get("sample_weight") is not None or is_sparse(x):
        return Batches(x, y, dtype=dtype, reuse=True, **options)
    options.pop("sample_weight", None)
    stays = dtype in ("float32", "float64") and options.get("ranks") is None
    if stays and _is_on_cuda(model) and not why_kernels_are_off():
        options.pop("ranks", None)
        return batches_on_device(x, y, dtype=dtype, **options)
    return Batches(x, y, dtype=dtype, reuse=True, **options)


def is_pair(validation: Any) -> bool:
    """Whether it may be (x, y), or these and weights of their rows."""
    return isinstance(validation, tuple | list) and len(validation) in (2, 3)


def check_validation(where: str, validation: Any) -> None:
    """Raise ConfigError unless it may be (x, y) or (x, y, sample_weight), or is None."""
    if validation is None or is_pair(validation):
        return
    raise ConfigError(
        f"`{where}`: expected validation=(x, y) or (x, y, sample_weight), got "
        f"{type(validation).__name__}"
    )


def check_rows_of_members(model: Layer, x: Any) -> None:
    """Raise ShapeError for sequences (N, T, D) that a population would take as its members'."""
    config = getattr(model, "config", None)
    if model.population is None or config is None or len(shape := _shape(x)) < 3:
        return
    inputs = config["sizes"][0]
    if shape[-1] == inputs and math.prod(shape[1:]) != inputs:
        raise ShapeError(
            f"`PopulationTrainer`: expected x of shape (N, {inputs}), or axes whose product is "
            f"{inputs}, got {shape}; steps of sequences are rows: x.reshape(-1, {inputs}) and "
            "targets to match"
        )


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(x.shape if is_sparse(x) else as_array(x).shape)


def width_of(model: Layer, x: Array) -> int:
    """How many outputs a row has; 0 if the model does not say."""
    try:
        return int(model.output_shape(tuple(x.shape[1:]))[-1])
    except (XpmlpError, IndexError, NotImplementedError):
        return 0


def floating_dtype(model: Layer) -> str:
    """The dtype of the model's parameters."""
    for array in model.params.values():
        return dtype_name(array.dtype)
    return "float32"


def _is_on_cuda(model: Layer) -> bool:
    params = model.params.values()
    return get_backend().name == "cupy" and all(map(array_api_compat.is_cupy_array, params))
