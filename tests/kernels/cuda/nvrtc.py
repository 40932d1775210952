"""NVIDIA's run-time compiler through ctypes: compiles CUDA C where there is no GPU.

Which version: the installed one, or, where XPMLP_NVRTC names a folder (as of ``pip install --target
FOLDER nvidia-cuda-nvrtc``), the one in there.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MISSING = "NVRTC is not installed: pip install nvidia-cuda-nvrtc"


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel takes, as ptxas reports it."""

    kernel: str
    registers: int
    stack: int
    spills: int


@cache
def library() -> ctypes.CDLL | None:
    """NVRTC from its wheel or from an installed toolkit, or None."""
    chosen = os.environ.get("XPMLP_NVRTC")
    for path in (*_wheels(), None if chosen else ctypes.util.find_library("nvrtc")):
        if path is not None:
            # Version 13.0 does not look for the second half of itself beside the first.
            for builtins in Path(path).parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))
            return ctypes.CDLL(str(path))
    assert not chosen, f"XPMLP_NVRTC: no compiler in {chosen}"
    return None


def _folders() -> list[Path]:
    """Where NVIDIA's wheels are."""
    chosen = os.environ.get("XPMLP_NVRTC")
    if chosen:
        return [Path(chosen) / "nvidia"]
    spec = importlib.util.find_spec("nvidia")
    return [Path(folder) for folder in (spec.submodule_search_locations or () if spec else ())]


def disassembler() -> str | None:
    """NVIDIA's, from its wheel or from an installed toolkit, or None."""
    for folder in _folders():
        for path in sorted(folder.glob("*/bin/nvdisasm")):
            return str(path)
    return shutil.which("nvdisasm")


def disassemble(code: bytes) -> str:
    """Machine code as text."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        command = [str(disassembler()), "-c", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _wheels() -> Iterator[Path]:
    for folder in _folders():
        yield from sorted(folder.glob("*/lib/libnvrtc.so.*"), reverse=True)
        yield from sorted(folder.glob("*/bin/**/nvrtc64_*_0.dll"), reverse=True)


def architectures() -> list[int]:
    """Compute capabilities that this NVRTC compiles for."""
    count = ctypes.c_int()
    _check(library().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    numbers = (ctypes.c_int * count.value)()
    _check(library().nvrtcGetSupportedArchs(numbers))
    return list(numbers)


def compile_source(text: str, name: str, options: tuple[str, ...]) -> tuple[bool, str, bytes]:
    """Whether it compiled, the log, and the machine code (for ``-arch=compute_…``, PTX)."""
    nvrtc, program = library(), ctypes.c_void_p()
    create = nvrtc.nvrtcCreateProgram
    _check(create(ctypes.byref(program), text.encode(), name.encode(), 0, None, None))
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = nvrtc.nvrtcCompileProgram(program, len(options), given)
        log = _text(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
        code = b""
        if status == 0:
            code = _text(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
            code = code or _text(program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
        return status == 0, log.rstrip(b"\0").decode(), code
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def usages(log: str) -> list[Usage]:
    """Every kernel in the log of a compilation with ``--ptxas-options=-v``."""
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, "
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    )
    return [
        Usage(name, int(registers), int(stack), int(stores) + int(loads))
        for name, stack, stores, loads, registers in re.findall(pattern, log, re.DOTALL)
    ]


def _text(program: ctypes.c_void_p, size_of, get) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _check(get(program, data))
    return data.raw


def _check(status: int) -> None:
    assert status == 0, f"NVRTC error {status}"
