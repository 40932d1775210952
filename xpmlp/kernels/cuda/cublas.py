"""cuBLAS through a handle of our own: CuPy refuses its own one while a step is recorded.

The functions come from the library that CuPy loads, by ctypes. A handle belongs to a thread and a
device; for every stream that it is used on it has a workspace, given anew after each change of the
stream, since cuBLAS forgets it then, and without one it would allocate while a step is recorded.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from ...errors import BackendError
from . import launch
from .products import Call

_OP = (0, 1)  # CUBLAS_OP_N, CUBLAS_OP_T
_TYPES = {"f32": 0, "f64": 1, "f16": 2, "bf16": 14}  # CUDA_R_32F, 64F, 16F, 16BF
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_TF32 = 68, 70, 77
_DEFAULT_ALGORITHM = -1
_SUMS_IN_FLOAT32 = 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION
_WORKSPACE_HOPPER, _WORKSPACE = 32 << 20, 8 << 20  # bytes; what NVIDIA advises since Hopper, before
_STATUS = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
}
_FUNCTIONS = (
    *("Create_v2", "SetMathMode", "SetStream_v2", "SetWorkspace_v2"),
    *("GemmEx", "GemmStridedBatchedEx"),
)
_NAMES = ("libcublas.so.{major}", "cublas64_{major}.dll")

_tf32: ContextVar[bool] = ContextVar("xpmlp_tf32", default=False)
_local = threading.local()


@contextmanager
def tensor_float_32() -> Iterator[None]:
    """Inside, float32 products round their operands to TF32's 10 bits and use tensor cores."""
    token = _tf32.set(True)
    try:
        yield
    finally:
        _tf32.reset(token)


def uses_tensor_float_32() -> bool:
    """Whether this is inside of :func:`tensor_float_32`."""
    return _tf32.get()


def compute_type(suffix: str) -> int:
    """What cuBLAS computes in: half precision is always added up in float32."""
    if suffix == "f64":
        return _COMPUTE_64F
    return _COMPUTE_TF32 if suffix == "f32" and _tf32.get() else _COMPUTE_32F


class Handle:
    """A cuBLAS handle.

    Parameters
    ----------
    library : ctypes.CDLL
        Or whatever has its functions.
    workspace_bytes : int

    Attributes
    ----------
    workspaces : dict of int to array
        By stream.
    """

    def __init__(self, library: Any, workspace_bytes: int):
        self._library = library
        self._bytes = workspace_bytes
        self.workspaces: dict[int, Any] = {}
        self._stream: int | None = None
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        # Else sums of a product that is cut along its depth may be added in half precision.
        self._call("cublasSetMathMode", self._handle, _SUMS_IN_FLOAT32)

    def use_stream(self, stream: int) -> None:
        """Everything that follows goes to this stream, with the workspace that belongs to it."""
        if stream == self._stream:
            return
        if stream not in self.workspaces:
            self.workspaces[stream] = launch.empty((self._bytes,), "uint8")
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        space = ctypes.c_void_p(launch.address(self.workspaces[stream]))
        self._call("cublasSetWorkspace_v2", self._handle, space, ctypes.c_size_t(self._bytes))
        self._stream = stream

    def multiply(self, call: Call, suffix: str, a: int, b: int, c: int) -> None:
        """One call; a, b and c are the addresses that its offsets count from."""
        kind, size = _TYPES[suffix], _ITEM_SIZES[suffix]
        one, zero = _SCALARS["f64" if suffix == "f64" else "f32"]
        first, second, result = b + call.first * size, a + call.second * size, c + call.c * size
        flags = _OP[call.first_transposed], _OP[call.second_transposed]
        compute = compute_type(suffix)
        if call.count == 1:
            self._call(
                "cublasGemmEx",
                *(self._handle, *flags, call.m, call.n, call.k, one, first, kind, call.first_ld),
                *(second, kind, call.second_ld, zero, result, kind, call.c_ld),
                *(compute, _DEFAULT_ALGORITHM),
            )
        else:
            self._call(
                "cublasGemmStridedBatchedEx",
                *(self._handle, *flags, call.m, call.n, call.k),
                *(one, first, kind, call.first_ld, call.first_step),
                *(second, kind, call.second_ld, call.second_step),
                *(zero, result, kind, call.c_ld, call.c_step),
                *(call.count, compute, _DEFAULT_ALGORITHM),
            )

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise BackendError(
                f"`{name}`: expected success, got {_STATUS.get(status, f'status {status}')} from "
                f"cuBLAS ({launch.driver_text()}); XPMLP_KERNELS=off multiplies through CuPy"
            )


