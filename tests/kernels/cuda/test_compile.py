"""Every source compiles with NVRTC for every architecture: no warning, no spill, few registers.

Needs no GPU. The compiler is the one that CuPy uses on a device.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kernels.cuda import nvrtc

from xpmlp.kernels.cuda import source

ARCHITECTURES = (75, 80, 90, 100)
# What CuPy adds by itself, beside the architecture.
BY_CUPY = (*source.OPTIONS, "-ftz=true", "--device-as-default-execution-space")
# More would leave too few warps on a multiprocessor to hide the memory's latency: 168 leave 12, 128
# leave 16, 64 leave 32. The most that any of an op's kernels takes today, and a little room.
REGISTERS = {
    "batch_norm": 128,
    "batched_matmul": 192,  # on sm_100; 136 before
    "bias_activation": 128,
    "dropout": 56,
    "gather": 60,
    "layer_norm": 112,
    "softmax_cross_entropy": 184,
    "update": 124,
}


def compiled(op: str, suffix: str, architecture: int, text: str | None = None):
    options = (*BY_CUPY, f"-arch=sm_{architecture}", "--ptxas-options=-v")
    text = source.unit(op, suffix) if text is None else text
    return nvrtc.compile_source(text, f"{op}.cu", options)


@pytest.fixture(autouse=True)
def compiler():
    if nvrtc.library() is None:
        pytest.skip(nvrtc.MISSING)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("op", source.OPS)
def test_a_source_compiles_without_warnings_and_spills(op, architecture):
    if architecture not in nvrtc.architectures():
        pytest.skip(f"this NVRTC knows no sm_{architecture}")
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda suffix: compiled(op, suffix, architecture), source.ACCUMULATOR)
    for suffix, (worked, log, code) in zip(source.ACCUMULATOR, results, strict=True):
        assert worked, log
        assert "warning" not in log, log
        assert code.startswith(b"\x7fELF")
        kernels = nvrtc.usages(log)
        assert len(kernels) == log.count("Compiling entry function") > 0
        for kernel in kernels:
            assert kernel.kernel.endswith(f"_{suffix}")
            assert kernel.stack == kernel.spills == 0, kernel
            assert kernel.registers <= REGISTERS[op], kernel
        assert ("cluster8" in log) == (op == "softmax_cross_entropy" and architecture >= 90)


@pytest.mark.parametrize("op", source.OPS)
def test_a_kernel_is_compiled_without_the_others(op):
    """What a launch compiles; above are all at once, which is faster and knows what is unused."""
    worked, log, _ = compiled(op, "bf16", 90)
    assert worked, log
    names = [kernel.kernel for kernel in nvrtc.usages(log)]
    for name in {names[0], names[-1]}:
        worked, log, _ = compiled(op, "bf16", 90, source.unit(op, "bf16", name))
        assert worked, log
        assert [kernel.kernel for kernel in nvrtc.usages(log)] == [name]


FAULTS = {
    "unused variable": "int unused;",
    "array in local memory": "volatile float a[9]; a[n] = x[n]; x[n] = a[n + 1];",
    "error": "x = n;",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_closes(fault):
    text = f'extern "C" __global__ void faulty_f32(float* x, int n) {{ {FAULTS[fault]} }}'
    worked, log, _ = compiled("dropout", "f32", 90, text)
    found = ["warning" in log, any(kernel.stack for kernel in nvrtc.usages(log)), not worked]
    assert found[list(FAULTS).index(fault)]


def test_messages_name_the_file_and_line():
    text = source.unit("dropout", "f32").replace("load_quad(x + begin", "load_quads(x + begin", 1)
    worked, log, _ = compiled("dropout", "f32", 90, text)
    lines = Path(source.__file__).with_name("dropout.cu").read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "load_quad(" in line)
    assert not worked
    assert f"dropout.cu({number})" in log


@pytest.mark.parametrize("suffix", ["f32", "bf16"])
def test_rows_are_read_and_written_sixteen_bytes_at_a_time(suffix):
    """A compiler takes a vector store apart in silence where a branch stores the same elements."""
    text = source.unit("softmax_cross_entropy", suffix)
    options = (*BY_CUPY, "-arch=compute_90")
    worked, log, ptx = nvrtc.compile_source(text, "softmax_cross_entropy.cu", options)
    assert worked, log
    for layout, pieces in (
        ("thread", 1),
        ("32x4", 4),
        ("block", 4),
        ("cluster4", 4),
        ("stream", 1),
    ):
        body = ptx.decode().split(f".entry softmax_cross_entropy_{layout}_{suffix}(")[1]
        body = body.split("\n}")[0]
        assert len(re.findall(r"ld\.global\.v4", body)) >= pieces, layout
        assert len(re.findall(r"st\.global\.v4", body)) >= pieces, layout
