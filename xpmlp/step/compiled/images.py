"""Layers of images as instructions.

Between them, an image's channels come last: (P, N, H · W · C). Then bias, rectifier and batch norm
are those of rows, one a pixel. What comes from the user and what a Flatten gives on is (C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ... import layers
from ...ops.windows import Windows
from . import gated, normalization
from .program import Activation, Lowered, NotCompiled, Program

_BLOCK = 1 << 17  # bytes of an image that are folded at a time
_PARTS, _PART_BYTES = 16, 1 << 22  # sums of dW over some images each, and of all of them


def convolution(program: Program, name: str, layer: layers.Conv2D, x: Activation) -> Lowered:
    """The kernels are arranged for the products anew in each step."""
    program.watch(layer, *layer.options)
    M, each, *size = layer.W.shape[-4:]
    (C, H, W), G, N, members = x.axes, layer.groups, program.rows, program.members
    if each * G != C or layer.population != program.population:
        raise NotCompiled(f"{name}Conv2D is for other inputs")
    if program.multiply is not program.instructions.product:
        raise NotCompiled(f"{name}Conv2D multiplies in full precision alone")
    windows = Windows((size[0], size[1]), layer.stride, layer.padding, layer.dilation)
    Ho, Wo = windows.count(name, H, W)
    kinds, F, of_kernel = program.instructions, M * Ho * Wo, each * size[0] * size[1]
    pitch: Any = {"pitch": program.memory.row(name + "W"), "groups": G}
    pitch |= {"kernel_height": size[0], "kernel_width": size[1]}
    work = N * F * of_kernel / 100
    none = program.buffer(members, max(M, C))
    b = none if layer.b is None else program.parameter(name + "b")

    def arranged(turned: int) -> np.ndarray:
        made, kernels = program.buffer(members, M * of_kernel), program.parameter(name + "W")
        given = {**pitch, "W": kernels, "y": made, "turned": turned}
        program.add(kinds.arranged, rows=M, columns=each, **given, work=M * of_kernel)
        return made

    product = kinds.product(program.dtype)
    of_x: Any = {"x": x, "apart": x.batch, "groups": G, "product": product}
    of_x |= _sizes(x.axes, windows, (Ho, Wo), program.dtype.itemsize, G)
    of_x |= {"outputs": M, "depth": of_kernel}
    y = program.activation(F, axes=(M, Ho, Wo), channels_last=True)
    ends: Any = {"bias": b, "biased": int(layer.b is not None), "gate": y, "gated": 0, "flags": 0}
    made_by = program.add(kinds.convolved, columns=F, **of_x, W=arranged(0), y=y, **ends, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        numbers = M * of_kernel
        parts = min(N, _PARTS, _PART_BYTES // (numbers * program.dtype.itemsize))
        parts = max(1, parts) if members == 1 else 1
        sums = program.buffer(members, parts, numbers)
        given: Any = {**of_x, "rows": parts, "images": N, "dy": dy, "dW": sums}
        program.add(kinds.kernel_gradient, columns=numbers, **given, work=work)
        given = {**pitch, "blocks": parts, "parts": sums, "dW": program.gradient(name + "W")}
        program.add(kinds.kernel_sum, rows=M, columns=each, **given, work=parts * numbers)
        if layer.b is not None:
            given = {"rows": N * Ho * Wo, "x": dy, "out": program.gradient(name + "b")}
            program.add(kinds.column_sums, columns=M, **given, work=N * F / 25)
        if not wanted:
            return None
        back = Windows(windows.size, (1, 1), _beyond(windows), windows.dilation)
        of_dy: Any = {"x": dy, "apart": N * F, "groups": G, "product": product}
        of_dy |= _sizes((M, Ho, Wo), back, (H, W), program.dtype.itemsize, G, layer.stride)
        of_dy |= {"outputs": C, "depth": M // G * size[0] * size[1], "W": arranged(1)}
        dx = program.buffer(members, N, C * H * W)
        ends = {"bias": none, "biased": 0, "gate": x if x.gated else dx, "gated": int(x.gated)}
        given = {**of_dy, **ends, "y": dx, "flags": 0}
        program.add(kinds.convolved, columns=C * H * W, **given, work=work)
        return dx

    return replace(y, product=made_by), backward


def _beyond(windows: Windows) -> tuple[int, int]:
    """The padding with which the turned kernel meets every pixel of the image."""
    down, right = (
        d * (k - 1) - p
        for d, k, p in zip(windows.dilation, windows.size, windows.padding, strict=True)
    )
    return down, right


def _sizes(
    axes: tuple[int, ...],
    windows: Windows,
    out: tuple[int, int],
    itemsize: int,
    groups: int,
    spread: tuple[int, int] = (1, 1),
) -> dict[str, int]:
    """A convolution's geometry, and how many output rows are folded at a time."""
    sizes = _pool_sizes(axes, windows, out)
    sizes["dilation_height"], sizes["dilation_width"] = windows.dilation
    sizes["spread_height"], sizes["spread_width"] = spread
    covered = windows.stride[1] * out[1] + windows.dilation[1] * windows.size[1]
    row = covered * windows.size[0] * (axes[0] // groups) * itemsize
    return {**sizes, "block": max(1, min(out[0], _BLOCK // row))}


def _pool_sizes(axes: tuple[int, ...], windows: Windows, out: tuple[int, int]) -> dict[str, int]:
    C, H, W = axes
    sizes = {"inside": C * H * W, "height": H, "width": W, "channels": C}
    sizes["kernel_height"], sizes["kernel_width"] = windows.size
    sizes["stride_height"], sizes["stride_width"] = windows.stride
    sizes["top"], sizes["left"] = windows.padding
    sizes["out_height"], sizes["out_width"] = out
    return sizes


def max_pooling(program: Program, name: str, layer: layers.MaxPool2D, x: Activation) -> Lowered:
    """Where each window's largest number is, is kept for the backward."""
    sizes, y = _pooled(program, name, layer, x, Windows(layer.size, layer.stride, layer.padding))
    kinds, F, work = program.instructions, y.features, program.rows * x.features / 2
    places = program.buffer(program.members, program.rows, F)
    given: Any = {"x": x, "apart": x.batch, "y": y, "places": places}
    program.add(kinds.pooled, columns=F, **sizes, **given, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if not wanted:
            return None
        dx = program.buffer(program.members, program.rows, x.features)
        given: Any = {"dy": dy, "places": places, "dx": dx}
        program.add(kinds.pooled_backward, columns=F, **sizes, **given, work=work)
        return dx

    # Where the largest of rectified numbers is 0, dy is set to 0, and so then is dx.
    return replace(y, gated=x.gated), backward


def average_pooling(program: Program, name: str, layer: Any, x: Activation) -> Lowered:
    """Of windows, or of all of an image."""
    if isinstance(layer, layers.GlobalAvgPool2D):
        windows, padded = Windows((x.axes[1], x.axes[2])), 0
    else:
        program.watch(layer, "count_padding")
        windows = Windows(layer.size, layer.stride, layer.padding)
        padded = int(layer.count_padding)
    sizes, y = _pooled(program, name, layer, x, windows)
    sizes["padded"] = padded
    kinds, F, work = program.instructions, y.features, program.rows * x.features / 2
    given: Any = {"x": x, "apart": x.batch, "y": y}
    program.add(kinds.averaged, columns=F, **sizes, **given, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if not wanted:
            return None
        dx = program.buffer(program.members, program.rows, x.features)
        program.add(kinds.averaged_backward, columns=F, **sizes, dy=dy, dx=dx, work=work)
        return program.gate(dx, x)

    return y, backward


def _pooled(
    program: Program, name: str, layer: Any, x: Activation, windows: Windows
) -> tuple[dict[str, Any], Activation]:
    """The geometry and the output of a pooling."""
    if not isinstance(layer, layers.GlobalAvgPool2D):
        program.watch(layer, "size", "stride", "padding")
    C, H, W = x.axes
    out = windows.count(name, H, W)
    axes = (C, *out)
    y = program.activation(C * out[0] * out[1], axes=axes, channels_last=True)
    return _pool_sizes(x.axes, windows, out), y


def of_pixels(lower: Callable[..., Lowered]) -> Callable[..., Lowered]:
    """A layer of rows with each pixel as a row."""

    def lowered(program: Program, name: str, layer: Any, x: Activation) -> Lowered:
        C, H, W = x.axes
        if layer.features != C:
            raise NotCompiled(f"{name}{type(layer).__name__} is for other inputs")
        pixels = replace(x, features=C, product=None)
        with program.rows_are(program.rows * (H * W)):
            y, backward_of_pixels = lower(program, name, layer, pixels)

        def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
            with program.rows_are(program.rows * (H * W)):
                return backward_of_pixels(dy, wanted)

        of_images: Any = {"features": x.features, "axes": x.axes, "channels_last": True}
        return replace(y, **of_images), backward

    return lowered


def group_norm(program: Program, name: str, layer: layers.GroupNorm, x: Activation) -> Lowered:
    """The slopes of γ and β are an instruction of their own."""
    program.watch(layer, "eps", "groups")
    C, H, W = x.axes
    if layer.features != C or layer.population != program.population:
        raise NotCompiled(f"{name}GroupNorm is for other inputs")
    kinds, N, F, G = program.instructions, program.rows, x.features, layer.groups
    y, work = program.activation(F, axes=x.axes, channels_last=True), N * F
    mean, inverse = (program.buffer(program.members, N, G) for _ in range(2))
    gamma, beta = program.parameter(name + "gamma"), program.parameter(name + "beta")
    of_x: Any = {"x": x, "apart": x.batch, "groups": G, "mean": mean, "inverse": inverse}
    given: Any = {**of_x, "channels": C, "gamma": gamma}
    program.add(kinds.group_norm, columns=F, **given, beta=beta, eps=layer.eps, y=y, work=3 * work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        slopes = {f"d{each}": program.gradient(name + each) for each in ("gamma", "beta")}
        of_channels = {**of_x, **slopes, "pixels": H * W, "dy": dy}
        program.add(kinds.channel_slopes, columns=C, **of_channels, work=work)
        if not wanted:
            return None
        dx = program.buffer(program.members, N, F)
        program.add(kinds.group_norm_backward, columns=F, **given, dy=dy, dx=dx, work=3 * work)
        return program.gate(dx, x)

    return y, backward


LAYERS: dict[type, Callable[[Program, str, Any, Activation], Lowered]] = {
    layers.Conv2D: convolution,
    layers.MaxPool2D: max_pooling,
    layers.AvgPool2D: average_pooling,
    layers.GlobalAvgPool2D: average_pooling,
    layers.BatchNorm2D: of_pixels(normalization.batch_norm),
    layers.PReLU2D: of_pixels(gated.prelu),
    layers.GroupNorm: group_norm,
}
"""What takes images with their channels last, and gives them so."""


def after(first: Lowered, lower: Callable[[Activation], Lowered]) -> Lowered:
    """Two lowerings, one behind the other."""
    x, backward_of_first = first
    y, backward_of_second = lower(x)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        dx = backward_of_second(dy, wanted)
        return None if dx is None else backward_of_first(dx, wanted)

    return y, backward


def channels_last(program: Program, x: Activation) -> Lowered:
    """Images as the layers here take them."""
    if len(x.axes) != 3:
        raise NotCompiled("a layer of images acts on samples that are none")
    if x.array is None and x.batch == 0 and program.members > 1:
        raise NotCompiled("a layer of images acts on a batch that members share")
    return _turned(program, x, True)


def channels_first(program: Program, x: Activation) -> Lowered:
    """Images as the user has them."""
    return _turned(program, x, False)


def _turned(program: Program, x: Activation, last: bool) -> Lowered:
    C, H, W = x.axes
    if x.channels_last == last or C == 1 or H * W == 1:
        return replace(x, channels_last=last), lambda dy, wanted: dy
    kinds, F, N = program.instructions, x.features, program.rows
    ways, work = ((C, H * W) if last else (H * W, C)), N * F
    y = program.activation(F, gated=x.gated, axes=x.axes, channels_last=last)
    given: Any = {"x": x, "apart": x.batch, "first": ways[0], "y": y}
    program.add(kinds.turned, columns=F, **given, work=work)

    def backward(dy: np.ndarray, wanted: bool) -> np.ndarray | None:
        if not wanted:
            return None
        dx = program.buffer(program.members, N, F)
        given: Any = {"x": dy, "apart": N * F, "first": ways[1], "y": dx}
        program.add(kinds.turned, columns=F, **given, work=work)
        return dx

    return y, backward
