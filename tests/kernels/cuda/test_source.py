"""The text that is compiled: its headers, and what a file in any locale's encoding can hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from xpmlp.errors import ConfigError
from xpmlp.kernels.cuda import source

FOLDER = Path(source.__file__).parent


@pytest.mark.parametrize("op", source.OPS)
def test_a_source_is_ascii_and_has_every_header_once(op):
    text = source.read(op)
    assert text.isascii() and "#include" not in text
    files = [line.split('"')[1] for line in text.splitlines() if line.startswith("#line 1 ")]
    assert files[0] == f"{op}.cu" and len(files) == len(set(files)) > 1
    for name in files:
        assert (FOLDER / name).is_file()


def test_every_file_is_an_op_or_a_header_of_one():
    assert {path.stem for path in FOLDER.glob("*.cu")} == set(source.OPS)
    used = "".join(source.read(op) for op in source.OPS)
    for header in FOLDER.glob("*.cuh"):
        assert f'#line 1 "{header.name}"' in used, header.name


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match=r"among batch_norm, .* got 'nonsense'"):
        source.read("nonsense")
    with pytest.raises(ConfigError, match=r"among f32, .* got 'f8'"):
        source.unit("dropout", "f8")


def test_a_unit_says_its_type_and_its_kernel_before_the_source():
    text = source.unit("update", "bf16", "adam_update_bf16")
    front, rest = text.split("#line", 1)
    assert front == (
        "#define XPMLP_BF16\n#define XPMLP_ONE\n#define XPMLP_ONE_adam_update , ENTRY\n"
    )
    assert source.unit("update", "bf16") == f"#define XPMLP_BF16\n#line{rest}"
