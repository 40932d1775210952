"""The pieces of a matrix product that are written as LLVM code: tiles and squares.

Each is an LLVM function, made once for a module, and an intrinsic by which compiled code calls it.
Their first argument, ``zero``, is there for its type: that of the matrices' elements.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import simd
from .packing import is_pair
from .simd import INT, POINTER, Vectors

ACCUMULATE = 1
"""Flag: add to what C holds."""
RELU = 2
"""Flag: C = max(result, 0)."""

PANEL = 3
"""Vectors in the widest panel."""
MOST_ROWS = (0, 12, 12, 8) if simd.target().registers == 32 else (0, 8, 6, 4)
"""The tallest tile, by vectors across, whose sums leave registers for B and the factor from A."""

SQUARES = (4, 8, 16)
"""Sizes of square matrices with a function of their own, where a vector has as many lanes."""
_AHEAD_BYTES = 2048  # how far ahead it asks for memory
_TILE = [POINTER, INT, INT, POINTER, INT, POINTER, INT, INT, INT, POINTER, POINTER, INT]


def _tile_function(
    module: ir.Module, element: ir.Type, paired: bool, rows: int, vectors: int, masked: bool
):
    """LLVM function for a tile of ``rows`` rows by ``vectors`` vectors, the last perhaps masked."""
    of = f"{element}_pairs" if paired else f"{element}"
    name = f"xpmlp_tile_{of}_{rows}x{vectors}{'_masked' if masked else ''}"
    function = simd.private_function(module, name, _TILE)
    if function is None:
        return module.globals[name]
    a, a_row, a_col, b, b_row, c, c_row, depth, lanes, bias, gate, flags = function.args
    builder = simd.AsWritten(function.append_basic_block("entry"))
    v = Vectors(builder, element)
    mask = v.mask(lanes) if masked else None
    masks = [None] * (vectors - 1) + [mask]
    multiply_add = v.add_pairs if paired else v.multiply_add
    cells = [(i, j) for i in range(rows) for j in range(vectors)]

    # A's rows in groups of three: a pointer a group, and offsets of 0, 1 and 2 rows in registers
    # that all groups share. A pointer a row would not fit in the scalar registers.
    twice, thrice = builder.mul(a_row, INT(2)), builder.mul(a_row, INT(3))
    offsets = [INT(0), a_row, twice]
    groups = [a]
    for _ in range(0, rows - 3, 3):
        groups.append(v.at(groups[-1], thrice))

    start = builder.block
    step, summed = builder.append_basic_block("step"), builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed("<", INT(0), depth), step, summed)
    builder.position_at_end(step)
    left = _phi(builder, INT, depth, start)
    b_now = _phi(builder, POINTER, b, start)
    a_now = [_phi(builder, POINTER, group, start) for group in groups]
    sums = {cell: _phi(builder, v.type, v.zero, start) for cell in cells}
    across = [v.load(v.at(b_now, j * v.lanes), masks[j]) for j in range(vectors)]
    after = {}
    for i in range(rows):
        factor = v.splat(v.scalar(v.at(a_now[i // 3], offsets[i % 3])))
        for j in range(vectors):
            after[i, j] = multiply_add(factor, across[j], sums[i, j])
    remaining = builder.sub(left, INT(1))
    left.add_incoming(remaining, step)
    b_now.add_incoming(v.at(b_now, b_row), step)
    for pointer in a_now:
        pointer.add_incoming(v.at(pointer, a_col), step)
    for cell in cells:
        sums[cell].add_incoming(after[cell], step)
    builder.cbranch(builder.icmp_signed(">", remaining, INT(0)), step, summed)

    builder.position_at_end(summed)
    results = {}
    for cell in cells:
        results[cell] = _phi(builder, v.type, v.zero, start)
        results[cell].add_incoming(after[cell], step)
    places = {}
    for i, j in cells:
        c = v.at(c, c_row) if i > 0 and j == 0 else c
        places[i, j] = v.at(c, j * v.lanes)

    # What is added to the sums goes last: their rounding errors stay those of a short sum.
    plain, more = builder.append_basic_block("plain"), builder.append_basic_block("more")
    nothing = builder.icmp_signed("==", flags, INT(0))
    for pointer in (bias, gate):
        nothing = builder.and_(nothing, _is_null(builder, pointer))
    builder.cbranch(nothing, plain, more)
    builder.position_at_end(plain)
    for i, j in cells:
        v.store(results[i, j], places[i, j], masks[j])
    builder.ret_void()

    builder.position_at_end(more)
    add_bias, biased = builder.append_basic_block("bias"), builder.append_basic_block("biased")
    builder.cbranch(_is_null(builder, bias), biased, add_bias)
    builder.position_at_end(add_bias)
    added = [v.load(v.at(bias, j * v.lanes), masks[j]) for j in range(vectors)]
    with_bias = {(i, j): builder.fadd(results[i, j], added[j]) for i, j in cells}
    builder.branch(biased)
    builder.position_at_end(biased)
    results = _either(builder, v, more, results, add_bias, with_bias)

    add_c, finish = builder.append_basic_block("c"), builder.append_basic_block("finish")
    builder.cbranch(_is_set(builder, flags, ACCUMULATE), add_c, finish)
    builder.position_at_end(add_c)
    with_c = {(i, j): builder.fadd(results[i, j], v.load(places[i, j], masks[j])) for i, j in cells}
    builder.branch(finish)
    builder.position_at_end(finish)
    results = _either(builder, v, biased, results, add_c, with_c)

    relu, linear = builder.append_basic_block("relu"), builder.append_basic_block("linear")
    builder.cbranch(_is_set(builder, flags, RELU), relu, linear)
    builder.position_at_end(relu)
    positive = {cell: v.positive(results[cell]) for cell in cells}
    builder.branch(linear)
    builder.position_at_end(linear)
    results = _either(builder, v, finish, results, relu, positive)

    gated, open_ = builder.append_basic_block("gated"), builder.append_basic_block("open")
    builder.cbranch(_is_null(builder, gate), open_, gated)
    builder.position_at_end(open_)
    for i, j in cells:
        v.store(results[i, j], places[i, j], masks[j])
    builder.ret_void()
    builder.position_at_end(gated)
    for i in range(rows):
        for j in range(vectors):
            condition = v.load(v.at(gate, j * v.lanes), masks[j])
            v.store(v.where_positive(condition, results[i, j]), places[i, j], masks[j])
        gate = v.at(gate, c_row)
    builder.ret_void()
    return function


def _either(builder: ir.IRBuilder, v: Vectors, block, values: dict, other, others: dict) -> dict:
    """A phi for each value, by the block that control came from."""
    joined = {}
    for cell, value in values.items():
        joined[cell] = _phi(builder, v.type, value, block)
        joined[cell].add_incoming(others[cell], other)
    return joined


def _phi(builder: ir.IRBuilder, kind: ir.Type, value: ir.Value, block: ir.Block):
    phi = builder.phi(kind)
    phi.add_incoming(value, block)
    return phi


def _is_set(builder: ir.IRBuilder, flags: ir.Value, flag: int) -> ir.Value:
    return builder.icmp_signed("!=", builder.and_(flags, INT(flag)), INT(0))


def _is_null(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    return builder.icmp_signed("==", builder.ptrtoint(pointer, INT), INT(0))


def _choice_function(module: ir.Module, element: ir.Type, paired: bool):
    """LLVM function that runs the tile function for so many rows and vectors."""
    name = f"xpmlp_tiles_{element}{'_pairs' if paired else ''}"
    function = simd.private_function(module, name, [INT, INT, *_TILE])
    if function is None:
        return module.globals[name]
    rows, vectors, *rest = function.args
    lanes = rest[8]
    builder = simd.AsWritten(function.append_basic_block("entry"))
    most = max(MOST_ROWS) + 1
    partial = builder.icmp_signed("!=", lanes, INT(simd.lanes_of(element)))
    key = builder.add(builder.mul(vectors, INT(most)), rows)
    key = builder.add(builder.mul(key, INT(2)), builder.zext(partial, INT))
    end = function.append_basic_block("end")
    switch = builder.switch(key, end)
    for n in range(1, PANEL + 1):
        for m in range(1, MOST_ROWS[n] + 1):
            number = 2 * (n * most + m)
            if simd.target().masks:
                cases = {True: (number, number + 1)}
            else:
                cases = {False: (number,), True: (number + 1,)}
            for masked, keys in cases.items():
                builder.position_at_end(function.append_basic_block(f"tile{m}x{n}"))
                one = _tile_function(module, element, paired, m, n, masked)
                builder.call(one, rest).tail = "tail"
                for case in keys:
                    switch.add_case(INT(case), builder.block)
                builder.ret_void()
    builder.position_at_end(end)
    builder.ret_void()
    return function


@intrinsic
def tile(typingctx, zero, word, rows, vectors, lanes, depth, a, b, c, end):
    """Run the tile function for so many rows and vectors, the last of so many lanes.

    ``zero`` gives the type of C's elements and ``word``, as in packing.py, that of A's and B's,
    which ``depth`` counts; a, b and c are matrices, and ``end`` what follows the sums, as gemm.py
    has them, and columns of b and c are contiguous; the others are integers.
    """

    def generate(context, builder, signature, arguments):
        element = context.get_value_type(zero)
        function = _choice_function(builder.module, element, is_pair(word))
        _, _, rows, vectors, lanes, depth, *matrices, end = arguments
        a, b, c = (_Operand(builder, a) for a in matrices)
        bias, gate, flags = (builder.extract_value(end, i) for i in range(3))
        bias, gate = (builder.inttoptr(value, POINTER) for value in (bias, gate))
        shape = a.start, a.row, a.col, b.start, b.row, c.start, c.row, depth, lanes
        builder.call(function, [rows, vectors, *shape, bias, gate, flags])
        return context.get_dummy_value()

    return types.void(zero, word, *[types.intp] * 4, a, b, c, end), generate


class _Operand:
    """A matrix's fields: a pointer and three strides."""

    def __init__(self, builder: ir.IRBuilder, matrix: ir.Value):
        start, self.batch, self.row, self.col = (builder.extract_value(matrix, i) for i in range(4))
        self.start = builder.inttoptr(start, POINTER)


