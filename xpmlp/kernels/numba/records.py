"""An instruction's arguments by name: one description, read by who writes the tape and by its code.

A record is a named tuple whose fields have kinds: an array, by how one member's part of it is laid
out; a number in memory; an integer. Who writes the tape fills it by name, so that a missing or an
unknown name is a ``TypeError`` there; so is an array that is too small or of another type. In the
row of integers that the tape keeps, fields stand in the record's order. Nobody else need know it::

    Scaled = record("Scaled", x=ROWS, factor=EACH_MEMBER)

    def _scaled(a, first, last):  # of one member
        for i in range(first, last):
            a.x[i] *= a.factor

    scaled = by_elements(Scaled, _scaled)

An instruction is made by what its shares cut: :func:`by_rows`, :func:`by_columns`,
:func:`by_elements` of one member's part where there is one member, and members where there are
several; :func:`by_members` members alone.
"""

from __future__ import annotations

import math
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
from numba import from_dtype, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
from numba.np.arrayobj import make_array, populate_array

from .simd import INT, POINTER
from .tape import instruction, share

SIZES = ("members", "rows", "columns")
"""The first fields of what :func:`record` makes."""


class Of:
    """An array of which a member has so many elements.

    Parameters
    ----------
    *sizes : str or int
        Their product; each a number or the name of a field. Without any, it is one number, which
        the code gets by value.
    dtype : str, optional
        By default the step's own.
    apart : str, optional
        The field that says how many elements a member's part is from the next one's.
    shared : bool
        All members have the same one.
    """

    def __init__(
        self, *sizes: str | int, dtype: str = "", apart: str | None = None, shared: bool = False
    ):
        self.sizes, self.apart, self.shared = sizes, apart, shared
        self.dtype = np.dtype(dtype) if dtype else None

    def count(self, given: Any) -> int:
        """How many elements the record's array has at least, for all members."""
        own = math.prod(getattr(given, n) if isinstance(n, str) else n for n in self.sizes)
        if self.shared or own == 0:
            return own
        return (given.members - 1) * (getattr(given, self.apart) if self.apart else own) + own


ROWS, FEATURES, EACH_ROW, EACH_MEMBER = Of("rows", "columns"), Of("columns"), Of("rows"), Of()
COUNT = Of(dtype="int64")
"""One integer a member, handed over by value."""
OUT = Of(1)
"""One number a member, written."""
ADDRESS = "where an array begins"
NUMBER = "a float64 in memory, the same for all members, as a number of the step's type"


def record(name: str, **kinds: Any) -> Any:
    """A named tuple of the sizes and then the fields given, each with its kind.

    A kind is ``int``, ``ADDRESS``, an :class:`Of`, ``NUMBER``, or a class of named numbers: a
    ``NamedTuple`` whose fields are ``int``, each a place in the row, or ``float``, together one
    array that has them for each member.

    ``name`` is that under which the caller's module has it: numba's cache finds it by that. An op,
    for which every microsecond counts, makes a ``plain`` tuple of the same fields.
    """
    module = sys._getframe(1).f_globals["__name__"]
    return fields_only(name, module, **dict.fromkeys(SIZES, int), **kinds)


def fields_only(name: str, module: str, /, **kinds: Any) -> Any:
    """The same without the sizes."""
    made: Any = namedtuple(name, kinds, module=module)
    made.__annotations__ = kinds
    names = ", ".join(kinds)
    values = ", ".join(f"*{name}" if _are_integers(kind) else name for name, kind in kinds.items())
    made.__doc__ = f"Of an instruction: {names}."
    made.plain = eval(f"lambda {names}: ({values},)")
    made.plain.__doc__ = "The same in a plain tuple, the integers of tuples by themselves."
    return made


