"""Programs of the shim, built once and kept between runs; skipped where there is no g++."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels.cuda import cubins
from kernels.cuda.driver import COMPILER, Program, build
from step.conftest import nothing_freed_is_touched, pytest_terminal_summary  # noqa: F401


class Programs:
    """``programs(op, suffix)``: the running program of a source."""

    def __init__(self, folder: Path, counts: Path):
        self.folder, self.counts = folder, counts
        self.running: dict[tuple[str, str], Program] = {}

    def __call__(self, op: str, suffix: str) -> Program:
        if (op, suffix) not in self.running:
            path = build(op, suffix, self.folder)
            self.running[op, suffix] = Program(path, self.counts)
            shutil.copy(path.with_suffix(".gcno"), self.counts)
        return self.running[op, suffix]

    def close(self) -> None:
        """End all of them; their counts of executed lines are then on disk."""
        for program in self.running.values():
            program.close()
        self.running.clear()


@pytest.fixture(scope="session")
def shim(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Programs]:
    """The programs of the sources, started as they are asked for."""
    if COMPILER is None:
        pytest.skip("g++ is not installed: kernels cannot be run on the CPU")
    folder = Path(request.config.cache.mkdir("cuda-shim"))
    cubins.FOLDER = Path(request.config.cache.mkdir("cuda-cubins"))
    programs = Programs(folder, tmp_path_factory.mktemp("counts"))
    yield programs
    programs.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks at the lines that all other tests executed comes last."""
    items.sort(key=lambda item: item.path.name == "test_coverage.py")
