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

from benchmarks import gpu, gpu_checks
from xpmlp.backend import backend_problems

ROOT = Path(__file__).parents[2]
HAS_DEVICE = backend_problems()["cupy"] is None


@pytest.mark.skipif(HAS_DEVICE, reason="a CUDA device answers")
def test_without_a_device_it_says_so_and_fails(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--results", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "there is nothing to measure on" in ended.stderr and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_part_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--only", "nonsense"])
    assert "tests, sanitizer, floors" in capsys.readouterr().err


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
        def run(command, seconds):
            name = command[command.index("--part") + 1]
            rows, returncode, late = behaviours[name]
            if rows is not None:
                outcome = gpu.Outcome([gpu.Row(row, 1.0, "s") for row in rows])
                file = Path(command[command.index("--to") + 1])
                file.write_text(json.dumps(gpu.asdict(outcome)))
            if late:
                raise subprocess.TimeoutExpired(command, seconds)
            return subprocess.CompletedProcess(command, returncode, "", "one\ntwo\nthree\n")

        monkeypatch.setattr(gpu, "run_group", run)

    return install


def test_a_part_that_fails_or_hangs_leaves_the_others_and_what_it_had(fake_run):
    ends = {"good": (["a", "b"], 0, False), "killed": (["c"], -6, False)}
    fake_run(ends | {"slow": (["d"], 0, True), "silent": (None, 1, False)})
    names = ("killed", "slow", "silent", "good")
    outcomes = {p.name: o for p, o in gpu.run_parts([part(name) for name in names], 400)}
    assert [row.what for row in outcomes["good"].rows] == ["a", "b"] and outcomes["good"].passed
    assert [row.what for row in outcomes["killed"].rows] == ["c"]
    assert outcomes["killed"].problem == "Killed: two / three" and not outcomes["killed"].passed
    assert "not done after" in outcomes["slow"].problem and len(outcomes["slow"].rows) == 1
    assert not outcomes["silent"].passed


def test_time_that_is_left_over_goes_to_later_parts(fake_run, monkeypatch):
    limits = {}
    fake_run({name: ([], 0, False) for name in "abc"})
    run = gpu.run_group

    def noted(command, seconds):
        limits[command[command.index("--part") + 1]] = round(seconds)
        return run(command, seconds)

    monkeypatch.setattr(gpu, "run_group", noted)
    assert len(list(gpu.run_parts([part("a", 50), part("b", 30), part("c", 20)], 150))) == 3
    assert limits == {"a": 100, "b": 130, "c": 150}
    assert gpu.run_apart(part("a"), 2).problem == "A: no time was left"


@pytest.fixture
def machine(monkeypatch):
    """A device that is there to be asked, and no more."""
    monkeypatch.setattr(gpu, "use_backend", lambda name: nullcontext())
    monkeypatch.setattr(gpu, "describe_machine", lambda names: {"gpu": "NVIDIA H100 80GB"})
    monkeypatch.setattr(gpu, "driver", lambda: {"driver": "580"})


def test_results_are_written_after_each_part(machine, monkeypatch, tmp_path):
    def some_parts(parts, seconds):
        yield parts[0], gpu.Outcome([gpu.Row("first", 1.0, "s")])
        raise KeyboardInterrupt  # whatever ends the run, the first part has been written

    monkeypatch.setattr(gpu, "run_parts", some_parts)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--results", str(tmp_path / "new")])
    record = json.loads((tmp_path / "new" / "gpu-nvidia-h100-80gb.json").read_text())
    assert list(record["parts"]) == ["tests"] and record["machine"]["driver"] == "580"
    assert "| first | 1 s |" in (tmp_path / "new" / "gpu-nvidia-h100-80gb.md").read_text()


