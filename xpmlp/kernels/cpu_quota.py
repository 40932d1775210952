"""How much processor time a container may use: the quota of its Linux control group.

A quota of 200 ms in each 100 ms is two processors, however many there are to see. More threads
would use it up early, and all of them then wait for the next period.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def cpu_quota() -> float:
    """Processors' worth of time, infinite without a limit; the strictest of all groups above."""
    return min(_quotas(), default=math.inf)


def _quotas() -> Iterator[float]:
    for folder in _folders():
        try:
            if (folder / "cpu.max").exists():  # version 2: "200000 100000" or "max 100000"
                quota, period = (folder / "cpu.max").read_text().split()
            else:  # version 1, −1 without a limit
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if float(quota) > 0 and float(period) > 0:
                yield float(quota) / float(period)
        except (OSError, ValueError):  # no such file, "max", or something new
            continue


def _folders() -> Iterator[Path]:
    """Of this process's group, and of those above; in a container mostly the mount itself."""
    try:
        lines = _GROUPS.read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        below = Path(path.lstrip("/"))
        for mount in {_MOUNT / controllers, _MOUNT / ("cpu" if controllers else "")}:
            yield from (mount / folder for folder in (below, *below.parents))
