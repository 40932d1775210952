"""Benchmarks of training: a step, an epoch, the time until a network is good enough."""

from __future__ import annotations

GROUP = "training"


def test_bench(case, contestant, run_case):
    run_case(case, contestant)
