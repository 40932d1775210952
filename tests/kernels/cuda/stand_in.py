"""CuPy's place taken by NumPy, cuBLAS's by its own rules written out, and the GPU's by the shim.

With it the launchers, and whole captured steps, run on the CPU as they will on a device: the same
Python, the same launch geometry and arguments, the same CUDA C.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from kernels.cuda import cubins
from kernels.cuda.driver import Program, Table, Within
from step import device_memory, device_streams, numpy_graph

from xpmlp.kernels.cuda import cublas, geometry, launch
from xpmlp.kernels.cuda.products import Call

_EXACT = {"i": np.int32, "I": np.uint32, "f": np.float32, "d": np.float64}
# Kernels whose first argument is a table of addresses, and its columns that are.
_TABLES = (
    (re.compile(r"(\w+_update|find_nonfinite|squared_norm)_\w+"), range(5)),
    (re.compile(r"finish_\w+"), (0, 1, 9, 10)),
)
asarray, empty = numpy_graph.traced, numpy_graph.empty


def matmul(a: Any, b: Any) -> Any:
    assert a.dtype.itemsize > 2, "CuPy has no product of bfloat16"
    return np.matmul(a, b)


class Device:
    """Launches and products, done when they are enqueued or replayed.

    Parameters
    ----------
    program : callable
        ``program(op, suffix)``, the shim's running build.
    """

    def __init__(self, program: Callable[[str, str], Program]):
        self._program = program
        self.launches: list[str] = []
        self.products: list[tuple[Call, str, bool]] = []

    def address(self, array: Any) -> int:
        return np.asarray(array).ctypes.data

    def run(self, op: str, suffix: str, plan: geometry.Launch, *arguments: Any) -> None:
        program = self._program(op, suffix)
        letters = program.letters[plan.kernel]
        assert len(letters) == len(arguments), (plan.kernel, letters, len(arguments))
        for number, (letter, value) in enumerate(zip(letters, arguments, strict=True)):
            what = f"{plan.kernel}, argument {number}: {letter}, {type(value)}"
            if letter in "rw":
                assert value is None or isinstance(value, np.ndarray), what
            elif letter == "q":
                assert type(value) is int, what
            else:
                assert type(value) is _EXACT[letter], what
        compiled = cubins.compiled(op, suffix, plan.kernel)
        refused = [] if compiled is None else list(cubins.refusals(compiled, plan, letters))
        assert not refused, f"{plan.kernel}: {'; '.join(refused)}"
        # As on a device, an argument is an address or a number.
        plain = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        shapes = [a.shape if isinstance(a, np.ndarray) else () for a in arguments]

        def kernel() -> None:
            self.launches.append(plan.kernel)
            what = f"{plan.kernel}, argument"
            program.launch(
                plan,
                *(
                    _memory(plan.kernel, f"{what} {number}", value, shape)
                    if letter in "rw" and value is not None
                    else value
                    for number, (letter, value, shape) in enumerate(
                        zip(letters, plain, shapes, strict=True)
                    )
                ),
            )

        numpy_graph.launch(kernel, name=plan.kernel)

    def multiply(self, call: Call, suffix: str, a: int, b: int, c: int) -> None:
        self.products.append((call, suffix, cublas.compute_type(suffix) == 77))
        numpy_graph.launch(lambda: simulate(call, suffix, a, b, c), name="product")


def _memory(kernel: str, what: str, address: int, shape: tuple[int, ...]) -> Within | Table:
    """What a kernel gets for an address; if it is of a table of addresses, their memory, too."""
    memory = Within(*device_memory.whole(address, what))
    columns = next((c for name, c in _TABLES if name.fullmatch(kernel)), None)
    if columns is None or not what.endswith(" 0"):
        return memory
    size = 8 * shape[0] * shape[1]
    table = memory.array[memory.at :][:size].view(np.int64).reshape(shape)
    pointers = {
        row * shape[1] + column: Within(
            *device_memory.whole(int(table[row, column]), f"{kernel}: row {row}, column {column}")
        )
        for row in range(shape[0])
        for column in columns
        if table[row, column]
    }
    return Table(memory, pointers)


_STORED = {"f32": np.float32, "f64": np.float64, "f16": np.float16}


def _dtype(suffix: str) -> np.dtype:
    if suffix == "bf16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(_STORED[suffix])


def simulate(call: Call, suffix: str, a: int, b: int, c: int) -> None:
    """cublasGemmStridedBatchedEx as its documentation defines it, on the CPU's memory.

    Matrices are stored column by column: element (i, j) of a matrix with leading dimension ld is
    at i + j·ld. op(A) is m × k and op(B) is k × n, stored as k × m and n × k where transposed.
    """
    dtype = _dtype(suffix)
    wide = np.float64 if suffix == "f64" else np.float32
    m, n, k = call.m, call.n, call.k
    first_rows = k if call.first_transposed else m
    second_rows = n if call.second_transposed else k
    # cuBLAS refuses anything else with CUBLAS_STATUS_INVALID_VALUE.
    assert call.first_ld >= max(1, first_rows) and call.second_ld >= max(1, second_rows)
    assert call.c_ld >= max(1, m) and call.count >= 1
    for index in range(call.count):
        A = _columns(
            b + (call.first + index * call.first_step) * dtype.itemsize,
            *((k, m) if call.first_transposed else (m, k)),
            call.first_ld,
            dtype,
        )
        B = _columns(
            a + (call.second + index * call.second_step) * dtype.itemsize,
            *((n, k) if call.second_transposed else (k, n)),
            call.second_ld,
            dtype,
        )
        C = _columns(c + (call.c + index * call.c_step) * dtype.itemsize, m, n, call.c_ld, dtype)
        A = A.T if call.first_transposed else A
        B = B.T if call.second_transposed else B
        C[...] = (A.astype(wide) @ B.astype(wide)).astype(dtype)


def _columns(address: int, rows: int, columns: int, ld: int, dtype: np.dtype) -> np.ndarray:
    """A view of column-major memory."""
    block, at = device_memory.whole(address, "an operand of a product")
    flat = block[at:][: ((columns - 1) * ld + rows) * dtype.itemsize].view(dtype)
    return np.lib.stride_tricks.as_strided(
        flat, (rows, columns), (dtype.itemsize, ld * dtype.itemsize)
    )


def put_in_place(monkeypatch: Any, program: Callable[[str, str], Program]) -> Device:
    """From now on the launchers use all of this."""
    device = Device(program)
    library = SimpleNamespace(
        cuda=device_streams.cuda,
        empty=empty,
        asarray=asarray,
        ascontiguousarray=numpy_graph.contiguous,
        broadcast_to=np.broadcast_to,
        matmul=matmul,
    )
    monkeypatch.setattr(launch, "library", lambda: library)
    monkeypatch.setattr(launch, "empty", empty)
    monkeypatch.setattr(launch, "constant", asarray)
    monkeypatch.setattr(launch, "contiguous", numpy_graph.contiguous)
    monkeypatch.setattr(launch, "address", device.address)
    monkeypatch.setattr(launch, "device", geometry.Device)
    monkeypatch.setattr(launch, "device_number", lambda: id(device))
    monkeypatch.setattr(launch, "run", device.run)
    monkeypatch.setattr(cublas, "handle", lambda: device)
    monkeypatch.setattr(cublas, "is_missing", lambda: False)
    return device
