"""Random training steps whose arrays begin or end beside memory that nobody may touch.

``python guarded_steps.py PLACE --examples N``: the networks of ``test_random_steps.py``, compiled
against layer by layer. Each buffer of a compiled step is a mapping of its own; parameters share
one, where ``test_random_steps.py`` finds what is written to a neighbour.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings

import guarded_memory
import numpy as np
import test_random_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from test_random_steps import steps

from xpmlp.step.compiled import memory, program


def run(step):
    """What is looked for is a fault: what rounding leaves of a step is test_random_steps.py's."""
    with contextlib.suppress(AssertionError):
        test_random_steps.compare(*step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("place", choices=guarded_memory.PLACES)
    parser.add_argument("--examples", type=int, default=20)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    memory.zeros = program.zeros = np.zeros  # without the room for a cache line
    pages = guarded_memory.install(asked.place)
    limits = settings(max_examples=asked.examples, **test_random_steps.COMMON)
    limits(given(st.one_of(steps(), steps(sharing=True), steps(gates=True)))(run))()
    assert pages.given > 100 * asked.examples
    print("done")
    sys.stdout.flush()
    os._exit(0)
