"""Optimizers: ``params = optimizer.update(params, grads)``.

An optimizer keeps its own state, by parameter name, and counts its steps. It never writes into the
arrays it is given: it returns new ones. Hyperparameters may be numbers, or sequences of P numbers
for a population, one for each member.

The maths of each update is in :mod:`xpmlp.ops.update`.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import numpy as np

from . import ops
from .backend import Array, array_namespace, asarray_like
from .errors import ConfigError, ShapeError, StateError
from .ops.shapes import per_member
from .schedules import Schedule, as_schedule

Hyper = float | Sequence[float] | np.ndarray
"""A hyperparameter: a number, or one for each member of a population."""


class Optimizer:
    """Base of all optimizers.

    Parameters
    ----------
    lr : float or P floats
        Learning rate, before the schedule.
    weight_decay : float or P floats
        λ. Here it adds ``λ w`` to the gradient; AdamW and Muon shrink w itself instead.
    schedule : Schedule or str, optional
        The learning rate of step k is ``lr · schedule(k)``, k from 0.

    Attributes
    ----------
    steps : int
        Updates made so far.
    state : dict of str to tuple of arrays
        For each parameter, what the optimizer remembers.

    Notes
    -----
    An optimizer belongs to the parameters that it has updated. For others, take :meth:`fresh`.
    """

    slots = 0
    decoupled = False
    _owner: weakref.ref | None = None

    def __init__(
        self, lr: Hyper, *, weight_decay: Hyper = 0.0, schedule: Schedule | str | None = None
    ):
        self.lr = _check_hyper(type(self).__name__, "lr", lr, 0.0, None)
        self.weight_decay = _check_hyper(
            type(self).__name__, "weight_decay", weight_decay, 0.0, None
        )
        self.schedule = as_schedule(schedule)
        self.steps = 0
        self.state: dict[str, Sequence[Array]] = {}
        self._arrays: dict[Any, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr})"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_arrays": {}, "_owner": None}  # for copies and pickles

    def fresh(self) -> Self:
        """The same hyperparameters without memory: for another network, or to start again."""
        new = copy.copy(self)
        new.steps, new.state = 0, {}
        return new

    def copy(self) -> Self:
        """The same optimizer, memory included; either then goes its own way."""
        new = copy.copy(self)
        new.state = {
            name: tuple(array_namespace(a).asarray(a, copy=True) for a in slots)
            for name, slots in self.state.items()
        }
        return new

    def claim(self, model: Any) -> None:
        """Belong to a model from now on.

        Parameters
        ----------
        model : Layer

        Raises
        ------
        StateError
            If it has trained another one: its memory and its schedule would be that one's.
        """
        owner = weakref.ref(model)
        if self._owner is not None and self._owner is not owner and self.steps > 0:
            raise StateError(
                f"`{type(self).__name__}`: expected the network that it has trained for "
                f"{self.steps} steps, got another one; give each its own, optimizer.fresh()"
            )
        self._owner = owner

    def update(
        self,
        params: Mapping[str, Array],
        grads: Mapping[str, Array],
        weights: Collection[str] | None = None,
    ) -> dict[str, Array]:
        """One step.

        Parameters
        ----------
        params, grads : mapping of str to array
            With the same keys and shapes.
        weights : collection of str, optional
            The keys that weight decay applies to (a model's ``weight_params``). Default: all.

        Returns
        -------
        dict of str to array
            The new parameters.

        Raises
        ------
        ShapeError
            If keys or shapes differ.
        StateError
            If these are not the parameters that it has updated before.
        """
        _check_match(params, grads)
        if self.state:
            self.check_memory(params)
        lr = self.lr * self.schedule(self.steps)
        self.steps += 1
        self._arrays.clear()
        updated = {}
        for name, w in params.items():
            g = grads[name]
            if _is_set(self.weight_decay) and (weights is None or name in weights):
                if self.decoupled:
                    w = w * self._on("shrink", 1.0 - lr * self.weight_decay, w)
                else:
                    g = g + self._on("weight_decay", self.weight_decay, w) * w
            slots = self.state.get(name)
            if slots is None:
                slots = tuple(array_namespace(w).zeros_like(w) for _ in range(self.slots))
            matrix = w.ndim >= 2 and (weights is None or name in weights)
            updated[name], *self.state[name] = self._step(w, g, lr, slots, matrix)
        return updated

    def _step(self, w: Array, g: Array, lr: Any, slots: Sequence[Array], matrix: bool) -> Any:
        """The new w, then the new slots."""
        raise NotImplementedError

    def check_memory(self, params: Mapping[str, Array]) -> None:
        """Raise StateError for parameters of other names or shapes than it remembers."""
        for name, w in params.items():
            slots = self.state.get(name)
            if slots is None or (slots and slots[0].shape != w.shape):
                known = None if slots is None else tuple(slots[0].shape)
                raise StateError(
                    f"`{type(self).__name__}`: expected the parameters of its {self.steps} steps "
                    f"so far, got {name} of shape {tuple(w.shape)}, which "
                    f"{'was not among them' if known is None else f'had shape {known}'}; "
                    "for other parameters take optimizer.fresh()"
                )

    def _on(self, name: str, value: Any, w: Array) -> Any:
        """A hyperparameter that broadcasts over w: a number, or an array of w's dtype and device.

        Whatever is derived from hyperparameters is derived on the host in float64 before it comes
        here, so that a member of a population takes the very steps it would take alone.
        """
        if isinstance(value, float):
            return value
        if w.shape[0] != len(value):
            raise ShapeError(
                f"`{type(self).__name__}`: expected {w.shape[0]} values of {name}, one for each "
                f"member, got {len(value)}"
            )
        key = (name, w.dtype)
        if key not in self._arrays:
            self._arrays[key] = asarray_like(value, w)
        return per_member(self._arrays[key], w.ndim)


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

    def __init__(
        self,
        lr: Hyper = 0.1,
        *,
        momentum: Hyper = 0.0,
        nesterov: bool = False,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | str | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.momentum = _check_hyper("SGD", "momentum", momentum, 0.0, 1.0)
        self.nesterov = nesterov
        self.slots = 1 if _is_set(self.momentum) else 0
        if nesterov and not self.slots:
            raise ConfigError("`SGD`: expected momentum > 0 with nesterov=True, got 0")

    def _step(self, w, g, lr, slots, matrix):
        lr = self._on("lr", lr, w)
        if not slots:
            return (ops.sgd_update(w, g, lr=lr),)
        momentum = self._on("momentum", self.momentum, w)
        return ops.momentum_update(w, g, *slots, lr=lr, momentum=momentum, nesterov=self.nesterov)


class AdaGrad(Optimizer):
    """Steps divided by the root of all squared gradients so far (Duchi et al. 2011)."""

    slots = 1

    def __init__(
        self,
        lr: Hyper = 0.01,
        *,
        eps: float = 1e-10,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | str | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.eps = eps

    def _step(self, w, g, lr, slots, matrix):
        return ops.adagrad_update(w, g, *slots, lr=self._on("lr", lr, w), eps=self.eps)


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

    def __init__(
        self,
        lr: Hyper = 0.01,
        *,
        decay: Hyper = 0.99,
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | str | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.decay = _check_hyper("RMSProp", "decay", decay, 0.0, 1.0)
        self.eps = eps

    def _step(self, w, g, lr, slots, matrix):
        gain = self._on("decay", 1.0 - self.decay, w)
        return ops.rmsprop_update(w, g, *slots, lr=self._on("lr", lr, w), gain=gain, eps=self.eps)


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

    def __init__(
        self,
        lr: Hyper = 1e-3,
        *,
        beta1: Hyper = 0.9,
        beta2: Hyper = 0.999,
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | str | None = None,
    ):
        super().__init__(lr, weight_decay=weight_decay, schedule=schedule)
        self.beta1 = _check_hyper(type(self).__name__, "beta1", beta1, 0.0, 1.0)
        self.beta2 = _check_hyper(type(self).__name__, "beta2", beta2, 0.0, 1.0)
        self.eps = eps

    def _step(self, w, g, lr, slots, matrix):
        return ops.adam_update(
            w,
            g,
            *slots,
            lr=self._on("lr", lr, w),
            gain1=self._on("beta1", 1.0 - self.beta1, w),
            gain2=self._on("beta2", 1.0 - self.beta2, w),
            correction1=self._on("correction1", 1.0 - self.beta1**self.steps, w),
            correction2=self._on("correction2", 1.0 - self.beta2**self.steps, w),
            eps=self.eps,
        )


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
        schedule: Schedule | str | None = None,
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
        schedule: Schedule | str | None = None,
    ):
        super().__init__(
            lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, schedule=schedule
        )
        self.momentum = _check_hyper("Muon", "momentum", momentum, 0.0, 1.0)
        self.nesterov = nesterov
        self.newton_schulz_steps = newton_schulz_steps
        self.adam_lr = float(adam_lr)

    def _step(self, w, g, lr, slots, matrix):
        if not matrix:
            adam_lr = self.adam_lr * self.schedule(self.steps - 1)
            return super()._step(w, g, adam_lr, slots, matrix)
        w, velocity = ops.muon_update(
            w,
            g,
            slots[0],
            lr=self._on("lr", lr, w),
            momentum=self._on("momentum", self.momentum, w),
            nesterov=self.nesterov,
            steps=self.newton_schulz_steps,
        )
        return w, velocity, slots[1]


OPTIMIZERS = {
    "sgd": SGD,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
    "muon": Muon,
}
"""Optimizers by the names used on command lines and in config files."""


def clip_by_global_norm(
    grads: Mapping[str, Array], max_norm: Hyper, population: int | None = None
) -> dict[str, Array]:
    """Scale all gradients by ``min(1, max_norm / ‖g‖)``, ‖g‖ the norm of all of them together.

    Parameters
    ----------
    grads : mapping of str to array
    max_norm : float > 0, or P of them
    population : int, optional
        With P given, each member's gradients (leading axis) are clipped by their own norm.

    Returns
    -------
    dict of str to array
        No value is read on the host, so nothing waits for the device.
    """
    limit = np.asarray(max_norm, dtype=np.float64)
    if not (limit > 0).all() or limit.shape not in ((), (population,)):
        raise ConfigError(
            "`clip_by_global_norm`: expected max_norm > 0, one number or one for each member, got "
            f"{max_norm!r}"
        )
    if not grads:
        return {}
    first = next(iter(grads.values()))
    xp = array_namespace(first)
    start = 0 if population is None else 1
    squares: Any = 0.0
    for g in grads.values():
        squares = squares + xp.sum(g * g, axis=tuple(range(start, g.ndim)))
    norm = xp.sqrt(squares)
    # A plain number stays one: as an array it would have to travel to the device at each step.
    bound = float(limit) if limit.ndim == 0 else asarray_like(limit, first)
    scale = bound / xp.where(norm > bound, norm, xp.ones_like(norm) * bound)
    return {name: g * per_member(scale, g.ndim) for name, g in grads.items()}


def _check_hyper(owner: str, name: str, value: Any, low: float, high: float | None) -> Any:
    """A hyperparameter as a float, or as a float64 array of one for each member."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"`{owner}`: expected {name} to be a number, got {value!r}") from None
    inside = (numbers >= low) & (numbers < high if high is not None else np.isfinite(numbers))
    if numbers.ndim > 1 or numbers.size == 0 or not inside.all():
        bounds = f"in [{low:g}, {high:g})" if high is not None else f"finite and ≥ {low:g}"
        raise ConfigError(
            f"`{owner}`: expected {name} {bounds}, one number or one for each member, got {value!r}"
        )
    return float(numbers) if numbers.ndim == 0 else numbers


def _is_set(value: Any) -> bool:
    return bool(np.any(np.asarray(value) != 0.0))


def _check_match(params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
    if params.keys() != grads.keys():
        raise ShapeError(
            f"`update`: expected gradients for {', '.join(params)}, got {', '.join(grads)}; "
            "call backward before update"
        )
    for name, w in params.items():
        if tuple(w.shape) != tuple(grads[name].shape):
            raise ShapeError(
                f"`update`: expected the gradient of {name} to have shape {tuple(w.shape)}, got "
                f"{tuple(grads[name].shape)}"
            )
