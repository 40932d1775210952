"""Everything that a training step's tape can be made of, by name."""

from .step_elementwise import ACTIVATIONS, dropout, gated, rectified, scaled
from .step_losses import check_labels, cross_entropy, hits, row_total, squared_error
from .step_normalization import (
    batch_norm,
    batch_norm_backward,
    batch_norm_slopes,
    batch_statistics,
    layer_norm,
    layer_norm_backward,
    layer_norm_slopes,
)
from .step_products import (
    BATCH,
    COLUMNS,
    ROWS,
    TALL,
    column_sums,
    half_products,
    joined_halves,
    product,
)
from .step_updates import adagrad, adam, momentum, rmsprop, sgd

__all__ = [
    "ACTIVATIONS",
    "BATCH",
    "COLUMNS",
    "ROWS",
    "TALL",
    "adagrad",
    "adam",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_slopes",
    "batch_statistics",
    "check_labels",
    "column_sums",
    "cross_entropy",
    "dropout",
    "gated",
    "half_products",
    "hits",
    "joined_halves",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_slopes",
    "momentum",
    "product",
    "rectified",
    "rmsprop",
    "row_total",
    "scaled",
    "sgd",
    "squared_error",
]
