"""The kernels' LLVM code for 64-bit Arm: made into machine code here, never run."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

import llvmlite.binding as llvm
from numba import njit, types

from xpmlp.kernels.numba import simd
from xpmlp.kernels.numba.row_sums import centred_sums
from xpmlp.kernels.numba.softmax_rows import row_exponentials, row_maxima, scale_rows

TRIPLE = "aarch64-unknown-linux-gnu"
WORDS = {"float32": (".4s", "fmaf"), "float64": (".2d", "fma")}  # a vector; the C library's call


def passes(x, rows, columns, peaks, y, totals, zero):  # addresses: no references to be counted
    row_maxima(zero, x, rows, columns, peaks)
    row_exponentials(zero, x, rows, columns, peaks, y, columns, totals)
    scale_rows(zero, y, columns, rows, columns, totals, y)
    return centred_sums(zero, x, columns)


@pytest.mark.parametrize("dtype", WORDS)
def test_passes_over_rows_become_vectors_of_128_bits(dtype, monkeypatch):
    monkeypatch.setattr(simd, "target", lambda: simd.Target(128, 32, True, False))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu="neoverse-n1", opt=2)
    function = njit(passes)
    signature = (*(types.intp,) * 6, getattr(types, dtype))
    function.compile(signature)
    code = function.inspect_llvm(signature)
    code = re.sub(r"target triple = .*", f'target triple = "{TRIPLE}"', code)
    code = re.sub(r"target datalayout = .*", f'target datalayout = "{machine.target_data}"', code)
    assembly = machine.emit_assembly(llvm.parse_assembly(code))
    vector, call = WORDS[dtype]
    assert re.search(rf"fml[as]\s+v\d+\{vector}", assembly)  # multiply-adds, rounded once
    assert not re.search(rf"bl\s+{call}\b", assembly)
