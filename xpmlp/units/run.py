"""Units handed in, results taken as they finish, and what is lost handed in again."""

from __future__ import annotations

import contextlib
import pickle
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any

from ..backend import get_backend
from ..errors import ConfigError, OutOfMemoryError, XpmlpError
from ..training.stopping import Stopping
from .pool import Pool
from .shared_data import DataMissing, SharedData
from .worker import Stopped, Task, this_process

RETRIES = 2
"""How often a unit is tried again."""

_LOOK = 0.2  # seconds after which signals are looked for
FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Outcome:
    """What came of a unit.

    Attributes
    ----------
    number : int
        The unit's place.
    result : object
        What the function gave; None if it failed.
    failure : str or None
        Why it failed each time that it was tried.
    """

    number: int
    result: Any = None
    failure: str | None = None


class Units:
    """``for outcome in Units(function, units, data, pool)``: each once, as they finish.

    Parameters
    ----------
    function : callable
        ``function(data, unit)``, of a module, so that it can be pickled.
    units : sequence
        A small description each.
    data : object
        What all of them need; never written to.
    pool : Pool
        Without an executor units run here, one after another, and errors are as they are raised.

    Attributes
    ----------
    ending : str
        "finished", or "interrupted" and by what.

    Notes
    -----
    A unit that raises an error of this library's ends all, as it would without an executor. One
    whose worker dies, or that raises anything else, is tried twice more and then given back as
    failed. Units that a broken pool or Dask has lost go in again one at a time, so that only the
    one which breaks it is lost again. Ctrl-C, SIGTERM and SIGHUP cancel what has not begun, and ask
    what has begun to end where it sees the sender's temporary files (see
    :func:`~xpmlp.units.stop_asked`); a second Ctrl-C waits for nothing.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        units: Sequence[Any],
        data: Any = None,
        pool: Pool | None = None,
    ):
        self.function, self.units, self.data = function, units, data
        self.pool = Pool() if pool is None else pool
        self.ending = FINISHED

    @property
    def interrupted(self) -> bool:
        """Whether a signal has ended it."""
        return self.ending != FINISHED

    def __iter__(self) -> Iterator[Outcome]:
        if not self.pool.here:
            yield from _Flight(self).outcomes()
            return
        for number, unit in enumerate(self.units):
            yield Outcome(number, self.function(self.data, unit))


class _Flight:
    """One run through an executor."""

    def __init__(self, units: Units):
        self.units, self.pool = units, units.pool
        self.waiting = deque(range(len(units.units)))
        self.flying: dict[Future, int] = {}
        self.tries: Counter[int] = Counter()
        self.lost: set[int] = set()  # with the workers
        self.needy: set[int] = set()  # whose worker does not see the files
        self.sent: Any = None
        backend = get_backend()
        self.task = (backend.name, backend.place, self.pool.threads, this_process())

    def outcomes(self) -> Iterator[Outcome]:
        with contextlib.closing(SharedData(self.units.data)) as self.shared:
            if not self.pool.in_process:
                self._write()
            stopping = Stopping(self._stop)
            try:
                with stopping.listening():
                    while self.waiting or self.flying:
                        if self.units.interrupted:
                            self._cancel()
                        yield from self._hand_in()
                        done, _ = wait(self.flying, _LOOK, FIRST_COMPLETED)
                        for future in done:
                            yield from self._land(future)
            finally:
                self.shared.ask_to_stop()
                for future in self.flying:
                    future.cancel()

    def _write(self) -> None:
        try:
            self.shared.write()
        except Exception as error:
            raise _unpicklable(error) or error from error

    def _stop(self, ending: str) -> None:
        """In a signal's handler, which may come at any line: only says so."""
        self.units.ending = ending
        self.shared.ask_to_stop()

    def _cancel(self) -> None:
        """Whatever has not begun."""
        self.waiting.clear()
        self.flying = {future: n for future, n in self.flying.items() if not future.cancel()}

    def _hand_in(self) -> Iterator[Outcome]:
        """As many units as run at once; those that were lost before, alone."""
        window = self.pool.window or len(self.units.units)
        while self.waiting:
            suspect = self.waiting[0] in self.lost
            alone = suspect or any(number in self.lost for number in self.flying.values())
            if len(self.flying) >= (1 if alone else window):
                return
            number = self.waiting.popleft()
            task = Task(
                self.units.function, self.units.units[number], self.shared.ticket, *self.task
            )
            if self.sent is None:
                self.sent = self.pool.prepare((self.units.data,))
            data = (self.units.data,) if number in self.needy else self.sent
            try:
                self.flying[self.pool.submit(task, data)] = number
            except (BrokenExecutor, RuntimeError) as error:  # shut down, or broke meanwhile
                yield from self._again(number, error)
                yield from self._make_anew(error)
                return

    def _land(self, future: Future) -> Iterator[Outcome]:
        number = self.flying.pop(future, None)
        if number is None:  # cancelled, or lost with the others
            return
        try:
            yield Outcome(number, future.result())
        except DataMissing:
            self.needy.add(number)
            self.waiting.appendleft(number)
        except Stopped:  # it had not begun
            pass
        except BrokenExecutor as error:
            for other in [number, *self.flying.values()]:
                self.lost.add(other)
                yield from self._again(other, error)
            self.flying.clear()
            yield from self._make_anew(error)
        except OutOfMemoryError as error:  # others may have had it
            yield from self._again(number, error)
        except XpmlpError:
            raise
        except CancelledError as error:  # not by us: Dask lost the data with the workers
            self.sent = None
            yield from self._given_up(number, error)
        except Exception as error:
            if (refused := _unpicklable(error)) is not None:
                raise refused from error
            if type(error).__name__ == "KilledWorker":  # Dask's, for whatever was on the worker
                yield from self._given_up(number, error)
            else:
                yield from self._again(number, error)

    def _given_up(self, number: int, error: BaseException) -> Iterator[Outcome]:
        """An engine has tried a unit again and again. It may be the fault of one beside it."""
        alone = number in self.lost
        self.lost.add(number)
        yield from self._again(number, error, final=alone)

    def _again(self, number: int, error: BaseException, final: bool = False) -> Iterator[Outcome]:
        """Hand a unit in again, or give it up."""
        if self.units.interrupted:
            return
        self.tries[number] += 1
        if final or self.tries[number] > RETRIES:
            words = f"{type(error).__name__}: {error}".removesuffix(": ")
            yield Outcome(number, failure=f"{FAILED}: {words}")
        else:
            self.waiting.appendleft(number)

    def _make_anew(self, error: BaseException) -> Iterator[Outcome]:
        if self.waiting and not self.pool.make_anew():
            for number in self.waiting:
                yield Outcome(
                    number,
                    failure=f"{FAILED}: the executor broke, and only one that is given as a "
                    f"function is made anew: {type(error).__name__}: {error}",
                )
            self.waiting.clear()


def _unpicklable(error: Exception) -> ConfigError | None:
    """The error for what cannot be pickled, if that is what happened."""
    kinds = (pickle.PicklingError, ImportError)
    told = ("pickle", "local object")  # Python 3.13: AttributeError, "Can't get local object"
    if not isinstance(error, kinds) and not any(words in str(error) for words in told):
        return None
    return ConfigError(
        "`executor`: expected functions, callbacks and options that can be pickled, of a module "
        f"that workers can import; got {error}"
    )
