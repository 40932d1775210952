"""Wrong arguments into everything public: ``python arguments.py COUNT [--seed N]``.

A call has one argument of a call that works replaced by a value of ``hostile.py``. It must end in
one of the library's errors, in Python's own TypeError for a call that is none, in scikit-learn's
words for its own arguments, or in an answer that ``oracle.py`` finds sensible, without NaN where
all that came was finite. Prints what came of the calls as JSON, and those that ended otherwise:

raw : an error from inside
nan : NaN from finite input
nonsense : accepted, but for nothing that the value stands for
hang, memory : more than 10 s, or 8 GiB (of addresses: JAX and LLVM reserve many)
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from callables import calls
from hostile import draw_value, hostile_libraries
from oracle import NONE, is_own_result, is_plain, is_unused, may_be, plain, same, tolerance_of

from xpmlp.errors import XpmlpError
from xpmlp.random import seed_everything

SECONDS = 10
BAD = ("raw", "hang", "memory", "nan", "nonsense")


class TooLong(BaseException):
    """Past every ``except Exception``."""


def _too_long(number: int, frame: Any) -> None:
    raise TooLong


def attempt(function: Callable, given: dict[str, Any]) -> tuple[str, Any]:
    """What came of a call, and its result or what was said."""
    seed_everything(0)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        try:
            return "accepted", function(**given)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except TooLong:
        return "hang", traceback.format_exc()[-800:]
    except XpmlpError as error:
        return "clear", str(error)
    except MemoryError:
        return "memory", traceback.format_exc()[-800:]
    except Exception as error:
        # Python's own words for a call, scikit-learn's for its arguments, and those of what was
        # given itself name what is wrong.
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        python = isinstance(error, TypeError) and "unexpected keyword" in str(error)
        if python or _by_sklearn(error) or last.endswith("hostile.py"):
            return "python", str(error)
        return "raw", traceback.format_exc()[-800:]


def judged(
    name: str, function: Callable, usual: dict[str, Any], changed: str, value: Any, result: Any
) -> tuple[str, str]:
    """What an accepted call is worth: its outcome and why."""
    if _is_moderate(value) and _has_nan(result) and not is_own_result(name, changed):
        return "nan", repr(result)[:200]
    if is_unused(name, changed):
        _, expected = attempt(function, copy.deepcopy(usual))
        if same(result, expected, 0.0):
            return "accepted", ""
    form = plain(name, changed, value, usual[changed])
    if form is NONE:
        if may_be(value, changed, function, usual[changed]):
            return "accepted", ""
        return "nonsense", f"stands for nothing, gave {result!r:.200}"
    if is_plain(value, form):
        return "accepted", ""
    outcome, expected = attempt(function, copy.deepcopy(usual) | {changed: form})
    if outcome == "accepted" and same(result, expected, tolerance_of(value)):
        return "accepted", ""
    return "nonsense", f"gave {result!r:.300}\nbut {form!r:.100} {outcome} {expected!r:.300}"


def _by_sklearn(error: Exception) -> bool:
    """Whether scikit-learn looked at an argument and raised, as it does for its own estimators."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = max(place for place, name in enumerate(frames) if "/xpmlp/" in name or "fuzz" in name)
    return any("/sklearn/" in name and "/xpmlp/" not in name for name in frames[own:])


def _has_nan(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_has_nan, value))
    if isinstance(value, dict):
        return any(map(_has_nan, value.values()))
    try:
        array = np.asarray(value)
        return array.dtype.kind == "f" and bool(np.isnan(array).any())
    except Exception:
        return False


def _is_moderate(value: Any) -> bool:
    """Whether all numbers are finite, and none is so large that its square is not in float32."""
    try:
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
        most = np.abs(array.astype(float)).max(initial=0.0)
        return bool(np.isfinite(most) and (array.ndim == 0 or most < 1e18) and most < 1e300)
    except Exception:
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="callables whose name has this in it")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    signal.signal(signal.SIGPROF, _too_long)
    hostile_libraries()
    known = calls()
    os.chdir(tempfile.mkdtemp())  # where paths that are texts lead
    for name, (function, given) in known.items():
        outcome, details = attempt(function, copy.deepcopy(given))
        assert outcome == "accepted", f"{name}: {details}"
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 30), resource.RLIM_INFINITY))
    counts: collections.Counter = collections.Counter()
    names = [name for name, (_, given) in known.items() if given and asked.only in name]
    for number in range(asked.count):
        draw = random.Random(f"{asked.seed} {number}")
        function, usual = known[name := draw.choice(names)]
        given = copy.deepcopy(usual)
        changed = draw.choice(list(given))
        value = given[changed] = draw_value(given[changed], draw)
        outcome, details = attempt(function, given)
        if outcome == "accepted":
            outcome, details = judged(name, function, usual, changed, value, details)
        counts[outcome] += 1
        if outcome in BAD:
            what = f"{outcome}: {name} {changed}={_words(value):.60}".replace("\n", " ")
            print(f"{what}, number {number}\n{details}", file=sys.stderr)
    print(json.dumps(counts))
    sys.stdout.flush()
    os._exit(0)  # without what hostile arguments left behind for the end


def _words(value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__name__} {getattr(value, 'dtype', '')} "
    return kind + repr(value).replace("\n", " ")


if __name__ == "__main__":
    main()
