"""The tables of how time and memory grow."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

from benchmarks import scale


def test_each_axis_grows_alone():
    axes: dict[str, list] = {}
    for axis, net in scale.nets():
        axes.setdefault(axis, []).append(
            (net.batch, max(net.sizes[1:]), len(net.sizes), net.members)
        )
    assert len(axes) == 4
    for nets in axes.values():
        assert sum(len(set(values)) > 1 for values in zip(*nets, strict=True)) == 1
        assert nets == sorted(nets, key=lambda net: [part or 0 for part in net])


@pytest.mark.skipif(sys.platform != "linux", reason="memory as Linux tells it")
def test_a_training_takes_little_more_than_its_data():
    got = scale.train_on(200_000)
    assert got["data"] == 200_000 * (4 * scale.FEATURES + 8)
    assert 0 <= got["more"] < got["data"] + 50e6 and got["seconds"] > 0


def test_a_line_for_each_network(monkeypatch, capsys):
    rows = [
        {
            "axis": "hidden layers",
            "name": "a",
            "results": {"xpmlp": {"median": 1e-3}, "torch": {"median": 2e-3}},
        },
        {
            "axis": "hidden layers",
            "name": "b",
            "results": {},
            "wrong": {"xpmlp": "off"},
            "not_run": {},
        },
    ]
    monkeypatch.setattr(scale, "measure_steps", lambda seconds: iter(rows))
    scale.print_steps(1.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "| hidden layers | xpmlp | torch |"
    assert lines[3:] == ["| a | 1.00 ms | 2.00× |", "| b | {'xpmlp': 'off'} |"]
