"""Layers made of layers: Sequential, Residual and Flatten."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ..backend import Array, array_namespace
from ..errors import ConfigError, ShapeError
from ..options import Number
from .base import Layer, check_array
from .convolution import Conv2D
from .linear import Linear, axes_kept
from .piecewise_linear import PiecewiseLinear
from .shared_linear import SharedLinear


class Container(Layer):
    """A layer whose parameters are those of its children, under ``"<child's name>.<name>"``."""

    def __init__(self, children: dict[str, Layer]):
        # Not Layer.__init__: a container has no dicts of its own.
        self.children = children
        for name, child in children.items():
            if not isinstance(child, Layer):
                raise ConfigError(
                    f"`{type(self).__name__}`: expected layers, got {child!r} as {name!r}; "
                    f"{_instead_of(child)}"
                )
        _refuse_repeated(type(self).__name__, children)
        sizes = {child.population for child in children.values() if child.params}
        if len(sizes) > 1:
            raise ShapeError(
                f"`{type(self).__name__}`: expected layers of one population size, got "
                f"{', '.join(str(size) for size in sizes)}"
            )
        self.population = sizes.pop() if sizes else None

    @property
    def params(self) -> dict[str, Array]:
        """Parameters by full name; what is assigned to one, or to all, goes to the layers."""
        return self._gather("params")

    @params.setter
    def params(self, values: dict[str, Array]) -> None:
        for name, value in values.items():
            self._assign("params", name, value)

    @property
    def grads(self) -> dict[str, Array]:
        """Gradients by full name."""
        return self._gather("grads")

    @property
    def state(self) -> dict[str, Array]:
        """State by full name."""
        return self._gather("state")

    @property
    def weight_params(self) -> tuple[str, ...]:
        """Full names of the parameters that penalties and weight decay apply to."""
        return self._names("weight_params")

    @property
    def shared_params(self) -> tuple[str, ...]:
        """Full names of the parameters that the members of a population have in common."""
        return self._names("shared_params")

    def _names(self, group: str) -> tuple[str, ...]:
        return tuple(
            f"{name}.{own}"
            for name, child in self.children.items()
            for own in getattr(child, group)
        )

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        for name, child in self.children.items():
            yield from child.named_layers(f"{prefix}{name}.")

    def _gather(self, group: str) -> dict[str, Any]:
        return _Gathered(
            self,
            group,
            {
                f"{name}.{key}": value
                for name, child in self.children.items()
                for key, value in getattr(child, group).items()
            },
        )

    def _assign(self, group: str, name: str, value: Array) -> None:
        """Give the layer that an array belongs to another one."""
        head, _, rest = name.partition(".")
        child = self.children.get(head)
        if isinstance(child, Container):
            child._assign(group, rest, value)
        elif child is None or rest not in getattr(child, group):
            raise ConfigError(
                f"`{type(self).__name__}.{group}`: expected names among "
                f"{', '.join(self._gather(group))}, got {name!r}"
            )
        else:
            getattr(child, group)[rest] = value


class _Gathered(dict):
    """The arrays of a container's layers; what is assigned to a name goes to its layer."""

    def __init__(self, owner: Container, group: str, arrays: dict[str, Array]):
        super().__init__(arrays)
        self._owner, self._group = owner, group

    def __setitem__(self, name: str, value: Array) -> None:
        self._owner._assign(self._group, name, value)
        super().__setitem__(name, value)

    def update(self, *others: Any, **named: Any) -> None:
        for name, value in dict(*others, **named).items():
            self[name] = value

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def _refuse(self, *args: Any) -> Any:
        raise ConfigError(
            f"`{type(self._owner).__name__}.{self._group}`: expected the layers to keep their "
            "arrays; take dict(…) of it first, to leave some out"
        )

    __delitem__: Any = _refuse
    pop: Any = _refuse
    popitem: Any = _refuse
    clear: Any = _refuse
    setdefault: Any = _refuse


def _refuse_repeated(where: str, children: dict[str, Layer]) -> None:
    """Raise ConfigError if a layer, or a layer's dict of parameters, is at two places.

    A layer keeps what its last forward saved, and assigns its gradients: at two places the second
    call's would stand for both.
    """
    places: dict[int, str] = {}
    for place, layer in _everything_in(children, ""):
        own = [layer] if isinstance(layer, Container) else [layer, layer.params]
        for thing in own:
            first = places.setdefault(id(thing), place)
            if first != place:
                what = "each layer once" if thing is layer else "parameters of its own for each"
                raise ConfigError(
                    f"`{where}`: expected {what}, got the same {layer!r} as {first!r} and as "
                    f"{place!r}; make a second {type(layer).__name__}, or copy.deepcopy(layer)"
                )


def _everything_in(children: dict[str, Layer], prefix: str) -> Iterator[tuple[str, Layer]]:
    """All layers at whatever depth, containers too, and where they are."""
    for name, child in children.items():
        yield prefix + name, child
        if isinstance(child, Container):
            yield from _everything_in(child.children, f"{prefix}{name}.")


