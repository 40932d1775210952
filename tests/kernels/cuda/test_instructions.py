"""How many instructions an element costs in cross-entropy's loops over a wide row.

That row is bound by memory only as long as these are few. Counted in machine code where NVIDIA's
disassembler is installed, else in PTX, which has up to three more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import pytest
from kernels.cuda import nvrtc
from kernels.cuda.test_compile import BY_CUPY

from xpmlp.kernels.cuda import source

AT_ONCE = 4  # vectors in a round of a loop, as in cross_entropy_by_blocks.cuh
VECTOR = {"f32": 4, "f16": 8, "bf16": 8}
MACHINE_CODE = (r"LDG\.E\.128", r"MUFU\.EX2", r"STG\.E\.128")
PTX = (r"ld\.global\S*\.v4", r"ex2\.approx", r"st\.global\S*\.v4")


def loops(text: str) -> Iterator[list[str]]:
    """The instructions from each label to a branch back to it."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in map(str.strip, text.splitlines()):
        line = re.sub(r"^/\*[0-9a-f]{4,}\*/\s+", "", line)  # the disassembler's addresses
        if label := re.fullmatch(r"([.$]L\w+):", line):
            labels[label[1]] = len(instructions)
        elif line.endswith(";") and not line.startswith("."):
            instructions.append(line)
            target = re.search(r"\bbra\b.*?([.$]L\w+)", line, re.IGNORECASE)
            if target and target[1] in labels:
                yield instructions[labels[target[1]] :]


def per_element(text: str, patterns: tuple[str, str, str], vector: int) -> list[float]:
    """Of the loops that read the row, sum up its exponentials, and write the gradient."""
    read, exponentials, written = [], [], []
    for body in loops(text):
        loads, powers, stores = (
            sum(bool(re.search(pattern, line)) for line in body) for pattern in patterns
        )
        if loads == AT_ONCE and not powers:
            read.append(len(body))
        elif stores == AT_ONCE:
            written.append(len(body))
        elif powers == AT_ONCE * vector and not loads:
            exponentials.append(len(body))
    found = read, exponentials, written
    return [min(sizes, default=math.inf) / (AT_ONCE * vector) for sizes in found]


@pytest.mark.parametrize(("suffix", "most"), [("f32", 12.5), ("f16", 14.5), ("bf16", 14.5)])
@pytest.mark.parametrize("layout", ["block", "cluster4_hits"])
def test_a_wide_row_takes_few_instructions_an_element(suffix, most, layout):
    if nvrtc.library() is None:
        pytest.skip(nvrtc.MISSING)
    disassembler = nvrtc.disassembler()
    kernel = f"softmax_cross_entropy_{layout}_{suffix}"
    text = source.unit("softmax_cross_entropy", suffix, kernel)
    architecture = "sm_90" if disassembler else "compute_90"
    worked, log, code = nvrtc.compile_source(text, "x.cu", (*BY_CUPY, f"-arch={architecture}"))
    assert worked, log
    if disassembler:
        counts = per_element(nvrtc.disassemble(code), MACHINE_CODE, VECTOR[suffix])
    else:
        counts = per_element(code.decode(), PTX, VECTOR[suffix])
        most += 3
    if "hits" in layout:
        most += 1
    assert sum(counts) <= most, counts
