"""The command, run in this process, in an empty folder and as if in a new process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from xpmlp.cli import main


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch) -> None:
    """No environment's backend, and lines of 200 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("XPMLP_BACKEND", raising=False)
    monkeypatch.setattr("xpmlp.backend._default", None)  # as in a new process, and back after
    monkeypatch.setattr("xpmlp.cli.display.console._width", None)  # COLUMNS where it was imported


@pytest.fixture
def command(monkeypatch, capsys) -> Callable:
    """Run the command in this process: (exit status, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["xpmlp", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
