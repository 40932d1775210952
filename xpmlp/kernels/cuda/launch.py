"""Compiling CUDA kernels through CuPy at their first use, and launching them.

Each kernel is compiled by itself, for each element type; CuPy keeps the binary on disk, under a key
made of the text, the options, the compiler's version and the device's architecture. What goes wrong
on the way is said in words: a kernel that does not compile, a driver that is too old, a device
whose memory is full.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ...errors import BackendError, MissingDependencyError, OutOfMemoryError
from . import geometry, source

LOWER = "lower the batch size, or the precision"
"""What needs less memory in most cases."""

_TOO_OLD = (
    "cudaErrorInsufficientDriver",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
    "CUDA_ERROR_NO_BINARY_FOR_GPU",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
)


@cache
def library() -> Any:
    """The module ``cupy``."""
    try:
        import cupy
    except ImportError as error:
        raise MissingDependencyError(
            'CUDA kernels need CuPy: pip install "xpmlp[cuda12]" (or cuda13, to match the driver)'
        ) from error
    return cupy


def run(op: str, suffix: str, launch: geometry.Launch, *arguments: Any) -> None:
    """Launch a kernel of ``op``.cu on the current stream.

    Parameters
    ----------
    op : str
        The file's name.
    suffix : str
        The element type: ``"f32"``, ``"f64"``, ``"f16"``, ``"bf16"``.
    launch : geometry.Launch
    *arguments
        As the kernel's table in its ``.cu`` says: arrays, NumPy scalars of the exact width, Python
        ints for 64-bit integers, and None for a null pointer.
    """
    kernel = _kernel(op, suffix, launch.kernel, launch.shared, device_number())
    words = tuple([0 if a is None else a for a in arguments])  # a generator takes twice as long
    kernel(launch.grid, launch.block, words, shared_mem=launch.shared)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array on the current device."""
    cupy = library()
    try:
        return cupy.empty(shape, dtype)
    except cupy.cuda.memory.OutOfMemoryError as error:
        what = f"an array of shape {shape}"
        raise _out_of_memory(error, "xpmlp.kernels.cuda", what, LOWER) from error


def constant(values: np.ndarray) -> Any:
    """Host values as a device array. They travel now, so never call this while recording."""
    return library().asarray(values)


def device() -> geometry.Device:
    """What the launch geometry must know of the current device."""
    return _device(device_number())


def accumulator(suffix: str) -> Any:
    """The NumPy scalar type that sums of an element type are kept in."""
    return np.dtype(source.ACCUMULATOR[suffix]).type


def suffix_of(array: Any) -> str:
    """The element type of an array, as it ends kernels' names."""
    return _suffix(array.dtype)


@cache
def _suffix(dtype: Any) -> str:
    return source.SUFFIXES[np.dtype(dtype).name]  # a dtype makes its name anew each time


def contiguous(array: Any) -> Any:
    """The array itself if it is dense and in C order, else such a copy."""
    return array if array.flags.c_contiguous else library().ascontiguousarray(array)


def address(array: Any) -> int:
    """Where an array's first element is, on the device."""
    return array.data.ptr


@contextmanager
def explained_memory(where: str, what: str, lower: str) -> Iterator[None]:
    """Turn CuPy's out-of-memory error into ours: what was asked, what is free, what to lower.

    Parameters
    ----------
    where : str
        Who asks.
    what, lower : str
        In words, what the memory is for, and what would need less.
    """
    cupy = library()
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise _out_of_memory(error, where, what, lower) from error


def _out_of_memory(error: Exception, where: str, what: str, lower: str) -> OutOfMemoryError:
    free, total = library().cuda.runtime.memGetInfo()
    asked = re.search(r"allocating ([\d,]+) bytes", str(error))
    size = "more" if asked is None else _size_text(int(asked[1].replace(",", "")))
    return OutOfMemoryError(
        f"`{where}`: expected {size} of device memory for {what}, got {_size_text(free)} that "
        f"are free, of {_size_text(total)}; {lower}, or end other programs on the device"
    )


def _size_text(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def device_number() -> int:
    """The current device."""
    return library().cuda.runtime.getDevice()


@cache
def _device(number: int) -> geometry.Device:
    device = library().cuda.Device(number)
    attributes = device.attributes
    return geometry.Device(
        capability=int(device.compute_capability),
        multiprocessors=attributes["MultiProcessorCount"],
        shared_optin=attributes["MaxSharedMemoryPerBlockOptin"],
    )


@cache
def _kernel(op: str, suffix: str, name: str, shared: int, number: int) -> Any:
    """A kernel of a device, compiled now if it never was."""
    with _explained_compilation(op, suffix):
        kernel = _module(op, suffix, name).get_function(name)
        _ = kernel.kernel  # loads it, so that errors come from here
        # Unasked, a kernel may have 48 KB less its static shared memory, which only the driver
        # knows. The bound belongs to the function, which every launch of this name shares: only
        # raise it.
        if shared > kernel.max_dynamic_shared_size_bytes:
            kernel.max_dynamic_shared_size_bytes = shared
    return kernel


@cache
def _module(op: str, suffix: str, name: str) -> Any:
    return library().RawModule(code=source.unit(op, suffix, name), options=source.OPTIONS)


@contextmanager
def _explained_compilation(op: str, suffix: str) -> Iterator[None]:
    cupy = library()
    try:
        yield
    except cupy.cuda.compiler.CompileException as error:
        raise BackendError(
            f"`xpmlp.kernels.cuda`: {op}.cu does not compile for {suffix}; XPMLP_KERNELS=off runs "
            f"without kernels. The compiler says:\n{error.get_message()}"
        ) from error
    except RuntimeError as error:  # CUDARuntimeError, CUDADriverError and NVRTCError derive from it
        if not any(name in str(error) for name in _TOO_OLD):
            raise
        raise BackendError(
            f"`xpmlp.kernels.cuda`: the driver is too old for {op}.cu as CuPy compiles it "
            f"({error}); {driver_text()}; update the driver, or install the CuPy that matches it"
        ) from error


def driver_text() -> str:
    """Which CUDA the driver and CuPy support, in words."""
    runtime = library().cuda.runtime
    driver, own = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    return f"the driver supports CUDA {_version(driver)}, CuPy was built with CUDA {_version(own)}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
