"""What a layer is: ``forward``, ``backward``, and dicts of parameters, gradients and state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np

from ..backend import Array, asarray_like, dtype_name, to_numpy
from ..choices import FloatName
from ..communication import Share
from ..errors import DTypeError, ShapeError, StateError
from ..named_arrays import NamedArrays
from ..options import Option


class _FloatName(Option):
    def __init__(self) -> None:
        """float16, bfloat16, float32 or float64, by name."""

    def check(self, where: str, name: str, value: Any) -> FloatName:
        if not isinstance(value, str | np.ndarray):
            value = dtype_name(value)
        elif not isinstance(value, str):
            value = "an array"
        for known in get_args(FloatName):
            if value == known:
                return known
        raise DTypeError(
            f"`{where}`: expected {name} to be float16, bfloat16, float32 or float64, got "
            f"{value!r}; parameters are floats"
        )


FLOAT = _FloatName()
"""What a layer's ``dtype=`` may be."""


class Parameter:
    """A trained array of a layer: ``layer.W`` reads and writes ``layer.params["W"]``.

    It also gives the class ``layer.dW``, which reads ``layer.grads["W"]``.

    Parameters
    ----------
    weight : bool
        Whether penalties and weight decay apply: yes for matrices, no for biases and scales.
    shared : bool
        Whether the members of a population have it in common: it then has no leading P.
    """

    def __init__(self, *, weight: bool = False, shared: bool = False):
        self.weight, self.shared = weight, shared

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        setattr(owner, "d" + name, property(lambda layer: layer.grads.get(name)))
        if self.weight:
            owner.weight_params = (*owner.weight_params, name)
        if self.shared:
            owner.shared_params = (*owner.shared_params, name)

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else layer.params.get(self.name)

    def __set__(self, layer: Any, value: Array) -> None:
        layer.params[self.name] = value


