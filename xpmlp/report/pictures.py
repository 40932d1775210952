"""Arrays as PNG pictures inside the page."""

from __future__ import annotations

import base64
import math
import struct
import zlib

import numpy as np

from .html import Markup


def as_images(x: np.ndarray) -> np.ndarray | None:
    """Images (N, H, W) or (N, H, W, 3) of values as they are; None for what are none."""
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[-1] not in (1, 3):
        x = np.moveaxis(x, 1, -1)
    if x.ndim == 4 and x.shape[-1] == 1:
        x = x[..., 0]
    grey, rgb = x.ndim == 3, x.ndim == 4 and x.shape[-1] == 3
    return x if (grey or rgb) and min(x.shape[1:3]) > 1 and x.dtype.kind in "buif" else None


def in_unit(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from ``low`` to ``high`` as 0 to 1."""
    spread = high - low
    return (image.astype(np.float64) - low) / (spread if spread > 0 else 1.0)


def png_uri(image: np.ndarray) -> Markup:
    """A ``data:`` address of an image (H, W) or (H, W, 3) of values in [0, 1].

    Source of the format: W3C, "Portable Network Graphics", third edition.
    """
    pixels = (255.0 * np.clip(np.nan_to_num(image), 0.0, 1.0) + 0.5).astype(np.uint8)
    height, width = pixels.shape[:2]
    kind = 0 if pixels.ndim == 2 else 2
    rows = pixels.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0: none
    content = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 9))
        + _chunk(b"IEND", b"")
    )
    return Markup(f"data:image/png;base64,{base64.b64encode(content).decode()}")


def enlarged(images: np.ndarray, least: int) -> np.ndarray:
    """Images (N, H, W, …) with pixels as squares, at least ``least`` a side."""
    times = math.ceil(least / min(images.shape[1:3]))
    return images.repeat(times, axis=1).repeat(times, axis=2)


def mosaic(images: np.ndarray, gap: float = 1.0) -> np.ndarray:
    """Images (N, H, W) or (N, H, W, 3) beside each other, a pixel of ``gap`` between them."""
    count, height, width = images.shape[:3]
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    whole = np.full((down * (height + 1) - 1, across * (width + 1) - 1, *images.shape[3:]), gap)
    for place, image in enumerate(images):
        top, left = (place // across) * (height + 1), (place % across) * (width + 1)
        whole[top : top + height, left : left + width] = image
    return whole


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
