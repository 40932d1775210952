"""Instructions of convolutions, on images (rows, height, width, channels).

Channels come last: the bias, the rectifier and the sums over pixels are then those of rows.

No matrix of patches is made. A block of an image is *folded*: for each output row, the kH rows that
its windows cover lie beside one another, channels within rows within columns. The window of a pixel
is then one run of memory, and the next pixel's begins a column further on, so that patches are a
matrix whose rows overlap. Products by register tiles read them where they lie:

* forward, ``patches · W``, with the bias and the rectifier at the end of the product;
* ``dW = patchesᵀ · dy``, the sums of some images each, added in their order however threads divide
  them;
* ``dx``, the forward of dy with the kernel turned: strides become distances between dy's pixels
  (``spread``), with zeros between them.

Dilated columns are not one run, and are as many products, each added to the last.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .gemm import ACCUMULATE, RELU, WHOLE, Bias, Matrix, Product
from .records import ROWS as EACH
from .records import Of, by_rows, record
from .simd import address
from .tape import call, release, scratch, stored

_X = Of("rows", "inside", apart="apart")  # 0 apart where members share the batch
_IMAGE = {"inside": int, "height": int, "width": int, "channels": int, "groups": int}
_GEOMETRY = {
    **dict.fromkeys(("kernel_height", "kernel_width", "stride_height", "stride_width"), int),
    **dict.fromkeys(("spread_height", "spread_width", "top", "left"), int),
    **dict.fromkeys(("dilation_height", "dilation_width", "out_height", "out_width"), int),
    "block": int,
}
"""Sizes of a kernel, its distances, and padding; ``block`` output rows are folded at a time."""

Convolved = record(
    "Convolved", product=int, x=_X, apart=int, **_IMAGE, **_GEOMETRY, outputs=int, depth=int,
    W=Of("depth", "outputs"), bias=Of("outputs"), biased=int, y=EACH, gate=EACH, gated=int,
    flags=int,
)  # fmt: skip
"""``depth`` is that of a product, kH · kW · C/G; the gate is laid out as y."""
KernelGradient = record(
    "KernelGradient", product=int, images=int, x=Of("images", "inside", apart="apart"), apart=int,
    **_IMAGE, **_GEOMETRY, outputs=int, depth=int, dy=Of("images", "out_height", "out_width",
    "outputs"), dW=EACH,
)  # fmt: skip
"""Rows are blocks of images, each with its sum in dW."""
Arranged = record(
    "Arranged", kernel_height=int, kernel_width=int, groups=int, pitch=int,
    W=Of("rows", "columns", "kernel_height", "pitch"), y=Of("rows", "columns", "kernel_height",
    "kernel_width"), turned=int,
)  # fmt: skip
"""Rows are outputs, columns the channels of a group."""
KernelSum = record(
    "KernelSum", kernel_height=int, kernel_width=int, groups=int, pitch=int, blocks=int,
    parts=Of("blocks", "rows", "columns", "kernel_height", "kernel_width"),
    dW=Of("rows", "columns", "kernel_height", "pitch"),
)  # fmt: skip
Turned = record("Turned", x=Of("rows", "columns", apart="apart"), apart=int, first=int, y=EACH)


@njit(inline="always")
def _folded(a, image, group, top, count, pitch, to):
    """Fold the windows of ``count`` output rows of an image, from row ``top`` on."""
    height, width, channels = np.intp(a.height), np.intp(a.width), np.intp(a.channels)
    high, each = np.intp(a.kernel_height), channels // np.intp(a.groups)
    down, right = np.intp(a.spread_height), np.intp(a.spread_width)
    left = np.intp(a.left)
    begin = max(0, -(left // right))  # the first pixel that lies inside
    while begin * right + left < 0:
        begin += 1
    end = min(width, (pitch - 1 - left) // right + 1)
    step, zero = np.uintp(right * high * each), a.x.dtype.type(0)
    for row in range(count):
        for i in range(high):
            place = (top + row) * np.intp(a.stride_height) - np.intp(a.top)
            place += i * np.intp(a.dilation_height)
            source = place // down
            inside = place >= 0 and source * down == place and source < height
            into = np.uintp(((row * pitch + begin * right + left) * high + i) * each)
            if not inside:
                for _ in range(begin, end):
                    for c in range(np.uintp(each)):
                        to[into + c] = zero
                    into += step
                continue
            start = (image * height + source) * width + begin
            out_of = np.uintp(start * channels + group * each)
            if each == 1:
                for n in range(np.uintp(max(0, end - begin))):
                    to[into + n * step] = a.x[out_of + n * a.channels]
            else:
                for _ in range(begin, end):
                    for c in range(np.uintp(each)):
                        to[into + c] = a.x[out_of + c]
                    into += step
                    out_of += a.channels


@njit(inline="always")
def _widths(a):
    """Pixels of a folded row that a product goes over, junk at its end among them; all of its
    columns; elements of a column; products, and the depth of one."""
    stride, wide = np.intp(a.stride_width), np.intp(a.kernel_width)
    covered = stride * (np.intp(a.out_width) - 1) + np.intp(a.dilation_width) * (wide - 1) + 1
    pixels = (covered + stride - 1) // stride
    column = np.intp(a.kernel_height * (a.channels // a.groups))
    runs = wide if a.dilation_width > 1 else 1
    return pixels, pixels * stride, column, runs, np.intp(a.depth) // runs


@njit(inline="always")
def _room(a, pitch, column):
    """Elements of a folded block, and of what a product reads behind its last column."""
    behind = np.intp(a.dilation_width * a.kernel_width) * column
    return np.intp(a.block) * pitch * column + behind


def _convolved(a, first, last):
    """``y = x ∗ W + b`` of some images, rectified or gated if asked for."""
    size, zero = a.x.itemsize, a.x.dtype.type(0)
    _, pitch, column, runs, depth = _widths(a)
    high, wide, outputs = np.intp(a.out_height), np.intp(a.out_width), np.intp(a.outputs)
    each, block = outputs // np.intp(a.groups), np.intp(a.block)
    folded = scratch(_room(a, pitch, column), zero)
    for image in range(np.intp(first), np.intp(last)):
        for group in range(np.intp(a.groups)):
            for top in range(0, high, block):
                count = min(block, high - top)
                _folded(a, image, group, top, count, pitch, folded)
                place = (((image * high + top) * wide) * outputs + group * each) * size
                for run in range(runs):
                    flags = ACCUMULATE if run > 0 else 0
                    gate = 0
                    if run == runs - 1:
                        flags |= np.intp(a.flags) & RELU
                        gate = address(a.gate) + place if a.gated != 0 else 0
                    bias = 0
                    if run == 0 and a.biased != 0:
                        bias = address(a.bias) + group * each * size
                    skipped = run * np.intp(a.dilation_width) * column
                    step = np.intp(a.stride_width) * column
                    of_W = (group * np.intp(a.depth) + run * depth) * each
                    problem = Product(
                        WHOLE, count, wide, each, depth,
                        Matrix(address(folded) + skipped * size, pitch * column, step, 1),
                        Matrix(address(a.W) + of_W * size, 0, each, 1),
                        Matrix(address(a.y) + place, wide * outputs, outputs, 1),
                        Bias(bias, 0), gate, flags,
                    )  # fmt: skip
                    call(np.intp(a.product), stored(problem), 0, 1)
    release(folded)


def _kernel_gradient(a, first, last):
    """``patchesᵀ dy``, summed over the images of some blocks."""
    size, zero = a.x.itemsize, a.x.dtype.type(0)
    pixels, pitch, column, runs, depth = _widths(a)
    high, wide, outputs = np.intp(a.out_height), np.intp(a.out_width), np.intp(a.outputs)
    each, block, images = outputs // np.intp(a.groups), np.intp(a.block), np.intp(a.images)
    folded = scratch(_room(a, pitch, column), zero)
    slopes = scratch(block * pixels * each, zero)  # with zeros for the junk between rows
    for part in range(np.intp(first), np.intp(last)):
        begin, end = part * images // np.intp(a.rows), (part + 1) * images // np.intp(a.rows)
        for image in range(begin, end):
            for group in range(np.intp(a.groups)):
                for top in range(0, high, block):
                    count = min(block, high - top)
                    _folded(a, image, group, top, count, pitch, folded)
                    for row in range(count):
                        to = np.uintp(row * pixels * each)
                        source = np.uintp(
                            ((image * high + top + row) * wide) * outputs + group * each
                        )
                        for _ in range(wide):
                            for m in range(np.uintp(each)):
                                slopes[to + m] = a.dy[source + m]
                            to += np.uintp(each)
                            source += np.uintp(outputs)
                    for run in range(runs):
                        skipped = run * np.intp(a.dilation_width) * column
                        place = (part * np.intp(a.groups) + group) * np.intp(a.depth) + run * depth
                        problem = Product(
                            WHOLE, 1, depth, each, count * pixels,
                            Matrix(
                                address(folded) + skipped * size, 0, 1,
                                np.intp(a.stride_width) * column,
                            ),
                            Matrix(address(slopes), 0, each, 1),
                            Matrix(address(a.dW) + place * each * size, 0, each, 1),
                            Bias(0, 0), 0, ACCUMULATE if image > begin or top > 0 else 0,
                        )  # fmt: skip
                        call(np.intp(a.product), stored(problem), 0, 1)
    release(folded, slopes)


@njit(inline="always")
def _place(a, m, i, j, c):
    """Where a kernel's number lies: (G, kW, kH, C/G, M/G)."""
    each = a.rows // a.groups
    of_group = (((m // each) * a.kernel_width + j) * a.kernel_height + i) * a.columns
    return (of_group + c) * each + m % each


@njit(inline="always")
def _place_turned(a, m, i, j, c):
    """The same with channels for outputs and the kernel turned: (G, kW, kH, M/G, C/G)."""
    each, one = a.rows // a.groups, np.uintp(1)
    i, j = a.kernel_height - one - i, a.kernel_width - one - j
    of_group = (((m // each) * a.kernel_width + j) * a.kernel_height + i) * each
    return (of_group + m % each) * a.columns + c


def _arranged(a, first, last):
    """Kernels (M, C/G, kH, kW) of some outputs as the products need them."""
    for m in range(first, last):
        for c in range(a.columns):
            for i in range(a.kernel_height):
                start = ((m * a.columns + c) * a.kernel_height + i) * a.pitch
                for j in range(a.kernel_width):
                    if a.turned != 0:
                        a.y[_place_turned(a, m, i, j, c)] = a.W[start + j]
                    else:
                        a.y[_place(a, m, i, j, c)] = a.W[start + j]


def _kernel_sum(a, first, last):
    """``dW`` of some outputs: the sum of all blocks, laid out as W."""
    size = a.rows * a.columns * a.kernel_height * a.kernel_width
    for m in range(first, last):
        for c in range(a.columns):
            for i in range(a.kernel_height):
                start = ((m * a.columns + c) * a.kernel_height + i) * a.pitch
                for j in range(a.kernel_width):
                    place = _place(a, m, i, j, c)
                    total = a.dW.dtype.type(0)
                    for block in range(a.blocks):
                        total += a.parts[block * size + place]
                    a.dW[start + j] = total


def _turned(a, first, last):
    """Each row, a matrix with ``first`` rows, transposed: channels go last, or come first."""
    high, wide = a.first, a.columns // a.first
    for n in range(first, last):
        begin = n * a.columns
        for i in range(high):
            for j in range(wide):
                a.y[begin + j * high + i] = a.x[begin + i * wide + j]


convolved, arranged = by_rows(Convolved, _convolved), by_rows(Arranged, _arranged)
kernel_gradient = by_rows(KernelGradient, _kernel_gradient)
kernel_sum, turned = by_rows(KernelSum, _kernel_sum), by_rows(Turned, _turned)
