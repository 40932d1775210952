"""Memory of a device that is not there: the host's, but freed memory stays free.

Arrays hold their memory. Once nobody holds it, it is full of 0xFF bytes and never given out again,
and whoever comes with its address is refused: a graph knows nothing but addresses.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

_ALIGNMENT = 512  # as CUDA's
_REMEMBERED = 256 << 20  # bytes of freed memory that are told from memory that never was


class FreedMemory(AssertionError):
    """An address of memory that has been freed, or of none."""


@dataclass(eq=False)
class _Block:
    start: int
    bytes: np.ndarray
    alive: bool = True


class Owner:
    """What an array's memory belongs to: as long as this lives, the memory does."""

    def __init__(self, block: _Block):
        self.ptr = block.start
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": block.bytes.shape,
            "data": (block.start, False),
        }


class Counts:
    """How many addresses were looked up, and how many of them pointed to freed memory."""

    looked_up = 0
    freed = 0
    shown = False


_lock = threading.RLock()  # threads may be ranks of one training
_starts: list[int] = []
_blocks: dict[int, _Block] = {}
_freed: deque[_Block] = deque()
_freed_bytes = 0


def allocate(size: int) -> Owner:
    """Memory of its own, full of 0xFF: as floats, no numbers."""
    room = np.empty(max(1, size) + _ALIGNMENT, np.uint8)
    room[...] = 0xFF
    at = -room.ctypes.data % _ALIGNMENT
    block = _Block(room.ctypes.data + at, room[at : at + max(1, size)])
    with _lock:
        insort(_starts, block.start)
        _blocks[block.start] = block
    owner = Owner(block)
    weakref.finalize(owner, _free, block).atexit = False
    return owner


def _free(block: _Block) -> None:
    global _freed_bytes
    block.alive = False
    block.bytes[...] = 0xFF
    with _lock:
        _freed.append(block)
        _freed_bytes += block.bytes.size
        while _freed_bytes > _REMEMBERED:
            old = _freed.popleft()
            _freed_bytes -= old.bytes.size
            _starts.remove(old.start)
            del _blocks[old.start]


def array_of(owner: Owner, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array in this memory, which it holds."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.asarray(owner)[:size].view(dtype).reshape(shape)


def _block_at(address: int) -> _Block | None:
    with _lock:
        place = bisect_right(_starts, address) - 1
        block = None if place < 0 else _blocks[_starts[place]]
    return block if block is not None and address < block.start + block.bytes.size else None


def is_device(array: np.ndarray) -> bool:
    """Whether an array's memory was ever given out here."""
    return _block_at(array.ctypes.data) is not None


def whole(address: int, what: str = "an address") -> tuple[np.ndarray, int]:
    """The bytes of the block that an address lies in, and where; it must not have been freed."""
    Counts.looked_up += 1
    block = _block_at(address)
    if block is None or not block.alive:
        Counts.freed += 1
        raise FreedMemory(f"{what} points to {'freed memory' if block else 'no memory at all'}")
    return block.bytes, address - block.start


@contextmanager
def refused(words: str) -> Iterator[None]:
    """Inside, an address of freed memory is to be used, once."""
    with pytest.raises(FreedMemory, match=words):
        yield
    Counts.freed -= 1


@dataclass(frozen=True)
class Address:
    """What a graph knows of an array: not the array."""

    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self, what: str) -> np.ndarray:
        """The memory there, if it is still there."""
        block, at = whole(self.start, what)
        return np.ndarray(self.shape, self.dtype, block, at, self.strides)


def addresses(value: Any) -> Any:
    """Arrays in device memory by their addresses, also those in tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        value = value.view(np.ndarray)
        if not is_device(value):
            return value
        return Address(value.ctypes.data, value.shape, value.strides, value.dtype)
    if isinstance(value, tuple | list):
        return type(value)(map(addresses, value))
    return {k: addresses(v) for k, v in value.items()} if isinstance(value, dict) else value


def arrays(value: Any, what: str) -> Any:
    """The inverse, when it is used."""
    if isinstance(value, Address):
        return value.array(what)
    if isinstance(value, tuple | list):
        return type(value)(arrays(item, what) for item in value)
    return {k: arrays(v, what) for k, v in value.items()} if isinstance(value, dict) else value
