"""What ``xpmlp bench`` measures: xpmlp beside other libraries, and against what the machine can do.

``shapes.py`` says which sizes, ``cases.py`` makes the problems, ``ours.py`` and ``peers/`` solve
them, ``referee.py`` checks every solution before it is timed, ``timing.py`` and ``floors.py``
measure, and ``suite.py`` puts it together into a record that JSON can hold. ``report.py`` and
``plot.py`` show such a record.
"""

from .cases import Case, all_cases, select_cases
from .suite import run_suite

__all__ = ["Case", "all_cases", "run_suite", "select_cases"]
