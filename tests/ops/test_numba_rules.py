"""Which numba the kernels take."""

from __future__ import annotations

import importlib.metadata

import pytest

from xpmlp.ops import numba_rules


@pytest.mark.parametrize(
    ("version", "requires", "numpy", "usable"),
    [
        ("0.68.1", ["llvmlite<0.51", "numpy<2.6,>=1.22"], "2.5.2", True),
        ("0.68.1", ["llvmlite<0.51", "numpy<2.6,>=1.22"], "2.6.0", False),
        ("0.68.1", ["numpy (>=1.22,<=2.5)"], "2.5.2", True),
        ("0.68.1", ["numpy (>=1.22,<=2.5)"], "2.10.0", False),
        ("0.62.0", ["numpy>=1.24"], "2.10.0", True),
        ("0.61.2", ["numpy<2.6"], "2.5.2", False),
    ],
)
def test_numba_is_used_if_it_is_new_enough_and_made_for_this_numpy(
    monkeypatch, version, requires, numpy, usable
):
    """It raises when it is imported beside another one, which is not for a training to fail on."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
    monkeypatch.setattr(numba_rules.np, "__version__", numpy)
    assert numba_rules.installed.__wrapped__() is usable
