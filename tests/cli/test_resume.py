"""Commands that are stopped, that cannot write, or that nobody listens to."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xpmlp.errors import CheckpointError
from xpmlp.files import write_atomically
from xpmlp.training import Trainer, load_model
from xpmlp.training.epoch import run_epoch

QUICK = ("--hidden", "16", "--quiet", "--no-plots")
needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


pytestmark = pytest.mark.usefixtures("in_empty_folder")


@pytest.fixture
def stop_after(monkeypatch):
    """Send this process a signal after so many epochs of whatever is trained."""

    def after(epochs, *numbers):
        def run(self, step, batches):
            figures = run_epoch(self, step, batches)
            if self.epoch == epochs:
                for number in numbers:
                    os.kill(os.getpid(), number)
            return figures

        monkeypatch.setattr(Trainer, "_run_epoch", run)

    return after


def figures_of(folder, name="result.json"):
    result = json.loads((Path(folder) / name).read_text())
    return {name: value for name, value in result.items() if "seconds" not in name}


def files_in(folder):
    return {path.name for path in Path(folder).iterdir()}


FINISHED = {"report.html", "config.json", "history.csv", "model.safetensors", "result.json"}


@needs_signals
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_keeps_the_network_and_says_how_to_go_on(
    name, command, stop_after, default_ctrl_c
):
    number = getattr(signal, name)
    stop_after(3, number)
    status, _, err = command("train", "--epochs", "6", *QUICK, "--out", "a run")
    assert status == 128 + number
    assert "go on with: xpmlp train --resume 'a run'" in err
    assert files_in("a run") == FINISHED | {"checkpoint.safetensors"}
    assert figures_of("a run")["epochs"] == 3
    load_model("a run/model.safetensors")


@needs_signals
@pytest.mark.parametrize("data", ["digits", "table.csv"], ids=["a network", "an ensemble"])
def test_going_on_ends_with_the_same_bits(data, command, default_ctrl_c):
    rng = np.random.default_rng(0)
    rows = [f"{a},{b},{'high' if a * b > 0 else 'low'}" for a, b in rng.normal(size=(160, 2))]
    Path("table.csv").write_text("\n".join(["a,b,outcome", *rows]))
    assert command("train", data, "--epochs", "6", *QUICK, "--out", "whole")[0] == 0
    assert files_in("whole") == FINISHED
    arguments = ["train", data, "--epochs", "6", *QUICK, "--out", "run"]
    code = (
        "import os, signal, sys\n"
        "from xpmlp.training import Checkpoint\n"
        "def killed(self, trainer, row):\n"
        "    if trainer.epoch == 4:\n"
        "        self.save(trainer)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Checkpoint.on_epoch = killed\n"
        f"sys.argv = ['xpmlp', *{arguments!r}]\n"
        "from xpmlp.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert files_in("run") == {"config.json", "history.csv", "checkpoint.safetensors"}
    status, _, err = command("predict", "run", "nothing.npz")
    assert status == 1 and "which was stopped; go on with: xpmlp train --resume run" in err
    assert command("train", "--resume", "run", "--quiet", "--no-plots")[0] == 0
    assert files_in("run") == FINISHED
    whole, again = (Path(name, "model.safetensors").read_bytes() for name in ("whole", "run"))
    assert whole == again
    assert figures_of("run") == figures_of("whole")


@needs_signals
def test_a_sweep_goes_on_in_the_middle(command, stop_after, default_ctrl_c, monkeypatch):
    asked = ("--lr", "1e-3,1e-2", "--hidden", "6,8x6", "--epochs", "4", "--halving")
    rest = ("--seeds", "2", "--quiet", "--no-plots")
    assert command("sweep", *asked, *rest, "--out", "whole")[0] == 0
    seen = []

    def count(self, step, batches):
        seen.append(self.epoch)
        return run_epoch(self, step, batches)

    with monkeypatch.context() as patch:

        def stop_in_the_second(self, step, batches):
            if len(seen) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return count(self, step, batches)

        patch.setattr("xpmlp.training.Trainer._run_epoch", stop_in_the_second)
        status, _, err = command("sweep", *asked, *rest, "--out", "run")
    assert status == 128 + signal.SIGTERM
    assert "go on with: xpmlp sweep --resume run" in err
    assert files_in("run/checkpoints") == {
        "plan.json",
        "finished-1.json",
        "finished-1-2.safetensors",
        "population-1.safetensors",
        "population-2.safetensors",
    }
    status, _, err = command("sweep", "--resume", "run", "--lr", "0.1")
    assert status == 2 and "got --lr; leave them out" in err
    with monkeypatch.context() as patch:
        seen.clear()
        patch.setattr("xpmlp.training.Trainer._run_epoch", count)
        status, _, err = command("sweep", "--resume", "run", "--quiet", "--no-plots")
    assert status == 0, err
    assert seen == [2, 3, 4, 1, 2, 3, 4]  # of the second and third; the first one is read
    assert files_in("run") == files_in("whole")
    for name in ("model.safetensors", "sweep.csv"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()
    assert figures_of("run") == figures_of("whole")


def leave_unfinished(command, monkeypatch, *arguments):
    """A run whose last writes fail: what it has is its checkpoint."""

    def no_model(*arguments):
        raise CheckpointError("cannot write the model: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("xpmlp.cli.train.save_model", no_model)
        return command("train", "--epochs", "4", *QUICK, "--save-every", "0", *arguments)


def test_a_disk_that_is_full_at_the_end_leaves_the_checkpoint(command, monkeypatch):
    status, _, err = leave_unfinished(command, monkeypatch, "--out", "run")
    assert status == 1 and "No space left on device; go on with: xpmlp train --resume run" in err
    assert err.count("\n") == 1
    assert files_in("run") == {"config.json", "history.csv", "checkpoint.safetensors"}
    assert command("train", "--resume", "run", "--quiet", "--no-plots")[0] == 0


def test_another_training_does_not_go_on_by_mistake(command, monkeypatch, tmp_path):
    leave_unfinished(command, monkeypatch, "--out", "run")
    before = Path("run/config.json").read_bytes()
    status, _, err = command("train", "--resume", "run", "--lr", "0.1", "--quiet")
    assert status == 1 and "settings.optimizer.lr was 0.003, is 0.1" in err
    assert "--resume-anyway" in err and Path("run/config.json").read_bytes() == before
    status, _, err = command("train", "digits", "--target", "a", "--resume", "run")
    assert status == 2 and "got data, --target; leave them out" in err
    status, _, err = command("train", "--resume", tmp_path)
    assert status == 1 and "with config.json in it" in err
    arguments = ("--resume", "run", "--resume-anyway", "--epochs", "5", "--quiet", "--no-plots")
    assert command("train", *arguments)[0] == 0
    assert figures_of("run")["epochs"] == 5
    assert figures_of("run", "config.json")["recipe"]["epochs"] == 5
    status, _, err = command("train", "--resume", "run")
    assert status == 1 and "has come to its end" in err


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"model": 3}', "[" * 100_000])
def test_a_damaged_config_is_named(content, command):
    Path("run").mkdir()
    Path("run/config.json").write_text(content)
    status, _, err = command("train", "--resume", "run")
    assert status == 1 and "config.json" in err and err.count("\n") == 1


def test_what_fails_beside_the_network_costs_only_itself(command, monkeypatch):
    fails = ("history.csv", "result.json")

    def no_space(path, content, **options):
        if Path(path).name in fails:
            raise CheckpointError(f"cannot write {path}: No space left on device")
        write_atomically(path, content, **options)

    for module in ("training.history", "cli.runs"):
        monkeypatch.setattr(f"xpmlp.{module}.write_atomically", no_space)
    with pytest.warns(UserWarning) as found:
        status = command("train", "--epochs", "2", *QUICK, "--out", "run")[0]
    messages = " ".join(str(warning.message) for warning in found)
    assert "the history is not saved" in messages and "the result is not saved" in messages
    assert status == 0
    assert files_in("run") == {"config.json", "model.safetensors", "report.html"}


def test_warnings_of_the_command_are_a_line_each(tmp_path):
    code = "import sys; sys.argv = ['xpmlp', 'train', '--epochs', '2', '--quiet', '--no-plots']\n"
    code += "import xpmlp.training.history as h\n"
    code += "from xpmlp.errors import CheckpointError as E\n"
    code += "def no(*a, **k): raise E('no space')\n"
    code += "h.write_atomically = no\nfrom xpmlp.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == "xpmlp: the history is not saved: no space\n"


def test_a_folder_that_is_removed_meanwhile_is_made_again(command, monkeypatch):
    fit = Trainer.fit

    def remove(self, *arguments, **options):
        history = fit(self, *arguments, **options)
        for file in Path("run").iterdir():
            file.unlink()
        Path("run").rmdir()
        return history

    monkeypatch.setattr(Trainer, "fit", remove)
    assert command("train", "--epochs", "2", *QUICK, "--out", "run")[0] == 0
    assert files_in("run") == {"model.safetensors", "report.html", "result.json"}


def processes(count, *arguments, **options):
    own = [sys.executable, "-m", "xpmlp", *arguments]
    started = [
        subprocess.Popen(own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        for _ in range(count)
    ]
    return [(process.communicate(timeout=300), process.returncode) for process in started]


@pytest.mark.parametrize("there", [False, True], ids=["new", "an empty one"])
def test_one_of_several_gets_the_folder(there, command):
    if there:
        Path("run").mkdir()
    ends = processes(3, "train", "--epochs", "2", *QUICK, "--out", "run")
    assert sorted(status for _, status in ends) == [0, 1, 1]
    for (_, err), status in ends:
        assert not status or "choose another" in err
    assert files_in("run") == FINISHED


def test_runs_without_a_name_never_share_a_folder():
    ends = processes(3, "train", "--epochs", "1", *QUICK)
    assert [status for _, status in ends] == [0, 0, 0]
    assert files_in("runs") == {"digits-1", "digits-2", "digits-3"}


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", ">&-", "2>/dev/full", "0<&- >&- 2>&-"])
@pytest.mark.skipif(os.name == "nt", reason="a shell's way of closing streams")
def test_closed_streams_change_nothing(streams):
    line = (
        f"'{sys.executable}' -m xpmlp train --epochs 2 --hidden 16 --no-plots --out run {streams}"
    )
    assert subprocess.run(line, shell=True, executable="/bin/sh").returncode == 0
    assert files_in("run") == FINISHED
    assert load_model("run/model.safetensors")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="Linux says what is open")
def test_no_file_gets_the_place_of_a_closed_stream():
    code = (
        "import os, sys; sys.argv = ['xpmlp', '--version']\n"
        "from xpmlp.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*(os.readlink(f'/proc/self/fd/{n}') for n in (0, 2)))"
    )
    line = f'"{sys.executable}" -c "{code}" 0<&- 2>&-'
    done = subprocess.run(line, shell=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.splitlines()[1:] == ["/dev/null /dev/null"]


@pytest.mark.skipif(os.name == "nt", reason="a shell's way of closing streams")
def test_readers_that_leave_change_nothing():
    for command, count in (("train --no-plots", 2), ("sweep --lr 1e-3,1e-2 --no-plots", 1)):
        line = f"'{sys.executable}' -m xpmlp {command} --epochs 4 --hidden 8 --out run{count}"
        script = f"{line} 2>&1 | head -n {count}; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done
        assert "result.json" in files_in(f"run{count}")


def test_a_result_that_a_full_disk_takes_is_no_success(command, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("no such device")
    command("train", "--epochs", "1", *QUICK, "--out", "run")
    np.savez("x.npz", x=np.zeros((3, 8, 8)))
    line = f"'{sys.executable}' -m xpmlp predict run x.npz --out - > /dev/full"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert done.returncode != 0


@needs_signals
def test_an_impatient_ctrl_c_says_how_to_go_on(command, stop_after, default_ctrl_c, monkeypatch):
    stop_after(2, signal.SIGINT, signal.SIGINT)
    arguments = ("--epochs", "5", *QUICK, "--save-every", "0", "--out", "run")
    status, _, err = command("train", *arguments)
    assert status == 130
    assert "xpmlp: interrupted; go on with: xpmlp train --resume run" in err


def test_folders_that_cannot_be_written_to_are_one_line(command, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    status, _, err = command("train", *QUICK, "--out", "run")
    assert status == 1 and err.count("\n") == 1 and "Read-only file system" in err
