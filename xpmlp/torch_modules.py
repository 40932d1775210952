"""PyTorch's modules as layers, and layers as modules: ``from_torch``, ``to_torch``.

What the two call the same thing stands in one table, :func:`twins`, read in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import layers as L
from .backend import asarray, dtype_name, to_numpy
from .errors import ConfigError, MissingDependencyError
from .layers.base import Layer

__all__ = ["from_torch", "load_torch_state_dict", "to_torch"]

_STATISTICS = {"running_mean": "running_mean", "running_var": "running_var"}


@dataclass(frozen=True)
class _Twin:
    """A layer and the module that computes the same.

    Attributes
    ----------
    layer, module : type
    to_layer : callable
        Module to layer; None where the module has an option that the layer has not.
    to_module : callable
        Layer to module, or None.
    arrays : dict
        Our names of arrays, and torch's.
    """

    layer: type
    module: type
    to_layer: Callable[[Any], Layer | None]
    to_module: Callable[[Any], Any]
    arrays: Mapping[str, str] = field(default_factory=dict)


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
    nn = _torch().nn
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
    torch = _torch()
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


def _torch() -> Any:
    try:
        import torch

        return torch
    except ImportError:
        raise MissingDependencyError(
            'PyTorch is needed for its modules; pip install "xpmlp[torch]"'
        ) from None


def _ours(twin: _Twin, layer: Layer, state: Mapping[str, Any]) -> dict[str, Any]:
    """A module's arrays as the layer names and keeps them: ``W`` of Linear is (D, M) here."""
    transposed = twin.layer is L.Linear
    return {
        name: state[theirs].T if transposed and name == "W" else state[theirs]
        for name, theirs in twin.arrays.items()
        if name in layer.state_dict()
    }


def _theirs(torch: Any, twin: _Twin, arrays: Mapping[str, Any], copy: bool) -> dict[str, Any]:
    """A layer's arrays as the module names and keeps them."""
    transposed = twin.layer is L.Linear
    found = {}
    for name, array in arrays.items():
        host = to_numpy(array)
        turned = host.T if transposed and name == "W" else host
        make = torch.tensor if copy or not host.flags.writeable else torch.from_numpy
        found[twin.arrays[name]] = make(turned)
    return found


def _dtype(module: Any) -> Any:
    return str(module.weight.dtype).removeprefix("torch.")


def twins(nn: Any) -> Iterator[_Twin]:
    """All layers and modules that do the same."""
    scaled = {"gamma": "weight", "beta": "bias"}
    yield _Twin(
        L.Linear,
        nn.Linear,
        lambda m: L.Linear(
            m.in_features, m.out_features, bias=m.bias is not None, init="zeros", dtype=_dtype(m)
        ),
        lambda layer: nn.Linear(*layer.W.shape, bias=layer.b is not None),
        {"W": "weight", "b": "bias"},
    )
    yield _Twin(
        L.Embedding,
        nn.Embedding,
        _embedding,
        lambda e: nn.Embedding(*e.W.shape, e.padding),
        {"W": "weight"},
    )
    for kind, module in ((L.BatchNorm, nn.BatchNorm1d), (L.BatchNorm2D, nn.BatchNorm2d)):
        yield _Twin(
            kind,
            module,
            lambda m, kind=kind: _batch_norm(m, kind),
            lambda layer, module=module: _batch_norm_module(layer, module),
            scaled | _STATISTICS,
        )
    yield _Twin(
        L.GroupNorm,
        nn.GroupNorm,
        lambda m: (
            L.GroupNorm(m.num_groups, m.num_channels, eps=m.eps, dtype=_dtype(m))
            if m.affine and m.bias is not None
            else None
        ),
        lambda layer: nn.GroupNorm(layer.groups, layer.features, eps=layer.eps),
        scaled,
    )
    yield _Twin(
        L.Conv2D, nn.Conv2d, _convolution, _convolution_module, {"W": "weight", "b": "bias"}
    )
    yield _Twin(
        L.MaxPool2D,
        nn.MaxPool2d,
        lambda m: (
            None
            if m.ceil_mode or m.return_indices or m.dilation not in (1, (1, 1))
            else L.MaxPool2D(m.kernel_size, stride=m.stride, padding=m.padding)
        ),
        lambda layer: nn.MaxPool2d(layer.size, layer.stride, layer.padding),
    )
    yield _Twin(
        L.AvgPool2D,
        nn.AvgPool2d,
        lambda m: (
            None
            if m.ceil_mode or m.divisor_override
            else L.AvgPool2D(
                m.kernel_size, stride=m.stride, padding=m.padding, count_padding=m.count_include_pad
            )
        ),
        lambda layer: nn.AvgPool2d(
            layer.size, layer.stride, layer.padding, count_include_pad=layer.count_padding
        ),
    )
    yield _Twin(
        L.GlobalAvgPool2D,
        nn.AdaptiveAvgPool2d,
        lambda m: L.GlobalAvgPool2D() if m.output_size in (1, (1, 1), [1, 1]) else None,
        lambda layer: nn.AdaptiveAvgPool2d(1),
    )
    for kind, module, names in (
        (L.LayerNorm, nn.LayerNorm, scaled),
        (L.RMSNorm, nn.RMSNorm, {"gamma": "weight"}),
    ):
        yield _Twin(
            kind,
            module,
            lambda m, kind=kind, names=names: _norm(m, kind, names),
            lambda layer, module=module: module(layer.features, eps=layer.eps),
            names,
        )
    yield _Twin(L.Sequential, nn.Identity, lambda m: L.Sequential(), lambda s: None)
    yield _Twin(L.GLU, nn.GLU, lambda m: L.GLU() if m.dim == -1 else None, lambda g: nn.GLU())
    for kind in (L.PReLU, L.PReLU2D):
        yield _Twin(
            kind,
            nn.PReLU,
            lambda m, kind=kind: kind(m.num_parameters, dtype=_dtype(m)),
            lambda p: nn.PReLU(p.features),
            {"a": "weight"},
        )
    yield _Twin(
        L.Dropout,
        nn.Dropout,
        lambda m: L.Dropout(m.p) if m.p < 1.0 else None,
        lambda d: nn.Dropout(d.p),
    )
    yield _Twin(
        L.Flatten,
        nn.Flatten,
        _flatten,
        lambda f: nn.Flatten() if f.axes is None else nn.Flatten(-f.axes),
    )
    yield _Twin(
        L.Unflatten,
        nn.Unflatten,
        lambda m: L.Unflatten(tuple(m.unflattened_size)) if m.dim in (1, -1) else None,
        lambda u: nn.Unflatten(1, u.shape),
    )
    yield _Twin(
        L.Softmax,
        nn.Softmax,
        lambda m: L.Softmax(-1 if m.dim is None else m.dim),
        lambda s: nn.Softmax(dim=s.axis),
    )
    yield _Twin(
        L.LogSoftmax,
        nn.LogSoftmax,
        lambda m: L.LogSoftmax(-1 if m.dim is None else m.dim),
        lambda s: nn.LogSoftmax(dim=s.axis),
    )
    options: dict[type, tuple[str, str]] = {  # ours and theirs, of one constant
        L.LeakyReLU: ("slope", "negative_slope"),
        L.ELU: ("alpha", "alpha"),
        L.CELU: ("alpha", "alpha"),
        L.GELU: ("approximate", "approximate"),
    }
    for kind in L.activations.ACTIVATIONS.values():
        module = getattr(nn, kind.__name__, None)
        if module is not None:
            ours, theirs = options.get(kind, ("", ""))
            yield _activation(kind, module, ours, theirs)


