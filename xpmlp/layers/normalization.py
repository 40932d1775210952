"""Normalization layers: BatchNorm with running statistics, LayerNorm, RMSNorm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..backend import Array, array_namespace, asarray, detached
from ..choices import Convention, FloatName
from ..errors import ShapeError
from ..ops.shapes import check_choice, check_floating
from ..options import Number
from .base import FLOAT, Layer, Parameter, State
from .shared_statistics import batch_norm


@dataclass(frozen=True)
class BatchNormConvention:
    """What frameworks disagree on.

    Attributes
    ----------
    keep : float
        How much of the running value stays: ``running ← keep · running + (1 − keep) · batch``.
    unbiased : bool
        Whether the running variance takes the batch's variance divided by N − 1 instead of N.
    initial_var : float
        Where the running variance starts.
    eps : float
        ε under the root.
    """

    keep: float
    unbiased: bool
    initial_var: float
    eps: float


CONVENTIONS = {
    "torch": BatchNormConvention(keep=0.9, unbiased=True, initial_var=1.0, eps=1e-5),
    "cs231n": BatchNormConvention(keep=0.9, unbiased=False, initial_var=0.0, eps=1e-5),
    "onnx": BatchNormConvention(keep=0.9, unbiased=False, initial_var=1.0, eps=1e-5),
    "keras": BatchNormConvention(keep=0.99, unbiased=False, initial_var=1.0, eps=1e-3),
}


class _Scaled(Layer):
    """A layer with a scale γ for every feature, of shape (D,) or (P, D)."""

    gamma = Parameter()
    features: Any = Number("[1, inf)", whole=True)
    population: Any = Number("[1, inf)", whole=True, optional=True)
    eps: Any = Number("[0, inf)")

    def __init__(self, features: int, population: int | None, dtype: FloatName):
        super().__init__()
        self.features, self.population = features, population
        self._shape = (features,) if population is None else (population, features)
        self._dtype = FLOAT.check(type(self).__name__, "dtype", dtype)
        self.gamma = self._filled(1.0)

    def _filled(self, value: float, dtype: str | None = None) -> Array:
        return asarray(np.full(self._shape, value), dtype or self._dtype)

    def describe(self) -> str:
        return str(self.features)

    def _check(self, x: Array) -> None:
        """What an op checks that computes statistics; without them, (N, 1) would broadcast."""
        where = f"{type(self).__name__}.forward"
        check_floating(where, "x", x)
        shape, own = tuple(x.shape), (*self._shape[:-1], "N", self.features)
        tail = shape[-len(own) :]
        if len(tail) < len(own) or tail[:-2] != own[:-2] or tail[-1] != own[-1] or tail[-2] == 0:
            raise ShapeError(
                f"`{where}`: expected x of shape (…, {', '.join(map(str, own))}) with N ≥ 1, got "
                f"{shape}"
            )


class BatchNorm(_Scaled):
    """Standardise every feature over the batch, then scale by γ and shift by β.

    In training the batch's own mean and biased variance are used, and the running ones move towards
    them; in evaluation the running ones are used.

    Parameters
    ----------
    features : int
        D.
    convention : {"torch", "cs231n", "onnx", "keras"}
        Presets for what frameworks do differently; see :data:`CONVENTIONS`.
    keep, eps : float, optional
        Override the preset's; keep in [0, 1], eps ≥ 0.
    population : int, optional
        P: parameters (P, D) for x (P, N, D).
    dtype : str

    Notes
    -----
    x (…, N, D); every axis that γ lacks counts as batch. Running statistics of a layer in half
    precision are float32. Source: Ioffe and Szegedy 2015.
    """

    beta = Parameter()
    running_mean = State()
    running_var = State()
    keep: Any = Number("[0, 1]")

    def __init__(
        self,
        features: int,
        *,
        convention: Convention = "torch",
        keep: float | None = None,
        eps: float | None = None,
        population: int | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__(features, population, dtype)
        check_choice("BatchNorm", "convention", convention, tuple(CONVENTIONS))
        preset = CONVENTIONS[convention]
        self.keep = preset.keep if keep is None else keep
        self.eps = preset.eps if eps is None else eps
        self.unbiased = preset.unbiased
        self.beta = self._filled(0.0)
        # In half precision a variance above 65504 would be infinite, and small steps be lost.
        kept = self._dtype if self._dtype == "float64" else "float32"
        self.running_mean = self._filled(0.0, kept)
        self.running_var = self._filled(preset.initial_var, kept)

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, N, D) to the same shape.

        Raises
        ------
        ShapeError
            If x has another shape, or in training only one row: that has no variance.
        """
        if not training:
            self._check(x)
            mean, var = self.running_mean, self.running_var
            self._saved = x, mean, var, ops.batch_norm_inference_backward
            return ops.batch_norm_inference(x, self.gamma, self.beta, mean, var, self.eps)
        self._check(x)
        share = self.share
        rows = math.prod(x.shape[:-1]) // (self.population or 1)
        if share is not None and share.ranks.statistics == "global":
            rows = share.of_all(rows)
        if rows == 1 and (share is None or share.rows):
            raise ShapeError(
                "`BatchNorm.forward`: expected a batch of at least 2 rows in training, got 1 (x of "
                f"shape {tuple(x.shape)}), which has no variance; raise batch_size, or leave out "
                "a last batch of one row with drop_last=True"
            )
        if share is None:
            y, mean, var = ops.batch_norm(x, self.gamma, self.beta, self.eps)
            self._saved = x, mean, var, ops.batch_norm_backward
        else:
            y, saved, mean, var = batch_norm(x, self.gamma, self.beta, self.eps, share)
            self._saved = x, *saved
            if share.ranks.statistics == "rank":
                rows = share.on_average(rows)
        correction = rows / (rows - 1) if self.unbiased else 1.0
        self.running_mean = self._move(self.running_mean, mean)
        self.running_var = self._move(self.running_var, var * correction)
        return y

    def backward(self, dy: Array) -> Array:
        """dx, through the batch's statistics if the forward was one of training."""
        x, mean, var, backward = self._recall()
        dx, dgamma, dbeta = backward(dy, x, self.gamma, mean, var, self.eps)
        self.grads = {"gamma": dgamma, "beta": dbeta}
        return dx

    def _move(self, running: Array, batch: Array) -> Array:
        batch = array_namespace(batch).astype(detached(batch), running.dtype, copy=False)
        return self.keep * running + (1.0 - self.keep) * batch


