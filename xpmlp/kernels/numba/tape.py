"""A program of kernels that runs from one call: what a training step becomes on NumPy arrays.

A *tape* is a list of instructions, written once and run as often as wanted. Each is the address of
a compiled function and the address of its arguments, a row of integers: pointers, sizes, strides.
Between two runs only such integers change, so a run costs a microsecond of Python however many
instructions there are, and no memory is asked for.

Every instruction has the same signature::

    instruction(arguments, part, parts) -> status

and does the ``part``-th of ``parts`` equal shares of its work, along whatever axis it can be cut
without changing a sum: members of a population, rows, columns, or elements. One contract then
serves three ways to run:

* serially: share 0 of 1;
* each instruction cut among the threads, with a barrier between instructions;
* members of a population divided among the threads: each runs the whole tape for one member after
  another, whose arrays stay in its core's cache.

Results are the same bits whichever way and with however many threads. An instruction gives 0;
only checks, which are run before anything is changed, may give another status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from .simd import INT, POINTER
from .sources import compiled
from .threads import enter_parallel, leave_parallel, parallel_threads
from .twins import twins

SERIAL, PARALLEL = 0, 1
_SIGNATURE = types.intp(types.intp, types.intp, types.intp)


class Tape:
    """Instructions in the order in which they run.

    Parameters
    ----------
    members : int
        P. With 2 or more, and threads to share them, members run side by side: every instruction
        after the checks must then be able to do its work for one member alone.
    """

    def __init__(self, members: int = 1):
        self.members = members
        self._calls: list[tuple[int, int, int]] = []
        self._checks: list[tuple[int, int, int]] = []
        self._kept: list[object] = []
        self._tables: tuple[np.ndarray, ...] | None = None

    def add(self, function: int, arguments: list[int], *, work: int, check: bool = False):
        """Append an instruction.

        Parameters
        ----------
        function : int
            What :func:`instruction` gave.
        arguments : list of int
        work : int
            Roughly how many nanoseconds it takes; little work is not worth a second thread.
        check : bool
            It is run by :meth:`check` instead, for all members at once.

        Returns
        -------
        array of int64
            The arguments where the instruction reads them: assign to change one.
        """
        row = np.array(arguments, np.int64)
        self._kept.append(row)
        mode = PARALLEL if work >= _WORTH_A_THREAD and not check else SERIAL
        (self._checks if check else self._calls).append((function, address_of(row), mode))
        self._tables = None
        return row

    def check(self) -> int:
        """Run the checks; the first status that is not 0, or 0."""
        if self._tables is None:
            self._tables = tuple(
                np.array(calls, np.int64).reshape(-1, 3) for calls in (self._checks, self._calls)
            )
        checks = self._tables[0]
        return _run(checks, 1) if len(checks) else 0

    def run(self) -> None:
        """Run everything that is no check, after :meth:`check` gave 0."""
        calls = self._tables[1]
        several = self.members > 1
        if not enter_parallel():
            _run_members(calls, self.members) if several else _run(calls, 1)
            return
        try:
            if several:
                _run_members_parallel(calls, self.members)
            else:
                _run_parallel(calls, parallel_threads())
        finally:
            leave_parallel()


_WORTH_A_THREAD = 6_000  # ns


def launch(functions: Any, record: tuple, *more: tuple[Any, tuple], worth_it: bool = False) -> int:
    """Run instructions now, one after another.

    An op that is written as instructions needs no code of its own and no parallel twin, which
    numba takes half a second and more to compile.

    Parameters
    ----------
    functions : int or tuple of int
        What :func:`instruction` gave, for one or several with one record.
    record : tuple
        Plain, whose type numba is quick to tell: integers, arrays, floats
        or tuples of floats for numbers in memory, and tuples of all these.
    *more : tuple
        Other functions, and their record.
    worth_it : bool
        Threads share each, if they are free.

    Returns
    -------
    int
        The first status that is not 0, or 0; with threads always 0.
    """
    if worth_it and enter_parallel():
        try:
            return launch_in_parts(parallel_threads(), (functions, record), *more)
        finally:
            leave_parallel()
    return _launch_all(((functions, record), *more)) if more else _launch(functions, record)


def launch_in_parts(parts: int, *calls: tuple[Any, tuple]) -> int:
    """So many shares of each side by side; between ``enter_parallel`` and ``leave_parallel``."""
    kept: list[np.ndarray] = []
    table = []
    for functions, record in calls:
        row = np.array(list(_integers_of(record, kept)), np.int64)
        kept.append(row)
        for function in functions if isinstance(functions, tuple) else (functions,):
            table.append((function, address_of(row), PARALLEL))
    return _run_parallel(np.array(table, np.int64), parts)


def _integers_of(record: tuple, kept: list[np.ndarray]) -> Iterator[int]:
    """A record as it is in a row; what is made for it in memory is kept."""
    for value in record:
        numbers = (value,) if isinstance(value, float) else value
        if isinstance(numbers, tuple) and all(isinstance(each, float) for each in numbers):
            kept.append(np.array(numbers))
            yield address_of(kept[-1])
        elif isinstance(value, tuple):
            yield from _integers_of(value, kept)
        else:
            yield address_of(value) if isinstance(value, np.ndarray) else int(value)


def address_of(array: np.ndarray) -> int:
    """Where an array's elements begin."""
    return array.__array_interface__["data"][0]


