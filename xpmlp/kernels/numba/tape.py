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
from time import perf_counter

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from .simd import INT, LINE, POINTER
from .sources import compiled
from .threads import Pace, leave_parallel, parallel_threads
from .twins import twins

SERIAL, PARALLEL = 0, 1
SIGNATURE = types.intp(types.intp, types.intp, types.intp)


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
        self._work = 0
        self._tables: tuple[np.ndarray, ...] | None = None
        self._pace: Pace | None = None

    def add(self, function: int, arguments: list[int], *, work: int, check: bool = False):
        """Append an instruction.

        Parameters
        ----------
        function : int
            What :func:`instruction` gave.
        arguments : list of int
        work : int
            Roughly how many nanoseconds it takes for a member; little work is not worth a second
            thread.
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
        self._work += work
        self._tables = None
        return row

    def share_instructions(self) -> None:
        """Let threads share each instruction, for some that add up over members."""
        self.members = 1
        self._tables = None

    def check(self) -> int:
        """Run the checks; the first status that is not 0, or 0."""
        if self._tables is None:
            lists = self._checks, self._calls
            self._tables = tuple(np.array(each, np.int64).reshape(-1, 3) for each in lists)
            self._pace = Pace() if self._is_worth_sharing() else None
        checks = self._tables[0]
        return _run(checks, 1) if len(checks) else 0

    def _is_worth_sharing(self) -> bool:
        if self.members > 1:
            return self._work * self.members >= _WORTH_A_THREAD
        return any(mode == PARALLEL for _, _, mode in self._calls)

    def run(self) -> None:
        """Run everything that is no check, after :meth:`check` gave 0."""
        calls, pace = self._tables[1], self._pace
        if pace is None or parallel_threads() == 1:
            self._run(calls)
            return
        begin, parallel = perf_counter(), pace.enter_parallel()
        if parallel:
            try:
                self._run_parallel(calls)
            finally:
                leave_parallel()
        else:
            self._run(calls)
        pace.took(perf_counter() - begin, parallel)

    def _run(self, calls: np.ndarray) -> None:
        _run_members(calls, self.members) if self.members > 1 else _run(calls, 1)

    def _run_parallel(self, calls: np.ndarray) -> None:
        if self.members > 1:
            _run_members_parallel(calls, self.members)
        else:
            run_parallel(calls, parallel_threads())


_WORTH_A_THREAD = 6_000  # ns


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
        function = compiled(body(np.dtype(dtype).type), SIGNATURE, **options)
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
        return emit_vector(context, builder, kind, *arguments[:2])

    return kind(types.intp, types.intp, like), generate


def emit_vector(context, builder: ir.IRBuilder, kind, start: ir.Value, size: ir.Value) -> ir.Value:
    """An array at an address."""
    array = make_array(kind)(context, builder)
    data = builder.inttoptr(start, array.data.type)
    item = INT(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    populate_array(array, data, [size], [item], item, None)
    return array._getvalue()


@intrinsic
def scratch(typingctx, size, like):
    """``size`` zeros of like's type that begin with a cache line, until :func:`release`.

    NumPy's own arrays are released by themselves, for which each function has code that takes LLVM
    longer than most of what the functions do.
    """
    kind = types.Array(like, 1, "C")

    def generate(context, builder, signature, arguments):
        item = context.get_abi_sizeof(context.get_data_type(like))
        length = builder.mul(arguments[0], INT(item))
        memory = context.nrt.allocate(builder, builder.add(length, INT(2 * LINE)))
        end = builder.add(builder.ptrtoint(memory, INT), INT(2 * LINE - 1))
        start = builder.and_(end, INT(-LINE))  # with room before it for where the memory begins
        builder.store(builder.ptrtoint(memory, INT), _before(builder, start))
        cgutils.memset(builder, builder.inttoptr(start, cgutils.voidptr_t), length, 0)
        return emit_vector(context, builder, kind, start, arguments[0])

    return kind(types.intp, like), generate


@intrinsic
def release(typingctx, *arrays):
    """Give back what :func:`scratch` gave, at the function's end."""
    together = types.StarArgTuple.from_types(arrays)

    def generate(context, builder, signature, arguments):
        for i, kind in enumerate(together.types):
            array = builder.extract_value(arguments[0], i)
            start = builder.ptrtoint(make_array(kind)(context, builder, array).data, INT)
            memory = builder.load(_before(builder, start), typ=INT)
            context.nrt.free(builder, builder.inttoptr(memory, cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(together), generate


def _before(builder: ir.IRBuilder, start: ir.Value) -> ir.Value:
    """Where the word before an address is."""
    return builder.inttoptr(builder.sub(start, INT(8)), POINTER)


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
    """The address of a record of integers, and of tuples of integers, as a row on the stack."""

    def generate(context, builder, signature, values):
        words = list(_words(context, builder, record, values[0]))
        with builder.goto_entry_block():
            row = builder.alloca(INT, len(words))
        for i, word in enumerate(words):
            builder.store(word, builder.gep(row, [INT(i)]))
        return builder.ptrtoint(row, INT)

    return types.intp(record), generate


def _words(context, builder, kind: types.BaseTuple, value: ir.Value) -> Iterator[ir.Value]:
    for i, each in enumerate(kind.types):
        word = builder.extract_value(value, i)
        if isinstance(each, types.BaseTuple):
            yield from _words(context, builder, each, word)
        else:
            yield context.cast(builder, word, each, types.intp)


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


_run, run_parallel = twins(_run_body)
_run_members, _run_members_parallel = twins(_run_members_body)
