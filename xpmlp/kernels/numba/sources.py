"""Machine code in numba's cache that knows every source it was made from.

Numba files compiled code under the contents of the function's own file. But a kernel's code
contains that of the modules which it imports: after a change of elementary.py, a softmax would go
on with the old exponential. What a function closes over is part of the cache's key as well, so
every cached function closes over a checksum of all those files.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

from numba import njit
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature

from ... import kernels
from .code_cache import CodeCache
from .compiling import undisturbed

_FOLDER = Path(__file__).parent


def compiled(function: Callable | None = None, signature: Any = None, **options: Any) -> Any:
    """``njit(**options)(function)``, whose code is kept under the checksum of its sources.

    With a signature, ``cfunc(signature, **options)(function)``, which has an address. Without a
    function, the decorator.
    """
    if function is None:
        return partial(compiled, signature=signature, **options)
    name = function.__module__.rpartition(".")[2]
    function = _closing_over(function, checksum(name))
    if signature is None:
        result: Any = njit(**options)(function)
    else:
        result = CFunc(function, normalize_signature(signature), locals={}, options=options)
    result._cache = CodeCache(function)
    result.compile = undisturbed(result.compile)
    if signature is not None:
        result.compile()
        if kernels.on_compile is not None and result.cache_hits == 0:
            kernels.on_compile()
    return result


@cache
def checksum(name: str) -> int:
    """Of a module in this folder and of all that it imports from here, directly or not."""
    total = 0
    for path in sorted(_reached(name)):
        total = zlib.crc32(path.read_bytes(), total)
    return total


def _reached(name: str) -> set[Path]:
    found: set[Path] = set()
    left = [name]
    while left:
        path = _FOLDER / f"{left.pop()}.py"
        if path not in found and path.exists():  # where no sources are kept, none will change
            found.add(path)
            left += _imported(path)
    return found


@cache
def _imported(path: Path) -> list[str]:
    """The modules after ``from .``, or after its ``import`` (to parse a file takes 10 ms)."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^from \.(\w*) import (\([^)]*\)|.*)", text, re.MULTILINE)
    return [name for module, names in found for name in re.findall(r"\w+", module or names)]


def _closing_over(function: Callable, value: int) -> FunctionType:
    """The same function with one more closed-over value, which it does not use."""
    code = function.__code__
    twin = FunctionType(
        code.replace(co_freevars=(*code.co_freevars, "kernel_sources")),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        (*(function.__closure__ or ()), CellType(value)),
    )
    twin.__module__, twin.__qualname__ = function.__module__, function.__qualname__
    twin.__doc__ = function.__doc__
    return twin