def check(given: Any, dtype: np.dtype) -> None:
    """Refuse arrays of another type, or too small, for what they are given as."""
    for name, kind, value in zip(given._fields, _kinds(type(given)), given, strict=True):
        if not isinstance(value, np.ndarray):
            continue
        if isinstance(kind, Of):
            wanted, count = kind.dtype or dtype, kind.count(given)
        elif kind is NUMBER or _are_numbers(kind):
            wanted = np.dtype(np.float64)
            count = 1 if kind is NUMBER else given.members * len(kind._fields)
        elif kind is ADDRESS:
            continue
        else:
            raise TypeError(f"`{type(given).__name__}`: expected {name} to be no array")
        if value.dtype != wanted or value.size < count:
            raise TypeError(
                f"`{type(given).__name__}`: expected {name} to be {count} numbers of {wanted}, "
                f"got {value.size} of {value.dtype}"
            )


def flat(given: Any) -> Iterator[Any]:
    """The fields one after another, those of tuples among them by themselves."""
    for value in given:
        if isinstance(value, tuple):
            yield from flat(value)
        else:
            yield value


def _kinds(cls: type) -> list[Any]:
    return [cls.__annotations__[name] for name in cls._fields]  # type: ignore[attr-defined]


def _are_integers(kind: Any) -> bool:
    """Whether it is a tuple of integers in the row, each with its place."""
    return isinstance(kind, type) and issubclass(kind, tuple) and not _are_numbers(kind)


def _are_numbers(kind: Any) -> bool:
    """Whether it is a tuple of float64 numbers in memory."""
    if not (isinstance(kind, type) and issubclass(kind, tuple)):
        return False
    each = kind.__annotations__.values()  # names, or names yet to be looked up
    return {getattr(one, "__forward_arg__", one) for one in each} <= {float, "float"}


# --- Compiled code's side -------------------------------------------------------------------------


class _Row:
    """The integers at an address, handed out one after another."""

    def __init__(self, builder, start):
        self.builder, self.row, self.place = builder, builder.inttoptr(start, POINTER), 0

    def next(self):
        at = self.builder.gep(self.row, [INT(self.place)], source_etype=INT)
        self.place += 1
        return self.builder.load(at, typ=INT)


def _integers_type(cls: type) -> types.BaseTuple:
    kinds = [_integers_type(k) if _are_integers(k) else types.intp for k in _kinds(cls)]
    if all(kind is types.intp for kind in kinds):  # the type that compiled code makes of integers
        return types.NamedUniTuple(types.intp, len(kinds), cls)
    return types.NamedTuple(kinds, cls)


def _read_integers(context, builder, row: _Row, kind: types.BaseTuple):
    parts = [
        row.next() if each is types.intp else _read_integers(context, builder, row, each)
        for each in kind.types
    ]
    return context.make_tuple(builder, kind, parts)


@intrinsic
def fields(typingctx, arguments, record):
    """A record of integers, and of tuples of integers, as it is in the row at an address."""
    kind = _integers_type(record.instance_class)

    def generate(context, builder, signature, values):
        return _read_integers(context, builder, _Row(builder, values[0]), kind)

    return kind(types.intp, record), generate


@intrinsic
def of_member(typingctx, arguments, record, member, like):
    """A record of one member: its part of each array, numbers, and the sizes, unsigned."""
    cls = record.instance_class
    kinds = _kinds(cls)
    result = types.NamedTuple([_type_of(kind, like) for kind in kinds], cls)

    def generate(context, builder, signature, values):
        row = _Row(builder, values[0])
        given = [row.next() for _ in kinds]
        places = dict(zip(cls._fields, given, strict=True))
        member = values[2]

        def number(start, dtype):
            place = builder.inttoptr(start, POINTER)
            return builder.load(place, typ=context.get_data_type(dtype))

        def part(kind, start, value_type):
            if kind is int or kind is ADDRESS:
                return start
            if kind is NUMBER:
                return context.cast(builder, number(start, types.float64), types.float64, like)
            if _are_numbers(kind):
                count = len(kind._fields)
                start = builder.add(start, builder.mul(member, INT(8 * count)))
                wide = [number(builder.add(start, INT(8 * i)), types.float64) for i in range(count)]
                return context.make_tuple(builder, value_type, wide)
            dtype = value_type.dtype if kind.sizes else value_type
            item = INT(context.get_abi_sizeof(context.get_data_type(dtype)))
            size = INT(1)
            for n in kind.sizes:
                size = builder.mul(size, places[n] if isinstance(n, str) else INT(n))
            if not kind.shared:
                apart = places[kind.apart] if kind.apart else size
                start = builder.add(start, builder.mul(builder.mul(member, apart), item))
            if not kind.sizes:
                return number(start, dtype)
            array = make_array(value_type)(context, builder)
            data = builder.inttoptr(start, array.data.type)
            populate_array(array, data, [size], [item], item, None)
            return array._getvalue()

        parts = [part(*each) for each in zip(kinds, given, result.types, strict=True)]
        return context.make_tuple(builder, result, parts)

    return result(types.intp, record, types.intp, like), generate


