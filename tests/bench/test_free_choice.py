"""Libraries beside us run the code that they choose themselves."""

from __future__ import annotations

import sys

import pytest

from xpmlp.bench import free_choice
from xpmlp.bench.suite import run_suite


def test_variables_and_who_obeys_them(monkeypatch):
    assert free_choice.forced() == {}
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert free_choice.forced("numpy") == {"OPENBLAS_CORETYPE": "Haswell"}
    assert free_choice.forced("torch") == {"ATEN_CPU_CAPABILITY": "avx2"}
    assert free_choice.forced("jax") == {}
    assert free_choice.as_text(free_choice.forced()) == (
        "OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2"
    )
    assert not free_choice.FORCING.keys() & free_choice.environment().keys()


def test_products_are_tried_first(monkeypatch):
    assert free_choice.problem_without() is None
    monkeypatch.setattr(free_choice, "_TRY", "assert 1 + 1 == 3, 'wrong'")
    assert free_choice.problem_without() == "NumPy's product fails: AssertionError: wrong"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_processor_that_lacks_the_instructions(monkeypatch):
    monkeypatch.setattr(free_choice, "_TRY", "import os, signal; os.kill(os.getpid(), 4)")
    assert free_choice.problem_without() == "NumPy's product ends with signal 4"


def test_a_suite_says_whom_it_leaves_out(monkeypatch, tiny):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    record = run_suite(peers="numpy,sklearn", only="softmax", quick=True, seconds=0.0)
    assert all("OPENBLAS_CORETYPE=Haswell" in why for why in record["missing"].values())
    assert record["missing"].keys() == {"NumPy alone", "scikit-learn"}
