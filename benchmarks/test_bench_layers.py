"""Benchmarks of layers, forward and backward, beside other libraries."""

from __future__ import annotations

GROUP = "layers"


def test_bench(case, contestant, run_case):
    run_case(case, contestant)
