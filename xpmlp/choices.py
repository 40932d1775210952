"""Options that are words: which they may be, for types and for checks alike."""

from __future__ import annotations

from typing import Literal

ActivationName = Literal[
    "relu",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "tanh",
    "sigmoid",
    "softplus",
    "softsign",
    "selu",
    "celu",
    "mish",
    "hardswish",
]
HiddenActivation = Literal[ActivationName, "identity"]
"""Of hidden layers, which may have none."""
FusableName = Literal["relu", "tanh", "sigmoid"]
NormalizationName = Literal["batchnorm", "layernorm", "rmsnorm"]
Convention = Literal["torch", "cs231n", "onnx", "keras"]
Adapters = Literal["ones", "signs"]
InitializerName = Literal[
    "he_normal",
    "he_uniform",
    "glorot_normal",
    "glorot_uniform",
    "xavier_normal",
    "xavier_uniform",
    "fan_in_uniform",
    "lecun_normal",
    "zeros",
]
BiasInitializerName = Literal["glorot_uniform", "fan_in_uniform", "zeros"]
OptimizerName = Literal[
    "sgd",
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
    "muon",
    "amsgrad",
    "nadam",
    "radam",
    "adamax",
    "adadelta",
    "lion",
]
ScheduleName = Literal["constant", "exponential", "cosine", "onecycle", "polynomial"]
Output = Literal["softmax", "sigmoid", "identity"]
Reduction = Literal["mean", "sum", "none"]
Sampling = Literal["shared", "own", "bootstrap"]
Precision = Literal["tf32", "bf16", "fp16"]
TargetKind = Literal["classification", "regression"]
FloatName = Literal["float16", "bfloat16", "float32", "float64"]
