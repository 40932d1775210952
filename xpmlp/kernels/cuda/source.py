"""The CUDA C sources: their text, their compile options, the kernels in them.

A source is compiled once for every element type. Its headers are put into the text, so that a
cache whose key is the text notices when one of them changes.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ...errors import ConfigError

OPS = (
    "batch_norm",
    "batched_matmul",
    "bias_activation",
    "dropout",
    "gather",
    "layer_norm",
    "softmax_cross_entropy",
    "update",
)
"""The ops that have a source, ``<op>.cu``."""

SUFFIXES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}
"""What a kernel's name ends in, by element type."""

ACCUMULATOR = {"f32": "float32", "f64": "float64", "f16": "float32", "bf16": "float32"}
"""In which type a kernel adds up, and takes its scalars (``A`` in the sources), by suffix."""

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)


@cache
def read(op: str) -> str:
    """The text of an op's source with every header in the place of its first ``#include``.

    It is ASCII: CuPy writes it to a file in the locale's encoding, which may know no more.
    """
    if op not in OPS:
        raise ConfigError(f"`read`: expected an op among {', '.join(OPS)}, got {op!r}")
    return _expand(f"{op}.cu", set()).encode("ascii", "replace").decode("ascii")


def options(suffix: str) -> tuple[str, ...]:
    """What the compiler is told besides the architecture."""
    if suffix not in ACCUMULATOR:
        raise ConfigError(
            f"`options`: expected a suffix among {', '.join(ACCUMULATOR)}, got {suffix!r}"
        )
    return ("-std=c++20", f"-DXPMLP_{suffix.upper()}")


def _expand(name: str, included: set[str]) -> str:
    included.add(name)
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    parts, line, end = [f'#line 1 "{name}"\n'], 1, 0
    for match in _INCLUDE.finditer(text):
        parts.append(text[end : match.start()])
        line += text.count("\n", end, match.end())
        header, end = match.group(1), match.end()
        if header not in included:
            parts.append(_expand(header, included))
        parts.append(f'#line {line} "{name}"\n')  # so that messages name the file and its line
    parts.append(text[end:])
    return "".join(parts)
