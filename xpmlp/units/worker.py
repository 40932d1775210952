"""What happens in a worker: data, threads and array library are made ready, then a unit runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from .. import __version__
from ..backend import use_backend
from ..errors import ConfigError
from ..ops.dispatch import own_threads
from .shared_data import Ticket

_running: ContextVar[Ticket | None] = ContextVar("xpmlp_unit", default=None)
_ready = threading.Lock()


class Task(NamedTuple):
    """All that travels with one unit.

    Attributes
    ----------
    function : callable
        ``function(data, unit)``.
    unit : object
    ticket : Ticket
    backend, device : str
        Where the sender makes new arrays.
    threads : int or None
        That a worker owns; None for one, or what its environment says.
    sender : (str, int)
        Its machine and process.
    version : str
    """

    function: Callable[[Any, Any], Any]
    unit: Any
    ticket: Ticket
    backend: str
    device: str | None
    threads: int | None
    sender: tuple[str, int]
    version: str = __version__


class Stopped(Exception):
    """The sender has said that units should end, before this one had begun."""


def this_process() -> tuple[str, int]:
    """The machine's name and the process's number."""
    return socket.gethostname(), os.getpid()


def stop_asked() -> bool:
    """Whether the unit that runs here should end soon; False where nobody can tell it."""
    ticket = _running.get()
    return ticket is not None and ticket.stop_asked()


def run_task(task: Task, sent: tuple[Any] | None = None) -> Any:
    """Run one unit.

    Parameters
    ----------
    task : Task
    sent : tuple of the data, optional
        Where the worker does not see the sender's files.

    Raises
    ------
    ConfigError
        If sender and worker have different versions.
    DataMissing
        If the data have to be sent.
    Stopped
        If it should not begin any more.
    """
    if task.version != __version__:
        raise ConfigError(
            f"`executor`: expected workers with xpmlp {task.version}, got one with {__version__} "
            f"on {socket.gethostname()}; install the same on all"
        )
    if this_process() != task.sender:
        with _ready:
            _make_ready(task)
    if task.ticket.stop_asked():
        raise Stopped
    data = task.ticket.claim(sent)
    token = _running.set(task.ticket)
    try:
        with use_backend(task.backend, task.device):
            return task.function(data, task.unit)
    finally:
        _running.reset(token)


def _make_ready(task: Task) -> None:
    """Once in a process: as many threads as it owns, and an end when its sender ends."""
    own_threads(task.threads)
    parent = multiprocessing.parent_process()
    if parent is None or (socket.gethostname(), parent.pid) != task.sender:
        return
    alone = threading.current_thread() is threading.main_thread()
    if alone and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C reaches all processes of a terminal; the sender decides. Trainers listen all the
        # same, and end with what they have.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not any(thread.name == _WATCH for thread in threading.enumerate()):
        threading.Thread(target=_end_with, args=(parent,), name=_WATCH, daemon=True).start()


_WATCH = "xpmlp-watch-sender"


def _end_with(parent: Any) -> None:
    """A sender that is killed cannot end its workers, which would go on writing checkpoints."""
    parent.join()
    os._exit(1)
