"""Is it right? Asked of every contestant, ours too, before its time counts.

What is right is computed by the hand-written NumPy solver in float64; random masks and trainings
are held to what must be true of them.
"""

from __future__ import annotations

import numpy as np

from . import shapes
from .cases import Case
from .peers import numpy_alone
from .solver import Arrays, Results, Solver

# Of float32 results against float64, as a share of the largest value of each array. Sums over
# thousands of rows and five steps of training are in it; a wrong formula is far outside.
TOLERANCE = 2e-4
EPOCH_ACCURACY = 0.9


class WrongResultError(Exception):
    """A contestant did not compute what the case asks for."""


class Referee:
    """Checks the contestants of one case.

    Parameters
    ----------
    case : Case
        As it is checked: see :meth:`Case.for_check`.
    inputs : dict of str to ndarray
    """

    def __init__(self, case: Case, inputs: Arrays):
        self.case = case
        self.inputs = inputs
        self._truth: Results | None = None

    def check(self, solver: Solver) -> None:
        """Run the solver as often as the case says and look at what it gives.

        Raises
        ------
        WrongResultError
            Saying what is wrong.
        """
        with solver.context():
            output = None
            for _ in range(self.case.checked_calls):
                output = solver.run()
            results = solver.results(output)
        if self.case.kind == "dropout":
            self._check_dropout(results)
        elif self.case.kind == "epoch":
            check_accuracy(results[0], EPOCH_ACCURACY)
        else:
            self._compare(results)

    def _compare(self, results: Results) -> None:
        if self._truth is None:
            wide = {
                n: a.astype(np.float64) if a.dtype == np.float32 else a
                for n, a in self.inputs.items()
            }
            solver = numpy_alone.SOLVERS[self.case.kind](self.case, wide)
            output = None
            for _ in range(self.case.checked_calls):
                output = solver.run()
            self._truth = solver.results(output)
        if len(results) != len(self._truth):
            raise WrongResultError(f"{len(results)} results for {len(self._truth)}")
        for number, (ours, truth) in enumerate(zip(results, self._truth, strict=True)):
            ours, truth = np.asarray(ours), np.asarray(truth)
            if ours.shape != truth.shape:
                raise WrongResultError(f"result {number}: shape {ours.shape} for {truth.shape}")
            scale = float(np.abs(truth).max()) or 1.0
            error = float(np.abs(ours - truth).max()) / scale
            if not error <= TOLERANCE:  # NaN is not
                raise WrongResultError(f"result {number}: off by {error:.1e} of its largest value")

    def _check_dropout(self, results: Results) -> None:
        """The same mask both ways, kept units scaled up, and as many kept as asked for."""
        y, dx = (np.asarray(result) for result in results)
        keep, rate = y != 0, 1.0 - shapes.DROPOUT
        expected = np.where(keep, self.inputs["x"] / np.float32(rate), 0)
        back = np.where(keep, self.inputs["dy"] / np.float32(rate), 0)
        if not np.allclose(y, expected, atol=1e-5) or not np.allclose(dx, back, atol=1e-5):
            raise WrongResultError("dropout: not x · keep / (1 − p) with one mask for both ways")
        sigma = np.sqrt(rate * (1 - rate) / keep.size)
        if abs(keep.mean() - rate) > 6 * sigma:
            raise WrongResultError(f"dropout: {keep.mean():.4f} kept where {rate} was asked for")


def check_accuracy(reached: float, wanted: float) -> None:
    """Raise WrongResultError if a training has not reached what it must."""
    if not reached >= wanted:
        raise WrongResultError(
            f"{100 * reached:.2f} % test accuracy where {100 * wanted:g} % was asked for"
        )
