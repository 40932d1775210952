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
"""Activations by name, as networks take them."""
HiddenActivation = Literal[ActivationName, "identity"]
"""Of hidden layers, which may have none."""
FusableName = Literal["relu", "tanh", "sigmoid"]
"""Those that a product computes at once."""
NormalizationName = Literal["batchnorm", "layernorm", "rmsnorm"]
"""Behind each hidden layer."""
Convention = Literal["torch", "cs231n", "onnx", "keras"]
"""Of batch normalization: whose ε, decay and variance."""
Adapters = Literal["ones", "signs"]
"""How the vectors of :class:`~xpmlp.layers.SharedLinear` start."""
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
"""How weights start."""
BiasInitializerName = Literal["glorot_uniform", "fan_in_uniform", "zeros"]
"""How biases start."""
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
"""Optimizers of sweeps and the command."""
ScheduleName = Literal["constant", "exponential", "cosine", "onecycle", "polynomial"]
"""Schedules of the learning rate that need no further options."""
Output = Literal["softmax", "sigmoid", "identity"]
"""What a network's outputs mean: classes, independent questions, or numbers."""
Reduction = Literal["mean", "sum", "none"]
"""What becomes of a loss's rows."""
Sampling = Literal["shared", "own", "bootstrap"]
"""How the members of a population draw their batches."""
Precision = Literal["tf32", "bf16", "fp16"]
"""What products are computed in."""
TargetKind = Literal["classification", "regression"]
"""What a table's target is."""
FloatName = Literal["float16", "bfloat16", "float32", "float64"]
"""What parameters are kept in."""
