"""Messages can be read: not too long, and without what a terminal acts on."""

from __future__ import annotations

import pickle

import pytest

from xpmlp import errors

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]


@pytest.mark.parametrize("kind", CLASSES)
def test_messages_are_short_and_plain(kind):
    error = kind("a" * 50_000 + "\x1b[2Jend\n")
    assert len(str(error)) == 2000 and str(error).startswith("aaa")
    assert str(error).endswith("\N{REPLACEMENT CHARACTER}[2Jend\n")
    assert str(kind("two\nlines, ² and é")) == "two\nlines, ² and é"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert kind(3, "x").args == (3, "x") and kind().args == ()
    assert str(kind.__new__(kind, "as tblib makes it")) == "as tblib makes it"
