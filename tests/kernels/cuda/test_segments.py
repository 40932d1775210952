"""The table of an update has the fields that its kernel reads, in their order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from xpmlp.kernels.cuda import update


def test_the_fields_are_those_of_the_kernel():
    source = Path(update.__file__).with_name("update.cu").read_text(encoding="utf-8")
    (fields,) = re.findall(r"struct Segment \{\n(.*?)\n\};", source, re.DOTALL)
    found = re.findall(r"^\s*(?:const )?(\w+)(\*?) (\w+)(?:\[(\d+)\])?;", fields, re.MULTILINE)
    assert len(found) == fields.count(";")
    names = [(name, int(count or 1)) for _, _, name, count in found]
    assert all(pointer or kind == "Index" for kind, pointer, _, _ in found)  # of eight bytes
    ours = [(name, int(np.prod(update.SEGMENT[name].shape))) for name in update.SEGMENT.names]
    assert ours == names
    assert update.SEGMENT.itemsize == 8 * sum(count for _, count in names)
