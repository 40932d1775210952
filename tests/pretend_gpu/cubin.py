"""What a cubin says of its kernels: parameters, registers, shared memory, sizes it was made for.

A cubin is an ELF file. Each kernel has a section ``.text.<name>`` with the code, whose header holds
the number of registers; ``.nv.info.<name>`` with attributes, whose numbers are those that
``cuobjdump -elf`` names; and ``.nv.shared.<name>`` if it has static shared memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_PARAMETER, _MOST_THREADS, _CLUSTER = 0x17, 0x05, 0x3D  # EIATTR_KPARAM_INFO, …MAX_THREADS, …CTADIM
_REGISTERS = 64 * 1024  # of a multiprocessor
_SIZED = 4  # a format of an attribute: its size follows, then so many bytes


@dataclass
class Kernel:
    """What must hold of its launches."""

    name: str
    registers: int
    parameters: list[int] = field(default_factory=list)  # bytes each
    most_threads: int = 1024
    cluster: int = 1
    shared: int = 0

    def refusals(self, grid: tuple, block: tuple, shared: int, most_shared: int) -> Iterator[str]:
        """Why a device would refuse a launch; ``shared`` is dynamic, of at most ``most_shared``."""
        threads = block[0] * block[1] * block[2]
        if not all((*grid, *block)) or grid[0] >= 2**31 or max(grid[1:]) > 65535:
            yield f"a grid of {grid} blocks of {block} threads"
        if threads > min(1024, self.most_threads) or block[2] > 64:
            yield f"{threads} threads in {block}, at most {self.most_threads} were announced"
        if self.registers * -(-threads // 32) * 32 > _REGISTERS:
            yield f"{self.registers} registers for each of {threads} threads"
        if shared > most_shared:
            yield f"{shared} bytes of dynamic shared memory, {most_shared} allowed"
        if grid[0] % self.cluster:
            yield f"{grid[0]} blocks in clusters of {self.cluster}"


def kernels_of(image: bytes) -> dict[str, Kernel]:
    """Every kernel in a cubin, by name."""
    sections = list(_sections(image))
    found = {
        name[6:]: Kernel(name[6:], info >> 24)
        for name, _, info in sections
        if name.startswith(".text.")
    }
    for name, data, _ in sections:
        kind, _, kernel = name[1:].replace("nv.", "", 1).partition(".")
        if kernel in found and kind == "shared":
            found[kernel].shared = len(data)
        if kernel in found and kind == "info":
            _read_attributes(found[kernel], data)
    return found


def _read_attributes(kernel: Kernel, data: bytes) -> None:
    parameters, at = {}, 0
    while at + 4 <= len(data):
        form, attribute, size = struct.unpack_from("<BBH", data, at)
        at += 4
        if form != _SIZED:
            continue
        value, at = data[at : at + size], at + size
        if attribute == _PARAMETER:
            _, number, _, packed = struct.unpack_from("<IHHI", value)
            parameters[number] = packed >> 18
        elif attribute == _MOST_THREADS:
            x, y, z = struct.unpack_from("<III", value)
            kernel.most_threads = x * y * z
        elif attribute == _CLUSTER:
            kernel.cluster = struct.unpack_from("<I", value)[0]
    kernel.parameters = [parameters[number] for number in sorted(parameters)]


def _sections(image: bytes):
    """(name, bytes, info) of each section of an ELF file."""
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count, names_in = struct.unpack_from("<HHH", image, 0x3A)
    heads = [struct.unpack_from("<IIQQQQII", image, table + i * size) for i in range(count)]
    names = image[heads[names_in][4] :]
    for name, kind, _, _, offset, length, _, info in heads:
        nothing_stored = kind == 8  # SHT_NOBITS: static shared memory is only a size
        data = bytes(length) if nothing_stored else image[offset : offset + length]
        yield names[name : names.index(b"\0", name)].decode(), data, info


def length_of(head: bytes) -> int:
    """How long the ELF file is whose first 64 bytes these are: to the end of its section table."""
    (table,) = struct.unpack_from("<Q", head, 0x28)
    size, count, _ = struct.unpack_from("<HHH", head, 0x3A)
    (programs,) = struct.unpack_from("<Q", head, 0x20)
    program_size, program_count = struct.unpack_from("<HH", head, 0x36)
    return max(table + size * count, programs + program_size * program_count)
