"""Which implementation runs, that it truly ran, and what ``explain`` says about it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from checks import torch_or_skip

from xpmlp import ops
from xpmlp.errors import ConfigError
from xpmlp.ops import dispatch
from xpmlp.ops.dispatch import Candidate


@pytest.fixture
def kernel(monkeypatch):
    """A kernel for NumPy's matmul that takes two-dimensional operands and counts its calls."""
    calls = []

    def matmul(a, b):
        calls.append((a.shape, b.shape))
        return np.full((a.shape[0], b.shape[1]), 42.0)

    def refuses(a, b):
        return None if a.ndim == b.ndim == 2 else "batches are not covered"

    module = types.ModuleType("fake_kernels")
    module.matmul = matmul
    monkeypatch.setitem(sys.modules, "fake_kernels", module)
    candidate = Candidate("matmul", "fake", "numpy", "fake_kernels:matmul", refuses)
    monkeypatch.setattr(dispatch, "CANDIDATES", dispatch.by_op(candidate))
    dispatch._load.cache_clear()
    yield calls
    dispatch._load.cache_clear()


PLAIN = np.ones((2, 3)), np.ones((3, 2))
BATCH = np.ones((4, 2, 3)), np.ones((4, 3, 2))


def test_kernel_runs_where_it_fits(kernel):
    assert (ops.matmul(*PLAIN) == 42).all()
    assert kernel == [((2, 3), (3, 2))]
    assert ops.explain("matmul", *PLAIN) == (
        "matmul on numpy: kernel fake (fits these shapes and dtypes)"
    )


def test_kernel_is_reached_from_other_ops_too(kernel):
    ops.linear(*PLAIN)
    assert len(kernel) == 1


def test_reference_runs_where_the_kernel_refuses(kernel):
    assert (ops.matmul(*BATCH) == 3).all()
    assert not kernel
    assert ops.explain("matmul", *BATCH) == (
        "matmul on numpy: array-API reference (fake: batches are not covered)"
    )


def test_reference_runs_for_arrays_of_another_library(kernel):
    torch = torch_or_skip()
    plain = [torch.tensor(a) for a in PLAIN]
    assert bool((ops.matmul(*plain) == 3).all())
    assert not kernel
    assert ops.explain("matmul", *plain) == (
        "matmul on torch: array-API reference (no kernel for this op)"
    )


def test_kernels_can_be_switched_off(kernel):
    with ops.without_kernels():
        assert (ops.matmul(*PLAIN) == 3).all()
        with ops.without_kernels():
            pass
        assert not kernel
        explanation = "matmul on numpy: array-API reference (without_kernels)"
        assert ops.explain("matmul", *PLAIN) == explanation
    assert (ops.matmul(*PLAIN) == 42).all()


@pytest.mark.parametrize(
    ("value", "off"),
    [("off", True), (" OFF ", True), ("0", True), ("", False), ("on", False), (None, False)],
)
def test_environment_switches_kernels_off_from_the_start(value, off):
    code = (
        "import numpy as np; from xpmlp import ops\n"
        "print(ops.explain('matmul', np.ones((300, 300)), np.ones((300, 300))))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "XPMLP_KERNELS"}
    if value is not None:
        environment["XPMLP_KERNELS"] = value
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert ("reference (XPMLP_KERNELS=" in said) == off


def test_first_candidate_that_accepts_wins(kernel, monkeypatch):
    first = Candidate("matmul", "picky", "numpy", "no.such:module", lambda a, b: "never")
    elsewhere = Candidate("matmul", "cuda", "cupy", "no.such:module", lambda a, b: None)
    other_op = Candidate("linear", "other", "numpy", "no.such:module", lambda a, b: None)
    known = dispatch.by_op(first, elsewhere, other_op, *dispatch.CANDIDATES["matmul", "numpy"])
    monkeypatch.setattr(dispatch, "CANDIDATES", known)
    assert (ops.matmul(*PLAIN) == 42).all()
    assert ops.explain("matmul", *BATCH).endswith("(picky: never; fake: batches are not covered)")


def test_kernel_module_is_loaded_at_first_use_only(kernel, monkeypatch):
    monkeypatch.delitem(sys.modules, "fake_kernels")
    ops.explain("matmul", *PLAIN)  # explaining loads nothing
    with pytest.raises(ModuleNotFoundError, match="fake_kernels"):
        ops.matmul(*PLAIN)


def test_explain_without_arrays_names_the_kernels(kernel):
    assert ops.explain("matmul") == (
        "matmul on any library: array-API reference (or, where it fits, kernel fake on numpy)"
    )
    assert ops.explain("dropout") == (
        "dropout on any library: array-API reference (no kernel for this op)"
    )


def test_explain_of_an_unknown_op_lists_the_known():
    with pytest.raises(ConfigError, match=r"among .*matmul.*got 'matmull'"):
        ops.explain("matmull", *PLAIN)


def test_kernel_summary(kernel, monkeypatch):
    assert dispatch.kernel_summary("numpy") == "fake for matmul; else array-API reference"
    assert dispatch.kernel_summary("torch") == "array-API reference"
    with ops.without_kernels():
        assert dispatch.kernel_summary("numpy") == "array-API reference (without_kernels)"
    monkeypatch.setattr(dispatch.numba_rules, "installed", lambda: False)
    assert 'pip install "xpmlp[fast]"' in dispatch.kernel_summary("numpy")


def test_every_candidate_names_a_known_op_and_library():
    for op, library in dispatch.CANDIDATES:
        assert op in ops.__all__
        assert library in ("numpy", "cupy")


def test_overlapping_blocks_in_two_threads_leave_kernels_as_they_were():
    before = dispatch.why_kernels_are_off()
    second_inside, first_outside = threading.Event(), threading.Event()

    def second():
        with ops.without_kernels():
            second_inside.set()
            assert first_outside.wait(10)
            assert dispatch.why_kernels_are_off()

    thread = threading.Thread(target=second)
    with ops.without_kernels():
        thread.start()
        assert second_inside.wait(10)
    assert dispatch.why_kernels_are_off(), "the other thread is still inside"
    first_outside.set()
    thread.join(10)
    assert dispatch.why_kernels_are_off() == before
