"""The optimizers: each is the numbers of a step, and its rule in :mod:`xpmlp.ops.update`."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..choices import ScheduleName
from ..errors import ConfigError
from ..options import FLAG, Number
from ..schedules import Schedule
from .base import Hyper, Optimizer, is_set

EPS = "[1e-37, inf)"  # what is smaller would be 0 in float32, and 0 / 0 the first step


class SGD(Optimizer):
    """``w ← w − lr · g``, with momentum and Nesterov's look-ahead if asked for.

    Parameters
    ----------
    lr : float or P floats
    momentum : float or P floats
        0 for plain gradient descent.
    nesterov : bool
    weight_decay, schedule
        As in :class:`Optimizer`.
    """

    means = ("momentum",)
    momentum: Any = Number("[0, 1)", each_member=True)

    def __init__(
        self,
        lr: Hyper = 0.1,
        *,
        momentum: Hyper = 0.0,
        nesterov: bool = False,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.momentum = momentum
        self.nesterov = FLAG.check("SGD", "nesterov", nesterov)
        self.slots = 1 if is_set(self.momentum) else 0
        self._momentum = self.momentum
        if nesterov and not self.slots:
            raise ConfigError("`SGD`: expected momentum > 0 with nesterov=True, got 0")

    @property
    def rule(self) -> str:
        """With a velocity or without."""
        return "momentum" if self.slots else "sgd"

    def check_momentum(self) -> None:
        """Raise ConfigError where momentum was 0 when this was made, and is not any more."""
        if self.momentum is not self._momentum and not self.slots and is_set(self.momentum):
            raise ConfigError(
                "`SGD`: expected momentum to stay 0, got "
                f"{self.momentum!r}; make a new SGD, which has room for a velocity"
            )

    def rates(self, lr: Any) -> dict[str, Any]:
        """The learning rate; with a velocity, momentum and Nesterov's choice."""
        if not self.slots:
            self.check_momentum()
            return {"lr": lr}
        return {"lr": lr, "momentum": self.momentum, "nesterov": self.nesterov}


class AdaGrad(Optimizer):
    """Steps divided by the root of all squared gradients so far (Duchi et al. 2011)."""

    slots = 1
    rule = "adagrad"
    eps: Any = Number(EPS)

    def __init__(
        self,
        lr: Hyper = 0.01,
        *,
        eps: float = 1e-10,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.eps = eps

    def rates(self, lr: Any) -> dict[str, Any]:
        """The learning rate and ε."""
        return {"lr": lr, "eps": self.eps}


class RMSProp(Optimizer):
    """Steps divided by a running root mean square of the gradients (Tieleman and Hinton 2012).

    Parameters
    ----------
    lr : float or P floats
    decay : float or P floats
        How much of the running mean stays at each step.
    eps : float
        Added outside of the root.
    weight_decay, schedule
        As in :class:`Optimizer`.
    """

    slots = 1
    rule = "rmsprop"
    means = ("decay",)
    decay: Any = Number("[0, 1)", each_member=True)
    eps: Any = Number(EPS)

    def __init__(
        self,
        lr: Hyper = 0.01,
        *,
        decay: Hyper = 0.99,
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.decay = decay
        self.eps = eps

    def rates(self, lr: Any) -> dict[str, Any]:
        """The learning rate, how much of the new square goes into the mean, and ε."""
        return {"lr": lr, "gain": 1.0 - self.decay, "eps": self.eps}


class Adam(Optimizer):
    """Running means of g and g², both corrected for their start at 0 (Kingma and Ba 2015).

    Parameters
    ----------
    lr : float or P floats
    beta1, beta2 : float or P floats
        How much of the running means of g and g² stays at each step.
    eps : float
        Added outside of the root.
    weight_decay, schedule
        As in :class:`Optimizer`.
    """

    slots = 2
    rule = "adam"
    means = ("beta1", "beta2")
    beta1: Any = Number("[0, 1)", each_member=True)
    beta2: Any = Number("[0, 1)", each_member=True)
    eps: Any = Number(EPS)

    def __init__(
        self,
        lr: Hyper = 1e-3,
        *,
        beta1: Hyper = 0.9,
        beta2: Hyper = 0.999,
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps

    def rates(self, lr: Any) -> dict[str, Any]:
        """The learning rate, how much of the new values goes into the means, corrections, ε."""
        return {
            "lr": lr,
            "gain1": 1.0 - self.beta1,
            "gain2": 1.0 - self.beta2,
            "correction1": 1.0 - self.beta1**self.steps,
            "correction2": 1.0 - self.beta2**self.steps,
            "eps": self.eps,
        }


class AdamW(Adam):
    """Adam with weight decay on the weights themselves: ``w ← w (1 − lr λ)`` before each step.

    Source: Loshchilov and Hutter 2019. Parameters as in :class:`Adam`.
    """

    decoupled = True

    def __init__(
        self,
        lr: Hyper = 1e-3,
        *,
        beta1: Hyper = 0.9,
        beta2: Hyper = 0.999,
        eps: float = 1e-8,
        weight_decay: Hyper = 1e-2,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(
            lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, schedule=schedule
        )


class Muon(AdamW):
    """Orthogonalised momentum for weight matrices, AdamW for everything else (Jordan et al. 2024).

    Parameters
    ----------
    lr : float or P floats
        For the matrices.
    momentum : float or P floats
    nesterov : bool
    newton_schulz_steps : int
        Iterations of :func:`xpmlp.ops.orthogonalize`; batched products only.
    adam_lr : float
        For biases and scales, under the same schedule.
    beta1, beta2, eps
        For biases and scales.
    weight_decay, schedule
        As in :class:`AdamW`.
    """

    momentum: Any = Number("[0, 1)", each_member=True)
    newton_schulz_steps: Any = Number("[1, inf)", whole=True)
    adam_lr: Any = Number("[0, inf)")

    def __init__(
        self,
        lr: Hyper = 0.02,
        *,
        momentum: Hyper = 0.95,
        nesterov: bool = True,
        newton_schulz_steps: int = 5,
        adam_lr: float = 1e-3,
        beta1: Hyper = 0.9,
        beta2: Hyper = 0.999,
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
    ):
        super().__init__(
            lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, schedule=schedule
        )
        self.momentum = momentum
        self.nesterov = nesterov
        self.newton_schulz_steps = newton_schulz_steps
        self.adam_lr = adam_lr

    def rates(self, lr: Any) -> dict[str, Any]:
        """Of the matrices; under "adam" those of everything else."""
        adam_lr = self.adam_lr * self.factor(self.steps - 1)
        return {"lr": lr, "momentum": self.momentum, "adam": super().rates(adam_lr)}

    def _apply(self, w, g, slots, rates, matrix):
        if not matrix:
            return super()._apply(w, g, slots, rates["adam"], matrix)
        w, velocity = ops.muon_update(
            w,
            g,
            slots[0],
            lr=self._on("lr", rates["lr"], w),
            momentum=self._on("momentum", rates["momentum"], w),
            nesterov=self.nesterov,
            steps=self.newton_schulz_steps,
        )
        return w, velocity, slots[1]
