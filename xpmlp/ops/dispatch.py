"""Which implementation of an op runs: a kernel where one fits, else the array-API reference.

An op asks :func:`choose` with its name, its arrays and its options. The candidates for that op are
tried in order; the first whose backend is the arrays' own and whose ``refuses`` has no objection is
imported (at first use) and returned. Without one, the reference runs, which is always right.

:func:`explain` says what would run and why. Every kernel is off where ``XPMLP_KERNELS=off`` was set
when xpmlp was imported, and inside of :func:`without_kernels`.
"""

from __future__ import annotations

import importlib
import itertools
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import array_api_compat
import numpy as np

from ..backend import Array
from ..errors import ConfigError, XpmlpError
from . import cuda_rules, numba_rules


@dataclass(frozen=True)
class Candidate:
    """One kernel that can stand in for an op's reference.

    Attributes
    ----------
    op : str
        The op's name.
    name : str
        What users see: ``"numba"``, ``"cuda"``.
    library : str
        Arrays of which library it works on: ``"numpy"`` or ``"cupy"``.
    target : str
        ``"module:function"``, imported at first use; same signature as the reference.
    refuses : callable
        ``refuses(*arrays, **options)`` gives None to accept, else the reason in words. It looks at
        shapes and dtypes only, for NumPy also at strides, never at an array's values: the answer
        is kept for all arrays that are alike.
    """

    op: str
    name: str
    library: str
    target: str
    refuses: Callable[..., str | None]


def _numba(op: str, module: str, refuses: Callable[..., str | None]) -> Candidate:
    return Candidate(op, "numba", "numpy", f"xpmlp.kernels.numba.{module}:{op}", refuses)


def _cuda(op: str, module: str, refuses: Callable[..., str | None]) -> Candidate:
    return Candidate(op, "cuda", "cupy", f"xpmlp.kernels.cuda.{module}:{op}", refuses)


Candidates = dict[tuple[str, str], list[Candidate]]


def by_op(*candidates: Candidate) -> Candidates:
    """Candidates by op and library, for that is how they are looked up."""
    found: Candidates = {}
    for candidate in candidates:
        found.setdefault((candidate.op, candidate.library), []).append(candidate)
    return found


CANDIDATES = by_op(
    _numba("softmax_cross_entropy", "cross_entropy", numba_rules.softmax_cross_entropy),
    _numba("matmul", "products", numba_rules.matmul),
    _numba("piecewise_linear", "piecewise_linear", numba_rules.piecewise_linear),
    _numba("linear", "products", numba_rules.linear),
    _numba("linear_backward", "products", numba_rules.linear_backward),
    _numba("dropout", "dropout", numba_rules.dropout),
    _numba("relu", "elementwise", numba_rules.same_float_arrays),
    _numba("relu_backward", "elementwise", numba_rules.same_float_arrays),
    _numba("sgd_update", "update", numba_rules.same_float_arrays),
    _numba("momentum_update", "update", numba_rules.same_float_arrays),
    _numba("adagrad_update", "update", numba_rules.same_float_arrays),
    _numba("rmsprop_update", "update", numba_rules.same_float_arrays),
    _numba("adam_update", "update", numba_rules.same_float_arrays),
    _numba("batch_norm", "normalization", numba_rules.normalization),
    _numba("batch_norm_backward", "normalization", numba_rules.batch_norm_backward),
    _numba("layer_norm", "normalization", numba_rules.normalization),
    _numba("layer_norm_backward", "normalization", numba_rules.layer_norm_backward),
    _numba("gather_rows", "gather", numba_rules.gather_rows),
    _cuda("softmax_cross_entropy", "softmax_cross_entropy", cuda_rules.softmax_cross_entropy),
    _cuda("matmul", "matmul", cuda_rules.matmul),
    _cuda("linear", "linear", cuda_rules.linear),
    _cuda("linear_backward", "linear", cuda_rules.linear_backward),
    _cuda("relu", "elementwise", cuda_rules.elementwise),
    _cuda("relu_backward", "elementwise", cuda_rules.elementwise),
    _cuda("dropout", "dropout", cuda_rules.dropout),
    _cuda("batch_norm", "normalization", cuda_rules.normalization),
    _cuda("batch_norm_backward", "normalization", cuda_rules.batch_norm_backward),
    _cuda("layer_norm", "normalization", cuda_rules.normalization),
    _cuda("layer_norm_backward", "normalization", cuda_rules.layer_norm_backward),
)
"""Every kernel, best first."""


