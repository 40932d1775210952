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
from .backend import Array, array_namespace, asarray_like, detached, to_numpy
from .errors import ConfigError, ShapeError, StateError
from .named_arrays import NamedArrays
from .ops.shapes import per_member, working_dtype
from .options import Number, Option
from .schedules import Schedule, as_schedule

Hyper = float | Sequence[float] | np.ndarray
"""A hyperparameter: a number, or one for each member of a population."""

_EPS = "[1e-37, inf)"  # what is smaller would be 0 in float32, and 0 / 0 the first step


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

    Parameters in half precision are updated in float32, and what is remembered of them is kept in
    it: in float16, 10⁻⁸ is 0 and the square of 300 infinite.
    """

    slots = 0
    decoupled = False
    _owner: weakref.ref | None = None
    lr: Any = Number("[0, inf)", each_member=True)
    weight_decay: Any = Number("[0, inf)", each_member=True)
    schedule: Any = Option(as_schedule)

    def __init__(
        self, lr: Hyper, *, weight_decay: Hyper = 0.0, schedule: Schedule | str | None = None
    ):
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.steps = 0
        self.state: dict[str, Sequence[Array]] = NamedArrays()
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

    def options(self) -> dict[str, Any]:
        """The hyperparameters by name, but for the schedule."""
        left_out = ("steps", "state", "slots", "schedule")
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name not in left_out
        }

    def state_dict(self) -> dict[str, Any]:
        """Copies of its memory in host memory, its steps and hyperparameters."""
        return {
            "steps": self.steps,
            "options": self.options(),
            "slots": {
                name: [np.array(to_numpy(slot)) for slot in slots]
                for name, slots in self.state.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any], params: Mapping[str, Array]) -> None:
        """Go on from :meth:`state_dict` with the parameters that it is about.

        Parameters
        ----------
        state : mapping
        params : mapping of str to array
            They say in which library and on which device its memory is to be.

        Raises
        ------
        StateError
            If it remembers parameters of other names or shapes.
        """
        loaded: dict[str, Sequence[Array]] = NamedArrays()
        for name, slots in state["slots"].items():
            if name in params:
                w = params[name]
                xp = array_namespace(w)
                like = xp.astype(w, working_dtype(xp, w), copy=False)
                loaded[name] = tuple(asarray_like(np.array(slot), like) for slot in slots)
            else:
                loaded[name] = ()
        for name, value in state["options"].items():
            setattr(self, name, value)
        self.steps, self.state = int(state["steps"]), loaded
        self._arrays = {}
        if loaded:
            self.check_memory(params)

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
            If keys or shapes differ. Then nothing has been changed.
        StateError
            If these are not the parameters that it has updated before.
        """
        _check_match(params, grads)
        if self.state:
            self.check_memory(params)
        lr = self.lr * self.schedule(self.steps)
        self.steps += 1
        self._arrays.clear()
        updated: dict[str, Array] = {}
        state: dict[str, Sequence[Array]] = {}
        try:
            for name, w in params.items():
                decays = weights is None or name in weights
                slots = self.state.get(name)
                updated[name], state[name] = self._update_one(w, grads[name], lr, slots, decays)
        except BaseException:
            self.steps -= 1
            raise
        self.state.update(state)
        return updated

    def _update_one(
        self, w: Array, g: Array, lr: Any, slots: Sequence[Array] | None, is_weight: bool
    ) -> tuple[Array, Sequence[Array]]:
        """The new w, and what is remembered of it."""
        w, g = detached(w), detached(g)
        xp, dtype = array_namespace(w, g), w.dtype
        wide = working_dtype(xp, w)
        if wide != dtype:
            w, g = xp.astype(w, wide), xp.astype(g, wide)
        if slots is None:
            slots = tuple(xp.zeros_like(w) for _ in range(self.slots))
        elif wide != dtype:
            slots = tuple(xp.astype(slot, wide, copy=False) for slot in slots)
        if is_weight and _is_set(self.weight_decay):
            if self.decoupled:
                w = w * self._on("shrink", 1.0 - lr * self.weight_decay, w)
            else:
                g = g + self._on("weight_decay", self.weight_decay, w) * w
        new, *slots = self._step(w, g, lr, slots, w.ndim >= 2 and is_weight)
        return new if wide == dtype else xp.astype(new, dtype), slots

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

    momentum: Any = Number("[0, 1)", each_member=True)

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
        self.momentum = momentum
        self.nesterov = nesterov
        self.slots = 1 if _is_set(self.momentum) else 0
        self._momentum = self.momentum
        if nesterov and not self.slots:
            raise ConfigError("`SGD`: expected momentum > 0 with nesterov=True, got 0")

    def check_momentum(self) -> None:
        """Raise ConfigError where momentum was 0 when this was made, and is not any more."""
        if self.momentum is not self._momentum and not self.slots and _is_set(self.momentum):
            raise ConfigError(
                "`SGD`: expected momentum to stay 0, got "
                f"{self.momentum!r}; make a new SGD, which has room for a velocity"
            )

    def _step(self, w, g, lr, slots, matrix):
        lr = self._on("lr", lr, w)
        if not slots:
            self.check_momentum()
            return (ops.sgd_update(w, g, lr=lr),)
        momentum = self._on("momentum", self.momentum, w)
        return ops.momentum_update(w, g, *slots, lr=lr, momentum=momentum, nesterov=self.nesterov)