class State:
    """An array that a layer keeps but does not train, such as a running mean."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else layer.state.get(self.name)

    def __set__(self, layer: Any, value: Array) -> None:
        layer.state[self.name] = value


class Layer:
    """Base of all layers.

    A layer implements ``forward(x, training=False)``, keeping in ``self._saved`` what its backward
    needs, and ``backward(dy)``, which returns dx and assigns ``self.grads``. Gradients are
    assigned, never added up. Neither x nor dy is ever written to.

    Attributes
    ----------
    params, grads : dict of str to array
        With the same keys (grads after a backward).
    state : dict of str to array
        What is kept but not trained.
    population : int or None
        P, if the parameters have a leading population axis.
    weight_params : tuple of str
        The params that penalties and weight decay apply to.
    shared_params : tuple of str
        The params of a population that its members have in common, without a leading P.
    counter_names : tuple of str
        Attributes that are counted up by forwards in training, such as a dropout's ``step``.
    share : Share or None
        While a batch is divided among several processes, which of its rows x is.
    """

    weight_params: tuple[str, ...] = ()
    shared_params: tuple[str, ...] = ()
    counter_names: tuple[str, ...] = ()
    population: int | None = None
    share: Share | None = None

    def __init__(self) -> None:
        self.params: dict[str, Array] = NamedArrays()
        self.grads = {}
        self.state: dict[str, Array] = NamedArrays()
        self._saved: Any = None

    @property
    def grads(self) -> dict[str, Array]:
        """The last backward's gradients, by the names of the parameters."""
        if callable(self._grads):  # of a compiled step: copied when first looked at
            self._grads = self._grads()
        return self._grads

    @grads.setter
    def grads(self, values: dict[str, Array]) -> None:
        self._grads: Any = values

    @property
    def independent(self) -> int | None:
        """P, if the members of a population have all parameters for themselves, else None.

        Only then can each have a learning rate, a penalty or a norm of its own: with
        ``shared_params`` all members together are one network to what is done to parameters.
        """
        return None if self.shared_params else self.population

    def forward(self, x: Array, training: bool = False) -> Array:
        """The layer's output for x; ``training`` switches dropout and batch statistics on."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """dx for dy = dL/dy of the last forward; assigns ``grads``."""
        raise NotImplementedError

    def __call__(self, x: Array, training: bool = False) -> Array:
        return self.forward(x, training)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"

    def describe(self) -> str:
        """The layer's options in words, for ``repr`` and ``summary``."""
        return ""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample's output, for one sample's input shape."""
        return shape

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Every layer that holds parameters itself, with the prefix of its parameters' names."""
        yield prefix, self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and state in host memory, by name, for `load_state_dict`."""
        return {name: np.array(to_numpy(array)) for name, array in self._arrays().items()}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over parameters and state.

        Raises
        ------
        ShapeError
            If a name is missing or unknown, or a shape differs.
        DTypeError
            If an array does not hold numbers.

        After an error nothing has been changed.
        """
        own = self._arrays()
        missing, unknown = own.keys() - arrays.keys(), arrays.keys() - own.keys()
        if missing or unknown:
            of_torch = any(f".{name}".endswith(".weight") for name in unknown)
            fix = "; for PyTorch's there is torch_modules.load_torch_state_dict" if of_torch else ""
            raise ShapeError(
                f"`load_state_dict`: expected arrays named {', '.join(own)}; "
                f"missing: {', '.join(sorted(missing)) or 'none'}; "
                f"unknown: {', '.join(sorted(unknown)) or 'none'}{fix}"
            )
        loaded = {name: _take(name, arrays[name], array) for name, array in own.items()}
        for prefix, layer in self.named_layers():
            for group in (layer.params, layer.state):
                for name in group:
                    group[name] = loaded[prefix + name]

    def counters(self) -> dict[str, int]:
        """What forwards in training have counted, by full name, for :meth:`set_counters`."""
        return {
            prefix + name: getattr(layer, name)
            for prefix, layer in self.named_layers()
            for name in layer.counter_names
        }

    def set_counters(self, values: Mapping[str, int]) -> None:
        """Go on counting from :meth:`counters` of the same network; what is not named stays."""
        for prefix, layer in self.named_layers():
            for name in layer.counter_names:
                setattr(layer, name, int(values.get(prefix + name, getattr(layer, name))))

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without what the last forward saved, gradients, and programs."""
        own = dict(vars(self))
        own.pop("_evaluations", None)
        if "_grads" in own:
            own["_grads"] = {}
        if "_saved" in own:
            own["_saved"] = None
        return own

    def _arrays(self) -> dict[str, Array]:
        """Parameters and state by full name."""
        return {
            prefix + name: array
            for prefix, layer in self.named_layers()
            for group in (layer.params, layer.state)
            for name, array in group.items()
        }

    def _recall(self) -> Any:
        """What the last forward saved for the backward."""
        if self._saved is None:
            raise StateError(
                f"`{type(self).__name__}.backward`: expected a forward before it; "
                "call y = layer.forward(x) first"
            )
        return self._saved


def check_array(where: str, name: str, x: Any) -> None:
    """Raise DTypeError for what is no array at all, such as a list."""
    if not hasattr(x, "dtype") or not hasattr(x, "ndim"):
        raise DTypeError(
            f"`{where}`: expected {name} as an array, got {type(x).__name__}; convert it, for "
            f"example with xpmlp.asarray({name}, dtype='float32')"
        )


def _take(name: str, values: Any, own: Array) -> Array:
    """Values in the library, dtype and on the device of the array that they replace."""
    values = np.array(to_numpy(values))
    if values.shape != tuple(own.shape):
        raise ShapeError(
            f"`load_state_dict`: expected {name} of shape {tuple(own.shape)}, got {values.shape}"
        )
    if values.dtype.kind not in "fiu" and dtype_name(values.dtype) != dtype_name(own.dtype):
        raise DTypeError(
            f"`load_state_dict`: expected {name} of {dtype_name(own.dtype)}, got {values.dtype}"
        )
    return asarray_like(values, own)
