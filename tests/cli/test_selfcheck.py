"""``xpmlp selfcheck``."""

from __future__ import annotations

import json

import pytest


@pytest.mark.usefixtures("in_empty_folder")
def test_the_command(command, monkeypatch):
    monkeypatch.setattr("xpmlp.testing.selfcheck._layer_cases", lambda: {"relu": ("relu", True)})
    status, out, err = command("selfcheck", "--backends", "numpy", "--json")
    told = json.loads(out)
    assert status == 0 and told["passed"] and all(check["passed"] for check in told["checks"])
    status, out, _ = command("selfcheck", "--backends", "numpy")
    assert status == 0 and "0 wrong" in out
    monkeypatch.setattr("xpmlp.cli.selfcheck.console.width", 40)
    status, out, _ = command("selfcheck", "--backends", "numpy")
    assert "gradients" in out and "…" not in out and max(map(len, out.splitlines())) <= 40
    monkeypatch.setattr("xpmlp.testing.selfcheck.AGREEMENT", 0.0)
    monkeypatch.setattr("xpmlp.testing.selfcheck.PUBLISHED", -1.0)
    status, out, _ = command("selfcheck", "--backends", "numpy")
    assert status == 1 and "WRONG" in out
    status, _, err = command("selfcheck", "--backends", "nunpy")
    assert status in (1, 2) and "--backends" in err