class LayerNorm(_Scaled):
    """Standardise every row over its features, then scale by γ and shift by β.

    Parameters
    ----------
    features : int
        D.
    eps : float
    population : int, optional
        P: parameters (P, D) for x (P, N, D).
    dtype : str

    Notes
    -----
    x (…, D). Source: Ba, Kiros and Hinton 2016.
    """

    beta = Parameter()

    def __init__(
        self,
        features: int,
        *,
        eps: float = 1e-5,
        population: int | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__(features, population, dtype)
        self.eps = eps
        self.beta = self._filled(0.0)

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, D) to the same shape."""
        y, mean, inv_std = ops.layer_norm(x, self.gamma, self.beta, self.eps)
        self._saved = x, mean, inv_std
        return y

    def backward(self, dy: Array) -> Array:
        """dx, in x's shape."""
        x, mean, inv_std = self._recall()
        dx, dgamma, dbeta = ops.layer_norm_backward(dy, x, self.gamma, mean, inv_std)
        self.grads = {"gamma": dgamma, "beta": dbeta}
        return dx


class RMSNorm(_Scaled):
    """Divide every row by its root mean square, then scale by γ.

    Parameters
    ----------
    features : int
        D.
    eps : float
    population : int, optional
        P: parameters (P, D) for x (P, N, D).
    dtype : str

    Notes
    -----
    x (…, D). Source: Zhang and Sennrich 2019.
    """

    def __init__(
        self,
        features: int,
        *,
        eps: float = 1e-6,
        population: int | None = None,
        dtype: FloatName = "float32",
    ):
        super().__init__(features, population, dtype)
        self.eps = eps

    def forward(self, x: Array, training: bool = False) -> Array:
        """x (…, D) to the same shape."""
        y, inv_rms = ops.rms_norm(x, self.gamma, self.eps)
        self._saved = x, inv_rms
        return y

    def backward(self, dy: Array) -> Array:
        """dx, in x's shape."""
        x, inv_rms = self._recall()
        dx, dgamma = ops.rms_norm_backward(dy, x, self.gamma, inv_rms)
        self.grads = {"gamma": dgamma}
        return dx