def instruction(body: Callable, *, fastmath: set[str] | bool = False) -> Callable[..., int]:
    """Make an instruction of a factory ``body(real) -> function(arguments, part, parts)``.

    The result gives, for a dtype, the address of the compiled function.
    """

    @cache
    def address(dtype) -> int:
        # With Python's error on dividing by zero, LLVM would make no vectors of loops that divide.
        options = {"fastmath": fastmath, "error_model": "numpy"}
        function = compiled(body(np.dtype(dtype).type), _SIGNATURE, **options)
        _alive.append(function)
        return function.address

    return address


_alive: list[object] = []  # the machine code lives as long as these


# These are intrinsics because every instruction has a dozen of them: as functions whose source is
# inlined, they were half of its compile time.


@intrinsic
def share(typingctx, total, part, parts, unit):
    """First and last element of a share, cut at multiples of ``unit``."""

    def generate(context, builder, signature, arguments):
        return cgutils.pack_array(builder, _emit_share(builder, *arguments))

    return types.UniTuple(types.intp, 2)(*[types.intp] * 4), generate


def _emit_share(builder: ir.IRBuilder, total, part, parts, unit) -> list[ir.Value]:
    unit = builder.select(builder.icmp_signed("==", unit, INT(0)), INT(1), unit)  # of nothing
    units = builder.udiv(builder.add(total, builder.sub(unit, INT(1))), unit)
    ends = []
    for number in (part, builder.add(part, INT(1))):
        end = builder.mul(builder.udiv(builder.mul(number, units), parts), unit)
        ends.append(builder.select(builder.icmp_signed("<", end, total), end, total))
    return ends


@intrinsic
def vector(typingctx, start, size, like):
    """``size`` elements of like's type in memory, as an array that owns nothing."""
    kind = types.Array(like, 1, "C")

    def generate(context, builder, signature, arguments):
        array = make_array(kind)(context, builder)
        data = builder.inttoptr(arguments[0], array.data.type)
        size = context.get_abi_sizeof(context.get_data_type(like))
        populate_array(array, data, [arguments[1]], [INT(size)], size, None)
        return array._getvalue()

    return kind(types.intp, types.intp, like), generate


@intrinsic
def call(typingctx, function, arguments, part, parts):
    """Call an instruction by its address."""

    def generate(context, builder, signature, values):
        return _emit_call(builder, *values)

    return types.intp(*[types.intp] * 4), generate


def _emit_call(builder: ir.IRBuilder, function: ir.Value, *arguments: ir.Value) -> ir.Value:
    kind = ir.FunctionType(INT, [INT] * 3)
    return builder.call(builder.inttoptr(function, kind.as_pointer()), list(arguments))


@intrinsic
def stored(typingctx, record):
    """The address of a record, on the stack, as a row of integers."""

    def generate(context, builder, signature, values):
        return _emit_row(context, builder, record, values[0])

    return types.intp(record), generate


def _emit_row(context, builder, kind, value) -> ir.Value:
    words = list(_words(context, builder, kind, value))
    with builder.goto_entry_block():
        row = builder.ptrtoint(builder.alloca(ir.ArrayType(INT, len(words))), INT)
    for i, word in enumerate(words):
        builder.store(word, builder.inttoptr(builder.add(row, INT(8 * i)), POINTER))
    return row


def _words(context, builder, kind, value) -> Iterator[ir.Value]:
    numbers = kind.types if isinstance(kind, types.BaseTuple) else [kind]
    if all(isinstance(each, types.Float) for each in numbers):
        with builder.goto_entry_block():
            place = builder.alloca(ir.ArrayType(ir.DoubleType(), len(numbers)))
        place = builder.ptrtoint(place, INT)
        for i, each in enumerate(numbers):
            one = value if kind is each else builder.extract_value(value, i)
            at = builder.inttoptr(builder.add(place, INT(8 * i)), POINTER)
            builder.store(context.cast(builder, one, each, types.float64), at)
        yield place
    elif isinstance(kind, types.BaseTuple):
        for i, each in enumerate(numbers):
            yield from _words(context, builder, each, builder.extract_value(value, i))
    elif isinstance(kind, types.Array):
        yield builder.ptrtoint(make_array(kind)(context, builder, value).data, INT)
    else:
        yield context.cast(builder, value, kind, types.intp)


@intrinsic
def _call_each(typingctx, calls):
    """Call instructions, one or several with each record, until a status is not 0."""

    def generate(context, builder, signature, values):
        status = cgutils.alloca_once_value(builder, INT(0))
        for i, (functions, record) in enumerate(kind.types for kind in calls.types):
            row = _emit_row(context, builder, record, builder.extract_value(values[0], [i, 1]))
            for function in _words(
                context, builder, functions, builder.extract_value(values[0], [i, 0])
            ):
                with builder.if_then(builder.icmp_signed("==", builder.load(status), INT(0))):
                    done = _emit_call(builder, function, row, INT(0), INT(1))
                    builder.store(done, status)
        return builder.load(status)

    return types.intp(calls), generate


@compiled(nogil=True)
def _launch(functions, record):
    return _call_each(((functions, record),))


@compiled(nogil=True)
def _launch_all(calls):
    return _call_each(calls)


def _run_body(calls, parts):
    for i in range(calls.shape[0]):
        function, arguments, mode = calls[i, 0], calls[i, 1], calls[i, 2]
        if mode == PARALLEL and parts > 1:
            for part in prange(parts):
                call(function, arguments, part, parts)
        else:
            status = call(function, arguments, 0, 1)
            if status != 0:
                return status
    return 0


def _run_members_body(calls, members):
    for member in prange(members):
        for i in range(calls.shape[0]):
            call(calls[i, 0], calls[i, 1], member, members)
    return 0


_run, _run_parallel = twins(_run_body)
_run_members, _run_members_parallel = twins(_run_members_body)
