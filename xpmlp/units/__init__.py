"""Units of work on any ``concurrent.futures.Executor``: processes, loky, Dask, MPI.

A unit is a function of a module and a small description; data are sent once a worker. What builds
on this (sweeps, cross-validation, ensembles) takes ``executor=``, and works the same without one.
"""

from .pool import Dask, Mpi, Pool, Processes
from .run import Outcome, Units
from .stopping import EndWhenAsked
from .worker import stop_asked

__all__ = ["Dask", "EndWhenAsked", "Mpi", "Outcome", "Pool", "Processes", "Units", "stop_asked"]
