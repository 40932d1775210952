"""NumPy arrays that lie directly before, or directly after, memory that nobody may touch.

:func:`install` gives NumPy an allocator (NEP 49) that maps pages for each array by itself, with an
unreadable page on either side. An array ends with the last byte before one of them, or begins with
the first byte after the other: one element read or written too far kills the process. What is
allocated without being set to 0 holds NaN.

For processes of their own, which leave by ``os._exit``. Memory of other allocators, such as what
compiled code asks for inside of a kernel, is not guarded.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
from numba import cfunc, types

PLACES = ("end", "begin")

_PAGE = mmap.PAGESIZE
_SET_HANDLER = 304  # its place in NumPy's table of functions
_Malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Calloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_Realloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Free = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _Handler(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", _Malloc),
        ("calloc", _Calloc),
        ("realloc", _Realloc),
        ("free", _Free),
    )


class _Pages:
    """Maps arrays, and knows where each of them lies."""

    def __init__(self, place: str):
        self.at_the_end = place == "end"
        self.given = 0
        self._sizes: dict[int, int] = {}  # by address
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = (
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
            ctypes.c_long,
        )
        self._libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

    def malloc(self, context: int, size: int) -> int | None:
        address = self.calloc(context, size, 1)
        if address is not None:
            ctypes.memset(address, 0xFF, size)  # NaN, in any floating dtype
        return address

    def calloc(self, context: int, count: int, each: int) -> int | None:
        size = count * each
        inner = -(-size // _PAGE) * _PAGE
        area = self._libc.mmap(
            None, inner + 2 * _PAGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
        )
        if area in (None, 2**64 - 1):
            return None
        first = area + _PAGE
        if inner and self._libc.mprotect(first, inner, mmap.PROT_READ | mmap.PROT_WRITE):
            return None
        address = first + (inner - size if self.at_the_end else 0)
        self._sizes[address] = size
        self.given += 1
        return address

    def realloc(self, context: int, old: int | None, size: int) -> int | None:
        new = self.malloc(context, size)
        if old is not None and new is not None:
            ctypes.memmove(new, old, min(size, self._sizes[old]))
            _free(context, old, self._sizes[old])
        return new


_munmap = types.ExternalFunction("munmap", types.intc(types.uintp, types.uintp))


@cfunc(types.void(types.uintp, types.uintp, types.uintp))
def _compiled_free(context, address, size):
    # Not in Python, which must not run here: arrays go while an error is on its way.
    if address:
        first = address - address % _PAGE
        _munmap(first - _PAGE, (size + _PAGE - 1) // _PAGE * _PAGE + 2 * _PAGE)


_free = _Free(_compiled_free.address)


def install(place: str) -> _Pages:
    """Guard all arrays that NumPy makes from now on, at their ``"end"`` or ``"begin"``."""
    pages = _Pages(place)
    handler = _Handler(
        b"guarded",
        1,
        None,
        _Malloc(pages.malloc),
        _Calloc(pages.calloc),
        _Realloc(pages.realloc),
        _free,
    )
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = ctypes.py_object, ctypes.c_char_p
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
    table = api.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
    place_in_table = table + _SET_HANDLER * ctypes.sizeof(ctypes.c_void_p)
    function = ctypes.c_void_p.from_address(place_in_table).value
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(function)
    kept.extend([handler, pages])  # for as long as an array of theirs may live
    set_handler(api.PyCapsule_New(ctypes.addressof(handler), b"mem_handler", None))
    return pages


kept: list[object] = []


def touch_the_byte_beside(place: str) -> None:
    """Die, which shows that arrays are guarded."""
    array = np.zeros(7, np.float32)
    beside = 28 if place == "end" else -1
    ctypes.c_byte.from_address(array.ctypes.data + beside).value  # noqa: B018
