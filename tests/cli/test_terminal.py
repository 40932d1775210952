"""The commands in terminals of 80 and 40 columns, in none, and when something ends them."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

pytestmark = pytest.mark.usefixtures("in_empty_folder")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMANDS = {
    "train": ["train", "digits", "--epochs", "12", "--hidden", "16", "--out", "run"],
    "table": [
        "train",
        "t.csv",
        "--epochs",
        "2",
        "--hidden",
        "8",
        "--members",
        "1",
        "--out",
        "many",
    ],
    "evaluate": ["evaluate", "run"],
    "30 classes": ["evaluate", "many"],
    "predict": ["predict", "many", "t.csv"],
    "info": ["info"],
    "report": ["report", "run", "many"],
    "plot": ["plot", "run", "many"],
    "sweep": ["sweep", "digits", "--lr", "0.001,0.01", "--epochs", "2", "--hidden", "8"],
    "bench": ["bench", "--quick", "--only", "dropout", "--peers", "none"],
    "help": ["train", "--help"],
}
IN_TURN = """
import json, sys
from xpmlp.cli import main
for name, arguments in json.loads(sys.argv[1]).items():
    print(f"== {name}", flush=True)
    sys.argv = ["xpmlp", *arguments]
    try:
        main()
    except SystemExit as stop:
        sys.stdout.flush()
        print(f"== status {stop.code or 0}", flush=True)
    else:
        print("== status 0", flush=True)
