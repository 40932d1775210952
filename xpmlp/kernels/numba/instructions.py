"""Everything that a training step's tape can be made of, by name."""

from .activations import ACTIVATIONS
from .adapters import adapted, scaled_columns
from .adaptive_updates import adadelta, adamax, amsgrad, lion, nadam, radam
from .convolution import arranged, convolved, kernel_gradient, kernel_sum, turned
from .cross_entropy import (
    check_labels,
    cross_entropy,
    cross_entropy_of_shares,
    total_loss,
    total_loss_of_shares,
)
from .dropout import dropped
from .elementwise import copied, gated, multiplied, rectified, scaled, summed
from .embedding import chained, check_codes, code_sums, embedded, passed
from .gated import GATES, gate_backward, prelu
from .gemm import BATCH, COLUMNS, ROWS, TALL, product
from .group_norm import channel_slopes, group_norm, group_norm_backward
from .losses import CLASS_LOSSES, ELEMENTWISE_LOSSES, check_shares, hits, row_total, weighed
from .normalization import (
    batch_norm_backward_rows,
    batch_norm_rows,
    batch_norm_slopes,
    batch_statistics,
    layer_norm_backward_rows,
    layer_norm_rows,
    layer_norm_slopes,
    masked_layer_norm,
    masked_layer_norm_backward,
    rms_norm,
    rms_norm_backward,
    running,
)
from .penalties import PENALTIES, clipping, norms, penalty_value
from .periodic import wave_slopes, waves, waves_backward
from .piecewise_linear import coded_gradient, coded_rows, running_sums
from .pooling import averaged, averaged_backward, pooled, pooled_backward
from .products import column_sums, half_products, joined_halves, scale_slopes
from .softmax import SOFTMAXES
from .update import adagrad, adam, momentum, rmsprop, sgd

__all__ = [
    "ACTIVATIONS",
    "BATCH",
    "CLASS_LOSSES",
    "COLUMNS",
    "ELEMENTWISE_LOSSES",
    "GATES",
    "PENALTIES",
    "ROWS",
    "SOFTMAXES",
    "TALL",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adapted",
    "amsgrad",
    "arranged",
    "averaged",
    "averaged_backward",
    "batch_norm_backward_rows",
    "batch_norm_rows",
    "batch_norm_slopes",
    "batch_statistics",
    "chained",
    "channel_slopes",
    "check_codes",
    "check_labels",
    "check_shares",
    "clipping",
    "code_sums",
    "coded_gradient",
    "coded_rows",
    "column_sums",
    "convolved",
    "copied",
    "cross_entropy",
    "cross_entropy_of_shares",
    "dropped",
    "embedded",
    "gate_backward",
    "gated",
    "group_norm",
    "group_norm_backward",
    "half_products",
    "hits",
    "joined_halves",
    "kernel_gradient",
    "kernel_sum",
    "layer_norm_backward_rows",
    "layer_norm_rows",
    "layer_norm_slopes",
    "lion",
    "masked_layer_norm",
    "masked_layer_norm_backward",
    "momentum",
    "multiplied",
    "nadam",
    "norms",
    "passed",
    "penalty_value",
    "pooled",
    "pooled_backward",
    "prelu",
    "product",
    "radam",
    "rectified",
    "rms_norm",
    "rms_norm_backward",
    "rmsprop",
    "row_total",
    "running",
    "running_sums",
    "scale_slopes",
    "scaled",
    "scaled_columns",
    "sgd",
    "summed",
    "total_loss",
    "total_loss_of_shares",
    "turned",
    "wave_slopes",
    "waves",
    "waves_backward",
    "weighed",
]
