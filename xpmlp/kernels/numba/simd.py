"""Vectors of the host CPU, for numba intrinsics that emit LLVM code themselves.

:func:`target` says how wide they are and how many registers hold them; :class:`Vectors` writes
loads, stores, masks, multiply-adds and transposes of them through an LLVM builder. LLVM lowers the
same code to AVX-512, AVX2, SSE or NEON.

What the CPU can do is asked of numba's own code generator, so that vectors and compiler always
agree. ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` override it (and are part of the key of numba's
cache), which is how the tests run the code for narrower vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

POINTER = ir.PointerType()
INT = ir.IntType(64)
LINE = 64  # bytes in a cache line
_INT32, _BIT = ir.IntType(32), ir.IntType(1)


@dataclass(frozen=True)
class Target:
    """What the code generator may use.

    Attributes
    ----------
    bits : int
        Width of a vector register.
    registers : int
        How many of them there are.
    fused : bool
        Whether a multiply-add is one instruction.
    masks : bool
        Whether a masked load or store costs no more than a plain one.
    bfloat16 : bool
        Whether it adds products of pairs of bfloat16 numbers to float32 ones.
    """

    bits: int
    registers: int
    fused: bool
    masks: bool
    bfloat16: bool = False


@cache
def target() -> Target:
    """The vectors of the CPU that numba compiles for."""
    features = numba.config.CPU_FEATURES
    if features is None:
        features = llvmlite.binding.get_host_cpu_features().flatten()
    has = {name.removeprefix("+") for name in features.split(",") if name.startswith("+")}
    machine = llvmlite.binding.get_process_triple().partition("-")[0]
    if machine in ("aarch64", "arm64"):
        return Target(128, 32, True, False)
    if "avx512f" in has:
        return Target(512, 32, True, True, "avx512bf16" in has)
    if "avx2" in has and "fma" in has:
        return Target(256, 16, True, False)
    return Target(128, 16, "fma" in has or not machine.startswith("x86"), False)


class Vectors:
    """Writes operations on vectors of one element type at the builder's position.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    element : llvmlite.ir.FloatType or DoubleType
    lanes : int, optional
        Elements in a vector; by default as many as fill a register.
    """

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, lanes: int | None = None) -> None:
        self.builder = builder
        self.element = element
        self.bytes = 4 if isinstance(element, ir.FloatType) else 8
        self.lanes = lanes or lanes_of(element)
        self.type = ir.VectorType(element, self.lanes)
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        self._suffix = f"v{self.lanes}f{8 * self.bytes}"
        self._mask_type = ir.VectorType(_BIT, self.lanes)

    def at(self, pointer: ir.Value, *offsets: ir.Value | int) -> ir.Value:
        """The pointer moved on by some numbers of elements."""
        for offset in offsets:
            step = INT(offset) if isinstance(offset, int) else offset
            pointer = self.builder.gep(pointer, [step], source_etype=self.element)
        return pointer

    def scalar(self, pointer: ir.Value) -> ir.Value:
        """One element."""
        value = self.builder.load(pointer, typ=self.element)
        value.align = self.bytes
        return value

    def splat(self, value: ir.Value) -> ir.Value:
        """A vector that holds the value in every lane."""
        return self._splat(value, self.type)

    def _splat(self, value: ir.Value, kind: ir.VectorType) -> ir.Value:
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value, _INT32(0))
        zeros = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def mask(self, count: ir.Value) -> ir.Value:
        """True in the first ``count`` lanes."""
        kind = ir.VectorType(_INT32, self.lanes)
        numbers = ir.Constant(kind, list(range(self.lanes)))
        limit = self._splat(self.builder.trunc(count, _INT32), kind)
        return self.builder.icmp_signed("<", numbers, limit)

    def constant(self, value: float) -> ir.Value:
        """A vector that holds a number in every lane."""
        return ir.Constant(self.type, [value] * self.lanes)

    def load(
        self, pointer: ir.Value, mask: ir.Value | None = None, other: ir.Value | None = None
    ) -> ir.Value:
        """A vector from memory; outside of the mask it is the other one, or 0, and memory rests."""
        if mask is None:
            value = self.builder.load(pointer, typ=self.type)
            value.align = self.bytes
            return value
        arguments = [POINTER, _INT32, self._mask_type, self.type]
        load = self._function(f"llvm.masked.load.{self._suffix}.p0", self.type, arguments)
        other = self.zero if other is None else other
        return self.builder.call(load, [pointer, _INT32(self.bytes), mask, other])

    def store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None) -> None:
        """A vector to memory; memory of lanes outside of the mask is not touched."""
        if mask is None:
            self.builder.store(value, pointer).align = self.bytes
            return
        arguments = [self.type, POINTER, _INT32, self._mask_type]
        store = self._function(f"llvm.masked.store.{self._suffix}.p0", ir.VoidType(), arguments)
        self.builder.call(store, [value, pointer, _INT32(self.bytes), mask])

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """``a · b + c``, rounded once where the CPU can."""
        if not target().fused:  # LLVM would call the C library's fma for each element
            return self.builder.fadd(self.builder.fmul(a, b), c)
        fma = self._function(f"llvm.fma.{self._suffix}", self.type, [self.type] * 3)
        return self.builder.call(fma, [a, b, c])

    def add_pairs(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """``a₀ b₀ + a₁ b₁ + c`` for what :meth:`pairs` made: two bfloat16 numbers in each lane."""
        words = ir.VectorType(_INT32, self.lanes)
        kind = [self.type, words, words]
        dot = self._function("llvm.x86.avx512bf16.dpbf16ps.512", self.type, kind)
        return self.builder.call(dot, [c, *(self.builder.bitcast(each, words) for each in (a, b))])

    def pairs(self, first: ir.Value, second: ir.Value) -> ir.Value:
        """Two float32 vectors in one, rounded to the nearest bfloat16 numbers, or to even ones."""
        first, second = self._rounded(first), self._rounded(second)
        first = self.builder.lshr(first, self._words(16))
        second = self.builder.and_(second, self._words(0xFFFF0000))
        return self.builder.bitcast(self.builder.or_(first, second), self.type)

    def _rounded(self, value: ir.Value) -> ir.Value:
        """The bits of float32 numbers, of which the upper half is the bfloat16 number."""
        bits = self.builder.bitcast(value, ir.VectorType(_INT32, self.lanes))
        odd = self.builder.and_(self.builder.lshr(bits, self._words(16)), self._words(1))
        up = self.builder.add(self.builder.add(bits, self._words(0x7FFF)), odd)
        quiet = self.builder.or_(bits, self._words(0x400000))
        return self.builder.select(self.builder.fcmp_unordered("uno", value, value), quiet, up)

    def _words(self, value: int) -> ir.Value:
        return ir.Constant(ir.VectorType(_INT32, self.lanes), [value] * self.lanes)

    def positive(self, value: ir.Value) -> ir.Value:
        """max(value, 0), and NaN for NaN."""
        negative = self.builder.fcmp_ordered("<=", value, self.zero)
        return self.builder.select(negative, self.zero, value)

    def where_positive(self, condition: ir.Value, value: ir.Value) -> ir.Value:
        """The value where the condition is > 0, else 0."""
        positive = self.builder.fcmp_ordered(">", condition, self.zero)
        return self.builder.select(positive, value, self.zero)

    def sum(self, value: ir.Value) -> ir.Value:
        """Of all lanes, halves added to halves."""
        return self._folded(value, self.builder.fadd)

    def largest(self, value: ir.Value) -> ir.Value:
        """Of all lanes; a NaN may be passed over."""

        def larger(a: ir.Value, b: ir.Value) -> ir.Value:
            return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

        return self._folded(value, larger)

    def _folded(self, value: ir.Value, join: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        half = self.lanes // 2
        while half:
            low = self.shuffle(value, value, list(range(half)))
            value = join(low, self.shuffle(value, value, list(range(half, 2 * half))))
            half //= 2
        return self.builder.extract_element(value, _INT32(0))

    def transpose(self, rows: list[ir.Value]) -> list[ir.Value]:
        """As many vectors as a vector has lanes, read as a square and transposed."""
        half = self.lanes // 2
        while half:
            # Swap the off-diagonal blocks of every square of side 2·half.
            done: list[ir.Value] = list(rows)
            for i in range(self.lanes):
                if i & half:
                    continue
                upper, lower = rows[i], rows[i + half]
                low, high = [], []
                for lane in range(self.lanes):
                    moved = self.lanes + lane
                    low.append(moved - half if lane & half else lane)
                    high.append(moved if lane & half else lane + half)
                done[i] = self.shuffle(upper, lower, low)
                done[i + half] = self.shuffle(upper, lower, high)
            rows = done
            half //= 2
        return rows

    def shuffle(self, a: ir.Value, b: ir.Value, lanes: list[int]) -> ir.Value:
        """Lanes of two vectors; those of the second are counted on from those of the first."""
        order = ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, order)

    def _function(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        kind = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, kind, name)


def lanes_of(element: ir.Type) -> int:
    """How many elements of the type fill a vector register."""
    return target().bits // (32 if isinstance(element, ir.FloatType) else 64)


class AsWritten(ir.IRBuilder):
    """A builder whose sums stay in the order in which they are written.

    Where a compiled function allows reordering (numba's ``fastmath={"reassoc"}``), numba marks all
    float instructions of its module so, those of our intrinsics among them, but for instructions
    that carry a mark already. ``(x + large) − large``, which rounds x, would become x. So each is
    marked here, with a right that changes nothing: to fuse a product with a sum.
    """

    def fadd(self, lhs, rhs, name="", flags=("contract",)):
        return super().fadd(lhs, rhs, name, flags)

    def fsub(self, lhs, rhs, name="", flags=("contract",)):
        return super().fsub(lhs, rhs, name, flags)

    def fmul(self, lhs, rhs, name="", flags=("contract",)):
        return super().fmul(lhs, rhs, name, flags)

    def fcmp_ordered(self, cmpop, lhs, rhs, name="", flags=("contract",)):
        return super().fcmp_ordered(cmpop, lhs, rhs, name, flags)


def private_function(
    module: ir.Module, name: str, arguments: list[ir.Type], result: ir.Type | None = None
) -> ir.Function | None:
    """A new function of the module, or None if the module has it already."""
    if name in module.globals:
        return None
    function = ir.Function(module, ir.FunctionType(result or ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function


@intrinsic
def stack_buffer(typingctx, size):
    """The address of that many bytes (a constant) of the calling function's stack."""
    if not isinstance(size, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, arguments):
        kind = ir.ArrayType(ir.IntType(8), size.literal_value)
        with builder.goto_entry_block():  # numba's alloca_once would also fill it with zeros
            buffer = builder.alloca(kind)
        buffer.align = 64
        return builder.ptrtoint(buffer, INT)

    return types.intp(size), generate


@intrinsic
def address(typingctx, array):
    """The address of an array's first element."""
    if not isinstance(array, types.Array):
        return None

    def generate(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.ptrtoint(data, INT)

    return types.intp(array), generate


def emit_prefetch(builder: ir.IRBuilder, line: ir.Value, write: int) -> None:
    """Ask for the cache line at a pointer, to be written if ``write`` is 1."""
    kind = ir.FunctionType(ir.VoidType(), [POINTER, _INT32, _INT32, _INT32])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(fetch, [line, _INT32(write), _INT32(3), _INT32(1)])


@intrinsic
def prefetch(typingctx, start, size, write):
    """Ask for so many bytes of memory to be brought near, to be written if ``write`` is 1."""
    if not isinstance(write, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, arguments):
        lines = builder.lshr(builder.add(arguments[1], INT(LINE - 1)), INT(6))
        with cgutils.for_range(builder, lines) as loop:
            line = builder.add(arguments[0], builder.shl(loop.index, INT(6)))
            emit_prefetch(builder, builder.inttoptr(line, POINTER), write.literal_value)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, write), generate


@intrinsic
def constants(typingctx, zero):
    """For the element type of ``zero``: elements in a vector, and bytes in an element."""

    def generate(context, builder, signature, arguments):
        element = context.get_value_type(zero)
        values = INT(lanes_of(element)), INT(Vectors(builder, element).bytes)
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(types.intp, 2)(zero), generate
