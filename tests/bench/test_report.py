"""Tables and pictures of a record that was written by hand."""

from __future__ import annotations

import copy

import pytest

from xpmlp.bench.plot import plot_record
from xpmlp.bench.report import conditions, duration, main_table, markdown, notes, summary_table
from xpmlp.errors import DataError


def result(seconds):
    return {"median": seconds, "p20": seconds, "p80": seconds, "samples": 5, "calls": 1}


def case(name, ours, torch, **changes):
    return {
        "kind": "matmul",
        "name": name,
        "group": "ops",
        "floor_seconds": ours / 2,
        "kernels": {"xpmlp": ["matmul on numpy: kernel numba (fits these shapes and dtypes)"]},
        "results": {"xpmlp": result(ours), "torch": result(torch)},
        "not_run": {},
        "wrong": {},
        **changes,
    }


@pytest.fixture
def record():
    lost = case("c", 1e-3, 1.0, wrong={"torch": "off by 1.0"}, floor_seconds=None)
    del lost["results"]["torch"]
    nothing = case("d", 1.0, 1.0, results={}, skipped="MNIST is not here")
    return {
        "format": "xpmlp-bench-1",
        "date": "2026-01-02T03:04:05+00:00",
        "quick": True,
        "machine": {
            **{"cpu": "A CPU", "processors": 2, "memory_gb": 4.0},
            **{"system": "Linux x86_64", "python": "3.12.0"},
        },
        "versions": {"xpmlp": "0.1.0"},
        "backends": ["numpy"],
        "threads": {"xpmlp": "2 (processors)"},
        "missing": {"thinc": "not installed (thinc)"},
        "floors": {"copy_gb_per_second": {"4096": 30.0}, "product_gflop_per_second": 250.0},
        "cases": [case("a", 2e-6, 8e-6), case("b", 2e-3, 1e-3), lost, nothing],
    }


def test_the_table_has_times_ratios_floor_and_kernel(record):
    table = main_table(record)
    assert table.headers == ["case", "xpmlp", "torch", "of floor", "runs"]
    rows = [cells for _, cells in table.rows]
    assert rows[0] == ["matmul a", "2.00 µs", "4.00×", "2.00×", "numba"]
    assert rows[1][1:3] == ["2.00 ms", "0.50×"]
    assert rows[2][1:4] == ["1.00 ms", "wrong", "·"]
    assert rows[3][1:4] == ["·", "·", "·"]
    assert table.ratios[0][2] == pytest.approx(4.0)


def test_what_runs_is_read_from_the_explanations(record):
    record["cases"][0]["kernels"]["xpmlp"] = [
        "linear on numpy: array-API reference (no kernel for this op)",
        "softmax_cross_entropy on numpy: kernel numba (fits these shapes and dtypes)",
    ]
    assert main_table(record).rows[0][1][-1] == "reference, numba"


def test_the_summary_has_geometric_means_and_the_least(record):
    ((_, cells),) = summary_table(record).rows
    assert cells == ["matmul", "4", "1.41× (0.50×)"]  # √(4 · ½)


def test_notes_name_what_is_missing_wrong_and_left_out(record):
    assert notes(record) == [
        "thinc: missing, not installed (thinc)",
        "matmul c, torch: WRONG RESULT, off by 1.0",
        "matmul d: left out, MNIST is not here",
    ]


def test_markdown_holds_all_of_it(record):
    text = markdown(record)
    assert "| matmul a | 2.00 µs | 4.00× | 2.00× | numba |" in text
    for line in (*conditions(record), *notes(record)):
        assert f"- {line}" in text
    assert "copy 30–30 GB/s" in text and "250 GFLOP/s" in text and "--quick" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3.20 s"), (0.0123, "12.3 ms"), (1.5e-4, "150 µs"), (4e-8, "0.04 µs")],
)
def test_durations_have_three_digits_and_a_unit(seconds, text):
    assert duration(seconds) == text


def test_the_plot_is_drawn_with_and_without_a_gpu(record, tmp_path):
    pytest.importorskip("matplotlib")
    figure = plot_record(record, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    (points,) = [line for line in axes.lines if line.get_label() == "torch"]
    assert points.get_xdata() == pytest.approx([4.0, 0.5])
    with_gpu = copy.deepcopy(record)
    with_gpu["cases"][0]["results"]["xpmlp on cupy"] = result(1e-6)
    panels = plot_record(with_gpu).axes
    assert len(panels) == 2
    assert [line.get_label() for line in panels[1].lines] == ["CPU (NumPy)", "GPU (CuPy)"]
    assert panels[1].lines[1].get_xdata() == pytest.approx([1e-3])


def test_nothing_measured_is_no_picture(record):
    record["cases"] = record["cases"][3:]
    with pytest.raises(DataError, match="got none"):
        plot_record(record)
