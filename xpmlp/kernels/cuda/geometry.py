"""How many blocks and threads a kernel is launched with, and how much shared memory.

Plain arithmetic on shapes: nothing here knows CuPy or touches a device, so all of it is tested
where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .source import ACCUMULATOR

TARGET_KINDS = {"uint8": 0, "int8": 1, "int16": 2, "uint16": 3, "int32": 4, "int64": 5}
"""How kernels are told the integer type of class numbers."""

ACTIVATIONS = {None: 0, "relu": 1, "tanh": 2, "sigmoid": 3}
"""How kernels are told the activation."""

ITEMSIZE = {"f32": 4, "f64": 8, "f16": 2, "bf16": 2}
_STATIC_SHARED = 48 * 1024  # what a block may have without asking for more
_FIXED_SHARED = 6 * 1024  # more than any kernel has besides
_VECTOR_BYTES = 16
_MOST_BLOCKS = 2**31 - 1  # along the grid's first axis; the others end at 65,535
_MOST_LAYERS = 65_535


@dataclass(frozen=True)
class Device:
    """What a launch depends on: defaults are an H100's.

    Attributes
    ----------
    capability : int
        Compute capability, 90 for 9.0.
    multiprocessors : int
    shared_optin : int
        Bytes of shared memory that one block may ask for.
    """

    capability: int = 90
    multiprocessors: int = 132
    shared_optin: int = 232_448


@dataclass(frozen=True)
class Launch:
    """One launch. ``shared`` is dynamic shared memory in bytes; above 48 KB it must be asked for.

    Attributes
    ----------
    kernel : str
        Name of the function, with its suffix.
    grid, block : three int
    shared : int
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int = 0


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


# --- softmax cross-entropy

_LANES = {
    "f32": ((16, 1), (32, 1), (32, 2), (32, 4), (32, 8)),
    "f64": ((32, 1), (32, 2), (32, 4), (32, 8)),
    "f16": ((8, 1), (16, 1), (32, 1), (32, 2), (32, 4)),
    "bf16": ((8, 1), (16, 1), (32, 1), (32, 2), (32, 4)),
}
"""Lanes a row and pieces of 16 bytes a lane, for rows in registers: 64 to 1024 classes
(float64: 512)."""

CLUSTERS_FROM = 90
"""The compute capability from which blocks can share a row."""

_FEW_CLASSES = 32
_ROOMY = 72 * 1024  # with rows (or shares of rows) no larger, three blocks fit a multiprocessor