def _instead_of(child: Any) -> str:
    """What to write where ``child`` was given as a layer."""
    if isinstance(child, list | tuple):
        return "write Sequential(*layers) rather than Sequential(layers)"
    if isinstance(child, type):
        return f"write {child.__name__}() rather than {child.__name__}"
    return "a layer derives from xpmlp.layers.Layer"


class Sequential(Container):
    """Layers one after another: ``y = fₖ(… f₂(f₁(x)))``.

    Parameters
    ----------
    *layers : Layer
        Their parameters are named ``"0.W"``, ``"0.b"``, ``"2.W"``, …

    Attributes
    ----------
    layers : tuple of Layer
    """

    def __init__(self, *layers: Layer):
        super().__init__({str(number): layer for number, layer in enumerate(layers)})
        self.layers = layers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(repr(layer) for layer in self.layers)})"

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, number: int) -> Layer:
        return self.layers[number]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def forward(self, x: Array, training: bool = False) -> Array:
        """x through every layer in turn."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, dy: Array, input_grad: bool = True) -> Array:
        """dy through all layers in reverse; with ``input_grad=False`` the first may skip its dx."""
        for layer in reversed(self.layers[1:]):
            dy = layer.backward(dy)
        if not self.layers:
            return dy
        first = self.layers[0]
        if not input_grad and isinstance(
            first, Linear | Conv2D | PiecewiseLinear | SharedLinear | Sequential
        ):
            return first.backward(dy, input_grad=False)
        return first.backward(dy)


class Residual(Container):
    """``y = x + f(x)`` (He et al. 2016).

    Parameters
    ----------
    inner : Layer
        f, whose output has its input's shape. Its parameters are named ``"inner.…"``.
    """

    def __init__(self, inner: Layer):
        super().__init__({"inner": inner})
        self.inner = inner

    def describe(self) -> str:
        return repr(self.inner)

    def forward(self, x: Array, training: bool = False) -> Array:
        """``x + f(x)``."""
        y = self.inner.forward(x, training)
        if y.shape != x.shape:
            raise ShapeError(
                f"`Residual.forward`: expected the inner layer to keep the shape {tuple(x.shape)}, "
                f"got {tuple(y.shape)}"
            )
        return x + y

    def backward(self, dy: Array) -> Array:
        """``dy + f's backward of dy``."""
        return dy + self.inner.backward(dy)


class Flatten(Layer):
    """Join the last axes into one: (…, d₁, …, dₖ) to (…, d₁·…·dₖ).

    Parameters
    ----------
    axes : int, optional
        k. Default: all but the first axis, the batch.
    """

    axes: Any = Number("[1, inf)", whole=True, optional=True)

    def __init__(self, axes: int | None = None):
        super().__init__()
        self.axes = axes

    def describe(self) -> str:
        return "" if self.axes is None else f"axes={self.axes}"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._joined((1, *shape))[1:]

    def forward(self, x: Array, training: bool = False) -> Array:
        """x, reshaped."""
        joined = self._joined(tuple(x.shape))
        self._saved = tuple(x.shape)
        return array_namespace(x).reshape(x, joined)

    def _joined(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        kept = 1 if self.axes is None else len(shape) - self.axes
        if not 1 <= kept <= len(shape):
            raise ShapeError(
                f"`Flatten`: expected x with a batch axis and {self.axes or 0} axes to join, got "
                f"shape {shape}"
            )
        return (*shape[:kept], math.prod(shape[kept:]))

    def backward(self, dy: Array) -> Array:
        """dy in x's shape."""
        return array_namespace(dy).reshape(dy, self._recall())


class Unflatten(Layer):
    """The way back of :class:`Flatten`: samples of so many numbers as arrays of a shape.

    Parameters
    ----------
    shape : sequence of int
        Of a sample, such as (C, H, W).

    Notes
    -----
    Trailing axes of x whose product is the shape's become it: (…, N, 784) and (…, N, 28, 28) both
    become (…, N, 1, 28, 28).
    """

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        size = Number("[1, inf)", whole=True)
        if not isinstance(shape, Sequence) or not shape:
            raise ConfigError(f"`Unflatten`: expected a shape such as (1, 28, 28), got {shape!r}")
        self.shape = tuple(size.check("Unflatten", "shape", n) for n in shape)

    def describe(self) -> str:
        return f"{self.shape}"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._split("Unflatten", shape)

    def forward(self, x: Array, training: bool = False) -> Array:
        """x, reshaped."""
        check_array("Unflatten.forward", "x", x)
        shape = self._split("Unflatten.forward", tuple(x.shape))
        self._saved = tuple(x.shape)
        return array_namespace(x).reshape(x, shape)

    def _split(self, where: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape[-len(self.shape) :] == self.shape:  # also where axes of 1 stand first
            return shape
        return (*shape[: axes_kept(shape, math.prod(self.shape), where)], *self.shape)

    def backward(self, dy: Array) -> Array:
        """dy in x's shape."""
        return array_namespace(dy).reshape(dy, self._recall())


def is_sequential(layer: Layer) -> bool:
    """Whether it does nothing but run its layers one after another, such as a network does."""
    return isinstance(layer, Sequential) and all(
        getattr(type(layer), method) is getattr(Sequential, method)
        for method in ("forward", "backward")
    )
