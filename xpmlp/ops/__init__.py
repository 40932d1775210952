"""The operations under the layers: pure functions, each with a reference in array-API calls.

A kernel may stand in for a reference where it is faster; :func:`explain` says what runs and why,
:func:`without_kernels` switches them off.
"""

from . import activations
from .activations import *  # noqa: F403
from .adaptive_updates import (
    adadelta_update,
    adamax_update,
    amsgrad_update,
    lion_update,
    nadam_update,
    radam_update,
)
from .arguments import checked
from .convolution import conv2d, conv2d_backward
from .dispatch import explain, without_kernels
from .dropout import dropout
from .embedding import embedding, embedding_backward
from .gated import glu, glu_backward, prelu, prelu_backward, swiglu, swiglu_backward
from .gather import gather_rows
from .group_norm import group_norm, group_norm_backward
from .linear import linear, linear_backward
from .matmul import matmul
from .normalization import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    batch_norm_inference_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from .periodic import periodic, periodic_backward
from .piecewise_linear import piecewise_linear, piecewise_linear_backward
from .pooling import (
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from .softmax import log_softmax, log_softmax_backward, softmax, softmax_backward
from .softmax_cross_entropy import softmax_cross_entropy
from .update import (
    adagrad_update,
    adam_update,
    momentum_update,
    muon_update,
    orthogonalize,
    rmsprop_update,
    sgd_update,
)

__all__ = [
    "adadelta_update",
    "adagrad_update",
    "adam_update",
    "adamax_update",
    "amsgrad_update",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "batch_norm_inference_backward",
    "conv2d",
    "conv2d_backward",
    "dropout",
    "embedding",
    "embedding_backward",
    "explain",
    "gather_rows",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "glu",
    "glu_backward",
    "group_norm",
    "group_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "lion_update",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "max_pool2d",
    "max_pool2d_backward",
    "momentum_update",
    "muon_update",
    "nadam_update",
    "orthogonalize",
    "periodic",
    "periodic_backward",
    "piecewise_linear",
    "piecewise_linear_backward",
    "prelu",
    "prelu_backward",
    "radam_update",
    "rms_norm",
    "rms_norm_backward",
    "rmsprop_update",
    "sgd_update",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "swiglu",
    "swiglu_backward",
    "without_kernels",
]
__all__ += activations.__all__

for _name in __all__:
    if _name not in ("explain", "without_kernels"):
        globals()[_name] = checked(globals()[_name])