class AdaGrad(Optimizer):
    """Steps divided by the root of all squared gradients so far (Duchi et al. 2011)."""

    slots = 1
    eps: Any = Number(_EPS)

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
    decay: Any = Number("[0, 1)", each_member=True)
    eps: Any = Number(_EPS)

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
        self.decay = decay
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
    beta1: Any = Number("[0, 1)", each_member=True)
    beta2: Any = Number("[0, 1)", each_member=True)
    eps: Any = Number(_EPS)

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
        self.beta1 = beta1
        self.beta2 = beta2
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
        schedule: Schedule | str | None = None,
    ):
        super().__init__(
            lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, schedule=schedule
        )
        self.momentum = momentum
        self.nesterov = nesterov
        self.newton_schulz_steps = newton_schulz_steps
        self.adam_lr = adam_lr

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


_MAX_NORM = Number("(0, inf)", each_member=True)


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
    limit = np.asarray(_MAX_NORM.check("clip_by_global_norm", "max_norm", max_norm))
    if limit.shape not in ((), (population,)):
        raise ConfigError(
            "`clip_by_global_norm`: expected max_norm finite and > 0, one number or one for each "
            f"member, got {max_norm!r}"
        )
    if not grads:
        return {}
    first = next(iter(grads.values()))
    xp, start = array_namespace(first), 0 if population is None else 1
    wide = {name: xp.astype(g, working_dtype(xp, g), copy=False) for name, g in grads.items()}
    # In units of the largest one: squares of what float32 holds may be beyond it.
    largest: Any = 0.0
    for g in wide.values():
        most = xp.max(xp.abs(g), axis=tuple(range(start, g.ndim)))
        largest = xp.maximum(most, xp.zeros_like(most) + largest)
    unit = xp.where(largest > 0.0, largest, xp.ones_like(largest))
    squares: Any = 0.0
    for g in wide.values():
        g = g / per_member(unit, g.ndim)
        squares = squares + xp.sum(g * g, axis=tuple(range(start, g.ndim)))
    norm = unit * xp.sqrt(squares)
    # A plain number stays one: as an array it would have to travel to the device at each step.
    bound = float(limit) if limit.ndim == 0 else asarray_like(limit, norm)
    scale = bound / xp.where(norm > bound, norm, xp.ones_like(norm) * bound)
    return {
        name: xp.astype(g * per_member(scale, g.ndim), grads[name].dtype, copy=False)
        for name, g in wide.items()
    }


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
