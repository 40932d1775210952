"""The run: every contestant is checked before it is timed, and nothing is left out in silence."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import numpy as np
import pytest

from xpmlp.bench import cases, ours, run_suite, suite
from xpmlp.bench.floors import Floors
from xpmlp.bench.peers import PEERS, choose_peers, numpy_alone
from xpmlp.bench.referee import Referee, WrongResultError
from xpmlp.bench.solver import Solver
from xpmlp.errors import BackendError, ConfigError

OPS = ("softmax_cross_entropy", "matmul", "linear", "batch_norm", "layer_norm", "dropout", "adam")
KINDS = (*OPS, "step", "population_step", "epoch")


@pytest.fixture(autouse=True)
def slow_floors(monkeypatch):
    """Floors that are not measured."""
    monkeypatch.setattr(Floors, "copy_speed", lambda self, moved: 1e10)
    monkeypatch.setattr(Floors, "product_speed", lambda self: 1e11)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["xpmlp", "torch", "jax"])
def test_every_library_solves_every_small_case_right(tiny, library):
    if library != "xpmlp":
        pytest.importorskip(library)
    builds = ours.solvers("numpy") if library == "xpmlp" else PEERS[library].solvers()
    checked, expected = set(), set(KINDS)
    if library == "jax":
        expected.remove("population_step")  # which is jax.vmap's
    for case in cases.all_cases():
        if case.kind in expected:
            case = case.for_check()
            case = dataclasses.replace(case, settings=case.settings | smaller(case))
            inputs = case.inputs()
            Referee(case, inputs).check(builds[case.kind](case, inputs))
            checked.add(case.kind)
    assert checked == expected


@pytest.mark.parametrize("peer", ["torch.vmap", "jax.vmap"])
def test_peers_for_populations_alone_solve_them_right(tiny, peer):
    pytest.importorskip(PEERS[peer].requires)
    builds = PEERS[peer].solvers()
    assert set(builds) == {"population_step"}
    populations = [case for case in cases.all_cases() if case.kind in builds]
    assert [case.settings["net"].loss for case in populations] == ["mse", "cross-entropy"]
    for case in populations:
        inputs = case.inputs()
        Referee(case, inputs).check(builds[case.kind](case, inputs))


def test_members_of_a_population_differ_and_each_has_its_own_loss(tiny):
    case = next(case for case in cases.all_cases() if case.kind == "population_step")
    solver = numpy_alone.SOLVERS[case.kind](case, case.inputs())
    (losses,) = solver.results(solver.run())
    assert losses.shape == (3,) and len(set(losses.tolist())) == 3


def smaller(case):
    return {"rows": 4000} if case.kind == "epoch" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_result_is_found(tiny, kind):
    """Each kind, with one number of one result changed."""
    case = next(case for case in cases.all_cases() if case.kind == kind).for_check()
    case = dataclasses.replace(case, settings=case.settings | smaller(case))
    inputs = case.inputs()
    good = numpy_alone.SOLVERS[kind](case, inputs)

    def results(output):
        *others, last = (np.array(result) for result in good.results(output))
        if kind == "epoch":
            return (0.5,)
        last.flat[0] += 0.01 * max(1.0, float(np.abs(last).max()))
        return (*others, last)

    with pytest.raises(WrongResultError):
        Referee(case, inputs).check(Solver(good.run, results))


def test_dropout_that_keeps_too_many_is_found(tiny):
    case = next(case for case in cases.all_cases() if case.kind == "dropout")
    inputs = case.inputs()
    everything = Solver(lambda: (inputs["x"] / 0.8, inputs["dy"] / 0.8))
    with pytest.raises(WrongResultError, match=r"1\.0000 kept where 0\.8"):
        Referee(case, inputs).check(everything)


@pytest.mark.slow
def test_a_record_has_all_that_is_promised(tiny):
    record = run_suite(peers="numpy", quick=True, seconds=0.01)
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {
        *("format", "date", "quick", "machine", "versions", "backends", "threads", "missing"),
        *("cases", "floors"),
    }
    assert record["format"] == "xpmlp-bench-1" and record["backends"] == ["numpy"]
    assert record["machine"]["cpu"] and record["versions"]["xpmlp"]
    assert [case["kind"] for case in record["cases"]] == [
        *("softmax_cross_entropy", "step", "step", "population_step", "epoch")
    ]
    for case in record["cases"]:
        assert (case["not_run"], case["wrong"]) == ({}, {}), case["name"]
        assert set(case["results"]) == {"xpmlp", "NumPy alone"}
        assert case["floor_seconds"] > 0 and case["kernels"]["xpmlp"]
        for result in case["results"].values():
            assert 0 < result["p20"] <= result["median"] <= result["p80"]
            assert result["samples"] >= 1
    assert "softmax_cross_entropy on numpy" in record["cases"][0]["kernels"]["xpmlp"][0]


def test_missing_peers_are_named_with_the_reason(tiny, monkeypatch):
    monkeypatch.setitem(
        PEERS, "thinc", dataclasses.replace(PEERS["thinc"], requires="surely_not_there")
    )
    broken = dataclasses.replace(PEERS["sklearn"], requires="numpy", module="not_a_module")
    monkeypatch.setitem(PEERS, "sklearn", broken)
    record = run_suite(peers="thinc,sklearn,torch.compile", only="6×3", quick=True, seconds=0.01)
    assert set(record["missing"]) >= {"thinc", "scikit-learn"}
    assert record["missing"]["thinc"] == "not installed (surely_not_there)"
    assert record["missing"]["scikit-learn"].startswith("cannot be imported: ModuleNotFoundError")
    if PEERS["torch.compile"].installed():
        assert "--quick" in record["missing"]["torch.compile"]


def test_a_contestant_that_fails_or_is_wrong_is_said_and_not_timed(tiny, monkeypatch):
    right = numpy_alone.SOLVERS["softmax_cross_entropy"]

    def wrong(case, inputs):
        return Solver(right(case, inputs).run, lambda output: (output[0], 2 * output[1]))

    def failing(case, inputs):
        raise RuntimeError("out of paper\nsecond line")

    monkeypatch.setattr(
        suite,
        "open_contestants",
        lambda *_: (
            {
                "xpmlp": {"softmax_cross_entropy": right},
                "wrong one": {"softmax_cross_entropy": wrong},
                "failing one": {"softmax_cross_entropy": failing},
            },
            {},
        ),
    )
    (case,) = run_suite(only="6×3", seconds=0.01)["cases"]
    assert set(case["results"]) == {"xpmlp"}
    assert "result 1: off by" in case["wrong"]["wrong one"]
    assert case["not_run"] == {"failing one": "RuntimeError: out of paper"}


def test_a_race_that_is_not_won_has_no_time(hasty, monkeypatch):
    race = next(case for case in cases.all_cases() if case.title.startswith("time_to_accuracy dig"))
    hopeless = dataclasses.replace(race.settings["race"], most_epochs=1, accuracy=0.999)
    race = dataclasses.replace(race, settings={"race": hopeless})
    row = suite.run_case(race, {"xpmlp": ours.solvers("numpy")}, Floors(1), 0.01)
    assert row["results"] == {}
    assert "test accuracy where 99.9 % was asked for" in row["wrong"]["xpmlp"]


def test_data_that_is_not_there_is_said(hasty, monkeypatch, tmp_path):
    monkeypatch.setenv("XPMLP_DATA", str(tmp_path))
    monkeypatch.setattr("xpmlp.data.fetch.user_cache", lambda: tmp_path / "none")
    (case,) = run_suite(peers="none", only="recipe")["cases"]
    assert "mnist" in case["skipped"].lower() and case["results"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backends": ["nunpy"]}, "expected some of numpy, cupy, torch"),
        ({"backends": [" "]}, "expected at least one of numpy"),
        ({"peers": "torhc"}, r"expected some of numpy, torch, torch\.compile, jax, sklearn, thinc"),
        ({"only": "softmx"}, "there are softmax_cross_entropy"),
    ],
)
def test_wrong_names_list_the_right_ones(options, message):
    with pytest.raises(ConfigError, match=message):
        run_suite(**options)


def test_a_backend_asked_for_that_cannot_be_used_is_an_error(monkeypatch):
    monkeypatch.setattr("xpmlp.array_libraries.importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="not installed"):
        run_suite(backends=["numpy", "torch"])


def test_floors_count_our_own_products_too(monkeypatch):
    """Whole and in eight parts, of 2 n³ operations each."""
    machine, shapes = Floors(1), []
    monkeypatch.setattr(suite, "best_of", lambda run: run() or 1.0)
    monkeypatch.setattr(suite.ops, "matmul", lambda a, b: shapes.append(a.shape))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    suite._add_rivals(machine)
    assert [rival(64) for rival in machine.rivals] == [1.0, 1.0]
    assert shapes == [(8, 32, 32), (64, 64)]


@pytest.mark.parametrize("kind", ["step", "population_step"])
def test_a_step_says_that_it_is_compiled_or_what_its_ops_run(tiny, monkeypatch, kind):
    case = next(case for case in cases.all_cases() if case.kind == kind)
    inputs, build = case.inputs(), ours.solvers("numpy")[kind]
    monkeypatch.setattr(ours.TrainStep, "explain", lambda *_: "compiled, but for the update")
    assert build(case, inputs).kernels == ("compiled, but for the update",)
    monkeypatch.setattr(ours.TrainStep, "explain", lambda *_: "layer by layer (no numba)")
    lines = build(case, inputs).kernels
    assert {line.split(" on numpy: ")[0] for line in lines} == {
        *("linear", "linear_backward"),
        *(["softmax_cross_entropy"] if kind == "step" else []),
    }


def test_peers_none_are_none():
    assert choose_peers("none") == choose_peers("") == {}
    assert list(choose_peers(None)) == list(PEERS)


def test_threads_are_said_and_put_back(tiny, monkeypatch):
    monkeypatch.setenv("XPMLP_NUM_THREADS", "1")
    monkeypatch.delenv("NPROC", raising=False)
    record = run_suite(peers="numpy", only="6×3", quick=True, seconds=0.01)
    assert record["threads"]["xpmlp"] == "1 (XPMLP_NUM_THREADS)"
    assert record["threads"]["BLAS"].startswith(("1", "not set: threadpoolctl is missing"))
    assert os.environ["XPMLP_NUM_THREADS"] == "1" and "NPROC" not in os.environ
    monkeypatch.setenv("XPMLP_NUM_THREADS", "two")
    with pytest.raises(ConfigError, match="number ≥ 1, got 'two'"):
        run_suite(peers="numpy", only="6×3", quick=True)
