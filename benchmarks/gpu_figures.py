"""Parts of ``benchmarks.gpu`` that time single operations against torch, CuPy and plain copies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import cupy
import numpy as np

from xpmlp import ops, to_numpy
from xpmlp.bench.timing import time_limit
from xpmlp.kernels.cuda import cublas

from .gpu import FAILED, Row, guarded, sized
from .gpu_timing import Times, device_note, host_note, times_of, torch_on_cuda, without_kernels

_EACH = 0.4  # seconds of timing a case
_IN_CACHE = 48 << 20
_COPY_ELEMENTS = sized(1 << 28, 1 << 14)  # float32: one GiB is read and one written
# (rows, classes), and which share of a copy's speed is promised there.
_SOFTMAX = (
    ((sized(8192, 2), 50257), 0.85),
    ((sized(4096, 2), 128256), 0.85),
    ((sized(8192, 8), 1000), None),
    ((sized(65536, 64), 10), None),
)
COMPILED = tuple(size for size, _ in _SOFTMAX)
"""For which sizes torch.compile is asked as well."""
# (count, m, k, n)
_PRODUCTS = (
    (sized(4096, 4), 32, 32, 32),
    (sized(1024, 2), 64, 64, 64),
    (sized(1024, 2), 128, 64, 128),
    (sized(64, 2), *3 * (sized(512, 96),)),
    (sized(16, 2), *3 * (sized(2048, 112),)),
)


def floors(deadline: float) -> Iterator[Row]:
    """What the device can do: a plain copy, and large products in each precision."""
    yield from guarded("plain copy", _plain_copy())
    for precision in ("float32", "TF32", "bfloat16", "float16"):
        n = sized(8192 if precision != "float32" else 4096, 64)
        yield from guarded(f"product {n}³ {precision}", _large_product(n, precision))


def _plain_copy() -> Iterator[Row]:
    yield Row("plain copy", copy_speed() / 1e9, "GB/s", note="1 GiB read and 1 GiB written")


def _large_product(n: int, precision: str) -> Iterator[Row]:
    a = _noise(n, n).astype(_dtype(precision))  # of zeros and ones it would be faster
    with _precision(precision == "TF32"):
        ops.matmul(a, a)
        seconds = times_of({"ours": lambda: ops.matmul(a, a)}, _EACH / 2)["ours"].device
    yield Row(f"product {n}³ {precision}", 2 * n**3 / seconds / 1e12, "TFLOP/s")


def copy_speed() -> float:
    """Bytes in a second, read and written together."""
    a = _noise(_COPY_ELEMENTS)
    b = cupy.empty_like(a)
    runs = {
        "kernel": lambda: cupy.multiply(a, np.float32(1), out=b),
        "memcpy": lambda: b.data.copy_from_device_async(a.data, a.nbytes),
    }
    for run in runs.values():
        run()
    return 2 * a.nbytes / min(times.device for times in times_of(runs, _EACH).values())


def softmax_cross_entropy(deadline: float) -> Iterator[Row]:
    """Loss and gradient, against torch's forward and backward and CuPy's reference."""
    torch, copy = torch_on_cuda(), copy_speed()
    for size, share in _SOFTMAX:
        for dtype in ("float32", "bfloat16"):
            what = f"{size} {dtype}"
            if time.perf_counter() > deadline - 3:
                yield Row(what, note="left out: no time was left")
                continue
            yield from guarded(what, _loss(torch, what, size, dtype, share, copy))


def _loss(
    torch: Any, what: str, size: tuple[int, int], dtype: str, share: float | None, copy: float
) -> Iterator[Row]:
    rows, classes = size
    _free(torch)
    wide = _noise(rows, classes)
    logits = wide.astype(_dtype(dtype), copy=False)
    labels = cupy.asarray(np.random.default_rng(1).integers(0, classes, rows))
    runs: dict[str, Callable[[], Any]] = {"ours": lambda: ops.softmax_cross_entropy(logits, labels)}
    runs |= _softmax_peers(torch, wide, labels, dtype, size in COMPILED)
    wrong = _compare_softmax(runs)
    if wrong:
        yield Row(f"{FAILED}{what}", note=wrong)
        return
    if rows * classes < 1 << 26:  # the reference makes a dozen arrays of that size
        runs["plain CuPy"] = without_kernels(lambda: ops.softmax_cross_entropy(logits, labels))
        _drop_if_it_fails(runs, "plain CuPy")
    times = times_of(runs, _EACH)
    moved = 2.0 * logits.nbytes + 8 * rows
    speed = moved / times["ours"].device / copy
    bar = "" if share is None else f"≥ {share:.2f} of a copy"
    met = None if share is None else speed >= share
    note = device_note(times)
    if moved < _IN_CACHE:
        note += "; all of it stays in the cache, copies do not"
    yield Row(what, speed, "of a copy", bar, met, note, host_note(times))
    yield from _ratios(what, times, {"torch": 2.0, "torch.compile": 1.0})


def _drop_if_it_fails(runs: dict[str, Callable], name: str) -> None:
    """One of the others may not know a type, or run out of memory; ours is measured all the same"""
    try:
        runs[name]()
    except Exception as error:
        print(f"{name}: {error}")
        del runs[name]


def _softmax_peers(
    torch: Any, wide: Any, labels: Any, dtype: str, compile_too: bool
) -> dict[str, Callable]:
    if torch is None:
        return {}
    logits = torch.from_dlpack(wide).to(getattr(torch, dtype)).detach().clone()
    logits.requires_grad_(True)
    targets = torch.from_dlpack(labels)

    def loss_of(logits: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits, targets)

    def both(forward: Callable) -> Callable:
        def run() -> tuple[Any, Any]:
            loss = forward(logits)
            return loss, torch.autograd.grad(loss, logits)[0]

        return run

    runs = {"torch": both(loss_of)}
    if compile_too:
        torch.compiler.reset()
        compiled = both(torch.compile(loss_of, dynamic=False))
        try:
            with time_limit(20):
                compiled()
        except Exception as error:  # its compiler may be missing
            print(f"torch.compile: {type(error).__name__}: {error}")
        else:
            runs["torch.compile"] = compiled
    return runs


def compile_torchs_loss(size: tuple[int, int], dtype: str) -> None:
    """What ``torch.compile`` makes of loss and gradient, for its cache."""
    torch = torch_on_cuda()
    if torch is not None:
        labels = cupy.asarray(np.random.default_rng(1).integers(0, size[1], size[0]))
        found = _softmax_peers(torch, _noise(*size), labels, dtype, True)
        print(", ".join(found))


def _compare_softmax(runs: dict[str, Callable]) -> str:
    """Loss and some rows of the gradient against torch's, in words if they differ."""
    loss, gradient = runs["ours"]()
    if "torch" not in runs:
        return ""
    expected, wanted = runs["torch"]()
    few = slice(None, None, max(1, gradient.shape[0] // 64))
    ours = to_numpy(gradient[few].astype(np.float32))
    theirs = wanted[few].float().cpu().numpy()
    half = np.dtype(gradient.dtype).itemsize == 2
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    gap = abs(float(loss.astype(np.float32)) - float(expected)) / abs(float(expected))
    if error > (1e-2 if half else 1e-5) or gap > (1e-2 if half else 1e-5):
        return f"gradient off by {error:.1e} of its largest value, loss by {gap:.1e} of its own"
    return ""


def matmul(deadline: float) -> Iterator[Row]:
    """Forward and both backward products, in every precision, against torch.bmm and CuPy."""
    torch = torch_on_cuda()
    for size in _PRODUCTS:
        for precision in ("float32", "TF32", "bfloat16"):
            for kind in ("a b", "dy bᵀ", "aᵀ dy"):
                what = f"{size[0]}×({size[1]}×{size[2]}×{size[3]}) {precision}, {kind}"
                if time.perf_counter() > deadline - 2:
                    yield Row(what, note="left out: no time was left")
                    continue
                yield from guarded(what, _product(torch, what, size, precision, kind))


def _product(
    torch: Any, what: str, size: tuple[int, ...], precision: str, kind: str
) -> Iterator[Row]:
    count, m, k, n = size
    dtype = _dtype(precision)
    shapes = {"a b": ((m, k), (k, n)), "dy bᵀ": ((m, n), (n, k)), "aᵀ dy": ((k, m), (m, n))}[kind]
    a, b = (_noise(count, *shape) for shape in shapes)
    # Transposed operands are stored the other way round, as they are in a backward pass.
    if kind == "aᵀ dy":
        a = cupy.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)
    if kind == "dy bᵀ":
        b = cupy.ascontiguousarray(b.swapaxes(1, 2)).swapaxes(1, 2)
    expected = to_numpy(a[0]).astype(np.float64) @ to_numpy(b[0]).astype(np.float64)
    x, y = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    with _precision(precision == "TF32"):
        runs: dict[str, Callable] = {"ours": lambda: ops.matmul(x, y)}
        found = to_numpy(runs["ours"]()[0].astype(np.float32))
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        if error > {"float32": 1e-5, "TF32": 2e-3, "bfloat16": 1.5e-2}[precision]:
            yield Row(f"{FAILED}{what}", note=f"off by {error:.1e} of the largest value")
            return
        if torch is not None:
            torch.backends.cuda.matmul.allow_tf32 = precision == "TF32"
            tx, ty = torch.from_dlpack(a), torch.from_dlpack(b)
            if precision == "bfloat16":
                tx, ty = tx.bfloat16(), ty.bfloat16()
            runs["torch.bmm"] = lambda: torch.bmm(tx, ty)
        runs["cupy.matmul"] = lambda: cupy.matmul(x, y)
        for name in [name for name in runs if name != "ours"]:
            _drop_if_it_fails(runs, name)
        times = times_of(runs, _EACH / 4)
    speed = 2.0 * count * m * k * n / times["ours"].device / 1e12
    bar, met = "", None
    if "torch.bmm" in times:
        ratio = times["torch.bmm"].device / times["ours"].device
        bar, met = f"≥ 1.0× torch.bmm: {ratio:.2f}×", ratio >= 1.0
    yield Row(what, speed, "TFLOP/s", bar, met, device_note(times), host_note(times))
    if "cupy.matmul" in times and kind != "a b" and precision == "float32":
        yield from _ratios(what, times, {"cupy.matmul": 2.0})


def _ratios(what: str, times: dict[str, Times], bars: dict[str, float]) -> Iterator[Row]:
    """How many times as long the others take."""
    for name, bar in bars.items():
        if name in times:
            ratio = times[name].device / times["ours"].device
            yield Row(f"{what} against {name}", ratio, "×", f"≥ {bar:g}×", ratio >= bar)


def _noise(*shape: int) -> Any:
    """Normal numbers, repeated after so many that rows still differ."""
    few = cupy.asarray(np.random.default_rng(0).standard_normal((1 << 20) + 7, dtype=np.float32))
    size = math.prod(shape)
    return cupy.tile(few, -(-size // few.size))[:size].reshape(shape)


def _dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return np.float16 if name == "float16" else np.float32


def _precision(tf32: bool) -> Any:
    return cublas.tensor_float_32() if tf32 else nullcontext()


def _free(torch: Any) -> None:
    """Gives memory of earlier cases back: the largest need all of it."""
    cupy.get_default_memory_pool().free_all_blocks()
    if torch is not None:
        torch.cuda.empty_cache()
