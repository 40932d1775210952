"""A compiler that is left alone while it compiles.

What interrupts numba halfway leaves functions that are known and have no code. So signals wait
until the function is compiled, a second or two, and so does a fork: the child would inherit the
compiler's lock, and nobody to release it.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from numba.core.compiler_lock import global_compiler_lock as _lock

# SIGINT last: from the moment when it has its own handler again, this code may be interrupted.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)
]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def undisturbed(compile: Callable) -> Callable:
    """The same, with signals put off and no search for cycles."""

    @wraps(compile)
    def run(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            stack.enter_context(_signals_later())
            stack.enter_context(_collector_paused())
            return compile(*args, **kwargs)

    return run


@contextmanager
def _signals_later() -> Iterator[None]:
    """What signals' handlers do, such as to raise KeyboardInterrupt, is done at the end."""
    handlers: dict[int, Any] = {}
    came: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # no other one is interrupted
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    handlers[number] = handler
                    signal.signal(number, came.__setitem__)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came.items():
            handlers[number](number, frame)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """The compiler makes millions of objects that stay: to look for cycles in them costs a tenth
    of its time."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()
