"""``xpmlp sweep`` as a person uses it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from xpmlp.cli.sweep import parse_bytes, verdict
from xpmlp.errors import ConfigError

QUICK = ("--epochs", "2", "--hidden", "8,12", "--quiet", "--no-plots")


pytestmark = pytest.mark.usefixtures("in_empty_folder")


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def test_sweep_leaves_a_run_that_other_commands_take(command, tmp_path):
    status, out, err = command(
        "sweep", "digits", "--lr", "1e-3:1e-1:log:3", "--weight-decay", "0,0.1", "--seeds", "2",
        "--epochs", "4", "--json",
    )  # fmt: skip
    assert status == 0, err
    folder = tmp_path / "runs" / "digits-sweep-1"
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "sweep.csv", "sweep.png", "model.safetensors", "result.json"}
    with open(folder / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    # Six settings and the recipe itself, with two seeds each.
    assert len(rows) == 14 and [row["setting"] for row in rows[-2:]] == ["default", "default"]
    assert {row["lr"] for row in rows[:12]} == {"0.001", "0.01", "0.1"}
    result = json.loads((folder / "result.json").read_text())
    assert result | {"run": "runs/digits-sweep-1"} == last_json(out)
    by_setting = {}
    for row in rows:
        by_setting.setdefault(row["setting"], []).append(float(row["val_accuracy"]))
    best = max(np.mean(values) for values in by_setting.values())
    assert result["val_accuracy"] == pytest.approx(best)
    assert result["networks"] == 14 and result["populations"] == [14]
    assert verdict(result) in " ".join(err.split()) and "epoch 4/4" in err
    assert result["best_is_default"] or 0.5 < result["default_test_accuracy"] <= 1.0

    status, out, _ = command("evaluate", folder, "--json")
    assert status == 0
    assert last_json(out)["accuracy"] == pytest.approx(result["test_accuracy"])
    np.savez("images.npz", x=np.zeros((3, 8, 8)))
    assert command("predict", folder, "images.npz")[0] == 0


def test_table_with_numbers(command):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    lines = ["a,b,outcome", *(f"{a},{b},{50 + 10 * a - 5 * b}" for a, b in x)]
    Path("table.csv").write_text("\n".join(lines) + "\n")
    status, out, err = command(
        "sweep", "table.csv", "--lr", "1e-5,1e-2", "--hidden", "8", "--epochs", "20",
        "--quiet", "--no-plots", "--json",
    )  # fmt: skip
    assert status == 0, err
    result = last_json(out)
    assert result["best"]["lr"] != 1e-5 and result["test_r2"] > 0.9
    assert command("evaluate", "runs/table-sweep-1")[0] == 0


def test_default_grid_has_64_settings(command):
    status, out, err = command("sweep", "--epochs", "1", "--quiet", "--no-plots", "--json")
    assert status == 0, err
    assert last_json(out)["settings"] == 64
    config = json.loads(Path("runs/digits-sweep-1/config.json").read_text())
    assert {name: len(values) for name, values in config["axes"].items()} == {
        "lr": 8,
        "weight_decay": 4,
        "dropout": 2,
    }


def test_halving_and_memory(command):
    status, out, err = command(
        "sweep", "--lr", "1e-4:1e-1:log:8", "--hidden", "8", "--epochs", "4", "--halving",
        "--memory", "2MB", "--quiet", "--no-plots", "--json",
    )  # fmt: skip
    assert status == 0, err
    assert len(last_json(out)["populations"]) > 1
    with open("runs/digits-sweep-1/sweep.csv") as file:
        endings = [row["ending"] for row in csv.DictReader(file)]
    assert sum(ending.startswith("halving") for ending in endings) >= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lr", ""), "at least one value"),
        (("--lr", "1e-3,1e-3"), "0.001 twice"),
        (("--lr", "low"), "FROM:TO:log:COUNT"),
        (("--hidden", "64;32"), "joined by x"),
        (("--dropout", "0.5,1.0"), "dropout"),
        (("--momentum", "0.9", "--optimizer", "adagrad"), "momentum"),
        (("--seeds", "0"), "--seeds"),
        (("--validation", "0"), "validation"),
        (("--memory", "lots"), "--memory"),
        (("--memory", "10KB"), "fit into memory"),
        (("--sampling", "mine"), "shared, own, bootstrap"),
    ],
    ids=lambda value: "".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, message, command, tmp_path):
    status, _, err = command("sweep", "--epochs", "1", "--quiet", *arguments)
    assert status == 2
    assert message in err and err.startswith("xpmlp: ") and err.count("\n") <= 3
    assert not list(tmp_path.glob("runs/*"))


def test_live_table_in_a_terminal(command, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    status, _, err = command("sweep", "--lr", "1e-3,1e-2", *QUICK[:4], "--no-plots")
    assert status == 0
    assert "val_accuracy" in err and "networks running" in err and "default" in err


def test_sizes_of_memory():
    assert [parse_bytes(text) for text in ("4GB", "500 MB", "1e6", "2kib", "1.5G")] == [
        4 * 10**9, 500 * 10**6, 10**6, 2000, 1_500_000_000,
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="4GB"):
        parse_bytes("0")


def test_verdict_says_who_is_better():
    result = {"best_is_default": False, "test_accuracy": 0.98, "default_test_accuracy": 0.97}
    assert "beats the default recipe: 98.00 %, default 97.00 %" in verdict(result)
    assert "does not beat" in verdict(result | {"test_accuracy": 0.9})
    assert "equals" in verdict(result | {"test_accuracy": 0.97})
    assert "nothing beats" in verdict(result | {"best_is_default": True})
