"""Which array library and device to use, and moving arrays on and off it.

The choice is made once, at first use, in this order:

1. ``set_backend(...)`` or the innermost ``with use_backend(...)``,
2. the environment variables ``XPMLP_BACKEND`` and ``XPMLP_DEVICE``,
3. NumPy.

Names: ``numpy``, ``cupy``, ``torch``, ``jax``, ``array_api_strict`` and ``auto``. ``auto`` takes
CuPy when a CUDA device answers and NumPy otherwise, and says which and why. A library asked for by
name is never replaced in silence: if it is missing or has no device, that is a ``BackendError``.

Layers and ops do not read this choice: they follow the arrays they are given
(:func:`array_namespace`). It decides where *new* arrays are made.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import array_api_compat
import numpy as np

from .array_libraries import (
    NAMES,
    Backend,
    Namespace,
    activate,
    from_dlpack,
    numpy_namespace,
    open_library,
)
from .errors import BackendError, DTypeError, ShapeError

Array = Any
"""Any array of a supported library."""

_DTYPE_NAMES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)

_COMPUTE_OTHERWISE = (np.ma.MaskedArray, np.matrix)  # by operators of their own

_default: Backend | None = None
_override: ContextVar[Backend | None] = ContextVar("xpmlp_backend", default=None)


def get_backend() -> Backend:
    """The backend on which new arrays are made.

    Raises
    ------
    BackendError
        If ``XPMLP_BACKEND`` names an unknown or unusable library.
    """
    chosen = _override.get()
    if chosen is not None:
        return chosen
    global _default
    if _default is None:
        name = os.environ.get("XPMLP_BACKEND", "").strip()
        device = os.environ.get("XPMLP_DEVICE", "").strip() or None
        reason = f"XPMLP_BACKEND={name}" if name else "the default"
        _default = activate(open_library(name or "numpy", device, reason))
    return _default


def set_backend(name: str | None, device: str | None = None) -> Backend:
    """Choose the backend for the whole process.

    Parameters
    ----------
    name : str or None
        A backend's name, ``"auto"``, or None to go back to the environment's choice.
    device : str, optional
        The library's name of a device, such as ``"cuda:1"`` (torch), ``"0"`` (CuPy) or ``"cpu"``.

    Returns
    -------
    Backend
        What is in use from now on. Arrays that exist already stay where they are.
    """
    global _default
    _default = None if name is None else activate(open_library(name, device, "set_backend"))
    return get_backend()


@contextmanager
def use_backend(name: str, device: str | None = None) -> Iterator[Backend]:
    """Choose the backend inside a ``with`` block (this thread or task only)."""
    previous = _override.get() or _default
    token = _override.set(activate(open_library(name, device, "use_backend")))
    try:
        yield get_backend()
    finally:
        _override.reset(token)
        if previous is not None:
            activate(previous)


def available_backends() -> tuple[str, ...]:
    """Names of the backends that work here: installed, and with a device that answers."""
    return tuple(name for name, problem in backend_problems().items() if problem is None)


def backend_problems(names: Iterable[str] = NAMES) -> dict[str, str | None]:
    """For each backend, None if it works here, else what is in the way and what to do."""
    problems: dict[str, str | None] = {}
    for name in names:
        try:
            open_library(name, None, "probe")
        except BackendError as error:
            problems[name] = str(error)
        else:
            problems[name] = None
    return problems


def array_namespace(*arrays: Array) -> Namespace:
    """The array-API namespace that the given arrays belong to.

    Raises
    ------
    BackendError
        If they come from different libraries.
    DTypeError
        If one of them is no array of a supported library.
    """
    if all(type(a) is np.ndarray for a in arrays):
        return numpy_namespace()
    try:
        xp = array_api_compat.array_namespace(*arrays)
        if xp is numpy_namespace() and any(isinstance(a, _COMPUTE_OTHERWISE) for a in arrays):
            raise TypeError("arrays of a kind that computes in a way of its own")
        return xp
    except TypeError as error:
        kinds = [f"{type(a).__module__.split('.')[0]}.{type(a).__name__}" for a in arrays]
        if len(set(kinds)) > 1:
            raise BackendError(
                f"expected arrays of one library, got {', '.join(kinds)}; "
                "move them to one backend with xpmlp.asarray(...)"
            ) from error
        raise DTypeError(
            f"expected an array (NumPy, CuPy, torch, JAX, array-api-strict), got {kinds[0]}; "
            "convert it with xpmlp.asarray(...)"
        ) from error


def is_array(value: Any) -> bool:
    """Whether it is an array of some library, and not a class of them."""
    return not isinstance(value, type) and array_api_compat.is_array_api_obj(value)


def asarray(values: Any, dtype: Any = None) -> Array:
    """Put values on the current backend and device.

    Parameters
    ----------
    values : array_like
        A NumPy array, nested lists, numbers, an array of any supported library, or of any other
        one that has ``__dlpack__``. Host memory is shared, not copied, where layout and dtype
        allow; nothing here writes to it.
    dtype : str or dtype, optional
        A name such as ``"float32"``, or the backend's own dtype. Default: as it comes, Python
        floats as float32.

    Returns
    -------
    array
        An array of the current backend.

    Raises
    ------
    DTypeError
        If the values are not numbers, or the backend has no such dtype.
    ShapeError
        If nested lists are ragged.
    """
    backend = get_backend()
    values = from_dlpack(values, backend)
    if isinstance(values, np.generic) or not is_array(values):
        values = _from_python(values, keep_doubles=dtype is not None)
    if isinstance(values, np.ndarray):
        values = native(values)
    if isinstance(dtype, str):
        dtype = dtype_of(backend.xp, dtype)
    if dtype is not None and _is_complex(getattr(values, "dtype", "")) and not _is_complex(dtype):
        raise DTypeError(
            f"`asarray`: expected real numbers for {dtype_name(dtype)}, got "
            f"{dtype_name(getattr(values, 'dtype', ''))}; take xp.real(x) or xp.abs(x)"
        )
    if is_array(values):
        if array_api_compat.array_namespace(values) is backend.xp and _on(values, backend):
            return values if dtype is None else backend.xp.astype(values, dtype, copy=False)
        values = to_numpy(values)
    host: Any = values
    if backend.name == "torch" and not (host.flags.writeable and min(host.strides, default=0) >= 0):
        host = host.copy()  # torch shares memory, but has no read-only tensors and no way back
    extra = {} if backend.device is None else {"device": backend.device}
    return backend.xp.asarray(host, dtype=dtype, **extra)


def asarray_like(values: Any, like: Array, *, keep_dtype: bool = False) -> Array:
    """Values in the library, dtype and on the device of another array, whatever the backend.

    Parameters
    ----------
    values : array_like
        Numbers, a NumPy array, or an array of like's own library.
    like : array
    keep_dtype : bool
        Whether their own dtype stays; where the library has no 64 bits, that of 32.
    """
    if type(values) is not type(like):
        values = to_numpy(values) if is_array(values) else values
        values = np.asarray(values)
    xp, device = array_namespace(like), array_api_compat.device(like)
    if not keep_dtype:
        return xp.asarray(values, dtype=like.dtype, device=device)
    if values.dtype.itemsize == 8 and not has_wide_types(xp):
        values = values.astype(f"{values.dtype.kind}4")
    return xp.asarray(values, device=device)


def to_numpy(array: Array) -> np.ndarray:
    """An array of any supported library in host memory, as NumPy (itself if it is NumPy's).

    bfloat16, which NumPy does not have, becomes float32, which holds all its values.
    """
    if isinstance(array, np.ndarray):
        return array
    if dtype_name(getattr(array, "dtype", "")) == "bfloat16":
        array = array_api_compat.array_namespace(array).astype(
            detached(array), array_api_compat.array_namespace(array).float32
        )
    if array_api_compat.is_torch_array(array):
        return _from_torch(array)
    if array_api_compat.is_cupy_array(array):
        return array.get()
    return np.asarray(array)


def _from_torch(array: Array) -> np.ndarray:
    try:
        return array.detach().cpu().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized, or without values
        raise DTypeError(
            f"expected a tensor with a value in each place, got {dtype_name(array.dtype)} as "
            f"{dtype_name(array.layout)} on {array.device} ({error!s:.200}); make it dense, such "
            "as with x.to_dense()"
        ) from error


def from_file(array: Array) -> Array:
    """An array that is mapped from a file as the plain one that it is; others as they are."""
    return np.asarray(array) if type(array) is np.memmap else array


def native(array: np.ndarray) -> np.ndarray:
    """A NumPy array of numbers in this machine's order of bytes; itself if it is one.

    Raises
    ------
    DTypeError
        If it does not hold numbers, or some of them are masked out.
    """
    # V: bfloat16 and its relatives, but for records
    if array.dtype.kind not in "biufcV" or array.dtype.names is not None:
        raise DTypeError(f"`asarray`: expected numbers, got values of type {array.dtype.name}")
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise DTypeError(
            f"`asarray`: expected all of the numbers, got a masked array with "
            f"{int(np.ma.count_masked(array))} masked out; fill them: array.filled(value)"
        )
    if isinstance(array, np.ma.MaskedArray):
        array = array.data
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _is_complex(dtype: Any) -> bool:
    return "complex" in dtype_name(dtype)


def detached(array: Array) -> Array:
    """An array without autograd's record of where it came from (torch); others as they are."""
    return array.detach() if getattr(array, "requires_grad", False) else array


def can_be_written(array: Array) -> bool:
    """Whether ``array[...] = values`` works: not for JAX's arrays, nor read-only ones."""
    if array_api_compat.is_jax_array(array):
        return False
    return bool(getattr(getattr(array, "flags", None), "writeable", True))


def on_host(array: Array) -> bool:
    """Whether its values can be looked at without waiting for a device, or for a later run."""
    if isinstance(array, np.ndarray):
        return True
    if array_api_compat.is_torch_array(array):
        # Subclasses stand for something else: a tensor that is being traced has no values yet.
        return array.device.type == "cpu" and type(array).__name__ in ("Tensor", "Parameter")
    if array_api_compat.is_jax_array(array):
        if isinstance(array, importlib.import_module("jax").core.Tracer):
            return False
        return all(device.platform == "cpu" for device in array.devices())
    return not array_api_compat.is_cupy_array(array)


def jit(function: Any) -> Any:
    """A function of JAX arrays, compiled by JAX for each shape of them."""
    return importlib.import_module("jax").jit(function)


def synchronize() -> None:
    """Wait until the current backend's device has finished all work given to it."""
    backend = get_backend()
    if backend.name == "cupy":
        backend.xp.cuda.get_current_stream().synchronize()
    elif backend.name == "torch" and "cuda" in str(backend.device):
        importlib.import_module("torch").cuda.synchronize()
    elif backend.name == "jax":
        # An empty computation on the same device is queued behind everything else.
        backend.xp.zeros(()).block_until_ready()


def dtype_of(xp: Namespace, name: str) -> Any:
    """The dtype of a namespace by its name, such as ``"float32"``.

    Raises
    ------
    DTypeError
        If the library has no such dtype, or (JAX) would quietly use a narrower one.
    """
    dtype = getattr(xp, name, None) if name in _DTYPE_NAMES else None
    if dtype is None:
        has = ", ".join(known for known in _DTYPE_NAMES if hasattr(xp, known))
        raise DTypeError(f"expected a dtype name among {has}, got {name!r}")
    if name in ("float64", "int64", "uint64") and not has_wide_types(xp):
        raise DTypeError(
            f"{name} was asked for, but JAX runs in 32-bit mode; set JAX_ENABLE_X64=1 "
            'or call jax.config.update("jax_enable_x64", True) first'
        )
    return dtype


def has_wide_types(xp: Namespace) -> bool:
    """Whether 64-bit integers and floats really are 64 bits wide (JAX may narrow them)."""
    if array_api_compat.is_jax_namespace(xp):
        import jax

        config: Any = jax.config  # its attributes are made at run time
        return bool(config.jax_enable_x64)
    return True


def adds_in_turn(xp: Namespace) -> bool:
    """Whether the library sums over rows by adding one after another (NumPy).

    The error of such a sum grows with the number of rows, and not with its logarithm: in float32
    the mean of 4096 rows of about 10⁵ is wrong by 10.
    """
    return array_api_compat.is_numpy_namespace(
        xp
    ) or array_api_compat.is_array_api_strict_namespace(xp)


def dtype_name(dtype: Any) -> str:
    """A dtype's plain name: ``"float32"`` for any library's float32."""
    # A dtype object, a scalar type such as np.float32, or torch's "torch.float32".
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None)
    # Of what is no dtype, the name may be anything.
    return name if isinstance(name, str) else str(dtype).rpartition(".")[2]


def _from_python(values: Any, keep_doubles: bool) -> np.ndarray:
    """Python numbers and nested lists of them as an array, floats in float32 unless asked."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ShapeError(
            f"`asarray`: expected nested lists of equal lengths, got ragged ones ({error})"
        ) from error
    single = array.dtype == np.float64 and not keep_doubles
    return array.astype(np.float32) if single else array


def _on(array: Array, backend: Backend) -> bool:
    return backend.device is None or array_api_compat.device(array) == backend.device
