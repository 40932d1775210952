"""Trainers run on the stand-in device too, and what its graphs touch is counted."""

from step.conftest import nothing_freed_is_touched, pytest_terminal_summary  # noqa: F401
