"""Everything that a training step's tape can be made of, by name."""

from .step_activations import ACTIVATIONS
from .step_elementwise import copied, dropout, gated, multiplied, rectified, scaled, summed
from .step_losses import (
    CLASS_LOSSES,
    ELEMENTWISE_LOSSES,
    check_labels,
    check_shares,
    cross_entropy,
    cross_entropy_of_shares,
    hits,
    row_total,
)
from .step_normalization import (
    batch_norm,
    batch_norm_backward,
    batch_norm_slopes,
    batch_statistics,
    layer_norm,
    layer_norm_backward,
    layer_norm_slopes,
)
from .step_penalties import PENALTIES, clipping, penalty_value, squares
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
from .step_row_norms import (
    masked,
    masked_layer_norm,
    masked_layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from .step_softmax import SOFTMAXES
from .step_updates import adagrad, adam, momentum, rmsprop, sgd

__all__ = [
    "ACTIVATIONS",
    "BATCH",
    "CLASS_LOSSES",
    "COLUMNS",
    "ELEMENTWISE_LOSSES",
    "PENALTIES",
    "ROWS",
    "SOFTMAXES",
    "TALL",
    "adagrad",
    "adam",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_slopes",
    "batch_statistics",
    "check_labels",
    "check_shares",
    "clipping",
    "column_sums",
    "copied",
    "cross_entropy",
    "cross_entropy_of_shares",
    "dropout",
    "gated",
    "half_products",
    "hits",
    "joined_halves",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_slopes",
    "masked",
    "masked_layer_norm",
    "masked_layer_norm_backward",
    "momentum",
    "multiplied",
    "penalty_value",
    "product",
    "rectified",
    "rms_norm",
    "rms_norm_backward",
    "rmsprop",
    "row_total",
    "scaled",
    "sgd",
    "squares",
    "summed",
]