def choose(op: str, reference: Callable, *arrays: Array, **options: Any) -> Callable:
    """The implementation to run for these arrays and options."""
    if _off:
        return reference
    kind = type(arrays[0])
    if kind is np.ndarray:  # whose rules look at strides too, and take less long than a memo
        for candidate in CANDIDATES.get((op, "numpy"), ()):
            if candidate.refuses(*arrays, **options) is None:
                return _load(candidate.target)
        return reference
    if kind not in _with_kernels:
        _with_kernels[kind] = any(library == _library(arrays[0]) for _, library in CANDIDATES)
    if not _with_kernels[kind]:
        return reference
    key = (op, *map(_metadata, arrays), *map(_metadata, options.values()))
    run = _chosen.get(key)
    if run is None:
        if len(_chosen) >= _REMEMBERED:
            _chosen.clear()
        kernel, _ = _select(op, arrays, options)
        run = _chosen[key] = reference if kernel is None else _load(kernel.target)
    return run


_with_kernels: dict[type, bool] = {}  # whether there are kernels for a type's library
_chosen: dict[tuple, Callable] = {}
_REMEMBERED = 1024


def _metadata(value: Any) -> Any:
    """All that rules see of an argument: an option itself, or of an array what it is like."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return value
    device = getattr(value, "device", None)  # CuPy's has no hash, its number has
    return type(value), value.dtype, shape, getattr(device, "id", device)


def explain(op: str, *arrays: Array, **options: Any) -> str:
    """What would run for these arguments, and why, in one line.

    Parameters
    ----------
    op : str
        The op's name, such as ``"softmax_cross_entropy"``.
    *arrays, **options
        As they would be given to the op. Without any, the kernels that there are.

    Raises
    ------
    ConfigError
        For an unknown op; the message lists the known ones.

    Examples
    --------
    >>> import numpy as np
    >>> from xpmlp import ops
    >>> ops.explain("softmax", np.ones((2, 2)))
    'softmax on numpy: array-API reference (no kernel for this op)'
    """
    ops = importlib.import_module("xpmlp.ops").__all__
    known = [name for name in ops if name not in ("explain", "without_kernels")]
    if not isinstance(op, str) or op not in known:
        raise ConfigError(f"`explain`: expected an op among {', '.join(known)}, got {op!r:.200}")
    if not arrays:
        kernels = [f"kernel {c.name} on {c.library}" for c in _all() if c.op == op]
        also = f"or, where it fits, {', '.join(kernels)}" if kernels else "no kernel for this op"
        return f"{op} on any library: array-API reference ({also})"
    try:
        library = _library(arrays[0])
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"`explain`: expected an array, got {arrays[0]!r:.200}") from error
    kernel, why = _select(op, arrays, options)
    chosen = "array-API reference" if kernel is None else f"kernel {kernel.name}"
    return f"{op} on {library}: {chosen} ({why})"


def kernel_summary(library: str) -> str:
    """The kernels that may run for a library's arrays, or why there are none."""
    if _off:
        return f"array-API reference ({_off})"
    kernels = [c for c in _all() if c.library == library]
    if not kernels:
        return "array-API reference"
    if library == "numpy" and not numba_rules.installed():
        return f"array-API reference ({numba_rules.MISSING})"
    names = ", ".join(sorted({c.name for c in kernels}))
    ops = ", ".join(sorted(c.op for c in kernels))
    return f"{names} for {ops}; else array-API reference"