def _type_of(kind, like):
    if kind is int or kind is ADDRESS:
        return types.uintp
    if kind is NUMBER:
        return like
    if _are_numbers(kind):
        return types.NamedTuple([types.float64] * len(kind._fields), kind)
    dtype = from_dtype(kind.dtype) if kind.dtype else like
    return types.Array(dtype, 1, "C") if kind.sizes else dtype


@intrinsic
def sizes_of(typingctx, arguments):
    """Members, rows and columns."""

    def generate(context, builder, signature, values):
        row = _Row(builder, values[0])
        return cgutils.pack_array(builder, [row.next() for _ in SIZES])

    return types.UniTuple(types.intp, 3)(types.intp), generate


formula = register_jitable(fastmath={"contract"}, error_model="numpy")
"""For a function of numbers that becomes part of an instruction's loop."""


# --- Instructions of one member's share -----------------------------------------------------------

_record: Any = None  # each instruction's own, see _cut
_body: Any = None
_made: set[str] = set()


def _cut(
    rows: bool,
    columns: bool,
    record: Any,
    body: Callable,
    *,
    unit: int = 1,
    fastmath: Any = False,
    name: str = "",
) -> Any:
    """An instruction of ``body(record of a member, first, last)``.

    Members are cut, or if there is one its rows, columns, elements (both) or nothing (neither), at
    multiples of ``unit``. A body that is made several times, closing over different functions,
    needs a name for each.
    """
    # As globals, not closed over: what is closed over is part of the key of numba's cache, and a
    # compiled function is another one in every process. The name tells instructions apart in it.
    names = {**globals(), "_body": njit(inline="always")(body), "_record": record}
    if body.__module__ != record.__module__:  # whose source tells whether kept code is old
        raise ValueError(f"{body.__module__} makes instructions of {record.__module__}'s records")
    name = f"{body.__module__.rpartition('.')[2]}.{name or body.__name__}"
    if name in _made:
        raise ValueError(f"there are two instructions {name}")
    _made.add(name)

    def made(real):
        def run(arguments, part, parts):
            members, high, wide = sizes_of(arguments)
            count = (high if rows else 1) * (wide if columns else 1)
            first_member, last_member, first, last = 0, members, 0, count
            if members > 1:
                first_member, last_member = share(members, part, parts, 1)
            else:
                first, last = share(count, part, parts, unit)
            if first < last:
                for member in range(first_member, last_member):
                    own = of_member(arguments, _record, member, real(0))
                    _body(own, np.uintp(first), np.uintp(last))
            return 0

        code = FunctionType(run.__code__, names, name, None, run.__closure__)
        code.__module__, code.__qualname__ = body.__module__, name
        return code

    made.__doc__ = body.__doc__
    found = instruction(made, fastmath=fastmath)
    found.record = record
    return found


by_rows, by_columns = partial(_cut, True, False), partial(_cut, False, True, unit=16)
by_elements = partial(_cut, True, True, unit=256)
by_members = partial(_cut, False, False)
