"""``python -m benchmarks.gpu``: what it does where there is no device, and when a part fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import gpu, gpu_checks, gpu_compile, gpu_page, gpu_pytest
from xpmlp.backend import backend_problems

ROOT = Path(__file__).parents[2]
HAS_DEVICE = backend_problems(["cupy"])["cupy"] is None


@pytest.mark.skipif(HAS_DEVICE, reason="a CUDA device answers")
def test_without_a_device_it_says_so_and_fails(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--results", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "there is nothing to measure on" in ended.stderr and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_part_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "nonsense"])
    assert "correctness, figures, compile, tests" in capsys.readouterr().err


def test_parts_are_chosen_by_name_or_by_group():
    assert gpu.chosen("") == list(gpu.PARTS)
    assert [part.name for part in gpu.chosen("mnist,floors")] == ["floors", "mnist"]
    groups = [gpu.chosen(name) for name in gpu.GROUPS]
    assert groups == [list(parts) for parts in gpu.GROUPS.values()]
    assert set(groups[0] + groups[1]) == set(gpu.PARTS)


def test_the_parts_fit_into_eight_minutes_and_exist():
    import ast

    assert sum(part.seconds for part in gpu.PARTS) <= gpu.TOTAL_SECONDS < 480
    for part in gpu.PARTS:
        module, _, function = part.target.partition(":")
        tree = ast.parse((ROOT / "benchmarks" / f"{module}.py").read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def part(name, seconds=30.0):
    return gpu.Part(name, name.capitalize(), f"gpu_checks:{name}", seconds)


@pytest.fixture
def fake_run(monkeypatch):
    """Parts that write what they are told, in place of processes."""

    def install(behaviours):
        def run(command, seconds, log):
            name = command[command.index("--part") + 1]
            rows, returncode, late = behaviours[name]
            if rows is not None:
                outcome = gpu.Outcome([gpu.Row(row, 1.0, "s") for row in rows])
                file = Path(command[command.index("--to") + 1])
                file.write_text(json.dumps(gpu.asdict(outcome)))
            if late:
                raise subprocess.TimeoutExpired(command, seconds)
            return returncode, "one\ntwo\nthree\n"

        monkeypatch.setattr(gpu, "run_group", run)

    return install


def test_a_part_that_fails_or_hangs_leaves_the_others_and_what_it_had(fake_run, tmp_path):
    ends = {"good": (["a", "b"], 0, False), "killed": (["c"], -6, False)}
    fake_run(ends | {"slow": (["d"], 0, True), "silent": (None, 1, False)})
    names = ("killed", "slow", "silent", "good")
    runs = gpu.run_parts([part(name) for name in names], 400, tmp_path / "log")
    outcomes = {p.name: o for p, o in runs}
    assert [row.what for row in outcomes["good"].rows] == ["a", "b"] and outcomes["good"].passed
    assert [row.what for row in outcomes["killed"].rows] == ["c"]
    assert outcomes["killed"].problem == "Killed: status -6, two / three"
    assert not outcomes["killed"].passed
    assert "not done after" in outcomes["slow"].problem and len(outcomes["slow"].rows) == 1
    assert not outcomes["silent"].passed


def test_time_that_is_left_over_goes_to_later_parts(fake_run, monkeypatch, tmp_path):
    limits = {}
    fake_run({name: ([], 0, False) for name in "abc"})
    run = gpu.run_group

    def noted(command, seconds, log):
        limits[command[command.index("--part") + 1]] = round(seconds)
        return run(command, seconds, log)

    monkeypatch.setattr(gpu, "run_group", noted)
    parts = [part("a", 50), part("b", 30), part("c", 20)]
    assert len(list(gpu.run_parts(parts, 150, tmp_path / "log"))) == 3
    assert limits == {"a": 100, "b": 130, "c": 150}
    assert len(list(gpu.run_parts(parts, 50, tmp_path / "log"))) == 3  # half of its time for each
    assert limits == {"a": 25, "b": 40, "c": 50}
    assert gpu.run_apart(part("a"), 2, tmp_path / "log").problem == "A: no time was left"


@pytest.fixture
def machine(monkeypatch):
    """A device that is there to be asked, and no more."""
    monkeypatch.setattr(gpu, "use_backend", lambda name: nullcontext())
    monkeypatch.setattr(gpu, "describe_machine", lambda names: {"gpu": "NVIDIA H100 80GB"})
    monkeypatch.setattr(gpu_page, "driver", lambda: {"driver": "580"})


def test_results_are_written_after_each_part(machine, monkeypatch, tmp_path):
    def some_parts(parts, seconds, log):
        yield parts[0], gpu.Outcome([gpu.Row("first", 1.0, "s")])
        raise KeyboardInterrupt  # whatever ends the run, the first part has been written

    monkeypatch.setattr(gpu, "run_parts", some_parts)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--results", str(tmp_path / "new")])
    record = json.loads((tmp_path / "new" / "gpu-nvidia-h100-80gb.json").read_text())
    assert list(record["parts"]) == ["compile"] and record["machine"]["driver"] == "580"
    assert "| first | 1 s |" in (tmp_path / "new" / "gpu-nvidia-h100-80gb.md").read_text()


def test_the_exit_status_tells_of_a_part_that_failed(machine, monkeypatch, tmp_path, capsys):
    for passed, status in ((True, 0), (False, 2)):
        outcomes = [gpu.Outcome(), gpu.Outcome(passed=passed), gpu.Outcome()]
        monkeypatch.setattr(
            gpu, "run_parts", lambda parts, s, log, o=outcomes: zip(parts, o, strict=True)
        )
        names = ["--parts", "floors,step,places", "--results", str(tmp_path)]
        assert gpu.main(names) == status
    page = (tmp_path / "gpu-nvidia-h100-80gb-floors-step-places.md").read_text()
    assert "- MNIST: not asked for" in page and "`python -m benchmarks.gpu --parts floors" in page
    assert "## Training step" in capsys.readouterr().out


def test_a_fact_that_the_driver_does_not_tell_keeps_no_figure_away(monkeypatch):
    def lost():
        raise RuntimeError("cudaErrorUnknown")

    runtime = SimpleNamespace(
        driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 12080, memGetInfo=lost
    )
    device = SimpleNamespace(compute_capability="90")
    cuda = SimpleNamespace(runtime=runtime, Device=lambda: device)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, __version__="14.2.0"))
    facts = gpu_page.driver()
    assert facts["device_memory_gb"] == "? (RuntimeError)" and facts["driver_cuda"] == 13000
    assert (facts["cupy"], facts["compute_capability"]) == ("14.2.0", "90")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_what_a_part_has_started_ends_with_it(tmp_path):
    note = tmp_path / "child"
    code = "import subprocess, sys, time; from pathlib import Path\n"
    code += "child = subprocess.Popen(['sleep', '60'])\n"
    code += f"Path({str(note)!r}).write_text(str(child.pid))\n"
    log = tmp_path / "log"
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.run_group([sys.executable, "-c", f"{code}print('begun'); time.sleep(60)"], 3, log)
    assert not is_alive(int(note.read_text()))
    assert "begun" in log.read_text()
    status, printed = gpu.run_group(
        [sys.executable, "-c", f"{code}print(7); print(8, file=sys.stderr); sys.exit(3)"], 30, log
    )
    assert (status, printed) == (3, "7\n8\n")
    assert not is_alive(int(note.read_text())) and log.read_text().count("=====") == 2


def test_of_very_much_output_the_first_and_the_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_MOST_LOG", 100)
    code = "print('first'); print('x' * 1000); print('last')"
    log = tmp_path / "log"
    log.write_text("before\n")
    gpu.run_group([sys.executable, "-c", code], 30, log)
    text = log.read_text()
    assert text.startswith("before") and "first" in text and text.endswith("last\n")
    assert "[...]" in text and text.count("x") < 200


def is_alive(pid):
    """Whether it still runs after a moment; what has ended may wait to be collected."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def test_a_case_that_fails_is_a_row(capsys):
    def rows():
        yield gpu.Row("first")
        raise RuntimeError("cudaErrorIllegalAddress")

    first, failed = gpu.guarded("the case", rows())
    assert first.what == "first"
    assert (failed.what, failed.note) == (
        "FAILED the case",
        "RuntimeError: cudaErrorIllegalAddress",
    )
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def few_tests(monkeypatch, tmp_path):
    """A project with tests of its own; ``few_tests(text)`` writes one file of them."""
    monkeypatch.setattr(gpu_checks, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(gpu_checks, "_LONGEST_TEST", 8.0)

    def write(name, *bodies):
        tests = [f"def test_{number}():\n    {body}\n" for number, body in enumerate(bodies)]
        (tmp_path / name).write_text("import os, time, pytest\n" + "".join(tests))

    return write


@pytest.mark.slow
def test_a_test_that_hangs_or_ends_the_process_leaves_the_others(few_tests):
    few_tests("test_a.py", "pass", "time.sleep(60)", "assert 3 == 4", "os.abort()", "pass")
    few_tests("test_b.py", "raise RuntimeError('cudaErrorIllegalAddress')", "pytest.skip('not so')")
    rows = {row.what: row for row in gpu_checks.run_tests(["."], time.perf_counter() + 120)}
    assert (rows["test_a.py"].value, rows["test_a.py"].note) == (2, "3 failed, 0 skipped")
    assert (rows["test_b.py"].value, rows["test_b.py"].note) == (0, "1 failed, 1 skipped")
    assert "did not end" in rows["FAILED test_a.py::test_1"].note
    assert "3 == 4" in rows["FAILED test_a.py::test_2"].note
    assert "status -6" in rows["FAILED test_a.py::test_3"].note
    assert rows["FAILED test_b.py::test_0"].note == "RuntimeError: cudaErrorIllegalAddress"
    assert len(rows) == 6


@pytest.mark.slow
def test_tests_that_time_did_not_allow_are_counted(few_tests):
    few_tests("test_a.py", "pass", *["time.sleep(5)"] * 20)
    rows = {row.what: row for row in gpu_checks.run_tests(["."], time.perf_counter() + 15)}
    assert rows["test_a.py"].value >= 1
    left = rows["FAILED not all tests ran"]
    assert left.note.endswith("of 21 tests: no time was left")


def test_the_time_of_the_sanitizer_is_shared(monkeypatch):
    asked = []

    def run_tests(selection, deadline, *, prefix, name, starts):
        asked.append((prefix, deadline, starts))
        time.sleep(0.2)
        yield gpu.Row(name)

    monkeypatch.setattr(gpu_checks.shutil, "which", lambda *names, **options: "sanitizer")
    monkeypatch.setattr(gpu_checks, "run_tests", run_tests)
    begin = time.perf_counter()
    assert [row.what for row in gpu_checks.sanitizer(begin + 100)] == ["memcheck: ", "racecheck: "]
    (first, half, _), (second, whole, starts) = asked
    assert (first[2], second[2]) == ("memcheck", "racecheck") and starts == 1
    assert "--report-api-errors no" in " ".join(first)
    assert 45 < half - begin < 55 and whole == begin + 100  # what the first leaves is the second's
    monkeypatch.setattr(gpu_checks.shutil, "which", lambda *names, **options: None)
    (row,) = gpu_checks.sanitizer(begin + 100)
    assert row.note == "left out: compute-sanitizer is not installed"


def test_a_line_that_is_half_written_does_not_count(tmp_path):
    file = tmp_path / "report"
    gpu_pytest.add(file, "a.py::x", "passed")
    with file.open("a") as lines:
        lines.write('{"test": "a.py::y", "outc')
    assert [line["test"] for line in gpu_pytest.read(file)] == ["a.py::x"]


def test_no_test_at_all_is_a_failure():
    (row,) = gpu_checks.read_report([])
    assert row.what == "FAILED pytest"


def test_kernels_are_named_as_a_cubin_names_them():
    assert gpu_compile.names_in(b"\0.text.a_f32\0.nv.info.a_f32\0.text.b2\0") == {"a_f32", "b2"}


def test_a_part_in_its_own_process_keeps_rows_and_says_what_went_wrong(tmp_path, monkeypatch):
    def some(deadline):
        yield gpu.Row("first", 1.0)
        yield gpu.Row(f"{gpu.FAILED}second")
        raise ValueError("no more")

    monkeypatch.setattr(gpu_checks, "tests", some)
    monkeypatch.setattr(gpu, "use_backend", lambda name: nullcontext())
    gpu.run_here("tests", 10, tmp_path / "o.json")
    outcome = gpu.read_outcome(tmp_path / "o.json")
    assert [row.what for row in outcome.rows] == ["first", "FAILED second"]
    assert not outcome.passed and outcome.problem == "Tests marked gpu: ValueError: no more"


def test_rows_are_kept_before_a_part_is_killed(tmp_path, monkeypatch):
    def some(deadline):
        yield gpu.Row("first", 1.0)
        raise SystemExit  # nothing after it gets to run

    monkeypatch.setattr(gpu_checks, "tests", some)
    monkeypatch.setattr(gpu, "use_backend", lambda name: nullcontext())
    with pytest.raises(SystemExit):
        gpu.run_here("tests", 10, tmp_path / "o.json")
    assert [row.what for row in gpu.read_outcome(tmp_path / "o.json").rows] == ["first"]


def test_the_page_shows_every_figure_beside_its_bar():
    rows = [
        gpu.Row("step", 71.3, "µs", "≤ 80 µs", True, host="ours 14 µs"),
        gpu.Row("b|c", bar="≥ 4×", note="gone"),
    ]
    record = {
        "command": "python -m benchmarks.gpu",
        "date": "2026-11-21",
        "machine": {"gpu": "NVIDIA H100", "driver": "580.1"},
        "versions": {"cupy-cuda12x": "14.2"},
        "parts": {"step": gpu.asdict(gpu.Outcome(rows, False, "Step: broke", 3.0))},
    }
    record["parts"]["step"]["title"] = "Training step"
    text = gpu_page.markdown(record)
    assert "| step | 71.3 µs | ≤ 80 µs | yes | · | ours 14 µs |" in text
    assert "| b/c | · | ≥ 4× | · | gone | · |" in text
    assert "**Step: broke**" in text and "- driver: 580.1" in text and "# NVIDIA H100" in text


def test_the_plot_is_drawn_from_the_rows(tmp_path):
    pytest.importorskip("matplotlib")
    data = [
        {"width": w, "batch": b, "cpu": 1e-3, "gpu": 1e-4} for w in (64, 256) for b in (16, 128)
    ]
    rows = [gpu.Row("x", 10.0, data=numbers) for numbers in data] + [gpu.Row("left out")]
    record = {"machine": {"gpu": "G"}, "parts": {"places": gpu.asdict(gpu.Outcome(rows))}}
    gpu_page.plot(record, tmp_path / "gpu-g")
    assert (tmp_path / "gpu-g.png").stat().st_size > 5000
    gpu_page.plot({"machine": {"gpu": "G"}, "parts": {}}, tmp_path / "none")
    assert not (tmp_path / "none.png").exists()


def test_a_numba_that_refuses_this_numpy_is_said(monkeypatch):
    """None in the place of a module makes its import an error."""
    monkeypatch.setitem(sys.modules, "numba", None)
    found = gpu_page.numbers_libraries()
    assert found["numba"].startswith("cannot be imported") and found["numpy"][0].isdigit()


def test_pytest_finds_the_gpu_tests_by_their_mark():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "--collect-only"]
    environment = os.environ | {gpu_checks.ONLY_LIBRARIES: "numpy,cupy"}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert found.returncode == 0 and "deselected" not in found.stdout
    assert "smallest" in found.stdout


def test_other_libraries_are_not_imported_where_they_are_not_asked_for():
    code = "import sys, pytest; status = pytest.main(['-k', 'cupy or numpy', "
    code += "'tests/ops/test_gather.py']); print(sorted({'torch', 'jax'} & set(sys.modules)))"
    environment = os.environ | {gpu_checks.ONLY_LIBRARIES: "numpy,cupy"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert found.stdout.splitlines()[-1] == "[]", found.stdout
    assert "xpmlp backends: numpy" in found.stdout and "passed" in found.stdout