def _square_function(module: ir.Module, element: ir.Type, n: int, a_rows: bool, b_rows: bool):
    """LLVM function for a batch of products of n × n matrices, several rows of C in one vector.

    Both operands are dense; ``a_rows`` says that a's rows lie one after another in memory, else its
    columns do; the same for b.
    """
    name = f"xpmlp_square_{element}_{n}_{int(a_rows)}{int(b_rows)}"
    function = simd.private_function(module, name, [INT, *[POINTER, INT] * 3])
    if function is None:
        return module.globals[name]
    count, a, a_batch, b, b_batch, c, c_batch = function.args
    builder = simd.AsWritten(function.append_basic_block("entry"))
    start = builder.block
    problem, end = function.append_basic_block("problem"), function.append_basic_block("end")
    builder.branch(problem)
    builder.position_at_end(problem)
    left = _phi(builder, INT, count, start)
    places = [_phi(builder, POINTER, pointer, start) for pointer in (a, b, c)]
    row, whole = Vectors(builder, element, n), Vectors(builder, element)
    for pointer, write in zip(places, (0, 0, 1), strict=True):
        for offset in range(0, n * n * row.bytes, simd.LINE):
            ahead = row.at(pointer, (_AHEAD_BYTES + offset) // row.bytes)
            simd.emit_prefetch(builder, ahead, write)
    a_now, b_now, c_now = places
    factors = [row.load(row.at(a_now, i * n)) for i in range(n)]
    across = [row.load(row.at(b_now, k * n)) for k in range(n)]
    if not a_rows:
        factors = row.transpose(factors)
    if not b_rows:
        across = row.transpose(across)
    repeats = whole.lanes // n
    across = [row.shuffle(x, x, list(range(n)) * repeats) for x in across]
    for i in range(0, n, repeats):
        joined = factors[i : i + repeats]
        while len(joined) > 1:
            pairs = zip(joined[::2], joined[1::2], strict=True)
            joined = [row.shuffle(x, y, list(range(2 * x.type.count))) for x, y in pairs]
        total = whole.zero
        for k in range(n):
            lanes = [r * n + k for r in range(repeats) for _ in range(n)]
            factor = row.shuffle(joined[0], joined[0], lanes)
            total = whole.multiply_add(factor, across[k], total)
        whole.store(total, whole.at(c_now, i * n))
    remaining = builder.sub(left, INT(1))
    left.add_incoming(remaining, problem)
    for pointer, step in zip(places, (a_batch, b_batch, c_batch), strict=True):
        pointer.add_incoming(row.at(pointer, step), problem)
    builder.cbranch(builder.icmp_signed(">", remaining, INT(0)), problem, end)
    builder.position_at_end(end)
    builder.ret_void()
    return function


@intrinsic
def squares(typingctx, zero, n, a_rows, b_rows, count, a, b, c):
    """Products of n × n matrices, n one of ``SQUARES``; a, b and c as for :func:`tile`."""

    def generate(context, builder, signature, arguments):
        element = context.get_value_type(zero)
        _, n, a_rows, b_rows, count, *matrices = arguments
        operands = [_Operand(builder, matrix) for matrix in matrices]
        rest = [value for each in operands for value in (each.start, each.batch)]
        end = builder.append_basic_block("end")
        key = builder.add(builder.mul(n, INT(4)), builder.mul(a_rows, INT(2)))
        switch = builder.switch(builder.add(key, b_rows), end)
        for size in SQUARES:
            if size > simd.lanes_of(element):
                continue
            for which in range(4):
                function = _square_function(
                    builder.module, element, size, bool(which & 2), bool(which & 1)
                )
                builder.position_at_end(builder.append_basic_block("square"))
                switch.add_case(INT(4 * size + which), builder.block)
                builder.call(function, [count, *rest])
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(zero, *[types.intp] * 4, a, b, c), generate
