"""The check of it all finds what is wrong, and leaves nothing out."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from xpmlp import losses, ops
from xpmlp.layers import Tanh
from xpmlp.ops import dispatch
from xpmlp.testing import samples
from xpmlp.testing.selfcheck import Check, selfcheck


def test_numpy_passes_and_every_kind_is_checked():
    checks = list(selfcheck(("numpy",)))
    assert [f"{c.what}: {f}" for c in checks for f in c.failures] == []
    assert all(check.passed for check in checks)
    assert [check.what for check in checks] == [
        "gradients of layers",
        "gradients of losses",
        "published values (CS231n)",
        "layers",
        "losses",
        "optimizers",
        "training steps",
        "kernels",
    ]


def test_every_loss_has_a_sample():
    made = {type(make()).__name__ for make in samples.LOSSES.values()}
    assert made == set(losses.__all__) - {"Loss", "loss_for"}


def test_every_kernel_has_a_call_that_it_takes(monkeypatch):
    calls = samples.kernel_calls(np.random.default_rng(0))
    assert set(calls) == {op for op, _ in dispatch.CANDIDATES}
    if dispatch.kernel_summary("numpy").startswith("array-API"):
        pytest.skip("no kernels for NumPy here")
    importlib.import_module("xpmlp.ops.softmax_cross_entropy")._chosen.clear()  # its own memo
    loaded, load = [], dispatch._load
    monkeypatch.setattr(dispatch, "_load", lambda target: loaded.append(target) or load(target))
    for (op, library), candidates in dispatch.CANDIDATES.items():
        if library == "numpy":
            arrays, options = calls[op]
            getattr(ops, op)(*arrays, **options)
            assert loaded.pop() in {candidate.target for candidate in candidates}, op


def test_a_wrong_backward_is_found(monkeypatch):
    right = Tanh.backward
    monkeypatch.setattr(Tanh, "backward", lambda self, dy: 1.001 * right(self, dy))
    failed = {check.what: check for check in selfcheck(("numpy",)) if not check.passed}
    assert set(failed) == {"gradients of layers"}
    assert any(line.startswith("tanh") for line in failed["gradients of layers"].failures)


def test_a_wrong_library_is_found(monkeypatch):
    """One that adds 0.1 % too much wherever it is not the reference."""
    right = ops.matmul

    def wrong(a, b):
        y = right(a, b)
        return y * 1.001 if y.dtype == np.float32 else y

    monkeypatch.setattr("xpmlp.ops.matmul", wrong)
    failed = {check.what for check in selfcheck(("numpy",)) if not check.passed}
    assert "layers" in failed


def test_what_raises_or_is_no_number_has_failed():
    def broken():
        raise ZeroDivisionError("no")

    check = Check("x", "numpy").run({"a": broken, "b": lambda: float("nan"), "c": lambda: 0.0})
    assert not check.passed and len(check.failures) == 2 and check.count == 3
    assert not Check("nothing", "numpy").passed
    assert Check("kernels", "torch", note="none here").passed
