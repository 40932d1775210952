"""What PyTorch and this library call the same thing: one table, read in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import layers as L
from ..errors import MissingDependencyError
from ..layers.base import Layer

_STATISTICS = {"running_mean": "running_mean", "running_var": "running_var"}


@dataclass(frozen=True)
class Twin:
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


def the_library() -> Any:
    """PyTorch, or an error that says how to install it."""
    try:
        import torch

        return torch
    except ImportError:
        raise MissingDependencyError(
            'PyTorch is needed for its modules; pip install "xpmlp[torch]"'
        ) from None


def _dtype(module: Any) -> Any:
    return str(module.weight.dtype).removeprefix("torch.")


def twins(nn: Any) -> Iterator[Twin]:
    """All layers and modules that do the same."""
    scaled = {"gamma": "weight", "beta": "bias"}
    yield Twin(
        L.Linear,
        nn.Linear,
        lambda m: L.Linear(
            m.in_features, m.out_features, bias=m.bias is not None, init="zeros", dtype=_dtype(m)
        ),
        lambda layer: nn.Linear(*layer.W.shape, bias=layer.b is not None),
        {"W": "weight", "b": "bias"},
    )
    yield Twin(
        L.Embedding,
        nn.Embedding,
        _embedding,
        lambda e: nn.Embedding(*e.W.shape, e.padding),
        {"W": "weight"},
    )
    for kind, module in ((L.BatchNorm, nn.BatchNorm1d), (L.BatchNorm2D, nn.BatchNorm2d)):
        yield Twin(
            kind,
            module,
            lambda m, kind=kind: _batch_norm(m, kind),
            lambda layer, module=module: _batch_norm_module(layer, module),
            scaled | _STATISTICS,
        )
    yield Twin(
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
    yield Twin(L.Conv2D, nn.Conv2d, _convolution, _convolution_module, {"W": "weight", "b": "bias"})
    yield Twin(
        L.MaxPool2D,
        nn.MaxPool2d,
        lambda m: (
            None
            if m.ceil_mode or m.return_indices or m.dilation not in (1, (1, 1))
            else L.MaxPool2D(m.kernel_size, stride=m.stride, padding=m.padding)
        ),
        lambda layer: nn.MaxPool2d(layer.size, layer.stride, layer.padding),
    )
    yield Twin(
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
    yield Twin(
        L.GlobalAvgPool2D,
        nn.AdaptiveAvgPool2d,
        lambda m: L.GlobalAvgPool2D() if m.output_size in (1, (1, 1), [1, 1]) else None,
        lambda layer: nn.AdaptiveAvgPool2d(1),
    )
    for kind, module, names in (
        (L.LayerNorm, nn.LayerNorm, scaled),
        (L.RMSNorm, nn.RMSNorm, {"gamma": "weight"}),
    ):
        yield Twin(
            kind,
            module,
            lambda m, kind=kind, names=names: _norm(m, kind, names),
            lambda layer, module=module: module(layer.features, eps=layer.eps),
            names,
        )
    yield Twin(L.Sequential, nn.Identity, lambda m: L.Sequential(), lambda s: None)
    yield Twin(L.GLU, nn.GLU, lambda m: L.GLU() if m.dim == -1 else None, lambda g: nn.GLU())
    for kind in (L.PReLU, L.PReLU2D):
        yield Twin(
            kind,
            nn.PReLU,
            lambda m, kind=kind: kind(m.num_parameters, dtype=_dtype(m)),
            lambda p: nn.PReLU(p.features),
            {"a": "weight"},
        )
    yield Twin(
        L.Dropout,
        nn.Dropout,
        lambda m: L.Dropout(m.p) if m.p < 1.0 else None,
        lambda d: nn.Dropout(d.p),
    )
    yield Twin(
        L.Flatten,
        nn.Flatten,
        _flatten,
        lambda f: nn.Flatten() if f.axes is None else nn.Flatten(-f.axes),
    )
    yield Twin(
        L.Unflatten,
        nn.Unflatten,
        lambda m: L.Unflatten(tuple(m.unflattened_size)) if m.dim in (1, -1) else None,
        lambda u: nn.Unflatten(1, u.shape),
    )
    yield Twin(
        L.Softmax,
        nn.Softmax,
        lambda m: L.Softmax(-1 if m.dim is None else m.dim),
        lambda s: nn.Softmax(dim=s.axis),
    )
    yield Twin(
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


def _activation(kind: Any, module: Any, ours: str, theirs: str) -> Twin:
    def to_layer(m: Any) -> Layer | None:
        # Of softplus, which torch's takes for x beyond a threshold: at 20 all digits are the same.
        if getattr(m, "beta", 1) != 1 or getattr(m, "threshold", 20) < 20:
            return None
        return kind(getattr(m, theirs)) if ours else kind()

    def to_module(layer: Any) -> Any:
        return module(**{theirs: getattr(layer, ours)}) if ours else module()

    return Twin(kind, module, to_layer, to_module)


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
    return the_library().nn.Conv2d(C * layer.groups, M, tuple(size), **options)


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
    eps = the_library().finfo(m.weight.dtype).eps if m.eps is None else m.eps
    return kind(m.normalized_shape[0], dtype=_dtype(m), eps=eps)
