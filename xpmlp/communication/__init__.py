"""What processes that train one network together send each other: sums, and one rank's words.

Each of them is a *rank*. A :class:`Communicator` is all that the rest of the package knows of how
they are connected: :class:`MPI`, :class:`~xpmlp.communication.nccl.NCCL` between GPUs, or an object
of your own with the same two calls.
"""

from __future__ import annotations

import warnings
from typing import Any

from ..backend import get_backend, set_backend
from ..errors import ConfigError
from .base import ROWS_APART, STATISTICS, Communicator, Share, is_first
from .guard import end_all_ranks, let_first_speak, training_together
from .mpi import MPI, ranks_started

__all__ = [
    "MPI",
    "ROWS_APART",
    "STATISTICS",
    "Communicator",
    "Share",
    "between_gpus",
    "communicator",
    "end_all_ranks",
    "is_first",
    "let_first_speak",
    "ranks_started",
    "training_together",
]


def between_gpus(ranks: Communicator, library: Any = None) -> Communicator:
    """The same ranks by NCCL, if new arrays are CuPy's; where there is no NCCL, as they are.

    ``library`` is CuPy; tests put their own here.

    Warns
    -----
    UserWarning
        On the first rank, if sums go through host memory for want of NCCL.
    """
    if ranks.size == 1 or get_backend().name != "cupy":
        return ranks
    from .nccl import NCCL, why_not

    problem = next(filter(None, ranks.everyone(why_not(library))), None)
    if problem is None:
        found = NCCL(ranks, library=library)
        set_backend("cupy", str(found.device))
        return found
    if ranks.rank == 0:
        warnings.warn(
            f"`MPI`: CuPy arrays are summed through host memory, for want of NCCL: {problem}",
            stacklevel=3,
        )
    return ranks


def communicator(parallel: Any) -> Communicator | None:
    """The ranks that ``parallel=`` stands for; None where there is only one.

    With CuPy as the backend, ``"mpi"`` is :class:`~xpmlp.communication.nccl.NCCL` between the
    ranks' GPUs where there is one, and takes this rank's GPU: ask before the model is made.

    Parameters
    ----------
    parallel : None, "mpi" or Communicator

    Raises
    ------
    ConfigError
        If it is something else.
    """
    if parallel is None:
        return None
    if parallel == "mpi":
        parallel = between_gpus(MPI())
    if not isinstance(parallel, Communicator):
        raise ConfigError(
            f'`parallel`: expected None, "mpi" or a Communicator, got {parallel!r:.100}'
        )
    return parallel if parallel.size > 1 else None
