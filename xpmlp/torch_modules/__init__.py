"""PyTorch's modules as layers, and layers as modules: ``from_torch``, ``to_torch``.

What the two call the same thing stands in one table, ``twins.py``, read in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import layers as L
from ..backend import asarray, dtype_name, to_numpy
from ..errors import ConfigError
from ..layers.base import Layer
from .twins import Twin, the_library, twins

__all__ = ["from_torch", "load_torch_state_dict", "to_torch"]


def from_torch(module: Any, *, copy: bool = True) -> Layer:
    """A layer that computes what a module of PyTorch's does, with copies of its parameters.

    Parameters
    ----------
    module : torch.nn.Module
        ``nn.Sequential`` (also within one another) of Linear, Conv2d, MaxPool2d, AvgPool2d,
        AdaptiveAvgPool2d of 1, BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm, Embedding,
        GLU, PReLU, Identity, Dropout, Flatten, Softmax, LogSoftmax and the activations of
        :mod:`xpmlp.layers`, or one of them.
    copy : bool
        False: parameters stay in the module's memory where the backend can read them there, as
        NumPy and PyTorch can on the CPU. The layer then follows the module's training; its own
        training replaces parameters, and leaves the module as it is.

    Returns
    -------
    Layer
        On the current backend, in the module's dtype. What a container is made of keeps its number:
        ``"0.weight"`` is ``"0.W"``, transposed.

    Raises
    ------
    ConfigError
        For a module, or an option of one, that has no layer.

    Examples
    --------
    >>> net = from_torch(nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10)))
    """
    nn = the_library().nn
    return _layer_of(module, nn, _slopes_of_images(module, nn), copy)


def _layer_of(module: Any, nn: Any, of_images: set[int], copy: bool) -> Layer:
    if isinstance(module, nn.Sequential):
        return L.Sequential(*(_layer_of(one, nn, of_images, copy) for one in module))
    kind = L.PReLU2D if id(module) in of_images else None
    twin = next(
        (twin for twin in twins(nn) if type(module) is twin.module and kind in (None, twin.layer)),
        None,
    )
    layer = None if twin is None else twin.to_layer(module)
    if twin is None or layer is None:
        what = "an option that there is no layer for" if twin else "no layer"
        known = ", ".join(dict.fromkeys(one.module.__name__ for one in twins(nn)))
        raise ConfigError(
            f"`from_torch`: expected a Sequential, or one of {known}, got {what}: {module!r:.200}"
        )
    arrays = _ours(twin, layer, module.state_dict())
    if copy:
        layer.load_state_dict(arrays)
        return layer
    for group in (layer.params, layer.state):
        for name in group:
            group[name] = asarray(arrays[name])
    return layer


def to_torch(layer: Layer, *, copy: bool = True) -> Any:
    """A module of PyTorch's that computes what a layer does, with copies of its parameters.

    Parameters
    ----------
    layer : Layer
        A network too: ``nn.Sequential``, without what ``predict_proba`` puts behind it.
    copy : bool
        False: parameters stay in the layer's memory where that is the CPU's and may be written to.
        Training the module then writes to the layer's parameters.

    Returns
    -------
    torch.nn.Module
        On the CPU, in the layer's dtype. Its masks of dropout are torch's.

    Raises
    ------
    ConfigError
        For a population, or a layer without a module.
    """
    torch = the_library()
    if layer.population is not None:
        raise ConfigError(
            f"`to_torch`: expected one network, got a population of {layer.population}"
        )
    if isinstance(layer, L.Sequential):
        return torch.nn.Sequential(*(to_torch(one, copy=copy) for one in layer.layers))
    twin = next((twin for twin in twins(torch.nn) if type(layer) is twin.layer), None)
    module = None if twin is None else twin.to_module(layer)
    if twin is None or module is None:
        raise ConfigError(
            f"`to_torch`: expected a layer that torch has a module for, got {layer!r}"
        )
    own = layer.state_dict() if copy else {**layer.params, **layer.state}
    if own:
        module = module.to(getattr(torch, dtype_name(next(iter(layer.params.values())).dtype)))
        theirs = _theirs(torch, twin, own, copy)
        module.load_state_dict(theirs, strict=False, assign=not copy)  # torch counts batches too
    return module


def load_torch_state_dict(layer: Layer, state: Mapping[str, Any]) -> None:
    """Take over parameters and statistics that a module of the same structure has saved.

    Parameters
    ----------
    layer : Layer
    state : mapping of str to tensor
        ``module.state_dict()``, such as ``torch.load(path, weights_only=True)`` gives.

    Raises
    ------
    ConfigError
        If it is of another module; torch's message says which names or shapes. Nothing has been
        changed then.
    """
    module = to_torch(layer)
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"`load_torch_state_dict`: expected the state of {type(layer).__name__}'s module, got "
            f"another: {' '.join(str(error).split())}"
        ) from None
    layer.load_state_dict(from_torch(module).state_dict())


def _slopes_of_images(module: Any, nn: Any) -> set[int]:
    """Which PReLUs have a slope for each channel of an image, by what comes before or behind.

    The module itself does not know: its slopes are for axis 1, of rows and of images.
    """
    images = nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d
    rows = nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm
    leaves = [one for one in module.modules() if not isinstance(one, nn.Sequential)]
    found = set()
    for place, one in enumerate(leaves):
        if isinstance(one, nn.PReLU) and one.num_parameters > 1:
            around = [*reversed(leaves[:place]), *leaves[place + 1 :]]
            if isinstance(next((m for m in around if isinstance(m, images + rows)), None), images):
                found.add(id(one))
    return found


def _ours(twin: Twin, layer: Layer, state: Mapping[str, Any]) -> dict[str, Any]:
    """A module's arrays as the layer names and keeps them: ``W`` of Linear is (D, M) here."""
    transposed = twin.layer is L.Linear
    return {
        name: state[theirs].T if transposed and name == "W" else state[theirs]
        for name, theirs in twin.arrays.items()
        if name in layer.state_dict()
    }


def _theirs(torch: Any, twin: Twin, arrays: Mapping[str, Any], copy: bool) -> dict[str, Any]:
    """A layer's arrays as the module names and keeps them."""
    transposed = twin.layer is L.Linear
    found = {}
    for name, array in arrays.items():
        host = to_numpy(array)
        turned = host.T if transposed and name == "W" else host
        make = torch.tensor if copy or not host.flags.writeable else torch.from_numpy
        found[twin.arrays[name]] = make(turned)
    return found
