"""The command as a person uses it: what it prints, what it leaves, how it fails."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpmlp
from xpmlp.data import load_digits
from xpmlp.training import load_model

QUICK = ("--epochs", "2", "--hidden", "16", "--quiet", "--no-plots")


pytestmark = pytest.mark.usefixtures("in_empty_folder")


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def write_table(path, rows=120, *, regression=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3))
    values = 100 + 20 * (x[:, 0] - 2 * x[:, 1])
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "outcome"])
        for row, value in zip(x, values, strict=True):
            writer.writerow([*row, value if regression else ("high" if value > 100 else "low")])
    return path


def test_digits_reach_97_percent_by_default(command):
    status, out, err = command("train", "--json", "--no-plots")
    result = last_json(out)
    assert status == 0
    assert result["test_accuracy"] >= 0.97
    assert f"test accuracy {100 * result['test_accuracy']:.2f} %" in err
    assert err.count("epoch ") > 10 and result["epochs"] == 60


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("train", "-h"), ("bench", "--help")])
def test_help_in_short_and_long(command, words):
    status, out, err = command(*words)
    assert status == 0 and not err
    assert "Usage:" in out and "--help" in out


def test_completion_for_a_shell(command):
    status, out, _ = command("--show-completion", "bash")
    assert status == 0 and "xpmlp" in out and "complete" in out


def test_run_folder_holds_all_that_is_promised(command, tmp_path):
    status, out, _ = command("train", "digits", *QUICK[:-1], "--json")
    folder = tmp_path / "runs" / "digits-1"
    assert status == 0
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "history.csv", "model.safetensors", "result.json", "history.png"),
        "report.html",
    }
    result = json.loads((folder / "result.json").read_text())
    assert result | {"run": "runs/digits-1"} == last_json(out)
    promised = "dataset backend device kernels seed epochs steps parameters train_seconds "
    promised += "train_loss test_loss test_accuracy version"
    assert set(promised.split()) <= set(result)
    assert result["parameters"] == 64 * 16 + 16 + 2 * 16 + 16 * 10 + 10
    assert result["steps"] == 2 * 21  # 1293 training rows in batches of 64
    assert (result["backend"], result["version"]) == ("numpy", xpmlp.__version__)
    with open(folder / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[result["best_epoch"] - 1]["train_loss"]) == result["train_loss"]
    config = json.loads((folder / "config.json").read_text())
    assert config["recipe"]["hidden"] == [16]


def test_runs_are_numbered_and_never_overwritten(command, tmp_path):
    for _ in range(2):
        assert command("train", *QUICK)[0] == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"digits-1", "digits-2"}
    before = (tmp_path / "runs/digits-1/model.safetensors").read_bytes()
    status, _, err = command("train", *QUICK, "--out", "runs/digits-1", "--seed", "9")
    assert status == 1
    assert "choose another --out" in err and "Traceback" not in err
    assert (tmp_path / "runs/digits-1/model.safetensors").read_bytes() == before


def test_same_seed_gives_the_same_model(command, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command("train", *QUICK, "--out", name, "--seed", seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_evaluate_gives_the_figures_of_the_run(command):
    command("train", *QUICK, "--out", "run")
    status, out, err = command("evaluate", "run", "--json")
    result, expected = last_json(out), json.loads(Path("run/result.json").read_text())
    assert status == 0
    assert result["accuracy"] == pytest.approx(expected["test_accuracy"])
    assert result["loss"] == pytest.approx(expected["test_loss"])
    matrix = np.array(result["confusion_matrix"])
    assert matrix.sum() == result["samples"] == 360
    assert np.trace(matrix) / 360 == pytest.approx(result["accuracy"])
    assert "how often a class" in err


def test_convolutions_train_and_come_back(command, tmp_path):
    options = ("--epochs", "3", "--hidden", "8,16", "--quiet", "--no-plots", "--out", "run")
    status, out, _ = command("train", "digits", "--model", "conv", *options)
    assert status == 0 and "test accuracy" in out
    config = json.loads(Path("run/config.json").read_text())
    assert config["recipe"]["model"] == "conv" and config["model"]["image"] == [1, 8, 8]
    status, out, _ = command("evaluate", "run", "--json")
    expected = json.loads(Path("run/result.json").read_text())["test_accuracy"]
    assert status == 0 and last_json(out)["accuracy"] == pytest.approx(expected)
    np.savez(tmp_path / "images.npz", x=load_digits().x_test)
    status, out, _ = command("predict", "run", "images.npz")
    assert status == 0 and "360 predictions" in out


def test_an_ensemble_reads_images_as_it_was_trained_on_them(command):
    options = ("--epochs", "6", "--hidden", "32", "--quiet", "--no-plots", "--no-report", "--json")
    status, out, _ = command("train", "digits", "--members", "2", *options)
    result = last_json(out)
    assert status == 0 and result["val_accuracy"] > 0.85
    assert result["test_accuracy"] == pytest.approx(result["val_accuracy"], abs=0.1)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_convolutions_of_images_in_a_file(kind, command, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3, 9, 8)).astype(np.float32)
    y = x[:, 0].mean(axis=(1, 2))
    np.savez(tmp_path / "own.npz", x=x, y=(y > 0).astype(int) if kind == "classes" else y)
    options = ("--epochs", "2", "--quiet", "--no-plots", "--out", "run")
    status, _, err = command("train", "own.npz", "--model", "conv", *options)
    assert status == 0, err
    config = json.loads(Path("run/config.json").read_text())
    assert config["model"]["image"] == [3, 9, 8] and config["recipe"]["hidden"] == [32]
    assert config["model"]["output"] == ("softmax" if kind == "classes" else "identity")
    assert command("evaluate", "run")[0] == 0
    np.savez(tmp_path / "turned.npz", x=np.moveaxis(x, 1, -1), y=(y > 0).astype(int))
    status, _, err = command("train", "turned.npz", "--model", "conv")
    assert status != 0 and "move the channels" in err


def test_convolutions_of_what_they_are_not_for(command, tmp_path):
    (tmp_path / "table.csv").write_text("a,b,kind\n1,2,x\n2,1,y\n" * 10)
    status, _, err = command("train", "table.csv", "--model", "conv")
    assert status != 0 and "expected conv for images alone" in err
    status, _, err = command("train", "digits", "--model", "conv", "--members", "3")
    assert status != 0 and "one convolutional network" in err
    status, _, err = command("train", "digits", "--model", "transformer")
    assert status != 0 and "mlp, conv" in err


def test_predict_reads_npz_and_writes_csv(command, tmp_path):
    command("train", "--epochs", "20", "--quiet", "--no-plots", "--out", "run")
    data = load_digits()
    np.savez(tmp_path / "images.npz", x=data.x_test)
    status, out, _ = command("predict", "run", "images.npz", "--out", "answers.csv")
    assert status == 0 and "360 predictions written to answers.csv" in out
    with open("answers.csv") as file:
        rows = list(csv.DictReader(file))
    predicted = np.array([int(row["prediction"]) for row in rows])
    assert np.mean(predicted == data.y_test) > 0.95
    assert sum(float(rows[0][f"p({digit})"]) for digit in range(10)) == pytest.approx(1, abs=1e-5)


def test_table_with_text_classes(command, tmp_path):
    write_table(tmp_path / "table.csv", rows=400)
    status, out, _ = command("train", "table.csv", "--quiet", "--no-plots", "--json")
    assert status == 0
    assert last_json(out)["test_accuracy"] > 0.9
    status, out, _ = command("predict", "runs/table-1", "table.csv", "--json")
    rows = last_json(out)
    assert len(rows) == 400
    assert set(rows[0]) == {"prediction", "p(high)", "p(low)"}
    assert {row["prediction"] for row in rows} == {"high", "low"}
    status, out, _ = command("evaluate", "runs/table-1", "--json")
    assert status == 0 and last_json(out)["samples"] == 80


@pytest.mark.slow
def test_table_with_numbers_is_a_regression(command, tmp_path):
    write_table(tmp_path / "table.csv", rows=400, regression=True)
    status, out, err = command("train", "table.csv", "--quiet", "--no-plots", "--json")
    result = last_json(out)
    assert status == 0 and "test R²" in err
    assert result["test_accuracy"] is None and result["test_r2"] > 0.95
    status, out, _ = command("evaluate", "runs/table-1", "--json")
    assert last_json(out)["rmse"] == pytest.approx(result["test_rmse"])
    status, out, _ = command("predict", "runs/table-1", "table.csv", "--json")
    predicted = np.array([row["prediction"] for row in last_json(out)])
    with open("table.csv") as file:
        true = np.array([float(row["outcome"]) for row in csv.DictReader(file)])
    # In the units of the table, not in those of training.
    assert np.sqrt(np.mean((predicted - true) ** 2)) < 0.25 * true.std()


@pytest.mark.parametrize("name", ["torch", "jax", "array_api_strict"])
def test_backends_train_the_same_network(name, command):
    pytest.importorskip(name)
    losses = {}
    for backend in ("numpy", name):
        arguments = ("--epochs", "1", "--hidden", "16", "--quiet", "--no-plots")
        status, out, _ = command("train", *arguments, "--backend", backend, "--json")
        result = last_json(out)
        assert status == 0 and result["backend"] == backend
        losses[backend] = result["test_loss"]
    assert losses[name] == pytest.approx(losses["numpy"], rel=1e-3)


def test_info_says_what_runs_and_why(command):
    status, out, _ = command("info")
    assert status == 0
    for word in ("numpy", "the default", "softmax_cross_entropy", "processors", "[cuda12]"):
        assert word in out
    facts = last_json(command("info", "--json", "--backend", "numpy")[1])
    assert facts["backend"] == "numpy" and facts["why"] == "set_backend"


def test_info_reports_kernels_switched_off(command, without_kernels):
    assert "reference (without_kernels)" in command("info")[1]


def test_version(command):
    assert command("--version") == (0, f"{xpmlp.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "mnits"), "expected one of digits, mnist"),
        (("train", "absent.csv"), "absent.csv"),
        (("train", "--backend", "numpi"), "expected a backend among numpy, cupy"),
        (("train", "--backend", "torch", "--device", "cuda:7"), "torch cannot use device"),
        (("train", "--hidden", "16,x"), "--hidden"),
        (("train", "--activation", "rellu"), "relu, leaky_relu"),
        (("train", "--optimizer", "adamm"), "sgd, adagrad"),
        (("train", "--schedule", "cosin"), "constant, exponential"),
        (("train", "--normalization", "batch"), "batchnorm"),
        (("train", "--epochs", "0"), "epochs"),
        (("train", "--lr", "-1"), "lr"),
        (("train", "--dropout", "1.0"), "dropout"),
        (("train", "--validation", "5000"), "validation"),
        (("train", "--validation", "-1"), "0 for none, got -1"),
        (("train", "--validation", "2.5"), "0 for none, got 2.5"),
        (("train", "--dtype", "float16"), "float32, float64"),
        (("train", ".."), "got a folder"),
        (("train", "digits", "--target", "x"), "table options"),
        (("evaluate", "absent"), "finished run"),
        (("predict", "absent", "x.csv"), "finished run"),
    ],
    ids=lambda value: "-".join(value[:3]) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, message, command, tmp_path):
    if "torch" in arguments:
        pytest.importorskip("torch")
    status, _, err = command(*arguments)
    wrong_options = any(word.startswith("--") for word in arguments) and "cuda:7" not in arguments
    assert status == (2 if wrong_options else 1)
    assert message in err and err.startswith("xpmlp: ") and err.count("\n") <= 3
    assert not list(tmp_path.glob("runs/*"))


def test_columns_can_be_left_out(command, tmp_path):
    path = write_table(tmp_path / "t.csv")
    rows = list(csv.reader(path.read_text().splitlines()))
    wide = [
        [f"{'name' if i == 0 else f'sample {i}'}", *row, "note" if i == 0 else "x"]
        for i, row in enumerate(rows)
    ]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(wide)
    status, out, _ = command("train", path, *QUICK, "--drop", "name, note", "--json")
    assert status == 0
    config = json.loads((Path(last_json(out)["run"]) / "config.json").read_text())
    assert config["data"]["drop"] == ["name, note"]
    assert command("evaluate", "runs/t-1")[0] == 0
    assert command("predict", "runs/t-1", path)[0] == 0
    status, _, err = command("train", path, "--drop", "outcome", "--target", "outcome")
    assert status == 2 and "different columns" in err


def test_another_table_is_scored_on_the_same_target(command, tmp_path):
    path = write_table(tmp_path / "t.csv", regression=True)
    command("train", path.name, *QUICK, "--target", "b", "--out", "run")
    path.rename(tmp_path / "moved.csv")
    status, _, err = command("evaluate", "run")
    assert status == 1 and "xpmlp evaluate RUN FILE" in err
    status, out, _ = command("evaluate", "run", "moved.csv", "--json")
    here = json.loads((tmp_path / "run" / "result.json").read_text())
    assert status == 0
    assert last_json(out)["rmse"] == pytest.approx(here["test_rmse"])


def test_divergence_is_told_and_its_json_is_json(command, tmp_path):
    path = write_table(tmp_path / "t.csv")
    status, out, err = command("train", path, *QUICK, "--lr", "1e30", "--validation", "0", "--json")
    assert status == 1 and "diverged" in err
    assert "NaN" not in out and last_json(out)["train_loss"] is None
    assert "NaN" not in (tmp_path / "runs" / "t-1" / "result.json").read_text()


def test_a_terminal_without_unicode_is_no_obstacle(tmp_path):
    write_table(tmp_path / "t.csv", regression=True)
    done = subprocess.run(
        [sys.executable, "-m", "xpmlp", "train", "t.csv", *QUICK],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"test R? " in done.stdout and b"RMSE" in done.stdout


def test_unknown_backend_in_the_environment(command, monkeypatch):
    monkeypatch.setenv("XPMLP_BACKEND", "numppy")
    status, _, err = command("train", *QUICK)
    assert status == 1 and "numppy" in err


def test_damaged_run_is_refused(command, tmp_path):
    command("train", *QUICK, "--out", "run")
    model = tmp_path / "run" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:100])
    status, _, err = command("evaluate", "run")
    assert status == 1 and "model.safetensors" in err


def test_other_data_than_trained_on_is_refused(command, tmp_path):
    command("train", *QUICK, "--out", "run")
    write_table(tmp_path / "table.csv")
    status, _, err = command("evaluate", "run", "table.csv")
    assert status == 1 and "expected arrays as in the training" in err
    status, _, err = command("predict", "run", "table.csv")
    assert status == 1


def test_full_disk_is_told_and_no_half_file_stays(command, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = command("train", *QUICK, "--out", "run")
    assert status == 1 and "No space left" in err
    assert not (tmp_path / "run").exists()


def test_unforeseen_error_shows_its_traceback_when_asked(command, monkeypatch):
    monkeypatch.setenv("XPMLP_DEBUG", "1")
    with pytest.raises(xpmlp.errors.XpmlpError):
        command("train", "mnits")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send one process a SIGINT")
def test_ctrl_c_keeps_the_best_so_far(tmp_path):
    command = [sys.executable, "-m", "xpmlp", "train", "--epochs", "5000", "--no-plots", "-v"]
    process = subprocess.Popen([*command, "--out", "run"], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("epoch    2/"):
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in rest
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["ending"] == "interrupted" and 2 <= result["epochs"] < 5000
    model, extras = load_model(tmp_path / "run" / "model.safetensors")
    assert extras["dataset"] == "digits"
    assert model.config["sizes"] == [64, 256, 128, 10]


def test_command_without_its_extra_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from xpmlp.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'pip install "xpmlp[cli]"' in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a home of POSIX")
@pytest.mark.parametrize("home", ["missing", "a file"])
def test_a_home_that_nothing_can_be_written_to(tmp_path, home):
    path = tmp_path / "home"
    if home == "a file":
        path.touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG")}
    environment |= {"HOME": str(path), "PYTHONPATH": str(Path(xpmlp.__file__).parents[1])}
    command = [sys.executable, "-m", "xpmlp", "train", "digits", *QUICK, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert last_json(done.stdout)["test_accuracy"] > 0.5
