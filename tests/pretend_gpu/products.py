"""What cuBLAS multiplies, multiplied by NumPy; every argument checked first."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from . import device

INVALID_VALUE, NOT_SUPPORTED, EXECUTION_FAILED = 7, 15, 13
_TYPES = {0: np.dtype("f4"), 1: np.dtype("f8"), 2: np.dtype("f2"), 14: np.dtype(ml_dtypes.bfloat16)}
_ALLOWED = {(0, 68), (0, 77), (1, 70), (2, 68), (14, 68)}  # (cudaDataType, cublasComputeType)
_TF32 = 77
_NO_ALGORITHM, _OF_A_TYPE = (-1, 99), -2  # CUBLAS_GEMM_DEFAULT and …_TENSOR_OP; see blas.cpp


class Matrix(NamedTuple):
    """As cuBLAS is given it: column after column."""

    address: int
    type: int
    stride: int
    next: int


def multiply(numbers: Any, alpha: int, beta: int) -> int:
    ta, tb, m, n, k, count, compute, algorithm, graph, workspace, mode = numbers[:11]
    a, b, c = (Matrix(*numbers[11 + 4 * i : 15 + 4 * i]) for i in range(3))
    if not (m and n and count):
        return 0
    if a.type != b.type or a.type != c.type or (a.type, compute) not in _ALLOWED:
        return _refuse(NOT_SUPPORTED, f"types {a.type} {b.type} {c.type}, compute type {compute}")
    if algorithm not in (*_NO_ALGORITHM, _OF_A_TYPE) or mode:
        return _refuse(NOT_SUPPORTED, f"algorithm {algorithm}, pointer mode {mode}")
    stored = {
        "a": (a, (k, m) if ta else (m, k)),
        "b": (b, (n, k) if tb else (k, n)),
        "c": (c, (m, n)),
    }
    for name, (matrix, (rows, _)) in stored.items():
        if matrix.stride < max(1, rows):
            return _refuse(INVALID_VALUE, f"{name} has {rows} rows, {matrix.stride} from column on")
    if algorithm == -1 and graph and not workspace:
        return _refuse(EXECUTION_FAILED, "recorded without a workspace: it would be allocated")
    number = ctypes.c_double if a.type == 1 else ctypes.c_float
    factors = number.from_address(alpha).value, number.from_address(beta).value

    def work() -> int:
        for name, (matrix, (rows, columns)) in stored.items():
            size = _span(matrix, rows, columns, count)
            if size and not device.on_device(matrix.address, size):
                return _refuse(EXECUTION_FAILED, f"{name} is not on the device, or freed")
        x, y, z = (_view(matrix, *shape, count) for matrix, shape in stored.values())
        _multiply(x, y, z, ta, tb, compute == _TF32, *factors)
        return 0

    return device.do(graph, work)


def _refuse(status: int, text: str) -> int:
    device.complain(f"cuBLAS: {text}")
    return status


def _span(matrix: Matrix, rows: int, columns: int, count: int) -> int:
    if not (rows and columns):
        return 0
    elements = (count - 1) * matrix.next + (columns - 1) * matrix.stride + rows
    return elements * _TYPES[matrix.type].itemsize


def _view(matrix: Matrix, rows: int, columns: int, count: int) -> np.ndarray:
    dtype = _TYPES[matrix.type]
    size = _span(matrix, rows, columns, count)
    if not size:
        return np.zeros((count, rows, columns), dtype)
    flat = np.frombuffer((ctypes.c_char * size).from_address(matrix.address), dtype)
    strides = [step * dtype.itemsize for step in (matrix.next, 1, matrix.stride)]
    return np.lib.stride_tricks.as_strided(flat, (count, rows, columns), strides)


def _multiply(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, ta: int, tb: int, tf32: bool, alpha: float,
    beta: float,
) -> None:  # fmt: skip
    wide = np.float64 if a.dtype == np.float64 else np.float32
    x, y = a.astype(wide), b.astype(wide)
    if tf32:
        x, y = _rounded(x), _rounded(y)
    x, y = x.swapaxes(1, 2) if ta else x, y.swapaxes(1, 2) if tb else y
    with np.errstate(all="ignore"):
        product = alpha * (x @ y)
        if beta:  # else what is in c does not count, NaN neither
            product += beta * c.astype(wide)
        c[...] = product.astype(c.dtype)


def _rounded(x: np.ndarray) -> np.ndarray:
    """To the 10 bits of mantissa that TF32 has."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)
