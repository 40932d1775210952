"""The array libraries and their devices: how each is opened, and what to do where it cannot be."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from .errors import BackendError

Namespace = Any
"""The functions of an array library under their array-API names."""

NAMES = ("numpy", "cupy", "torch", "jax", "array_api_strict")

_INSTALL = {
    "cupy": 'pip install "xpmlp[cuda12]" (or cuda13, to match the driver)',
    "torch": 'pip install "xpmlp[torch]"',
    "jax": 'pip install "xpmlp[jax]"',
    "array_api_strict": "pip install array-api-strict",
}


@dataclass(frozen=True)
class Backend:
    """An array library with a device.

    Attributes
    ----------
    name : str
        One of ``numpy``, ``cupy``, ``torch``, ``jax``, ``array_api_strict``.
    xp : module
        Its array-API namespace.
    device : object
        The library's own device object, or None for its default.
    reason : str
        Why this one was chosen, in words.
    """

    name: str
    xp: Namespace
    device: Any
    reason: str

    @property
    def place(self) -> str | None:
        """The device as it is asked for, such as ``"cuda:1"``; None for the library's default."""
        number = getattr(self.device, "id", None)  # CuPy's and JAX's have one
        if self.device is None or number is None:
            return self.device and str(self.device)
        return f"{getattr(self.device, 'platform', 'cuda')}:{number}"

    def __str__(self) -> str:
        return f"{self.name} on {self.place or 'default device'} ({self.reason})"


def open_library(name: str, device: str | None, reason: str) -> Backend:
    """Import a library, check its device and describe it; raise BackendError if it cannot serve."""
    if name == "auto":
        return _open_auto(device, reason)
    if name not in NAMES:
        raise BackendError(
            f"expected a backend among {', '.join(NAMES)} or auto, got {name!r}; "
            "set XPMLP_BACKEND (or the argument) to one of them"
        )
    if name == "numpy":
        return Backend("numpy", numpy_namespace(), _check_cpu("numpy", device), reason)
    if importlib.util.find_spec(name) is None:
        raise BackendError(f"backend {name} was asked for but is not installed; {_INSTALL[name]}")
    try:
        return _OPENERS[name](device, reason)
    except BackendError:
        raise
    except Exception as error:  # a broken installation can raise anything
        raise BackendError(
            f"backend {name} is installed but failed to start: {type(error).__name__}: {error}; "
            f"repair it with {_INSTALL[name]}, or choose another backend"
        ) from error


def activate(backend: Backend) -> Backend:
    """Make the device current where a library has such a thing (CuPy: for this thread)."""
    if backend.name == "cupy":
        backend.device.use()
    return backend


def numpy_namespace() -> Namespace:
    """NumPy under array-API names."""
    import array_api_compat.numpy as xp

    return xp


def _open_auto(device: str | None, reason: str) -> Backend:
    try:
        backend = open_library("cupy", device, reason)
    except BackendError as error:
        return Backend("numpy", numpy_namespace(), None, f"{reason}: auto, because {error}")
    return Backend("cupy", backend.xp, backend.device, f"{reason}: auto, a CUDA device answers")


def _first_line(error: Exception) -> str:
    """What an error says, without its stack of native frames."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_cpu(name: str, device: str | None) -> None:
    if device not in (None, "cpu"):
        raise BackendError(
            f"backend {name} runs on the CPU only, got device {device!r}; "
            "unset XPMLP_DEVICE or choose cupy, torch or jax"
        )


def _open_cupy(device: str | None, reason: str) -> Backend:
    import array_api_compat.cupy as xp
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise BackendError(
            "CuPy is installed but no CUDA device answers "
            f"({_first_line(error)}); check the driver with nvidia-smi, "
            "or use XPMLP_BACKEND=numpy"
        ) from error
    if count == 0:
        raise BackendError("CuPy is installed but there is no CUDA device; use XPMLP_BACKEND=numpy")
    text = (device or "0").removeprefix("cuda").removeprefix(":") or "0"
    if not text.isdigit() or int(text) >= count:
        raise BackendError(
            f"expected a CUDA device number below {count}, got {device!r}; "
            "set XPMLP_DEVICE to one of them"
        )
    return Backend("cupy", xp, cupy.cuda.Device(int(text)), reason)


def _open_torch(device: str | None, reason: str) -> Backend:
    import array_api_compat.torch as xp
    import torch

    try:
        chosen = torch.device(device or "cpu")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise BackendError(
            f"torch cannot use device {device!r} ({_first_line(error)}); "
            "set XPMLP_DEVICE to cpu, cuda or cuda:0"
        ) from error
    return Backend("torch", xp, chosen, reason)


def _open_jax(device: str | None, reason: str) -> Backend:
    import jax
    import jax.numpy as xp

    if device is None:
        return Backend("jax", xp, None, reason)
    kind, _, index = device.partition(":")
    try:
        chosen = jax.devices(kind)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        raise BackendError(
            f"JAX cannot use device {device!r} ({_first_line(error)}); "
            f"it has {', '.join(str(d) for d in jax.devices())}"
        ) from error
    return Backend("jax", xp, chosen, reason)


def _open_array_api_strict(device: str | None, reason: str) -> Backend:
    import array_api_strict as xp

    _check_cpu("array_api_strict", device)
    return Backend("array_api_strict", xp, None, reason)


_OPENERS = {
    "cupy": _open_cupy,
    "torch": _open_torch,
    "jax": _open_jax,
    "array_api_strict": _open_array_api_strict,
}


_HOST = (1, 3)  # DLPack's numbers of main memory, and of that which CUDA has pinned


def from_dlpack(values: Any, backend: Backend) -> Any:
    """An array of a library that is not supported as one that is; all else as it is.

    Anything with ``__dlpack__`` (DLPack, the exchange of arrays in memory): in host memory as
    NumPy's, which shares that memory; on a device as the backend's.

    Raises
    ------
    BackendError
        If it lies where the backend cannot read, or holds what it has no dtype for.
    """
    exchanged: Any = values
    known = array_api_compat.is_array_api_obj(values) or isinstance(values, type)
    if known or not hasattr(values, "__dlpack__"):
        return values
    device = int(exchanged.__dlpack_device__()[0])
    try:
        return (np if device in _HOST else backend.xp).from_dlpack(exchanged)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        kind = f"{type(values).__module__.split('.')[0]}.{type(values).__name__}"
        raise BackendError(
            f"`asarray`: expected an array that {backend.name} can read, got a {kind} on "
            f"DLPack's device {device}: {error!s:.200}; move it to the CPU, or convert its dtype"
        ) from error
