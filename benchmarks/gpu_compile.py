"""Parts of ``benchmarks.gpu`` that fill caches, in as many processes as there are processors.

A kernel is compiled at its first launch, one after the other: seconds each where it is NumPy's or
torch's. Their compilers keep what they made on disk, for the processes of the parts to come.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from .gpu import FAILED, ROOT, Row

_LATE = "no time was left"
_ALONE = {"OMP_NUM_THREADS": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def kernels(deadline: float) -> Iterator[Row]:
    """All of xpmlp's CUDA kernels, and those of a training step on NumPy."""
    from xpmlp.kernels.cuda import source

    works = [["numpy"]]
    works += [["cuda", op, suffix] for op in reversed(source.OPS) for suffix in _suffixes()]
    yield from _together(works, deadline)


def peers(deadline: float) -> Iterator[Row]:
    """What torch.compile makes for the figures to come."""
    from .gpu_figures import COMPILED

    try:
        import torch  # noqa: F401
    except ImportError:
        yield Row("torch", note="left out: not installed")
        return
    sizes = [[*map(str, size), dtype] for size in COMPILED for dtype in ("float32", "bfloat16")]
    yield from _together([["step"], *(["loss", *size] for size in sizes)], deadline)


def _suffixes() -> list[str]:
    from xpmlp.kernels.cuda import source

    return list(source.SUFFIXES.values())


def _together(works: list[list[str]], deadline: float) -> Iterator[Row]:
    begin = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        ended = list(pool.map(lambda work: _work(work, deadline), works))
    late = [" ".join(work) for work, problem in zip(works, ended, strict=True) if problem == _LATE]
    note = f"not in time: {', '.join(late)}" if late else ""
    yield Row(f"{len(works)} processes", time.perf_counter() - begin, "s", note=note)
    for work, problem in zip(works, ended, strict=True):
        if problem not in ("", _LATE):
            yield Row(f"{FAILED}compiling {' '.join(work)}", note=problem[:300])


def _work(arguments: list[str], deadline: float) -> str:
    """What went wrong in a process of its own, if anything did."""
    left = deadline - time.perf_counter() - 1
    if left < 1:
        return _LATE
    command = [sys.executable, "-m", "benchmarks.gpu_compile", *arguments]
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=os.environ | _ALONE, capture_output=True, text=True, timeout=left
        )
    except subprocess.TimeoutExpired:
        return _LATE  # what needs it will wait for it
    print(f"===== {' '.join(arguments)}\n{ended.stdout}{ended.stderr}", flush=True)
    return "" if ended.returncode == 0 else (ended.stderr.strip() or "?").splitlines()[-1]


def compile_cuda(op: str, suffix: str) -> None:
    """Every kernel of a source, one by one, as their first launches would."""
    import cupy

    from xpmlp.kernels.cuda import launch, source

    whole, _ = cupy.cuda.compiler.compile_using_nvrtc(source.unit(op, suffix), source.OPTIONS)
    names = sorted(names_in(whole))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: launch._kernel(op, suffix, name, 0, 0), names))
    print(f"{len(names)} kernels")


def names_in(cubin: bytes) -> set[str]:
    """The kernels in a cubin: each has its code in a section of that name."""
    return {name.decode() for name in re.findall(rb"\0\.text\.(\w+)(?=\0)", cubin)}


def compile_numpys() -> None:
    """What the CPU's side of the comparison needs."""
    from .gpu_places import warm_up

    warm_up()


def compile_step() -> None:
    """torch's training step, with reduce-overhead."""
    from .gpu_training import compile_torchs_step

    compile_torchs_step()


def compile_loss(rows: int, classes: int, dtype: str) -> None:
    """torch's loss and gradient."""
    from .gpu_figures import compile_torchs_loss

    compile_torchs_loss((rows, classes), dtype)


def main(arguments: list[str]) -> None:
    kind, *rest = arguments
    if kind == "cuda":
        compile_cuda(*rest)
    elif kind == "numpy":
        compile_numpys()
    elif kind == "step":
        compile_step()
    else:
        compile_loss(int(rest[0]), int(rest[1]), rest[2])


if __name__ == "__main__":
    main(sys.argv[1:])
