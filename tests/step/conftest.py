"""What graphs of the stand-in device touch is counted, and shown at the end (device_memory.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from step.device_memory import Counts


@pytest.fixture(autouse=True)
def nothing_freed_is_touched() -> Iterator[None]:
    """Also where what runs has caught the error."""
    before = Counts.freed
    yield
    assert Counts.freed == before, "an address of freed memory was used"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How much was looked at."""
    if Counts.looked_up and not Counts.shown:
        Counts.shown = True
        terminalreporter.write_line(
            f"stand-in device: {Counts.looked_up:,} addresses used by kernels and graphs, "
            f"{Counts.freed} of them of freed memory"
        )
