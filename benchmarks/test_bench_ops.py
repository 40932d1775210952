"""Benchmarks of single operations, beside other libraries."""

from __future__ import annotations

GROUP = "ops"


def test_bench(case, contestant, run_case):
    run_case(case, contestant)