"""


def write_table():
    rng = np.random.default_rng(0)
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "a column with a long name", "goal"])
        for row in range(300):
            label = f"class {row % 30} " + ("of a long name " * 3 if row % 30 == 7 else "")
            writer.writerow([rng.normal(), row % 30 + rng.normal(), label])


def in_terminal(columns, *command, rows=24):
    """What a command writes into a terminal of that many columns: lines of text, and its status."""
    pty, fcntl, termios = (pytest.importorskip(n) for n in ("pty", "fcntl", "termios"))
    ours, theirs = pty.openpty()
    size = rows.to_bytes(2, sys.byteorder) + columns.to_bytes(2, sys.byteorder) + bytes(4)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    environment = {n: v for n, v in os.environ.items() if n not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    )
    os.close(theirs)
    content = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        content += part
    os.close(ours)
    text = ANSI.sub("", content.decode("utf-8", "replace"))
    return re.split(r"[\r\n]+", text), process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("columns", [80, 40])
def test_nothing_is_wider_than_the_terminal(columns):
    write_table()
    code = [sys.executable, "-c", IN_TURN, json.dumps(COMMANDS)]
    lines, status = in_terminal(columns, *code)
    assert status == 0
    text = "\n".join(lines)
    assert text.count("== status 0") == len(COMMANDS), text[-3000:]
    told: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("== "):
            told.setdefault(line[3:], [])
        elif told:
            told[next(reversed(told))].append(line.rstrip())
    wide = [
        f"{name}: {line}"
        for name, shown in told.items()
        for line in shown
        if cell_len(line) > columns and name not in ("status 0",)
    ]
    assert wide == []
    assert any("12/12" in line and "%" in line for line in told["train"])
    if columns == 80:
        cut = [
            f"{name}: {line}"
            for name, shown in told.items()
            for line in shown
            if "…" in line
            if name in ("evaluate", "info", "bench", "train")
        ]
        assert cut == []
        assert any("what each class was taken for" in line for line in told["30 classes"])
        assert sum("class " in line for line in told["30 classes"]) >= 30
        assert any("how often a class" in line for line in told["evaluate"])


def test_without_a_terminal_about_ten_lines(command):
    quick = ("--hidden", "8", "--no-plots", "--no-report")
    _, _, err = command("train", "--epochs", "57", *quick, "--out", "a")
    lines = err.splitlines()
    assert len(lines) == 11 and lines[0].startswith("epoch  1/57") and "57/57" in lines[-1]
    _, _, err = command("train", "--epochs", "23", "-v", *quick, "--out", "b")
    assert len(err.splitlines()) == 23
    _, _, err = command("train", "--epochs", "500", "--patience", "1", *quick, "--out", "c")
    last = json.loads(Path("c/result.json").read_text())["epochs"]
    assert f"{last}/500" in err and len(err.splitlines()) <= 13


JSON = {
    "train": ["train", "t.csv", "--epochs", "2", "--members", "1", "--out", "run", "--no-plots"],
    "evaluate": ["evaluate", "run"],
    "predict": ["predict", "run", "t.csv"],
    "report": ["report", "run"],
    "plot": ["plot", "run"],
    "export": ["export", "run", "net.onnx"],
    "selfcheck": ["selfcheck", "--backends", "numpy"],
    "sweep": ["sweep", "t.csv", "--lr", "0.01", "--epochs", "1", "--hidden", "8", "--no-plots"],
    "info": ["info"],
    "bench": ["bench", "--quick", "--only", "dropout", "--peers", "none"],
}


@pytest.mark.slow
def test_with_json_nothing_else_is_on_standard_output(command):
    write_table()
    for name, arguments in JSON.items():
        status, out, err = command(*arguments, "--json")
        assert status == 0, (name, err)
        assert out.count("\n") == 1 and json.loads(out), name


def test_json_and_predictions_cannot_both_be_on_standard_output(command):
    status, _, err = command("predict", "run", "x.csv", "--out", "-", "--json")
    assert status == 2 and "--json" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--lr", "-1"), "`--lr`: expected a finite number ≥ 0, got -1.0"),
        (("train", "--learning-rate", "-1"), "`--lr`: expected a finite number"),
        (("train", "--epochs", "0"), "`--epochs`: expected an integer ≥ 1, got 0"),
        (("train", "--dropout", "1"), "`--dropout`: expected a number in [0, 1), got 1.0"),
        (("train", "--members", "0"), "`--members`: expected an integer ≥ 1"),
        (("train", "--hidden", "0"), "`--hidden`"),
        (("train", "--seed", "-1"), "`--seed`"),
        (("train", "--schedule", "cosin"), "`--schedule`"),
        (("train", "--optimizer", "adamm"), "`--optimizer`: expected one of sgd"),
        (
            ("train", "--normalization", "batch"),
            "`--normalization`: expected one of none, batchnorm",
        ),
        (("train", "--backend", "numpi"), "`--backend`"),
        (("train", "--nonsense"), "--nonsense"),
        (("nonsense",), "nonsense"),
        (("export", "run", "net.txt"), ".onnx"),
        (("bench", "--out", "no/such/folder.json"), "in a folder that exists"),
        (("selfcheck", "--backends", "x"), "`--backends`"),
    ],
    ids=lambda value: "-".join(value[:3]) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_status_2_and_names_the_option(arguments, message, command):
    status, out, err = command(*arguments)
    assert status == 2 and message in err and out == ""


def test_a_column_that_is_not_there_is_wrong_use(command):
    write_table()
    status, _, err = command("train", "t.csv", "--target", "nowhere")
    assert status == 2 and "`--target`: expected a column" in err


def test_help_tells_the_recipes(command):
    from xpmlp.cli.recipes import RECIPES

    _, out, _ = command("train", "--help")
    text = " ".join(out.split())
    for name in ("digits", "mnist", "cifar10"):
        recipe = RECIPES[name]
        hidden = ",".join(map(str, recipe.hidden))
        told = (
            f"{name}: --hidden {hidden} --epochs {recipe.epochs} --batch-size {recipe.batch_size}"
        )
        assert f"{told} --lr {recipe.lr:g}" in text
        assert (recipe.activation, recipe.normalization) == ("relu", "batchnorm")
        assert (recipe.optimizer, recipe.schedule) == ("adamw", "onecycle")
    fashion = RECIPES["fashion-mnist"]
    assert f"--epochs {fashion.epochs} --dropout {fashion.dropout}" in text
    assert "[default: digits]" in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["--version"]])
def test_a_full_disk_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xpmlp", *arguments], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == b"xpmlp: cannot write standard output: No space left on device\n"


SLOW_START = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # in a pipeline's shell it may be ignored
sys.argv = ["xpmlp", {arguments}]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("now", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Finder())
from xpmlp.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send one process a signal")
@pytest.mark.parametrize("module", ["xpmlp.cli.app", "xpmlp.cli.info"], ids=["starting", "running"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_every_command_in_one_line(name, module):
    number = getattr(signal, name)
    code = SLOW_START.format(arguments="'info'", module=module)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "now\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.startswith("xpmlp: interrupted") and err.count("\n") == 1