def softmax_cross_entropy(
    rows: int,
    classes: int,
    suffix: str,
    device: Device,
    targets: str = "numbers",
    hits: bool = False,
    aligned: bool = True,
) -> Launch:
    """Which kernel takes rows of this width.

    Parameters
    ----------
    rows, classes : int
        All problems' rows together; C.
    targets : {"numbers", "smoothed", "probabilities"}
        Class numbers as they are, or with label smoothing, or probabilities.
    hits : bool
        Whether the rows whose largest logit is their class are asked for.
    aligned : bool
        Whether every row of the logits begins at a multiple of 16 bytes. Else a row may need one
        piece more.
    """
    per_piece = _VECTOR_BYTES // ITEMSIZE[suffix]
    wide = 8 if suffix == "f64" else 4

    def launch(layout: str, blocks: int, threads: int, shared: int = 0) -> Launch:
        name = f"softmax_cross_entropy_{cross_entropy_kernel(layout, targets, hits)}_{suffix}"
        return Launch(name, (blocks, 1, 1), (threads, 1, 1), shared)

    if classes <= _FEW_CLASSES:
        threads = 128
        return launch("thread", _ceil(rows, threads), threads, threads * (classes | 1) * wide)
    width = _width(classes, suffix, aligned)
    for lanes, pieces in _LANES[suffix]:
        if width <= lanes * pieces * per_piece:
            return launch(f"{lanes}x{pieces}", _ceil(rows, 128 // lanes), 128)
    clusters = device.capability >= CLUSTERS_FROM
    for blocks in (1, 2, 4, 8) if clusters else (1,):
        share = row_share(classes, suffix, blocks, aligned)
        last = blocks == 8 or not clusters
        most = device.shared_optin - _FIXED_SHARED
        if share <= (most if last else min(most, _ROOMY)):
            layout = "block" if blocks == 1 else f"cluster{blocks}"
            if rows * blocks <= _MOST_BLOCKS:
                return launch(layout, rows * blocks, _row_threads(share), share)
    return launch("stream", rows, 512)


def cross_entropy_kernel(layout: str, targets: str, hits: bool) -> str:
    """The kernel of a layout for these targets; see ``softmax_cross_entropy.cu``."""
    if layout in ("thread", "stream") and targets == "smoothed":
        targets = "numbers"  # one kernel takes both
    if hits and targets == "numbers" and layout.startswith(("block", "cluster")):
        targets = "hits"
    return layout if targets == "numbers" else f"{layout}_{targets}"


def _width(classes: int, suffix: str, aligned: bool) -> int:
    """Columns that a row's pieces of 16 bytes span, at worst."""
    return classes if aligned else classes + _VECTOR_BYTES // ITEMSIZE[suffix] - 1


def row_share(classes: int, suffix: str, blocks: int, aligned: bool) -> int:
    """Bytes of shared memory in which each of some blocks keeps its part of a row."""
    pieces = _ceil(_width(classes, suffix, aligned) * ITEMSIZE[suffix], _VECTOR_BYTES)
    return _VECTOR_BYTES * _ceil(pieces, blocks)


def _row_threads(share: int) -> int:
    """Threads for a row's share: about 16 pieces of 16 bytes each, from 4 to 16 warps.

    More threads a row would only add to what is done once a row; several rows are in a
    multiprocessor's memory at the same time.
    """
    return min(512, max(128, 32 * _ceil(share, 16 * _VECTOR_BYTES * 32)))


def normalizer(problems: int, suffix: str) -> Launch:
    """One block a problem."""
    return Launch(f"softmax_cross_entropy_normalizer_{suffix}", (problems, 1, 1), (256, 1, 1))


def reduce_losses(problems: int, suffix: str) -> Launch:
    """One block a problem."""
    return Launch(f"softmax_cross_entropy_reduce_{suffix}", (problems, 1, 1), (256, 1, 1))


# --- element by element, and sums over the batch

_BLOCKS_EACH = 16  # blocks a multiprocessor that elementwise kernels are cut into, at most


def elementwise(kernel: str, member_size: int, members: int, suffix: str, device: Device) -> Launch:
    """Quads of elements along x (each thread may take several), members along y."""
    blocks = min(_ceil(_ceil(member_size, 4), 256), _BLOCKS_EACH * device.multiprocessors)
    return Launch(
        f"{kernel}_{suffix}", (max(1, blocks), min(members, _MOST_LAYERS), 1), (256, 1, 1)
    )


_COLUMNS = 32
_ROWS_AT_ONCE = 8


def column_chunks(batch: int, features: int, members: int, device: Device) -> int:
    """Into how many chunks of rows a sum over the batch is cut: two blocks a multiprocessor."""
    blocks = _ceil(features, _COLUMNS) * members
    wanted = _ceil(2 * device.multiprocessors, blocks)
    return max(1, min(wanted, _ceil(batch, 4 * _ROWS_AT_ONCE), _MOST_LAYERS))


def columns(
    kernel: str, batch: int, features: int, members: int, suffix: str, device: Device
) -> Launch:
    """Blocks of 32 features along x, :func:`column_chunks` along y, members along z."""
    chunks = column_chunks(batch, features, members, device)
    grid = (_ceil(features, _COLUMNS), chunks, min(members, _MOST_LAYERS))
    return Launch(f"{kernel}_{suffix}", grid, (_COLUMNS, _ROWS_AT_ONCE, 1))


def finish(kernel: str, count: int, suffix: str) -> Launch:
    """One thread for each of some results."""
    return Launch(f"{kernel}_{suffix}", (_ceil(count, 128), 1, 1), (128, 1, 1))


# --- updates

UPDATE_CHUNK = 4096
"""Elements of a parameter that one block updates."""


def update_chunks(sizes: Sequence[int]) -> list[int]:
    """How many chunks come before each parameter, and at the end their number."""
    totals = [0]
    for size in sizes:
        totals.append(totals[-1] + _ceil(size, UPDATE_CHUNK))
    return totals


def update(kernel: str, sizes: Sequence[int], suffix: str) -> Launch:
    """One block a chunk, for parameters of these sizes."""
    return Launch(f"{kernel}_{suffix}", (update_chunks(sizes)[-1], 1, 1), (256, 1, 1))


def tick(suffix: str) -> Launch:
    """One block for all members."""
    return Launch(f"tick_{suffix}", (1, 1, 1), (256, 1, 1))


def adjust_scale(suffix: str) -> Launch:
    """One thread."""
    return Launch(f"adjust_scale_{suffix}", (1, 1, 1), (1, 1, 1))


def squared_norm(largest: int, parameters: int, members: int, suffix: str) -> Launch:
    """Parts of parameters along x, parameters along y, members along z.

    ``largest`` is the greatest number of elements that one member has in one parameter.
    """
    parts = min(32, max(1, _ceil(largest, UPDATE_CHUNK)))
    grid = (parts, parameters, min(members, _MOST_LAYERS))
    return Launch(f"squared_norm_{suffix}", grid, (256, 1, 1))


# --- minibatches


def gather(kernel: str, rows: int, suffix: str) -> Launch:
    """One warp a row, of all members together."""
    return Launch(f"{kernel}_{suffix}", (_ceil(rows, 4), 1, 1), (128, 1, 1))


# --- layer normalization


def layer_norm(kernel: str, rows: int, features: int, suffix: str, device: Device) -> Launch:
    """A warp a row for short rows, several to a block; else a block a row."""
    if features <= 1024:
        return Launch(f"{kernel}_{suffix}", (_ceil(rows, 4), 1, 1), (32, 4, 1))
    threads = min(256, 32 * _ceil(features, 32 * 8))
    return Launch(f"{kernel}_{suffix}", (rows, 1, 1), (threads, 1, 1))


# --- small products

_EACH, _DEPTH = 4, 16  # elements of C a side that a thread makes; elements of K that are staged
_WARP_TILE, _WORDS = 32, 16  # elements of C a side that a warp makes; 4-byte words of K
_PADDING = 4  # elements, or words, that rows of a staged tile have more
TENSOR_CORES_FROM = 80
"""The compute capability from which tensor cores take bfloat16 and TF32 as well."""


def batched_matmul(
    batches: int, m: int, k: int, n: int, suffix: str, tensor: bool = False
) -> Launch:
    """Tiles of C as small as its larger side allows; small ones share a block of 256 threads.

    Batches are along x, tiles of C along y and z.

    Parameters
    ----------
    tensor : bool
        By tensor cores: 16-bit types, and float32 as TF32. Tiny matrices go without.
    """
    tile = next((size for size in (16, 32) if max(m, n) <= size), 64)
    tensor = tensor and tile > 16
    if tensor:
        threads = 32 * (tile // _WARP_TILE) ** 2
        staged = 2 * tile * (_WORDS + _PADDING) * 4
    else:
        threads = (tile // _EACH) ** 2
        wide = 8 if ACCUMULATOR[suffix] == "float64" else 4
        staged = 2 * _DEPTH * (tile + _PADDING) * wide
    together = max(1, min(batches, 256 // threads, _STATIC_SHARED // staged))
    grid = (min(_ceil(batches, together), _MOST_BLOCKS), _ceil(m, tile), _ceil(n, tile))
    name = f"batched_matmul_{'tensor_' if tensor else ''}{tile}_{suffix}"
    return Launch(name, grid, (threads, 1, together), together * staged)
