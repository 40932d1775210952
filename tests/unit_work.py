"""Units that workers can import: what they get, where they run, and how they fail."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpmlp.errors import DataError
from xpmlp.ops.dispatch import thread_count
from xpmlp.training import Callback
from xpmlp.units import stop_asked


def add(data: Any, unit: int) -> float:
    return float(np.sum(data["x"])) + unit


def where(data: Any, unit: Any) -> tuple[int, int, str]:
    time.sleep(0.05)
    return os.getpid(), thread_count()[0], os.environ.get("OMP_NUM_THREADS", "")


def kinds(data: Any, unit: Any) -> dict[str, Any]:
    """What became of arrays: how they lie, whether they can be written, where they come from."""
    found = {}
    for name, array in data.items():
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        path = str(getattr(base, "filename", None))
        found[name] = (type(array).__name__, array.flags.f_contiguous, path, array.sum())
        if array.flags.writeable:
            array += 1  # its own copy, if it is one
    return found


def die(data: Any, unit: tuple[str, int]) -> int:
    """Unit n's worker is killed as often as data say; each try leaves a file."""
    folder, number = unit
    tried = len(list(Path(folder).glob(f"{number}-*")))
    (Path(folder) / f"{number}-{tried}-{os.getpid()}").touch()
    if tried < data.get(number, 0):
        time.sleep(0.2)  # so that another one has begun
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.4)  # and is lost with it
    return number


def note(data: Any, unit: tuple[str, int]) -> tuple[float, int, int]:
    """Leave a file for each try; the process that did it, and its threads."""
    folder, number = unit
    (Path(folder) / f"{number}-{os.getpid()}-{time.time_ns()}").touch()
    time.sleep(data["pause"])
    return float(data["x"].sum()), os.getpid(), thread_count()[0]


def fail(data: Any, unit: tuple[str, int]) -> int:
    folder, number = unit
    tried = len(list(Path(folder).glob(f"{number}-*")))
    (Path(folder) / f"{number}-{tried}").touch()
    if tried < data.get(number, 0):
        raise OSError("no luck")
    return number


def refuse(data: Any, unit: int) -> int:
    if unit == 1:
        raise DataError("`x`: expected numbers, got none")
    return unit


def unknown(data: Any, unit: int) -> int:
    """Of a module that no worker has."""
    return unit


unknown.__module__ = "nowhere_to_be_found"


def wait(data: Any, unit: tuple[str, int]) -> str:
    """Until it is asked to stop."""
    folder, number = unit
    (Path(folder) / str(number)).touch()
    for _ in range(600):
        if stop_asked():
            return "asked"
        time.sleep(0.05)
    return "waited"


class Die(Callback):
    """Kills the process that trains setting 5, as often as there are files to remove."""

    def __init__(self, folder: str, members: Sequence[tuple[int, int]]):
        self.folder = folder
        self.armed = any(setting == 5 for setting, _ in members)

    def on_epoch(self, trainer: Any, row: dict[str, Any]) -> None:
        if self.armed and (left := sorted(os.listdir(self.folder))):
            os.unlink(os.path.join(self.folder, left[0]))
            os.kill(os.getpid(), signal.SIGKILL)


def armed(folder: str, members: Sequence[tuple[int, int]]) -> list[Callback]:
    return [Die(folder, members)]


def kills(folder: Path, count: int) -> Any:
    """The callbacks of a sweep that is killed so often."""
    folder.mkdir()
    for number in range(count):
        (folder / str(number)).touch()
    return functools.partial(armed, str(folder))
