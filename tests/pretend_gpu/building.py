"""How things are compiled for the pretend device; needs nothing else of it."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).parents[1]  # once it is installed
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-fno-gnu-unique", "-fno-strict-aliasing")
FLAGS += ("-ffp-contract=off", "-w")


def header_flags() -> list[str]:
    """What CuPy's kernels are compiled with, and the header precompiled that they begin with."""
    cupys = PACKAGES / "cupy" / "_core" / "include"
    folders = [cupys / "cupy" / "_cccl" / name for name in ("cub", "thrust", "libcudacxx")]
    folders += [PACKAGES / "pretend_device" / "shim", cupys, *PACKAGES.glob("nvidia/*/include")]
    return [*FLAGS, *(f"-I{folder}" for folder in folders)]


@cache
def digest() -> str:
    """Of all that a build depends on besides the kernel."""
    shim = Path(__file__).with_name("shim")
    files = [*sorted(shim.glob("*.h")), shim / "runtime.o", *Path(__file__).parent.glob("*.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def compiler(*arguments: Any) -> str:
    """g++'s output."""
    return tool("g++", *arguments)


def tool(*command: Any) -> str:
    """What a command prints."""
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}:\n{ended.stderr[:3000]}")
    return ended.stdout
