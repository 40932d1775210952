"""Launches against what the compiled kernel allows: the checks that a driver makes, and some more.

Kernels are compiled by NVRTC for the device that geometry.py takes as its default.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kernels.cuda import nvrtc
from pretend_gpu.cubin import Kernel, kernels_of

from xpmlp.kernels.cuda import geometry, source

_OPTIONS = (*source.OPTIONS, "-arch=sm_90", "-ftz=true", "--device-as-default-execution-space")
_SIZES = {"r": 8, "w": 8, "q": 8, "Q": 8, "d": 8, "i": 4, "I": 4, "f": 4}
FOLDER: Path | None = None
"""Where compiled kernels are kept between runs."""


@cache
def compiled(op: str, suffix: str, name: str) -> Kernel | None:
    """What a kernel's binary says of it; None where there is no compiler."""
    if nvrtc.library() is None:
        return None
    text = source.unit(op, suffix, name)
    key = hashlib.sha256(f"{nvrtc.library()._name} {_OPTIONS} {text}".encode()).hexdigest()[:24]
    kept = None if FOLDER is None else FOLDER / f"{name}-{key}.cubin"
    if kept is not None and kept.exists():
        return kernels_of(kept.read_bytes())[name]
    worked, log, image = nvrtc.compile_source(text, f"{op}.cu", _OPTIONS)
    assert worked, log
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        own = kept.with_suffix(f".{os.getpid()}")
        own.write_bytes(image)
        own.replace(kept)
    return kernels_of(image)[name]


def refusals(kernel: Kernel, plan: geometry.Launch, letters: str) -> Iterator[str]:
    """What is wrong with a launch, in words; ``letters`` are its arguments' types (shim.h)."""
    sizes = [_SIZES[letter] for letter in letters]
    if kernel.parameters != sizes:
        yield f"arguments of {sizes} bytes for parameters of {kernel.parameters}"
    most_shared = geometry.Device().shared_optin - kernel.shared  # launch.py asks for it
    yield from kernel.refusals(plan.grid, plan.block, plan.shared, most_shared)
