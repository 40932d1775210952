"""The pretend device's modules, launches and graphs; loaded by its libraries at their first use.

Whatever a real device would not take, or would take and do damage with, is noted in ``problems``,
printed, and given back as an error.
"""

from __future__ import annotations

import atexit
import collections
import ctypes
import inspect
import sys
import traceback
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_long, c_size_t, c_uint, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import cubin

HERE = Path(__file__).parent
library = ctypes.CDLL(str(HERE / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
library.pretend_on_device.argtypes = [c_void_p, c_size_t]
library.pretend_count.argtypes, library.pretend_count.restype = [c_char_p], c_long
library.pretend_total.argtypes = [c_size_t]

problems: collections.Counter[str] = collections.Counter()

INVALID_VALUE, ILLEGAL_ADDRESS, LAUNCH_FAILED = 1, 700, 719
_STATIC_AND_DYNAMIC = 48 * 1024  # shared memory that needs not be asked for
_MOST_SHARED = 227 * 1024
_SHARED_SIZE, _REGISTER_COUNT, _DYNAMIC_SHARED = 1, 4, 8  # CU_FUNC_ATTRIBUTE_…


@dataclass
class Module:
    """A loaded cubin, and what it was compiled from."""

    kernels: dict[str, cubin.Kernel]
    source: str
    options: tuple[str, ...]
    key: str


@dataclass
class Function:
    """A kernel of a module, and how much dynamic shared memory it may use."""

    module: Module
    kernel: cubin.Kernel
    dynamic: int


@dataclass
class Launch:
    """What a launch was given; the values were copied, as CUDA does."""

    function: Function
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    values: list[bytes] = field(default_factory=list)


modules: list[Module] = []
functions: list[Function] = []
graphs: dict[int, list[Callable[[], int]]] = {}


def complain(text: str) -> None:
    problems[text] += 1
    if problems[text] == 1:
        print(f"pretend GPU: {text}", file=sys.stderr, flush=True)


def count(what: str) -> int:
    """How often so far: "launch", "graph launch", "wait", "host to device", "cudaMalloc" …"""
    return library.pretend_count(what.encode())


def on_device(address: int, size: int = 1) -> bool:
    return bool(library.pretend_on_device(address, size))


def do(graph: int, work: Callable[[], int]) -> int:
    """Now, or whenever the graph is launched."""
    if graph:
        graphs[graph].append(work)
        return 0
    return work()


def _load(image: int) -> int:
    head = ctypes.string_at(image, 64)
    if head[:4] != b"\x7fELF":
        complain("a module that is no cubin: it was not compiled for this device")
        return 0
    content = ctypes.string_at(image, cubin.length_of(head))
    modules.append(Module(cubin.kernels_of(content), *_compiled_from()))
    return len(modules)


def _compiled_from() -> tuple[str, tuple[str, ...], str]:
    """Source, options and key of what CuPy's compiler loads, which is on the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "_compile_with_cache_cuda":
            seen = frame.f_locals
            return seen["source"], tuple(seen["options"]), seen["name"]
        frame = frame.f_back
    return "", (), ""


def _function(module: int, name: bytes) -> int:
    kernel = modules[module - 1].kernels.get(name.decode())
    if kernel is None:
        return 0
    dynamic = max(0, _STATIC_AND_DYNAMIC - kernel.shared)
    functions.append(Function(modules[module - 1], kernel, dynamic))
    return len(functions)


def _attribute(number: int, which: int, value: int, setting: int) -> int:
    function = functions[number - 1]
    if which != _DYNAMIC_SHARED:
        return {_SHARED_SIZE: function.kernel.shared, _REGISTER_COUNT: function.kernel.registers}[
            which
        ]
    if not setting:
        return function.dynamic
    if value + function.kernel.shared > _MOST_SHARED:
        complain(f"{function.kernel.name}: {value} bytes of shared memory are asked for")
        return INVALID_VALUE
    function.dynamic = value
    return 0


def _launch(number: int, sizes: Any, shared: int, values: Any, graph: int) -> int:
    function = functions[number - 1]
    parameters = function.kernel.parameters
    copies = [ctypes.string_at(values[i], size) for i, size in enumerate(parameters)]
    launch = Launch(function, tuple(sizes[:3]), tuple(sizes[3:6]), shared, copies)
    for text in function.kernel.refusals(launch.grid, launch.block, shared, function.dynamic):
        complain(f"{function.kernel.name}: {text}")
        return INVALID_VALUE
    return do(graph, lambda: _run(launch))


def _run(launch: Launch) -> int:
    from . import kernels

    problem = kernels.run(launch)
    if problem is None:
        return 0
    complain(f"{launch.function.kernel.name}: {problem}")
    return ILLEGAL_ADDRESS if "address" in problem else LAUNCH_FAILED


def _copy(graph: int, to: int, source: int, size: int) -> int:
    return do(graph, lambda: _checked(size, (to, source), lambda: ctypes.memmove(to, source, size)))


def _fill(graph: int, to: int, value: int, size: int) -> int:
    return do(graph, lambda: _checked(size, (to,), lambda: ctypes.memset(to, value, size)))


def _checked(size: int, addresses: tuple[int, ...], work: Callable[[], Any]) -> int:
    for address in addresses:
        if not on_device(address, size):
            complain(f"a graph's copy or fill of {size} bytes at {address:#x}, which is not there")
            return ILLEGAL_ADDRESS
    work()
    return 0


def _graph(what: bytes, graph: int) -> int:
    if what == b"begin":
        graphs[graph] = []
    elif what == b"forget":
        graphs.pop(graph, None)
    elif graph not in graphs:
        complain("a graph is launched that was destroyed")
        return INVALID_VALUE
    else:
        for node in graphs[graph]:
            if error := node():
                return error
    return 0


def _product(numbers: Any, alpha: int, beta: int) -> int:
    from . import products

    return products.multiply(numbers, alpha, beta)


def _never_raising(function: Callable, otherwise: int) -> Callable:
    """What is raised in a call from C++ is lost: it is a problem, and an error."""

    def call(*arguments: Any) -> int:
        try:
            return function(*arguments)
        except BaseException as error:
            traceback.print_exc()
            complain(f"{function.__name__}: {type(error).__name__}: {error}")
            return otherwise

    return call


class _Hooks(ctypes.Structure):
    """``struct Hooks`` of device.h."""

    _fields_ = (
        ("load", CFUNCTYPE(c_long, c_void_p)),
        ("function", CFUNCTYPE(c_long, c_long, c_char_p)),
        ("attribute", CFUNCTYPE(c_int, c_long, c_int, c_int, c_int)),
        ("launch", CFUNCTYPE(c_int, c_long, POINTER(c_uint), c_uint, POINTER(c_void_p), c_long)),
        ("copy", CFUNCTYPE(c_int, c_long, c_void_p, c_void_p, c_size_t)),
        ("fill", CFUNCTYPE(c_int, c_long, c_void_p, c_int, c_size_t)),
        ("graph", CFUNCTYPE(c_int, c_char_p, c_long)),
        ("product", CFUNCTYPE(c_int, POINTER(c_long), c_void_p, c_void_p)),
        ("complain", CFUNCTYPE(None, c_char_p)),
    )


def _install() -> _Hooks:
    calls = (_load, _function, _attribute, _launch, _copy, _fill, _graph, _product)
    errors = (0, 0, *(LAUNCH_FAILED,) * 5, 14)
    hooks = _Hooks()
    for (name, kind), call, error in zip(_Hooks._fields_, calls, errors, strict=False):
        setattr(hooks, name, kind(_never_raising(call, error)))
    hooks.complain = _Hooks._fields_[-1][1](lambda text: complain(text.decode()))
    library.pretend_install(ctypes.byref(hooks))
    return hooks


_hooks = _install()  # C++ keeps their addresses
atexit.register(library.pretend_end)
