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
    if more:
        return _launch_all(((functions, record), *more), 0)
    return _launch(functions, record, 0)


def launch_in_parts(parts: int, *calls: tuple[Any, tuple]) -> int:
    """So many shares of each side by side; between ``enter_parallel`` and ``leave_parallel``."""
    area = np.empty(_AREA, np.int64)  # compiled code fills it: in Python, that takes 10 µs
    place = address_of(area)
    count = _launch_all(calls, place) if len(calls) > 1 else _launch(*calls[0], place)
    return _run_parallel(area[: 3 * count].reshape(count, 3), parts)


_AREA = 512  # integers: a table of calls, and what each reads


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


class _Area:
    """Integers in memory, taken from the front; numbers that are no integers lie there as well."""

    def __init__(self, builder: ir.IRBuilder, base: ir.Value):
        self.builder, self.base, self.taken = builder, base, 0

    def take(self, count: int) -> ir.Value:
        """The address of the next ones."""
        address = self.builder.add(self.base, INT(8 * self.taken))
        self.taken += count
        return address


def _on_stack(builder: ir.IRBuilder, count: int) -> ir.Value:
    with builder.goto_entry_block():
        return builder.ptrtoint(builder.alloca(ir.ArrayType(INT, count)), INT)


def _store(builder: ir.IRBuilder, value: ir.Value, base: ir.Value, place: int) -> None:
    builder.store(value, builder.inttoptr(builder.add(base, INT(8 * place)), POINTER))


@intrinsic
def stored(typingctx, record):
    """The address of a record, on the stack, as a row of integers."""

    def generate(context, builder, signature, values):
        area = _Area(builder, _on_stack(builder, sum(_size(record))))
        return _emit_row(context, builder, record, values[0], area)

    return types.intp(record), generate


def _size(kind) -> tuple[int, int]:
    """Words of a record's row, and floats beside it."""
    parts = kind.types if isinstance(kind, types.BaseTuple) else [kind]
    if all(isinstance(each, types.Float) for each in parts):
        return 1, len(parts)
    if isinstance(kind, types.BaseTuple):
        words, floats = zip(*map(_size, parts), strict=True)
        return sum(words), sum(floats)
    return 1, 0


def _emit_row(context, builder, kind, value, area: _Area) -> ir.Value:
    row = area.take(_size(kind)[0])
    for i, word in enumerate(_words(context, builder, kind, value, area)):
        _store(builder, word, row, i)
    return row


def _words(context, builder, kind, value, area: _Area) -> Iterator[ir.Value]:
    numbers = kind.types if isinstance(kind, types.BaseTuple) else [kind]
    if all(isinstance(each, types.Float) for each in numbers):
        place = area.take(len(numbers))
        for i, each in enumerate(numbers):
            one = value if kind is each else builder.extract_value(value, i)
            at = builder.inttoptr(builder.add(place, INT(8 * i)), ir.DoubleType().as_pointer())
            builder.store(context.cast(builder, one, each, types.float64), at)
        yield place
    elif isinstance(kind, types.BaseTuple):
        for i, each in enumerate(numbers):
            yield from _words(context, builder, each, builder.extract_value(value, i), area)
    elif isinstance(kind, types.Array):
        yield builder.ptrtoint(make_array(kind)(context, builder, value).data, INT)
    else:
        yield context.cast(builder, value, kind, types.intp)


@intrinsic
def _call_each(typingctx, calls, out):
    """Call instructions, one or several with each record, until a status is not 0.

    With an address ``out`` nothing is called: a table of the calls for ``_run_body`` is written
    there, with what each reads behind it, and their number is the result.
    """
    kinds = [kind.types for kind in calls.types]
    count = sum(len(f.types) if isinstance(f, types.BaseTuple) else 1 for f, _ in kinds)
    size = 3 * count + sum(sum(_size(record)) for _, record in kinds)
    if size > _AREA:
        raise TypeError(f"calls of {size} integers, of at most {_AREA}")

    def generate(context, builder, signature, values):
        now = builder.icmp_signed("==", values[1], INT(0))
        area = _Area(builder, builder.select(now, _on_stack(builder, size), values[1]))
        table, made = area.take(3 * count), []
        for i, (functions, record) in enumerate(kinds):
            given = [builder.extract_value(values[0], [i, j]) for j in (0, 1)]
            row = _emit_row(context, builder, record, given[1], area)
            for function in _words(context, builder, functions, given[0], area):
                made.append((function, row))
        status = cgutils.alloca_once_value(builder, INT(0))
        with builder.if_else(now) as (run, write):
            with run:
                for function, row in made:
                    with builder.if_then(builder.icmp_signed("==", builder.load(status), INT(0))):
                        done = _emit_call(builder, function, row, INT(0), INT(1))
                        builder.store(done, status)
            with write:
                for i, (function, row) in enumerate(made):
                    for j, word in enumerate((function, row, INT(PARALLEL))):
                        _store(builder, word, table, 3 * i + j)
                builder.store(INT(count), status)
        return builder.load(status)

    return types.intp(calls, types.intp), generate


@compiled(nogil=True)
def _launch(functions, record, out):
    return _call_each(((functions, record),), out)


@compiled(nogil=True)
def _launch_all(calls, out):
    return _call_each(calls, out)


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
