"""CuPy's place taken by NumPy, cuBLAS's by its own rules written out, and the GPU's by the shim.

With it the launchers, and whole captured steps, run on the CPU as they will on a device: the same
Python, the same launch geometry and arguments, the same CUDA C.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from kernels.cuda.driver import Program, Table
from training import numpy_graph
from training.numpy_graph import Traced

from xpmlp.kernels.cuda import cublas, geometry, launch
from xpmlp.kernels.cuda.products import Call

_EXACT = {"i": np.int32, "I": np.uint32, "f": np.float32, "d": np.float64}
_POINTER_COLUMNS = 5  # of a segment table


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Memory full of NaN bits: what a kernel does not write is seen."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[...] = 0xFF
    return array.view(Traced)


def asarray(values: Any) -> Any:
    return np.array(values).view(Traced)


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
        self._arrays: dict[int, np.ndarray] = {}
        self.launches: list[str] = []
        self.products: list[tuple[Call, str, bool]] = []

    def address(self, array: Any) -> int:
        plain = np.asarray(array).view(np.ndarray)
        known = self._arrays.get(plain.ctypes.data)
        if plain.flags.c_contiguous and (known is None or plain.nbytes > known.nbytes):
            self._arrays[plain.ctypes.data] = plain  # the whole, where parts begin there too
        return plain.ctypes.data

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
        plain = tuple(_memory(a) if isinstance(a, np.ndarray) else a for a in arguments)

        def kernel() -> None:
            self.launches.append(plan.kernel)
            program.launch(plan, *(map(self._with_pointers, plain) if op == "update" else plain))

        numpy_graph.launch(kernel)

    def _with_pointers(self, value: Any) -> Any:
        """A table of segments together with the memory that it points to."""
        is_table = isinstance(value, np.ndarray) and value.dtype == np.int64
        if not is_table or value.ndim != 2 or value.shape[1] != 8:
            return value
        pointers = {
            int(row * 8 + column): self._arrays[int(value[row, column])]
            for row in range(len(value))
            for column in range(_POINTER_COLUMNS)
            if value[row, column]
        }
        return Table(value, pointers)

    def multiply(self, call: Call, suffix: str, a: int, b: int, c: int) -> None:
        self.products.append((call, suffix, cublas.compute_type(suffix) == 77))
        numpy_graph.launch(lambda: simulate(call, suffix, a, b, c))


def _memory(array: np.ndarray) -> np.ndarray:
    """What an array of any strides spans, from its first element to its last."""
    plain = np.asarray(array).view(np.ndarray)
    if plain.flags.c_contiguous:
        return plain
    size = plain.itemsize
    last = sum((n - 1) * step for n, step in zip(plain.shape, plain.strides, strict=True))
    return np.lib.stride_tricks.as_strided(plain, (last // size + 1,), (size,))


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
    size = ((columns - 1) * ld + rows) * dtype.itemsize
    memory = (ctypes.c_char * size).from_address(address)
    flat = np.frombuffer(memory, dtype)
    return np.lib.stride_tricks.as_strided(
        flat, (rows, columns), (dtype.itemsize, ld * dtype.itemsize)
    )


def put_in_place(monkeypatch: Any, program: Callable[[str, str], Program]) -> Device:
    """From now on the launchers use all of this."""
    device = Device(program)
    library = SimpleNamespace(
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