def own_threads(count: int | None) -> None:
    """How many threads this process owns of a machine's; see kernels/thread_count.py."""
    _load("xpmlp.kernels.thread_count:own_threads")(count)


def thread_count() -> tuple[int, str]:
    """How many threads kernels may use, and what decided it."""
    return _load("xpmlp.kernels.thread_count:thread_count")()


def thread_summary() -> str:
    """Who uses how many threads, and why, in one line."""
    return _load("xpmlp.kernels.thread_count:describe_threads")()


@contextmanager
def without_kernels() -> Iterator[None]:
    """Inside of ``with``, every op is its array-API reference, in all threads.

    To see what a kernel changes, in time or in the last digits. Training steps that are compiled
    for NumPy or recorded for CuPy run layer by layer meanwhile.

    Examples
    --------
    >>> with ops.without_kernels():
    ...     expected = ops.matmul(a, b)
    """
    global _off, _inside
    with _lock:
        _inside += 1
        _off = _off_always or "without_kernels"
    try:
        yield
    finally:
        with _lock:  # threads may come and go in any order: the last one switches them on again
            _inside -= 1
            if _inside == 0:
                _off = _off_always


def is_compilers(error: BaseException) -> bool:
    """Whether it came from numba or from below, and not from what an op was given."""
    if isinstance(error, XpmlpError):
        return False
    places = [type(error).__module__]
    trace = error.__traceback__
    while trace is not None:
        places.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return any(place.partition(".")[0] in _COMPILERS for place in places)


def give_up(error: Exception, op: str | None = None) -> str:
    """Do without the kernel of an op, or without any, since it could not be compiled; the reason.

    Warns, once for each op.
    """
    what = "kernels" if op is None else f"the kernel of {op}"
    words = (str(error).strip().splitlines() or [""])[0]
    reason = f"numba cannot compile {what} here: {type(error).__name__}: {words}"[:300]
    for (name, library), candidates in CANDIDATES.items():
        if library == "numpy" and op in (None, name):
            candidates[:] = [replace(c, refuses=lambda *a, **o: reason) for c in candidates]
    if reason not in _given_up:
        _given_up.add(reason)
        warnings.warn(f"{reason}; without it {numba_rules.COST}", stacklevel=4)
    return reason


_COMPILERS = ("numba", "llvmlite")
_given_up: set[str] = set()


def why_kernels_are_off() -> str:
    """What switched them off, or an empty string."""
    return _off


def _environment_says_off() -> str:
    value = os.environ.get("XPMLP_KERNELS", "").strip().lower()
    return f"XPMLP_KERNELS={value}" if value in ("off", "no", "false", "0") else ""


# Not asked of the environment for each op: that would take longer than a small one.
_off_always = _environment_says_off()
_off = _off_always
_inside = 0  # how many blocks of without_kernels are open, in all threads
_lock = threading.Lock()


def _select(op: str, arrays: tuple, options: dict) -> tuple[Candidate | None, str]:
    if _off:
        return None, _off
    objections = []
    for candidate in CANDIDATES.get((op, _library(arrays[0])), ()):
        objection = candidate.refuses(*arrays, **options)
        if objection is None:
            return candidate, "fits these shapes and dtypes"
        objections.append(f"{candidate.name}: {objection}")
    return None, "; ".join(objections) or "no kernel for this op"


def _all() -> Iterator[Candidate]:
    return itertools.chain.from_iterable(CANDIDATES.values())


def _library(array: Array) -> str:
    name = array_api_compat.array_namespace(array).__name__
    return name.removeprefix("array_api_compat.").partition(".")[0]


@cache
def load_kernels(name: str, module: str) -> Any:
    """A module of kernels, imported at first use: ``load_kernels("numba", "tape")``."""
    return importlib.import_module(f"xpmlp.kernels.{name}.{module}")


@cache
def _load(target: str) -> Callable:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)
