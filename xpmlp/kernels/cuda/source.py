"""The CUDA C sources: their text, and what of it is compiled.

A source is compiled for one element type, and for one of its kernels, at a time: a step needs few
of them, and all would take seconds. Both are said in the text, by ``#define``, and its headers are
put into it, so that a cache whose key is the text notices every change. The options are the same
for all: CuPy compiles an empty text for each new set of them.
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

OPTIONS = ("-std=c++20",)
"""What the compiler is told besides the architecture."""

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)


@cache
def read(op: str) -> str:
    """The text of an op's source with every header in the place of its first ``#include``.

    It is ASCII: CuPy writes it to a file in the locale's encoding, which may know no more.
    """
    if op not in OPS:
        raise ConfigError(f"`read`: expected an op among {', '.join(OPS)}, got {op!r}")
    return _expand(f"{op}.cu", set()).encode("ascii", "replace").decode("ascii")


def unit(op: str, suffix: str, kernel: str | None = None) -> str:
    """The text that is compiled, for one kernel of an op's source, or for all of them.

    Parameters
    ----------
    op, suffix : str
        The source, the element type.
    kernel : str, optional
        The function's name, with the suffix.
    """
    if suffix not in ACCUMULATOR:
        raise ConfigError(
            f"`unit`: expected a suffix among {', '.join(ACCUMULATOR)}, got {suffix!r}"
        )
    names = [f"XPMLP_{suffix.upper()}"]
    if kernel is not None:
        names += ["XPMLP_ONE", f"XPMLP_ONE_{kernel.removesuffix(f'_{suffix}')} , ENTRY"]
    return "".join(f"#define {name}\n" for name in names) + read(op)


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
