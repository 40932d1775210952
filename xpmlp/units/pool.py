"""Executors of every make as one kind of thing: how many workers, how data go there, made anew."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from ..errors import ConfigError, MissingDependencyError, WorkerError
from ..ops.dispatch import thread_count
from .worker import Task, run_task

_WAIT = 60.0  # seconds for the first of Dask's workers


@dataclass(frozen=True)
class Processes:
    """A function that makes a ``ProcessPoolExecutor``, for ``executor=Processes(4)``.

    Parameters
    ----------
    count : int
        How many processes; each gets its share of the cores as threads.
    """

    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ConfigError(f"`Processes`: expected a number ≥ 1, got {self.count!r}")

    def __call__(self) -> Executor:
        # Spawned, not forked: a fork beside threads may hang, and has no GPU.
        return ProcessPoolExecutor(self.count, mp_context=get_context("spawn"))


@dataclass(frozen=True)
class Dask:
    """A function that connects to a Dask cluster, for ``executor=Dask("tcp://host:8786")``.

    Parameters
    ----------
    address : str
        Of its scheduler.
    """

    address: str

    def __call__(self) -> Executor:
        distributed = _library("distributed", "dask", "dask")
        try:
            return distributed.Client(self.address).get_executor()
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"`--dask`: expected the address of a Dask scheduler, such as tcp://host:8786, got "
                f"{self.address!r}: {error}"
            ) from error


@dataclass(frozen=True)
class Mpi:
    """A function that makes an ``MPIPoolExecutor`` of the other ranks, for ``executor=Mpi()``.

    The program is started by ``mpiexec -n 5 python -m mpi4py.futures …``: rank 0 runs it, the
    others are workers.
    """

    def __call__(self) -> Executor:
        futures = _library("mpi4py.futures", "mpi4py", "mpi")
        if importlib.import_module("mpi4py.MPI").COMM_WORLD.Get_size() < 2:
            raise ConfigError(
                "`--mpi`: expected at least two ranks, got one; start with: mpiexec -n 5 python -m "
                "mpi4py.futures -m xpmlp sweep …"
            )
        return futures.MPIPoolExecutor()


class Pool:
    """An executor, given or made here; None means this process.

    Parameters
    ----------
    executor : Executor, callable or None
        A function without arguments that gives one, such as ``functools.partial(
        ProcessPoolExecutor, 4)`` or ``loky.get_reusable_executor``, is called again where the pool
        breaks, and the pool is shut down at the end. A given executor stays open, and cannot be
        made anew: where it breaks, the units that are left fail.
    """

    def __init__(self, executor: Executor | Callable[[], Executor] | None = None):
        if executor is not None and not callable(getattr(executor, "submit", executor)):
            raise ConfigError(
                "`executor`: expected a concurrent.futures.Executor, a function that makes one, or "
                f"None, got {type(executor).__name__}"
            )
        given = executor is None or hasattr(executor, "submit")
        self._make: Any = None if given else executor
        self.executor: Any = executor if given else self._make()
        if not given and not hasattr(self.executor, "submit"):
            raise ConfigError(
                "`executor`: expected a function that makes a concurrent.futures.Executor, got one "
                f"that makes {type(self.executor).__name__}"
            )

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if self._make is not None:
            self._shut_down(patiently=kind is None)

    @property
    def here(self) -> bool:
        """Whether there is no executor."""
        return self.executor is None

    @property
    def in_process(self) -> bool:
        """Whether its workers are threads here."""
        return isinstance(self.executor, ThreadPoolExecutor)

    @property
    def workers(self) -> int:
        """How many units run at once, as far as is known."""
        if self._client is not None:
            return max(1, sum(self._client.nthreads().values()))
        for name in ("_max_workers", "num_workers"):  # the standard library's and loky's, MPI's
            count = getattr(self.executor, name, None)
            if isinstance(count, int) and count > 0:
                return count
        return 1

    @property
    def threads(self) -> int | None:
        """That each worker owns: its share of this machine's cores; None on other machines."""
        return max(1, thread_count()[0] // self.workers) if self._local else None

    @property
    def sharing(self) -> int:
        """How many workers share the memory that is free here."""
        return self.workers if self._local else 1

    @property
    def window(self) -> int | None:
        """How many units to hand in at a time, so that few are lost at once; None for all."""
        if self._client is not None:
            return 2 * self.workers  # a cluster that adapts grows with what waits
        return self.workers if self._local else None

    @property
    def _local(self) -> bool:
        """Whether it is one of the standard library's kind, with workers on this machine."""
        return hasattr(self.executor, "_max_workers")

    def submit(self, task: Task, data: tuple[Any] | None) -> Future:
        """Hand in a unit, with the data if it needs them."""
        return self.executor.submit(run_task, task, data)

    def prepare(self, data: tuple[Any]) -> Any:
        """Data as each unit is to be sent, or None where units first look for files."""
        if self._client is None:
            return None
        try:
            self._client.wait_for_workers(1, timeout=_WAIT)
        except TimeoutError as error:
            raise WorkerError(
                f"`executor`: expected a worker of the Dask scheduler, got none in {_WAIT:.0f} s; "
                "start some: dask worker ADDRESS"
            ) from error
        return self._client.scatter([data], broadcast=True, hash=False)[0]

    def make_anew(self) -> bool:
        """Replace a broken executor; False where it was given, not made here."""
        if self._make is None:
            return False
        self._shut_down(patiently=False)
        self.executor = self._make()
        return True

    @property
    def _client(self) -> Any:
        """Of Dask."""
        kind = type(self.executor)
        return self.executor._client if kind.__module__.startswith("distributed") else None

    def _shut_down(self, patiently: bool) -> None:
        client = self._client
        with contextlib.suppress(Exception):
            if not patiently:
                for process in list((getattr(self.executor, "_processes", None) or {}).values()):
                    process.terminate()
            self.executor.shutdown(wait=patiently)
        if client is not None:
            client.close()


def _library(name: str, package: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"`executor`: {package} is missing or does not start: {error}; pip install "
            f'"xpmlp[{extra}]"'
        ) from error
