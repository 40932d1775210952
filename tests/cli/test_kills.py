"""Some of the kills of ``python tests/kills.py``: one each of every kind, inside of writes too."""

from __future__ import annotations

import os

import kills
import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")


@pytest.mark.slow
@pytest.mark.parametrize("kind", kills.KINDS)
def test_what_was_killed_goes_on_to_the_bit(kind):
    found = kills.kill_many(2, kinds=(kind,), points=("write", "replace"))
    assert not (found.different or found.unreadable or found.strays), str(found)
