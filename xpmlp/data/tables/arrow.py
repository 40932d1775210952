"""Parquet and Feather files, whose sizes are summed up before they are unpacked.

Both can hold a thousand times their own size: runs of one value, one long text named ever again.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

from ...errors import DataError
from ...files import most_unpacked, reading, too_much


def read_arrow(content: bytes, form: str, where: str) -> Any:
    """The file as a pyarrow.Table; pyarrow is known to be installed.

    Raises
    ------
    DataError
        If it is damaged, or unpacks to far more than its size.
    """
    kind = "Parquet" if form == "parquet" else "Feather"
    with reading(where, f"a {kind} file", "write it again", DataError):
        table = (_parquet if form == "parquet" else _feather)(content, where)
        table.validate(full=True)  # texts that are none, places beyond the values
        return table


def _check(bytes_: int, content: bytes, where: str) -> None:
    if bytes_ > most_unpacked(len(content)):
        raise too_much(where, len(content), "write it as CSV if that is right")


def _parquet(content: bytes, where: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
    said = file.metadata
    _check(8 * said.num_rows * said.num_columns, content, where)
    groups = [said.row_group(place) for place in range(said.num_row_groups)]
    _check(sum(group.total_byte_size for group in groups), content, where)
    # A text can be as long as its column's part, and be that of each row.
    longest = max((group.total_byte_size for group in groups), default=0)
    rows = max(1, min(1 << 16, most_unpacked(len(content)) // max(1, longest)))
    batches, size = [], 0
    for batch in file.iter_batches(batch_size=rows, use_threads=False):
        size += batch.nbytes
        _check(size, content, where)
        batches.append(batch)
    return pyarrow.Table.from_batches(batches, schema=file.schema_arrow)


def _feather(content: bytes, where: str) -> Any:
    import pyarrow
    import pyarrow.feather

    if content.startswith(b"ARROW1"):
        _check(sum(_unpacked_sizes(content)), content, where)
    table = pyarrow.feather.read_table(io.BytesIO(content), use_threads=False)
    _check(8 * table.num_rows * table.num_columns, content, where)
    return table


def _unpacked_sizes(content: bytes) -> Iterator[int]:
    """Of each packed buffer, which begins with its size, and of columns that need none.

    The layout is in Arrow's columnar format, "IPC file format": messages, each a flatbuffer of
    metadata and a body.
    """
    import pyarrow

    reader = pyarrow.ipc.MessageReader.open_stream(pyarrow.py_buffer(content)[8:])
    while True:
        try:
            message = reader.read_next_message()
        except (StopIteration, EOFError):
            return
        if message.type not in ("record batch", "dictionary"):
            continue
        data = message.metadata.to_pybytes()
        batch = _header(data)
        if message.type == "dictionary":
            batch = _followed(data, batch, 1)
        rows, buffers = _field(data, batch, 0), _field(data, batch, 2)
        if rows:
            yield 8 * max(0, struct.unpack_from("<q", data, rows)[0])
        if not _field(data, batch, 3) or not buffers:  # nothing is packed
            continue
        begin = buffers + struct.unpack_from("<I", data, buffers)[0]
        for place in range(struct.unpack_from("<I", data, begin)[0]):
            start, length = struct.unpack_from("<qq", data, begin + 4 + 16 * place)
            if length >= 8:
                yield max(0, struct.unpack_from("<q", message.body, start)[0])


def _header(data: bytes) -> int:
    """Where the message's own table is, the third field of the first one."""
    return _followed(data, struct.unpack_from("<I", data, 0)[0], 2)


def _followed(data: bytes, table: int, number: int) -> int:
    place = _field(data, table, number)
    return place + struct.unpack_from("<I", data, place)[0]


def _field(data: bytes, table: int, number: int) -> int:
    """Where a flatbuffer table's field is, 0 if it is not there."""
    names = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, names)[0]
    if 4 + 2 * number >= size:
        return 0
    offset = struct.unpack_from("<H", data, names + 4 + 2 * number)[0]
    return table + offset if offset else 0
