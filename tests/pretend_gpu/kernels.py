"""Kernels are run on the CPU: each source that was compiled for the device is built by g++ as well.

Threads are the fibers of the kernels' own tests (``shim/``), so that barriers and shuffles do what
they do. xpmlp's sources go through the shim alone, CuPy's through ``cupy_kernel.h``.
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from . import device
from .building import FLAGS, compiler, digest, header_flags, tool

_SHIM = device.HERE / "shim"
_OURS = re.compile(r'extern "C"\s+void\s+(\w+)\(')
_CUPY = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")
# Of the shim, what a kernel may use whose threads never wait for each other: they run in turn,
# which is faster.
_ALONE = "current|block_dim|grid_dim|dynamic_shared|shared_array"
_WAITING = re.compile(rf"_ZN4shim\d+(?!\d|(?:{_ALONE})E)")
_NO_WAITING = "-in-turn.so"
_LEAST_POINTER = 1 << 40  # smaller numbers in a kernel's arguments are no addresses


def builds() -> Path:
    """Where builds are kept, and found again: ``PRETEND_GPU_BUILDS``, else a temporary folder."""
    parent = os.environ.get("PRETEND_GPU_BUILDS", f"{tempfile.gettempdir()}/pretend-gpu")
    folder = Path(parent) / digest()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(launch: device.Launch) -> str | None:
    """None, or what went wrong."""
    module, kernel = launch.function.module, launch.function.kernel
    build = _library(module.key, module)
    problem = _pointer_problem(build, launch)
    if problem is not None:
        return problem
    values = [ctypes.create_string_buffer(value, max(8, len(value))) for value in launch.values]
    if build.ours:  # each in eight bytes, else the addresses of all
        words = [int.from_bytes(value.raw[:8], "little") for value in values]
    else:
        words = [ctypes.addressof(value) for value in values]
    arguments = (ctypes.c_ulonglong * max(1, len(words)))(*words)
    sizes = (ctypes.c_uint * 6)(*launch.grid, *launch.block)
    name, waits = kernel.name.encode(), build.waits
    found = build.library.shim_run(name, arguments, sizes, launch.shared, kernel.cluster, waits)
    return None if found is None else found.decode()


def _pointer_problem(build: _Build, launch: device.Launch) -> str | None:
    """Arguments that point to what is not on the device, such as freed memory."""
    values = launch.values
    if build.ours:
        letters = build.letters(launch.function.kernel.name)
        if len(letters) != len(values):
            return f"{len(values)} parameters in the cubin, {len(letters)} in the source"
        pointers = [value for value, letter in zip(values, letters, strict=True) if letter in "rw"]
    else:  # CuPy's arrays are structures: address, number of elements …
        arrays = [value for value in values if len(value) >= 16 and len(value) % 8 == 0]
        pointers = [value[:8] for value in arrays if any(value[8:16])]
        pointers = [p for p in pointers if int.from_bytes(p, "little") >= _LEAST_POINTER]
    for value in pointers:
        address = int.from_bytes(value, "little")
        if address and not device.on_device(address):
            return f"argument at address {address:#x}, which is not on the device, or freed"
    return None


class _Build:
    """A shared library with the kernels of one source."""

    def __init__(self, path: Path, ours: bool):
        self.ours = ours
        self.library = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        run: Any = self.library.shim_run
        run.restype = ctypes.c_char_p
        run.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]
        run.argtypes += [ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
        self.waits = int(not path.name.endswith(_NO_WAITING))
        self.library.shim_letters.restype = ctypes.c_char_p

    @cache  # noqa: B019 (kept as long as the process lives)
    def letters(self, kernel: str) -> str:
        return self.library.shim_letters(kernel.encode()).decode()


_loaded: dict[str, _Build] = {}


def _library(key: str, module: device.Module) -> _Build:
    if key not in _loaded:
        ours = module.source.startswith("#define XPMLP_")
        stem = builds() / Path(key).stem
        paths = [Path(f"{stem}{end}") for end in (".so", _NO_WAITING)]
        if not any(path.exists() for path in paths):
            with tempfile.TemporaryDirectory(dir=builds()) as folder:
                made = (_build_ours if ours else _build_cupys)(module, Path(folder))
                os.replace(made, f"{stem}{made.name.removeprefix('kernel')}")
        _loaded[key] = _Build(next(path for path in paths if path.exists()), ours)
    return _loaded[key]


def _build_ours(module: device.Module, folder: Path) -> Path:
    definitions = [option for option in module.options if option.startswith("-D")]
    file = folder / "kernel.cpp"
    text = f'#include "shim.h"\n{module.source}'
    file.write_text(text)
    expanded = compiler(*FLAGS, *definitions, f"-I{_SHIM}", "-E", "-P", file)
    return _link(
        folder, text, _table("SHIM_KERNEL", _OURS.findall(expanded)), [*FLAGS, *definitions]
    )


def _build_cupys(module: device.Module, folder: Path) -> Path:
    names = _CUPY.findall(module.source)
    definitions = [option for option in module.options if option.startswith("-D")]
    defined = "".join(f"#define {d[2:].replace('=', ' ', 1)}\n" for d in definitions)
    # The header comes first and precompiled: it takes longer than the kernel.
    text = f'#include "cupy_kernel.h"\n{defined}{module.source}'
    return _link(folder, text, _table("CUPY_KERNEL", names), header_flags())


def _table(macro: str, names: list[str]) -> str:
    entries = "\n".join(f"{macro}({name})" for name in names)
    return (
        f"\nnamespace shim {{\nextern const Kernel kernels[] = {{\n{entries}\n}};\n"
        f"extern const int kernel_count = {len(names)};\n}}\n"
    )


def _link(folder: Path, text: str, table: str, flags: list[str]) -> Path:
    file, compiled = folder / "kernel.cpp", folder / "kernel.o"
    file.write_text(text + table)
    compiler(*flags, f"-I{_SHIM}", "-c", file, "-o", compiled)
    undefined = tool("nm", "--undefined-only", compiled)
    made = folder / f"kernel{'.so' if _WAITING.search(undefined) else _NO_WAITING}"
    own = "-Wl,-Bsymbolic"  # a kernel may be called as a function of the C library is
    compiler("-shared", own, compiled, _SHIM / "runtime.o", "-o", made)
    return made
