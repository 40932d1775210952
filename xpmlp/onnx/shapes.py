"""What shapes the values of a graph have before and after a layer, and which it can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, to_numpy
from ..errors import ShapeError
from .graph import Value

WHERE = "export_onnx"


def with_members(x: Value, members: Sequence[int], at: str) -> tuple[int | str, ...]:
    """All axes of x but the last, after the product with weights of these leading axes."""
    lead = x.shape[:-1]
    if not members:
        return lead
    if len(x.shape) == 2:
        return (*members, *lead)
    if x.shape[:-2] != tuple(members):
        raise ShapeError(
            f"`{WHERE}`: expected samples of one axis, or {members[0]} batches of them, at the "
            f"layer {at} of a population of {members[0]}, got {x.text()}; flatten them first"
        )
    return lead


def axes_kept(x: Value, features: int, at: str) -> int:
    """How many leading axes stay, so that the product of the others is ``features``."""
    product = 1
    for kept in range(len(x.shape) - 1, -1, -1):
        size = x.shape[kept]
        if isinstance(size, str):
            break
        product *= size
        if product == features:
            return kept
    raise ShapeError(
        f"`{WHERE}`: expected {features} features at the layer {at}, got {x.text()}; "
        "give input_shape=, the shape of one sample"
    )


def check_features(x: Value, layer: Any, at: str) -> None:
    """Raise ShapeError unless x has a normalization's features, and its members."""
    wanted = tuple(layer.gamma.shape)
    got = (*x.shape[-1 - len(wanted) : -2], x.shape[-1])
    if len(x.shape) <= len(wanted) or got != wanted:
        lead = "".join(f"{size}, " for size in wanted[:-1])
        raise ShapeError(
            f"`{WHERE}`: expected (…, {lead}N, {wanted[-1]}) at the layer {at}, got {x.text()}; "
            "give input_shape=, the shape of one sample"
        )


def per_feature(p: Array) -> np.ndarray:
    """A parameter (D,) or (P, D) that broadcasts over the batch axis."""
    p = to_numpy(p)
    return p if p.ndim == 1 else p[:, None, :]
