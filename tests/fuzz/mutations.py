"""Small changes that a file may suffer, or be given by somebody who means harm."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

NUMBERS = [0, 1, -1, 2, 7, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64]
VALUES = [
    *(None, True, False, "", "x", "0", "nan", "\x1b[2J", "=1+1", "a" * 5000, "\0", "é\ud83d"[:1]),
    *NUMBERS,
    *(1.5, -0.0, 1e308, float("inf"), float("nan"), [], {}, [[]], [None], {"a": 1}, [1, 2, 3]),
    *(["a", "a"], 10**400, [0] * 3000, {"": {"": {"": []}}}),
]


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """One to three changes of bits, bytes, lengths, and pieces."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        content = rng.choice(_BYTES)(content, rng)
    return content


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 20])):
        if changed:
            changed[_place(changed, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _place(content: bytes | bytearray, rng: random.Random) -> int:
    """More often near the ends, where headers and tables of contents are."""
    near = min(len(content), 200)
    which = rng.random()
    if which < 0.4:
        return rng.randrange(near)
    if which < 0.6:
        return len(content) - 1 - rng.randrange(near)
    return rng.randrange(len(content))


def _byte(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\xff"
    changed = bytearray(content)
    changed[_place(changed, rng)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x2C, 0x5B])
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _gone(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content) + 1)
    return content[:begin] + content[begin + rng.choice([1, 4, 64, 1000]) :]


def _insert(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content) + 1)
    new = rng.choice([rng.randbytes(rng.choice([1, 8, 300])), b"\0" * 100, b"[" * 2000, b"9" * 400])
    return content[:begin] + new + content[begin:]


def _splice(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return content
    begin, to = rng.randrange(len(content)), rng.randrange(len(content))
    piece = content[begin : begin + rng.choice([4, 16, 256, 5000])]
    return content[:to] + piece + content[to + rng.choice([0, len(piece)]) :]


def _length(content: bytes, rng: random.Random) -> bytes:
    if len(content) < 8:
        return content
    form = rng.choice(["<I", ">I", "<Q", ">Q", "<H", "<i"])
    low, high = (0, 2 ** (8 * struct.calcsize(form)) - 1)
    if form == "<i":
        low, high = -(2**31), 2**31 - 1
    number = rng.choice([n for n in [*NUMBERS, -1] if low <= n <= high])
    begin = min(_place(content, rng), len(content) - 8)
    return content[:begin] + struct.pack(form, number) + content[begin + struct.calcsize(form) :]


_BYTES: list[Callable[[bytes, random.Random], bytes]] = [
    *(_flip, _flip, _byte, _byte, _cut, _gone, _insert, _splice, _length, _length)
]


def json_changed(value: Any, rng: random.Random) -> Any:
    """The same tree with one to three of its nodes replaced, removed, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice([1, 1, 2, 3])):
        value = _node_changed(value, rng)
    return value


def _node_changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.6:
            return value | {key: _node_changed(value[key], rng)}
        rest = {name: part for name, part in value.items() if name != key}
        return rng.choice([rest, rest | {"": value[key]}, value | {"more": 1}, list(value)])
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        if rng.random() < 0.6:
            return [*value[:place], _node_changed(value[place], rng), *value[place + 1 :]]
        return rng.choice([value[:place], value + value, [*value, None], dict(enumerate(value))])
    if isinstance(value, int | float) and rng.random() < 0.5:
        return rng.choice([value + 1, -value, value * 1000, 0.5, str(value)])
    return rng.choice(VALUES)


CELLS = [
    *("", "NA", "nan", "inf", "-inf", "1e999", "1e308", "9" * 400, "=1+1", '"', "'", "a,b", "\0"),
    *("\x1b]0;x\x07", "2024-13-45", "0001-01-01", "99999-01-01", "1,5", "1.000,5", "x" * 20000),
    *("true", "-0", "0x1F", "１２", "1_000", "\ufeff", "$\\frac", "{{}}", "@data", "#", "%", "?"),
]


def text_changed(content: bytes, rng: random.Random) -> bytes:
    """Cells, lines and separators of a text changed."""
    lines = content.decode("latin-1").split("\n")
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(lines))
        which = rng.randrange(7)
        if which < 3:
            cells = lines[place].split(",")
            cells[rng.randrange(len(cells))] = rng.choice(CELLS)
            lines[place] = ",".join(cells)
        elif which == 3:
            lines.insert(place, lines[rng.randrange(len(lines))] * rng.choice([1, 2, 50]))
        elif which == 4:
            lines[place] = rng.choice(["", '"', ",,,,,,", "sep=|", "a;b\tc|d", "\r", "[", "{}"])
        elif which == 5:
            old, new = rng.choice([(",", ";"), ('"', ""), ("\n", "\r"), (" ", "\t"), (".", ",")])
            lines[place] = lines[place].replace(old, new)
        else:
            del lines[place]
            lines = lines or [""]
    return "\n".join(lines).encode(
        rng.choice(["utf-8", "utf-8", "utf-16", "utf-32", "cp500"]), "replace"
    )
