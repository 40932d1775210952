"""Tables on the command line: what is printed, scored, predicted and written."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xpmlp.cli.outputs import write_rows
from xpmlp.data.tables import NumberCodes, read_table
from xpmlp.training import load_model, save_model

QUICK = ("--epochs", "2", "--hidden", "8", "--quiet", "--no-plots")


@pytest.fixture(autouse=True)
def wide(in_empty_folder, monkeypatch, without_kernels):
    monkeypatch.setenv("COLUMNS", "300")


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def write(name, rows, header="key,size,kind,day,answer"):
    Path(name).write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return name


def people(number=60, first=0):
    return [
        (
            f"k{n}",
            "" if n % 9 == 4 else round(n % 7 * 1.3 + n / 50, 3),
            ["low", "high", "mid"][n % 3],
            f"2024-0{n % 6 + 1}-11",
            "yes" if n % 7 > 3 else "no",
        )
        for n in range(first, first + number)
    ]


@pytest.fixture
def run(command):
    write("people.csv", people())
    status, out, err = command("train", "people.csv", *QUICK, "--id", "key", "--out", "run")
    assert status == 0, err
    return out


def test_what_was_understood_is_printed_before_training(run):
    for part in (
        "60 rows",
        "'answer'",
        "'size' (7 missing)",
        "3 levels",
        "dates 1: 'day'",
        "'key'",
    ):
        assert part in run
    assert run.index("60 rows") < run.index("test accuracy")


def test_predictions_carry_ids_and_fill_in_missing_values(command, run):
    write(
        "new.csv", [("n1", "", "low", "2024-05-05"), ("n2", 3.5, "other", "")], "key,size,kind,day"
    )
    status, out, err = command("predict", "run", "new.csv", "--json")
    assert status == 0, err
    rows = last_json(out)
    assert [row["key"] for row in rows] == ["n1", "n2"]
    assert list(rows[0]) == ["key", "prediction", "p(no)", "p(yes)"]
    assert "2 missing values filled in (size 1, day 1)" in err


def test_a_column_that_did_not_vary_has_no_effect(command):
    rows = [(n / 7, 2023, "kept" if n else "once", "uv"[n % 2]) for n in range(60)]
    write("t.csv", rows, "a,year,flag,y")
    assert command("train", "t.csv", *QUICK, "--out", "run")[0] == 0
    write("far.csv", [(0.5, 2023, "kept"), (0.5, 2050, "kept")], "a,year,flag")
    near, far = last_json(command("predict", "run", "far.csv", "--json")[1])
    assert near == far


def test_inputs_that_vary_in_the_validation_rows_only_are_no_inputs(command):
    x = np.zeros((40, 2))
    x[:, 0] = np.arange(40)
    np.savez("t.npz", x_train=x, y_train=np.arange(40) % 2, x_test=x + 1, y_test=np.arange(40) % 2)
    alone = ("--members", "1", "--bins", "0")
    assert command("train", "t.npz", *QUICK, *alone, "--out", "run")[0] == 0
    model, extras = load_model("run/model.safetensors")
    assert model.config["sizes"][0] == 1 and extras["columns"] == [0]
    assert command("evaluate", "run")[0] == 0
    np.savez("all.npz", x=x, y=np.arange(40) % 2)
    assert last_json(command("evaluate", "run", "all.npz", "--json")[1])["samples"] == 40
    assert command("predict", "run", "all.npz")[0] == 0


# --- evaluate ---


def test_a_run_is_scored_on_its_own_test_rows_from_any_folder(command, run, monkeypatch, tmp_path):
    result = json.loads(Path("run/result.json").read_text())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, out, err = command("evaluate", "../run", "--json")
    assert status == 0, err
    assert last_json(out)["loss"] == pytest.approx(result["test_loss"])


@pytest.mark.parametrize("change", ["sorted", "longer"])
def test_changed_data_is_refused(command, run, change):
    rows = people()
    write("people.csv", sorted(rows, key=str) if change == "sorted" else [*rows, rows[0]])
    status, _, err = command("evaluate", "run")
    assert status == 1 and "another content" in err and "xpmlp evaluate RUN FILE" in err


def test_changed_arrays_are_refused(command):
    x, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    np.savez("t.npz", x=x, y=y)
    assert command("train", "t.npz", *QUICK, "--out", "run")[0] == 0
    assert command("evaluate", "run")[0] == 0
    out = command("evaluate", "run", "t.npz", "--json")[1]
    assert last_json(out)["samples"] == 8 and "only its 8 test rows" in out
    np.savez("t.npz", x=x[::-1], y=y)
    status, _, err = command("evaluate", "run")
    assert status == 1 and "another content" in err


def test_all_rows_of_another_file_are_scored(command, run):
    write("other.csv", people(30, first=100))
    status, out, err = command("evaluate", "run", "other.csv", "--json")
    assert status == 0, err
    assert last_json(out)["samples"] == 30 and "30 rows of other.csv scored" in out


def test_the_training_file_under_another_name_is_known(command, run):
    Path("people.csv").rename("moved.csv")
    status, out, _ = command("evaluate", "run", "moved.csv", "--json")
    assert status == 0 and last_json(out)["samples"] == 12
    assert "only its 12 test rows" in out


def test_unknown_classes_and_missing_targets_are_counted(command, run):
    rows = [list(row) for row in people(30, first=100)]
    rows[0][4], rows[1][4], rows[2][4] = "maybe", "", "maybe"
    write("other.csv", rows)
    status, out, err = command("evaluate", "run", "other.csv", "--json")
    result = last_json(out)
    assert status == 0, err
    assert result["samples"] == 27 and result["unknown_classes"] == {"maybe": 2}
    assert result["accuracy_with_unknown"] == pytest.approx(result["accuracy"] * 27 / 29)
    assert "1 without a target" in out


def test_a_file_with_one_of_the_classes_only(command, run):
    write("other.csv", [row for row in people(30, first=100) if row[4] == "yes"])
    status, out, err = command("evaluate", "run", "other.csv", "--json")
    assert status == 0, err
    assert last_json(out)["class_accuracy"]["no"] is None and "no rows" in err


def test_the_task_of_the_run_holds_for_other_files(command):
    rng = np.random.default_rng(0)
    write("a.csv", [(n / 9, rng.integers(0, 80)) for n in range(200)], "a,visits")
    assert command("train", "a.csv", *QUICK, "--out", "run")[0] == 0
    write("b.csv", [(n / 9, n % 3) for n in range(60)], "a,visits")
    status, out, err = command("evaluate", "run", "b.csv", "--json")
    assert status == 0, err
    assert last_json(out)["samples"] == 60 and "rmse" in last_json(out)


def test_a_test_file_of_its_own(command):
    write("a.csv", people())
    write("b.csv", people(25, first=300))
    status, out, err = command(
        "train", "a.csv", *QUICK, "--drop", "key", "--test", "b.csv", "--out", "run"
    )
    assert status == 0, err
    assert "25 of" in out
    assert last_json(command("evaluate", "run", "--json")[1])["samples"] == 25
    assert "these rows were trained on" in command("evaluate", "run", "a.csv")[1]
    write("b.csv", people(25, first=400))
    assert command("evaluate", "run")[0] == 1


def test_a_share_of_rows_to_test_on(command):
    write("a.csv", people())
    assert "45 to train on, 15 to test on" in command("train", "a.csv", *QUICK, "--test", "0.25")[1]


# --- predict ---


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.jsonl", "o.parquet", "o.xlsx"])
def test_the_ending_of_the_output_is_what_is_written(command, run, name):
    if name == "o.xlsx":
        pytest.importorskip("openpyxl")
    status, _, err = command("predict", "run", "people.csv", "--out", name)
    assert status == 0, err
    table = read_table(name)
    assert table.names == ["key", "prediction", "p(no)", "p(yes)"] and len(table) == 60
    if name == "o.tsv":
        assert "\t" in Path(name).read_text()


def test_standard_input_and_output(command, run, monkeypatch, tmp_path):
    whole = command("predict", "run", "people.csv", "--out", "-")[1]
    assert whole.startswith("key,prediction,p(no),p(yes)\nk0,") and whole.count("\n") == 61
    content = Path("people.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert command("predict", "run", "-", "--out", "-")[1] == whole
    content = Path(write("new.csv", people(20, first=200))).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert last_json(command("evaluate", "run", "-", "--json")[1])["samples"] == 20


@pytest.mark.parametrize("kind", ["input", "link", "fifo", "folder", "ending"])
def test_what_must_not_be_written_over_is_not(command, run, kind):
    before, out = Path("people.csv").read_bytes(), "out.csv"
    if kind == "input":
        out = "./people.csv"
    elif kind == "link":
        os.symlink("people.csv", out)
    elif kind == "fifo":
        os.mkfifo(out)
    elif kind == "folder":
        os.mkdir(out)
    else:
        out = "out.docx"
    status, _, err = command("predict", "run", "people.csv", "--out", out)
    assert status == 2 and "`--out`" in err
    assert Path("people.csv").read_bytes() == before
    assert kind != "link" or Path(out).is_symlink()


def test_files_without_header_with_and_without_the_target(command):
    rows = [(n % 5, ["u", "v"][n % 2], n / 3) for n in range(40)]
    lines = [",".join(map(str, row)) for row in rows]
    Path("t.data").write_text("\n".join(lines) + "\n")
    assert command("train", "t.data", *QUICK, "--target", "1", "--out", "run")[0] == 0
    whole = last_json(command("predict", "run", "t.data", "--json")[1])
    Path("new.data").write_text("\n".join(f"{a},{b}" for a, _, b in rows) + "\n")
    assert last_json(command("predict", "run", "new.data", "--json")[1]) == whole


def test_nothing_that_a_terminal_acts_on_is_printed(command):
    rows = [(n / 7, ["\x1b[31mred", "\x1b]0;title\x07"][n % 2]) for n in range(40)]
    write("t.csv", rows, "\x1b[1ma,y\x1b[0m")
    printed = "".join(command("train", "t.csv", *QUICK, "--out", "run")[1:])
    for arguments in (
        ("evaluate", "run"),
        ("predict", "run", "t.csv"),
        ("train", "t.csv", "--target", "z"),
    ):
        printed += "".join(command(*arguments)[1:])
    assert "red" in printed and "\x1b" not in printed and "\x07" not in printed


# --- options and older runs ---


def test_options_of_reading_reach_the_reader_and_are_remembered(command):
    lines = [f"{n},5#{n % 2}#-999" if n % 5 == 0 else f"{n},5#{n % 2}#{n % 4}" for n in range(60)]
    Path("t.txt").write_text("a#y#b\n" + "\n".join(lines) + "\n")
    options = ("--sep", "#", "--decimal", ",", "--na", "-999", "--target", "y", "--header")
    status, out, err = command("train", "t.txt", *QUICK, *options, "--out", "run")
    assert status == 0, err
    assert "'b' (12 missing)" in out and "decimal commas" in out
    config = json.loads(Path("run/config.json").read_text())
    assert config["data"] | {"sep": "#", "decimal": ",", "na": ["-999"]} == config["data"]
    assert command("evaluate", "run")[0] == 0
    write("usual.csv", [("1.5", 0, 3), ("2.5", 1, "")], "a,y,b")
    status, _, err = command("evaluate", "run", "usual.csv")
    assert status == 0, err


def test_options_can_be_repeated_and_hold_names_with_commas(command):
    rows = [(n, n % 3, n % 4, n % 2) for n in range(60)]
    write("t.csv", rows, 'v,"distance, km",b,y')
    status, _, err = command("train", "t.csv", *QUICK, "--drop", "distance, km", "--drop", "b")
    assert status == 0, err
    assert load_model("runs/t-1/model.safetensors")[1]["features"] == ["v"]


def test_sweep_takes_the_same_tables(command):
    write("people.csv", people())
    status, out, err = command(
        *("sweep", "people.csv", "--lr", "1e-3,1e-2", "--epochs", "1", "--quiet", "--no-plots"),
        *("--id", "key", "--out", "sweep"),
    )
    assert status == 0, err
    assert "'size' (7 missing)" in out
    assert command("evaluate", "sweep")[0] == 0
    assert command("predict", "sweep", "people.csv")[0] == 0


def test_runs_of_before_encoders_are_still_scored_and_predict(command):
    write("t.csv", [(n / 7, n % 5, "uv"[n % 2]) for n in range(60)], "a,b,y")
    assert command("train", "t.csv", *QUICK, "--out", "run")[0] == 0
    new = last_json(command("evaluate", "run", "--json")[1])
    predicted = last_json(command("predict", "run", "t.csv", "--json")[1])
    model, extras = load_model("run/model.safetensors")
    for name in ("table", "columns"):
        del extras[name]
    save_model("run/model.safetensors", model, extras)
    config = json.loads(Path("run/config.json").read_text())
    del config["identity"]
    Path("run/config.json").write_text(json.dumps(config))
    status, out, err = command("evaluate", "run", "--json")
    assert status == 0, err
    assert last_json(out)["loss"] == new["loss"] and "no fingerprint" in out
    assert last_json(command("predict", "run", "t.csv", "--json")[1]) == predicted


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_table_becomes_an_ensemble_that_answers_as_one(command, task):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    value = 5 * x[:, 0] + x[:, 1]
    y = value if task == "regression" else np.where(value > 0, "up", "down")
    pd.DataFrame(x, columns=list("abc")).assign(y=y).to_csv("t.csv", index=False)
    quick = ("--hidden", "16", "--lr", "0.01", "--quiet", "--no-plots", "--members", "4")
    status, out, _ = command("train", "t.csv", *quick, "--folds", "4", "--out", "run", "--json")
    result = last_json(out)
    assert status == 0 and result["best_epoch"] >= 1 and np.isfinite(result["val_loss"])
    model, extras = load_model("run/model.safetensors")
    assert model.population == 4
    inputs = NumberCodes.from_dict(extras["codes"]).positions(x)
    outputs = np.asarray(model.outputs(inputs))
    status, out, _ = command("predict", "run", "t.csv", "--out", "p.csv")
    predicted = pd.read_csv("p.csv")
    if task == "regression":
        target = extras["target_normalization"]
        low, high = extras["bounds"]
        mean, std = np.ravel(target["mean"]), np.ravel(target["std"])
        wanted = np.clip(outputs.mean(axis=0), low, high)[:, 0] * std + mean
        np.testing.assert_allclose(predicted["prediction"], wanted, rtol=1e-4, atol=1e-4)
    else:
        powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        mean = (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=0)
        mean = mean ** (1 / extras["temperature"])
        wanted = mean[:, 1] / mean.sum(axis=1)
        np.testing.assert_allclose(predicted["p(up)"], wanted, atol=1e-4)
    scored = last_json(command("evaluate", "run", "--json")[1])
    name = "r2" if task == "regression" else "accuracy"
    assert scored[name] == pytest.approx(result[f"test_{name}"], rel=1e-6) and scored[name] > 0.8


def test_numbers_of_an_ensemble_stay_within_those_trained_on(command):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    frame.assign(y=frame["a"] + frame["b"]).to_csv("t.csv", index=False)
    quick = ("--hidden", "16", "--lr", "0.01", "--quiet", "--no-plots", "--members", "2")
    assert command("train", "t.csv", *quick, "--out", "run")[0] == 0
    pd.DataFrame({"a": [9.0, -9.0], "b": [9.0, -9.0]}).to_csv("new.csv", index=False)
    model, extras = load_model("run/model.safetensors")
    corners = NumberCodes.from_dict(extras["codes"]).positions(np.array([[9.0, 9.0], [-9.0, -9.0]]))
    high, low = np.asarray(model.outputs(corners)).mean(axis=0).ravel()
    assert high > extras["bounds"][1][0] and low < extras["bounds"][0][0]
    assert command("predict", "run", "new.csv", "--out", "p.csv")[0] == 0
    # Whose rows are a part of the file's: nothing beyond is known.
    found, y = pd.read_csv("p.csv")["prediction"], frame["a"] + frame["b"]
    assert y.quantile(0.9) < found[0] <= y.max() and y.min() <= found[1] < y.quantile(0.1)
    assert command("evaluate", "run", "--json")[0] == 0


def test_groups_and_time_make_the_folds_of_an_ensemble(command):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=120), "g": np.arange(120) % 10})
    frame["t"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(120), "D")
    frame.assign(y=frame["a"] * 2).to_csv("t.csv", index=False)
    for option, column in (("--group", "g"), ("--time", "t")):
        status, out, err = command("train", "t.csv", *QUICK, option, column, "--json")
        assert status == 0, err
        assert np.isfinite(last_json(out)["val_loss"])


def test_names_that_spreadsheets_would_run_are_quoted(tmp_path):
    rows = [{"=cmd|'x'!A1": "=1+1", "p": -0.5, "q": "-3.5", "r": "@SUM(A1)", "s": "a=b"}]
    for name in ("p.csv", "p.tsv"):
        write_rows(tmp_path / name, rows)
        text = (tmp_path / name).read_text().replace("\t", ",")
        assert text == "'=cmd|'x'!A1,p,q,r,s\n'=1+1,-0.5,-3.5,'@SUM(A1),a=b\n"
    openpyxl = pytest.importorskip("openpyxl")
    write_rows(tmp_path / "p.xlsx", rows)
    cells = [c for row in openpyxl.load_workbook(tmp_path / "p.xlsx").active for c in row]
    assert all(cell.data_type != "f" for cell in cells)
    write_rows(tmp_path / "p.jsonl", rows)
    assert '"=1+1"' in (tmp_path / "p.jsonl").read_text()
