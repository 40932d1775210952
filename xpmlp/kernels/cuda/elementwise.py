"""ReLU on CuPy arrays, by the kernels of ``bias_activation.cu`` without a bias."""

from __future__ import annotations

from typing import Any

from . import bias_activation


def relu(x: Any) -> Any:
    """The kernel, with the signature and the results of the op."""
    return bias_activation.forward(x, None, "relu")


def relu_backward(dy: Any, x: Any, y: Any) -> Any:
    """The kernel, with the signature and the results of the op."""
    dz, _ = bias_activation.backward(dy, y, "relu", want_bias=None)
    return dz