def test_the_exit_status_tells_of_a_part_that_failed(machine, monkeypatch, tmp_path, capsys):
    for passed, status in ((True, 0), (False, 2)):
        outcomes = [gpu.Outcome(), gpu.Outcome(passed=passed), gpu.Outcome()]
        monkeypatch.setattr(
            gpu, "run_parts", lambda parts, s, o=outcomes: zip(parts, o, strict=True)
        )
        names = ["--only", "floors,step,suite", "--results", str(tmp_path)]
        assert gpu.main(names) == status
    assert (tmp_path / "gpu-nvidia-h100-80gb-floors-step-suite.md").exists()
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
    facts = gpu.driver()
    assert facts["device_memory_gb"] == "? (RuntimeError)" and facts["driver_cuda"] == 13000
    assert (facts["cupy"], facts["compute_capability"]) == ("14.2.0", "90")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_what_a_part_has_started_ends_with_it(tmp_path):
    note = tmp_path / "child"
    code = "import subprocess, sys, time; from pathlib import Path\n"
    code += "child = subprocess.Popen(['sleep', '60'])\n"
    code += f"Path({str(note)!r}).write_text(str(child.pid))\n"
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.run_group([sys.executable, "-c", f"{code}time.sleep(60)"], 3)
    assert not is_alive(int(note.read_text()))
    ended = gpu.run_group([sys.executable, "-c", f"{code}print(7); sys.exit(3)"], 30)
    assert (ended.stdout, ended.returncode) == ("7\n", 3)
    assert not is_alive(int(note.read_text()))


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


def test_a_file_of_tests_that_hangs_leaves_the_others_results(monkeypatch, tmp_path):
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text(
        "def pytest_configure(config): config.addinivalue_line('markers', 'gpu: x')"
    )
    mark = "import pytest, time\npytestmark = pytest.mark.gpu\n"
    (folder / "test_a.py").write_text(mark + "def test_hangs(): time.sleep(60)\n")
    (folder / "test_b.py").write_text(mark + "def test_works(): pass\n")
    (folder / "test_c.py").write_text(mark + "import os\ndef test_faults(): os.abort()\n")
    monkeypatch.setattr(gpu_checks, "ROOT", tmp_path)
    a, b, c = gpu_checks.tests(time.perf_counter() + 12)
    assert (a.what, a.note) == ("FAILED pytest test_a.py", "not done in time")
    assert b.value == 1 and b.met
    assert c.what == "FAILED pytest test_c.py" and "Abort" in c.note


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


def test_reports_of_pytest_are_read(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="gpu.test_a" name="x"/>'
        '<testcase classname="gpu.test_a" name="y"><failure message="off by 3"/></testcase>'
        '<testcase classname="gpu.test_b" name="z"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    a, b, failed = gpu_checks.read_report(report)
    assert (a.value, a.met, a.note) == (1, False, "1 failed, 0 skipped")
    assert (b.value, b.met) == (0, False)
    assert failed.what == "FAILED gpu.test_a::y" and failed.note == "off by 3"
    report.write_text("<testsuites/>")
    assert [row.what for row in gpu_checks.read_report(report)] == ["FAILED pytest -m gpu"]


def test_the_page_shows_every_figure_beside_its_bar():
    rows = [gpu.Row("step", 71.3, "µs", "≤ 80 µs", True), gpu.Row("b|c", bar="≥ 4×", note="gone")]
    record = {
        "date": "2026-11-21",
        "machine": {"gpu": "NVIDIA H100", "driver": "580.1"},
        "versions": {"cupy-cuda12x": "14.2"},
        "parts": {"step": gpu.asdict(gpu.Outcome(rows, False, "Step: broke", 3.0))},
    }
    text = gpu.markdown(record)
    assert "| step | 71.3 µs | ≤ 80 µs | yes | · |" in text
    assert "| b/c | · | ≥ 4× | · | gone |" in text
    assert "**Step: broke**" in text and "- driver: 580.1" in text and "# NVIDIA H100" in text


def test_pytest_finds_the_gpu_tests_by_their_mark():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "--collect-only"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert found.returncode == 0 and "deselected" not in found.stdout
    assert "smallest" in found.stdout