def _activation(kind: Any, module: Any, ours: str, theirs: str) -> _Twin:
    def to_layer(m: Any) -> Layer | None:
        # Of softplus, which torch's takes for x beyond a threshold: at 20 all digits are the same.
        if getattr(m, "beta", 1) != 1 or getattr(m, "threshold", 20) < 20:
            return None
        return kind(getattr(m, theirs)) if ours else kind()

    def to_module(layer: Any) -> Any:
        return module(**{theirs: getattr(layer, ours)}) if ours else module()

    return _Twin(kind, module, to_layer, to_module)


def _embedding(m: Any) -> Layer | None:
    if m.max_norm is not None or m.scale_grad_by_freq or m.sparse:
        return None
    return L.Embedding(m.num_embeddings, m.embedding_dim, padding=m.padding_idx, dtype=_dtype(m))


def _flatten(m: Any) -> Layer | None:
    if m.end_dim != -1 or not (m.start_dim == 1 or m.start_dim < 0):
        return None
    return L.Flatten() if m.start_dim == 1 else L.Flatten(-m.start_dim)


def _convolution(m: Any) -> Layer | None:
    padding = m.padding
    if padding == "valid":
        padding = 0
    elif padding == "same":
        around = [d * (k - 1) for d, k in zip(m.dilation, m.kernel_size, strict=True)]
        padding = [n // 2 for n in around]
        if any(n % 2 for n in around):  # torch then pads one side more
            return None
    if m.padding_mode != "zeros":
        return None
    return L.Conv2D(
        m.in_channels,
        m.out_channels,
        m.kernel_size,
        stride=m.stride,
        padding=padding,
        dilation=m.dilation,
        groups=m.groups,
        bias=m.bias is not None,
        init="zeros",
        dtype=_dtype(m),
    )


def _convolution_module(layer: Any) -> Any:
    M, C, *size = layer.W.shape
    options = layer.options | {"bias": layer.b is not None}
    return _torch().nn.Conv2d(C * layer.groups, M, tuple(size), **options)


def _batch_norm(m: Any, kind: Any) -> Layer | None:
    if not (m.affine and m.bias is not None and m.track_running_stats) or m.momentum is None:
        return None
    return kind(m.num_features, keep=1.0 - m.momentum, eps=m.eps, dtype=_dtype(m))


def _batch_norm_module(b: Any, module: Any) -> Any:
    if not b.unbiased:  # running variances that divide by N are no option of torch's
        return None
    momentum = round(1.0 - b.keep, 12)  # 0.1 rather than 0.09999999999999998
    return module(b.features, eps=b.eps, momentum=momentum)


def _norm(m: Any, kind: Any, names: Mapping[str, str]) -> Layer | None:
    """A layer or RMS norm over one axis, with all its parameters."""
    if len(m.normalized_shape) > 1 or any(getattr(m, name) is None for name in names.values()):
        return None
    eps = _torch().finfo(m.weight.dtype).eps if m.eps is None else m.eps
    return kind(m.normalized_shape[0], dtype=_dtype(m), eps=eps)