_ITEM_SIZES = {"f32": 4, "f64": 8, "f16": 2, "bf16": 2}
_SCALARS = {
    name: (ctypes.byref(kind(1.0)), ctypes.byref(kind(0.0)))
    for name, kind in (("f32", ctypes.c_float), ("f64", ctypes.c_double))
}


def handle() -> Handle:
    """This thread's handle of the current device, on the current stream."""
    handles = _local.__dict__.setdefault("handles", {})
    number = launch.device_number()
    if number not in handles:
        size = _WORKSPACE_HOPPER if launch.device().capability >= 90 else _WORKSPACE
        handles[number] = Handle(_library(), size)
    own = handles[number]
    own.use_stream(launch.library().cuda.get_current_stream().ptr)
    return own


def workspaces() -> list[Any]:
    """Of this thread's handles: what a recording writes to beside arrays.

    A recording may be replayed when its thread has ended, and the handle with it.
    """
    return [
        space
        for handle in _local.__dict__.get("handles", {}).values()
        for space in handle.workspaces.values()
    ]


@cache
def is_missing() -> bool:
    """Whether the library cannot be found; a warning says so once."""
    try:
        _library()
    except BackendError as error:
        text = "products go through CuPy, which copies transposed operands and is not recorded"
        warnings.warn(f"{text}: {error}", stacklevel=2)
        return True
    return False


@cache
def _library() -> ctypes.CDLL:
    """The cuBLAS that CuPy uses, with the types of what we call."""
    found = _load()
    pointer, integer, wide = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
    shape = [pointer, *[integer] * 5]
    operand = [pointer, integer, integer]
    found.cublasCreate_v2.argtypes = [pointer]
    found.cublasSetMathMode.argtypes = [pointer, integer]
    found.cublasSetStream_v2.argtypes = [pointer, pointer]
    found.cublasSetWorkspace_v2.argtypes = [pointer, pointer, ctypes.c_size_t]
    found.cublasGemmEx.argtypes = [
        *shape, pointer, *operand, *operand, pointer, *operand, integer, integer,
    ]  # fmt: skip
    found.cublasGemmStridedBatchedEx.argtypes = [
        *shape, pointer, *operand, wide, *operand, wide, pointer, *operand, wide,
        *[integer] * 3,
    ]  # fmt: skip
    for name in _FUNCTIONS:
        getattr(found, f"cublas{name}").restype = integer
    return found


def _load() -> ctypes.CDLL:
    problems = []
    major = launch.library().cuda.runtime.runtimeGetVersion() // 1000
    for name in (_found_by_cupy, *(name.format(major=major) for name in _NAMES)):
        try:
            return ctypes.CDLL(name() if callable(name) else name)
        except (ImportError, OSError, RuntimeError) as error:
            problems.append(str(error).splitlines()[0])
    raise BackendError(
        f"expected cuBLAS {major} where CuPy finds it, got {'; '.join(problems)}; "
        f'pip install "cupy-cuda{major}x[ctk]", or install the CUDA toolkit'
    )


def _found_by_cupy() -> str:
    """The path that CuPy loads it from, from CuPy 14 on."""
    pathfinder: Any = importlib.import_module("cuda.pathfinder")
    path = pathfinder.load_nvidia_dynamic_lib("cublas").abs_path
    if path is None:
        raise OSError("cuBLAS is loaded, but nobody knows from where")
    return path
