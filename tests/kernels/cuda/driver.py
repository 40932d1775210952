"""Builds a ``.cu`` file for the CPU (shim/) under AddressSanitizer and launches its kernels.

A build is a program that serves launches through its standard input; a memory error ends it, and
the launch that caused it fails with the sanitizer's report.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xpmlp.kernels.cuda import source
from xpmlp.kernels.cuda.geometry import Launch

SHIM = Path(__file__).with_name("shim")
KERNELS = Path(source.__file__).parent
COMPILER = shutil.which("g++")
# Vectors are read through other types than they were written; unaligned ones are errors here, as on
# the device.
_FLAGS = ("-std=c++20", "-g1", "-fsanitize=address,alignment", "-fno-sanitize-recover=all")
_KERNEL_FLAGS = ("-O1", "--coverage", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror")
_KERNEL_FLAGS += ("-Wno-unknown-pragmas",)
_KEPT_SECONDS = 24 * 3600
ORDERS = (0, 1, 2)
"""Low threads run ahead, high threads run ahead, all are shuffled: see shim/runtime.cpp."""


@dataclass(frozen=True)
class At:
    """An array whose memory begins ``offset`` bytes past a multiple of 16."""

    array: np.ndarray
    offset: int


@dataclass(frozen=True)
class Within:
    """Memory that a pointer ``at`` bytes behind its beginning is passed for."""

    array: np.ndarray
    at: int


@dataclass(frozen=True)
class Table:
    """An int64 array some of whose entries are the addresses of arrays: ``{flat index: array}``."""

    array: Any
    pointers: dict[int, Any] = field(default_factory=dict)
    written: bool = True  # whether the kernel may write what the pointers point to


def build(op: str, suffix: str, folder: Path) -> Path:
    """The program for one source and element type; built again if any of its files changed.

    Several test runs may build at once: each works in a folder of its own and moves what it made.
    """
    inputs = [*sorted(KERNELS.glob("*.cu*")), *sorted(SHIM.iterdir()), Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    target = folder / digest / f"{op}_{suffix}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        runtime = target.parent / "runtime.o"
        if not runtime.exists():
            _compile(*_FLAGS, "-O1", f"-I{SHIM}", "-c", SHIM / "runtime.cpp", "-o", work / "r.o")
            os.replace(work / "r.o", runtime)
        main, made = work / f"{target.name}.cpp", work / f"{target.name}.o"
        paths = (f"-I{SHIM}", f"-I{KERNELS}", f"-DXPMLP_{suffix.upper()}")
        main.write_text(_main(op, paths, main))
        _compile(*_FLAGS, *_KERNEL_FLAGS, *paths, "-c", main, "-o", made)
        _compile(*_FLAGS, "--coverage", made, runtime, "-o", work / target.name)
        os.replace(made.with_suffix(".gcno"), target.with_suffix(".gcno"))
        os.replace(work / target.name, target)
    return target


def _main(op: str, paths: tuple[str, ...], scratch: Path) -> str:
    """The source with a table of the kernels in it."""
    include = f'#include "shim.h"\n#include "{op}.cu"\n'
    scratch.write_text(include)
    text = _compile(*_FLAGS, *paths, "-E", "-P", scratch)
    names = re.findall(r'extern "C"\s+void\s+(\w+)\(', text)
    entries = "\n".join(f"SHIM_KERNEL({name})" for name in names)
    return (
        f"{include}namespace shim {{\nconst Kernel kernels[] = {{\n{entries}\n}};\n"
        f"const int kernel_count = {len(names)};\n}}\n"
    )


def _compile(*arguments: Any) -> str:
    command = [str(COMPILER), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")
    return result.stdout


class Program:
    """One running build. ``launch`` runs a kernel; arrays it writes to are changed in place.

    How often which line ran is written to ``counts`` at the end, for gcov.
    """

    def __init__(self, path: Path, counts: Path):
        self.path, self.counts = path, counts
        self._start()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        self._process = subprocess.Popen(
            [str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={
                "ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0",
                "GCOV_PREFIX": str(self.counts),
                "GCOV_PREFIX_STRIP": "99",
            },
        )
        self.letters: dict[str, str] = {}
        while (line := self._process.stdout.readline().split()) != [b"."]:
            if not line:
                self._fail("start")
            self.letters[line[0].decode()] = line[1].decode()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def launch(self, launch: Launch, *arguments: Any) -> None:
        """Run one kernel, under several orders of its threads that must give the same bits.

        ``arguments`` are as the kernel's own: arrays, ``At``, ``Within``, ``Table`` or None for
        pointers, else numbers.
        """
        letters = self.letters[launch.kernel]
        assert len(arguments) == len(letters), f"{launch.kernel} takes {letters}"
        arrays: list[np.ndarray] = []
        offsets: list[int] = []
        writable: list[bool] = []

        def buffer(value: Any, written: bool) -> tuple[int, int]:
            """Its number, and where in it the pointer points."""
            array, offset = (value.array, value.offset) if isinstance(value, At) else (value, 0)
            array, at = (value.array, value.at) if isinstance(value, Within) else (array, 0)
            assert array.flags.c_contiguous
            for i, known in enumerate(arrays):
                if known is array:
                    writable[i] |= written
                    return i, at
            arrays.append(array)
            offsets.append(offset)
            writable.append(written)
            return len(arrays) - 1, at

        words, fixups, tables = [], [], set()
        for value, letter in zip(arguments, letters, strict=True):
            if letter not in "rw":
                bits = struct.pack(f"<{letter}", value).ljust(8, b"\0")
                words.append(f"v {int.from_bytes(bits, 'little')}")
            elif value is None:
                words.append("v 0")
            elif isinstance(value, Table):
                table, begin = buffer(value.array, False)
                tables.add(table)
                words.append(f"p {table} {begin}")
                for place, target in value.pointers.items():
                    number, at = buffer(target, value.written)
                    fixups.append(f"{table} {begin + 8 * place} {number} {at}")
            else:
                number, at = buffer(value, letter == "w")
                words.append(f"p {number} {at}")
        cluster = re.search(r"cluster(\d)", launch.kernel)
        sizes = (*launch.grid, *launch.block, launch.shared, cluster[1] if cluster else 1)
        counts = (len(arrays), len(words), len(fixups))
        spans = [f"{array.nbytes} {offset}" for array, offset in zip(arrays, offsets, strict=True)]
        before = [array.tobytes() for array in arrays]
        results = []
        for order in ORDERS:
            header = [launch.kernel, *sizes, order, *counts, *spans, *words, *fixups]
            request = " ".join(map(str, header)) + "\n"
            results.append(self._exchange(launch.kernel, request.encode(), before))
        for i, array in enumerate(arrays):
            if i in tables:
                continue
            after = results[0][i]
            assert all(result[i] == after for result in results), (
                f"{launch.kernel}: argument buffer {i} depends on the order of threads"
            )
            if writable[i]:
                array.reshape(-1).view(np.uint8)[:] = np.frombuffer(after, np.uint8)
            else:
                assert after == before[i], f"{launch.kernel} wrote to an input"

    def _exchange(self, kernel: str, request: bytes, buffers: list[bytes]) -> list[bytes]:
        try:
            self._process.stdin.write(request)
            for data in buffers:
                self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail(kernel)
        if self._process.stdout.readline() != b"ok\n":
            self._fail(kernel)
        return [self._process.stdout.read(len(data)) for data in buffers]

    def _fail(self, what: str) -> None:
        self._process.wait()
        self._errors.seek(0)
        report = self._errors.read().decode(errors="replace")
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()
        self._start()
        raise AssertionError(f"{what} on {self.path.name}:\n{report[:4000]}")
