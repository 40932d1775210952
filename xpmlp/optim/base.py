"""What an optimizer is: ``params = optimizer.update(params, grads)``.

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

from .. import ops
from ..backend import Array, array_namespace, asarray_like, detached, to_numpy
from ..choices import ScheduleName
from ..errors import ConfigError, ShapeError, StateError
from ..named_arrays import NamedArrays
from ..ops.shapes import per_member, working_dtype
from ..options import Number, Option
from ..schedules import Schedule, as_schedule

_FACTOR = Number("[0, inf)")
_INFINITY = float("inf")

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

    Parameters in half precision are updated in float32, and what is remembered of them is kept in
    it: in float16, 10⁻⁸ is 0 and the square of 300 infinite.
    """

    slots = 0
    decoupled = False
    rule: str = ""
    """Which update of :mod:`xpmlp.ops` it is, ``<rule>_update``; kernels go by this name too."""
    means: tuple[str, ...] = ()
    """The hyperparameters that say how much of each running mean stays."""
    _owner: weakref.ref | None = None
    lr: Any = Number("[0, inf)", each_member=True)
    weight_decay: Any = Number("[0, inf)", each_member=True)
    schedule: Any = Option(as_schedule)

    def __init__(
        self,
        lr: Hyper,
        *,
        weight_decay: Hyper = 0.0,
        schedule: Schedule | ScheduleName | None = None,
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
        ConfigError
            If a hyperparameter has other than one value, or one for each of the model's members,
            which must then share no parameters.
        """
        owner = weakref.ref(model)
        if self._owner is not None and self._owner is not owner and self.steps > 0:
            raise StateError(
                f"`{type(self).__name__}`: expected the network that it has trained for "
                f"{self.steps} steps, got another one; give each its own, optimizer.fresh()"
            )
        if self._owner is not owner:
            self._check_members(model.independent)
        self._owner = owner

    def _check_members(self, population: int | None) -> None:
        for name, value in self.options().items():
            if isinstance(value, np.ndarray) and len(value) != population:
                wanted = "" if population is None else f", or {population}, one for each member"
                raise ConfigError(
                    f"`{type(self).__name__}`: expected {name} to be one number{wanted}, got "
                    f"{len(value)} of them"
                )

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
        lr = self.lr * self.factor(self.steps)
        self.steps += 1
        self._arrays.clear()
        numbers = self.rates(lr), self.decay_of_weights(lr)
        try:
            updated, state = self.pure_update(params, grads, weights, self.state, *numbers)
        except BaseException:
            self.steps -= 1
            raise
        self.state.update(state)
        return updated

    def factor(self, step: int) -> float:
        """What the schedule multiplies the learning rate of a step by, counted from 0.

        Raises
        ------
        ConfigError
            If it is no number, or not finite and ≥ 0.
        """
        factor = self.schedule(step)
        if type(factor) is float and 0.0 <= factor < _INFINITY:
            return factor
        return _FACTOR.check(type(self).__name__, f"the schedule's value at step {step}", factor)

    def rates(self, lr: Any) -> dict[str, Any]:
        """The numbers of one update, by the names that its rule in :mod:`xpmlp.ops` has for them.

        Parameters
        ----------
        lr : float or P floats
            The learning rate of this step, whose number, from 1, is ``steps``.

        Returns
        -------
        dict of str to float, bool or array of P floats
            Derived on the host in float64, so that a member of a population takes the very steps
            that it would take alone.
        """
        return {"lr": lr}

    def decay_of_weights(self, lr: Any) -> tuple[Any, Any]:
        """Of weight decay: what is added to the gradient in units of w, and a factor of w."""
        if self.decoupled:
            return 0.0, 1.0 - lr * self.weight_decay
        return self.weight_decay, 1.0

    def pure_update(
        self,
        params: Mapping[str, Array],
        grads: Mapping[str, Array],
        weights: Collection[str] | None,
        state: Mapping[str, Sequence[Array]],
        rates: Mapping[str, Any],
        decay: tuple[Any, Any],
    ) -> tuple[dict[str, Array], dict[str, Sequence[Array]]]:
        """One step as a function of its numbers: the new parameters and the new state."""
        updated: dict[str, Array] = {}
        after: dict[str, Sequence[Array]] = {}
        decays = is_set(self.weight_decay)
        for name, w in params.items():
            is_weight = weights is None or name in weights
            of_w = decay if decays and is_weight else None
            matrix = w.ndim >= 2 and is_weight
            updated[name], after[name] = self._update_one(
                w, grads[name], state.get(name), rates, of_w, matrix
            )
        return updated, after

    def _update_one(
        self,
        w: Array,
        g: Array,
        slots: Sequence[Array] | None,
        rates: Mapping[str, Any],
        decay: tuple[Any, Any] | None,
        matrix: bool,
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
        if decay is not None:
            if self.decoupled:
                w = w * self._on("shrink", decay[1], w)
            else:
                g = g + self._on("weight_decay", decay[0], w) * w
        new, *slots = self._apply(w, g, slots, rates, matrix)
        return new if wide == dtype else xp.astype(new, dtype), slots

    def _apply(
        self, w: Array, g: Array, slots: Sequence[Array], rates: Mapping[str, Any], matrix: bool
    ) -> Sequence[Array]:
        """The new w, then the new slots."""
        if not self.rule:
            return self._step(w, g, rates["lr"], slots, matrix)
        numbers = {name: self._on(name, value, w) for name, value in rates.items()}
        made = getattr(ops, f"{self.rule}_update")(w, g, *slots, **numbers)
        return made if slots else (made,)

    def _step(self, w: Array, g: Array, lr: Any, slots: Sequence[Array], matrix: bool) -> Any:
        """The same, for a rule whose only number is the learning rate."""
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
        """A number that broadcasts over w: as it is, or an array of w's dtype and device."""
        if isinstance(value, float | bool):
            return value
        if not isinstance(value, np.ndarray):  # an array already: of a step that is being traced
            value = array_namespace(value).astype(value, w.dtype, copy=False)
            return per_member(value, w.ndim) if value.ndim else value
        if w.shape[0] != len(value):
            raise ShapeError(
                f"`{type(self).__name__}`: expected {w.shape[0]} values of {name}, one for each "
                f"member, got {len(value)}"
            )
        key = (name, w.dtype)
        if key not in self._arrays:
            self._arrays[key] = asarray_like(value, w)
        return per_member(self._arrays[key], w.ndim)


def is_set(value: Any) -> bool:
    """Whether a hyperparameter, or one of a member, is other than 0."""
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
