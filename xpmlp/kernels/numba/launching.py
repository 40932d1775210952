"""Instructions run at once, from Python: how the ops of NumPy arrays use what a training step does.

At small sizes an op takes as long as its arguments take to be read. So :func:`launch` is made of a
C function of Python's, compiled here, which reads a record as it is: numbers by value, of an array
where its elements begin. No array is asked for its address, none is wrapped, and whatever a record
is made of, it is the same code.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numba import types

from .simd import stack_buffer
from .sources import compiled
from .tape import PARALLEL, SIGNATURE, address_of, call, run_parallel, vector
from .threads import enter_parallel, leave_parallel, parallel_threads


def launch(functions: Any, record: tuple, *more: Any, worth_it: bool = False) -> int:
    """Run instructions now, one after another.

    An op that is written as instructions needs no code of its own and no parallel twin, which
    numba takes half a second and more to compile.

    Parameters
    ----------
    functions : int or tuple of int
        What :func:`xpmlp.kernels.numba.tape.instruction` gave, for one or several with one record.
    record : tuple
        Plain: integers, arrays, floats or tuples of floats for numbers in memory. In place of an
        array whose elements do not lie in order, a copy is handed over: not for results.
    *more
        Other functions and their record, in turn.
    worth_it : bool
        Threads share each, if they are free.

    Returns
    -------
    int
        The first status that is not 0, or 0; with threads always 0.
    """
    if worth_it and enter_parallel():
        try:
            return launch_in_parts(parallel_threads(), functions, record, *more)
        finally:
            leave_parallel()
    status = _launch(0, functions, record, *more)
    return status if status != _UNKNOWN else _launch_plain(0, functions, record, *more)[0]


def launch_in_parts(parts: int, *calls: Any) -> int:
    """So many shares of each side by side; between ``enter_parallel`` and ``leave_parallel``."""
    area = np.empty(_AREA, np.int64)
    count = _launch(address_of(area), *calls)
    if count == _UNKNOWN:
        count, calls = _launch_plain(address_of(area), *calls)
    return run_parallel(area[: 3 * count].reshape(count, 3), parts)


def _launch_plain(place: int, *calls: Any) -> tuple[int, tuple]:
    """The same of what compiled code can read; and that, which must live until all is done."""
    plain = tuple(
        [tuple(map(_readable, each)) if isinstance(each, tuple) else each for each in calls]
    )
    status = _launch(place, *plain)
    if status == _UNKNOWN:
        sizes = [len(record) for record in plain[1::2]]
        raise TypeError(f"expected calls whose records fit into {_AREA} words, got {sizes}")
    return status, plain


def _readable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.require(value, requirements=("C", "A", "E"))
    if isinstance(value, tuple):
        return value
    return float(value) if isinstance(value, float | np.floating) else int(value)


# --- The compiled function ------------------------------------------------------------------------

_UNKNOWN = -1  # a record has something in it that only Python knows how to read
_AREA = 512  # integers: a table of calls as a tape has it, then what each call reads
_AREA_BYTES = 8 * _AREA
_MOST_CALLS = 8
_HEAD = object.__basicsize__ // 8  # words of any object; the last one is its type
_FLAGS, _IN_ORDER = 6, 0x0101  # of NumPy's arrays: C-contiguous, aligned

_int, _address = types.int64, types.intp
_size_of = types.ExternalFunction("PyTuple_Size", _int(_address))
_item_of = types.ExternalFunction("PyTuple_GetItem", _address(_address, _int))
_as_integer = types.ExternalFunction("PyLong_AsLongLong", _int(_address))
_as_float = types.ExternalFunction("PyFloat_AsDouble", types.float64(_address))
_integer = types.ExternalFunction("PyLong_FromLongLong", _address(_int))
_failed = types.ExternalFunction("PyErr_Occurred", _address())
_let_others_run = types.ExternalFunction("PyEval_SaveThread", _address())
_return_to_python = types.ExternalFunction("PyEval_RestoreThread", types.void(_address))


def _launch_body(kinds, given, count):
    """``launch(place, functions, record, functions, record, …)``, an integer.

    With a place of 0, the first status that is not 0, or 0. With the address of an area nothing is
    called: a table of the calls for ``run_parallel`` is written there, and their number returned.
    """
    objects = vector(given, count, np.int64(0))
    place = _as_integer(objects[0])
    start = place if place != 0 else stack_buffer(_AREA_BYTES)
    area, numbers = vector(start, _AREA, np.int64(0)), vector(start, _AREA, 0.0)
    an_integer, a_float = _item_of(kinds, 0), _item_of(kinds, 1)
    a_tuple, an_array = _item_of(kinds, 2), _item_of(kinds, 3)
    calls, free = 0, 3 * _MOST_CALLS
    for each in range(1, count - 1, 2):
        functions, record = objects[each], objects[each + 1]
        if vector(record, _HEAD, np.int64(0))[_HEAD - 1] != a_tuple:
            return _integer(_UNKNOWN)
        size, row = _size_of(record), free
        free += 2 * size  # the row, and room for a float beside each
        several = vector(functions, _HEAD, np.int64(0))[_HEAD - 1] == a_tuple
        more = _size_of(functions) if several else 1
        if free > _AREA or calls + more > _MOST_CALLS:
            return _integer(_UNKNOWN)
        for i in range(size):
            item = _item_of(record, i)
            words = vector(item, _HEAD + _FLAGS + 1, np.int64(0))
            kind = words[_HEAD - 1]
            if kind == an_array:
                if words[_HEAD + _FLAGS] & _IN_ORDER != _IN_ORDER:
                    return _integer(_UNKNOWN)
                area[row + i] = words[_HEAD]
            elif kind == an_integer:
                area[row + i] = _as_integer(item)
            elif kind == a_float:
                numbers[row + size + i] = _as_float(item)
                area[row + i] = start + 8 * (row + size + i)
            elif kind == a_tuple and free + _size_of(item) <= _AREA:
                area[row + i] = start + 8 * free
                for j in range(_size_of(item)):
                    numbers[free] = _as_float(_item_of(item, j))
                    free += 1
            else:
                return _integer(_UNKNOWN)
        for i in range(more):
            function = _as_integer(_item_of(functions, i) if several else functions)
            area[3 * calls], area[3 * calls + 1] = function, start + 8 * row
            area[3 * calls + 2] = PARALLEL
            calls += 1
    if _failed() != 0:
        return 0
    if place != 0:
        return _integer(calls)
    status, state = 0, _let_others_run()
    for i in range(calls):
        if status == 0:
            status = call(area[3 * i], area[3 * i + 1], 0, 1)
    _return_to_python(state)
    return _integer(status)


class _Definition(ctypes.Structure):
    """Python's ``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FASTCALL = 0x0080  # arguments come as they lie on Python's stack
_code = compiled(_launch_body, SIGNATURE)
_definition = _Definition(b"launch", _code.address, _FASTCALL, None)
_make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCFunction_NewEx", ctypes.pythonapi)
)
_launch: Any = _make(ctypes.addressof(_definition), (int, float, tuple, np.ndarray), None)
