"""Relatives of Adam: each is the numbers of a step; rules in :mod:`xpmlp.ops.adaptive_updates`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..choices import ScheduleName
from ..options import Number
from ..schedules import Schedule
from .base import Hyper, Optimizer
from .rules import EPS, Adam


class AMSGrad(Adam):
    """Adam divided by the largest mean of squares so far (Reddi, Kale and Kumar 2018).

    Parameters as in :class:`Adam`.
    """

    slots = 3
    rule = "amsgrad"


class NAdam(Adam):
    """Adam with Nesterov's look-ahead (Dozat 2016).

    Parameters
    ----------
    lr : float or P floats
    beta1, beta2, eps, weight_decay, schedule
        As in :class:`Adam`.
    momentum_decay : float
        ψ: the momentum of step t is ``μₜ = β₁ (1 − ½ · 0.96^(ψt))``.

    Notes
    -----
    With ``Πₜ = μ₁ ⋯ μₜ``, the gradient's share of the step is ``lr (1 − μₜ)/(1 − Πₜ)``, and that of
    its mean ``lr μₜ₊₁/(1 − Πₜ₊₁)``.
    """

    rule = "nadam"
    momentum_decay: Any = Number("[0, inf)")

    def __init__(
        self,
        lr: Hyper = 2e-3,
        *,
        beta1: Hyper = 0.9,
        beta2: Hyper = 0.999,
        eps: float = 1e-8,
        momentum_decay: float = 4e-3,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(
            lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, schedule=schedule
        )
        self.momentum_decay = momentum_decay
        self._product: Any = None

    def _momentum(self, step: int) -> Any:
        return self.beta1 * (1.0 - 0.5 * 0.96 ** (step * self.momentum_decay))

    def _momenta_until(self, step: int) -> Any:
        """The product of the momenta of all steps up to this one."""
        signature = self.beta1, self.momentum_decay
        known = self._product
        if known is None or known[0] is not signature[0] or known[1] != signature[1]:
            known = None
        done, product = (0, 1.0) if known is None or known[2] > step else known[2:]
        for t in range(done + 1, step + 1):
            product = product * self._momentum(t)
        self._product = *signature, step, product
        return product

    def rates(self, lr: Any) -> dict[str, Any]:
        """The shares of the gradient and of its mean, gains, the correction of v, ε."""
        t = max(1, self.steps)
        now, after = self._momentum(t), self._momentum(t + 1)
        product = self._momenta_until(t)
        return {
            "lr": lr * (1.0 - now) / (1.0 - product),
            "ahead": lr * after / (1.0 - product * after),
            "gain1": 1.0 - self.beta1,
            "gain2": 1.0 - self.beta2,
            "correction2": 1.0 - self.beta2**t,
            "eps": self.eps,
        }


class RAdam(Adam):
    """Adam that waits until its mean of squares is certain enough (Liu et al. 2020).

    Parameters as in :class:`Adam`.

    Notes
    -----
    With ``ρ∞ = 2/(1 − β₂) − 1`` and ``ρₜ = ρ∞ − 2t β₂ᵗ/(1 − β₂ᵗ)``, the step is along the corrected
    mean alone while ρₜ ≤ 5, and then Adam's times
    ``√((ρₜ − 4)(ρₜ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρₜ))``.
    """

    rule = "radam"

    def rates(self, lr: Any) -> dict[str, Any]:
        """The rate of a plain step, that of one divided by the root of v, gains and ε."""
        t, beta2 = max(1, self.steps), np.asarray(self.beta2, np.float64)
        limit = 2.0 / (1.0 - beta2) - 1.0
        power = beta2**t
        length = limit - 2.0 * t * power / (1.0 - power)
        certain = length > 5.0
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (length - 4.0) * (length - 2.0) * limit
            ratio = ratio / ((limit - 4.0) * (limit - 2.0) * length)
        scale = np.where(certain, np.sqrt(np.where(certain, ratio, 0.0) * (1.0 - power)), 0.0)
        rate = lr / (1.0 - self.beta1**t)
        plain, adaptive = rate * np.where(certain, 0.0, 1.0), rate * scale
        if not np.ndim(plain) and not np.ndim(lr):
            plain, adaptive = float(plain), float(adaptive)
        return {
            "lr": plain,
            "adaptive": adaptive,
            "gain1": 1.0 - self.beta1,
            "gain2": 1.0 - self.beta2,
            "eps": self.eps,
        }


class Adamax(Adam):
    """Adam divided by the largest gradient of late rather than a root mean square.

    Parameters as in :class:`Adam`; ``beta2`` says how much of the largest one stays. Source: Kingma
    and Ba 2015, section 7.
    """

    rule = "adamax"

    def __init__(
        self,
        lr: Hyper = 2e-3,
        *,
        beta1: Hyper = 0.9,
        beta2: Hyper = 0.999,
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(
            lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, schedule=schedule
        )

    def rates(self, lr: Any) -> dict[str, Any]:
        """The corrected learning rate, the gain of the mean, how much of the largest stays, ε."""
        return {
            "lr": lr / (1.0 - self.beta1 ** max(1, self.steps)),
            "gain1": 1.0 - self.beta1,
            "keep": self.beta2,
            "eps": self.eps,
        }


class Adadelta(Optimizer):
    """Steps as long as those of late, along gradients divided by their root mean square.

    Parameters
    ----------
    lr : float or P floats
    decay : float or P floats
        How much of both running means stays at each step.
    eps : float
        Inside of both roots.
    weight_decay, schedule
        As in :class:`Optimizer`.

    Notes
    -----
    Source: Zeiler 2012.
    """

    slots = 2
    rule = "adadelta"
    means = ("decay",)
    decay: Any = Number("[0, 1)", each_member=True)
    eps: Any = Number(EPS)

    def __init__(
        self,
        lr: Hyper = 1.0,
        *,
        decay: Hyper = 0.9,
        eps: float = 1e-6,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.decay = decay
        self.eps = eps

    def rates(self, lr: Any) -> dict[str, Any]:
        """The learning rate, how much of the new values goes into the means, and ε."""
        return {"lr": lr, "gain": 1.0 - self.decay, "eps": self.eps}


class Lion(Optimizer):
    """Steps of one length, along the sign of a mean of gradients (Chen et al. 2023).

    Parameters
    ----------
    lr : float or P floats
        A third to a tenth of AdamW's.
    beta1, beta2 : float or P floats
        How much of the mean goes into the step's direction, and how much of it stays.
    weight_decay : float or P floats
        Of the weights themselves, as in :class:`AdamW`.
    schedule
        As in :class:`Optimizer`.
    """

    slots = 1
    rule = "lion"
    means = ("beta2",)
    decoupled = True
    beta1: Any = Number("[0, 1)", each_member=True)
    beta2: Any = Number("[0, 1)", each_member=True)

    def __init__(
        self,
        lr: Hyper = 1e-4,
        *,
        beta1: Hyper = 0.9,
        beta2: Hyper = 0.99,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.beta1 = beta1
        self.beta2 = beta2

    def rates(self, lr: Any) -> dict[str, Any]:
        """The learning rate, and how much of the gradient goes into the direction and the mean."""
        return {"lr": lr, "gain1": 1.0 - self.beta1, "gain2": 1.0 - self.beta2}
