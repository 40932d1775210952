"""What a loss is, and what all of them check."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, array_namespace, dtype_name, to_numpy
from ..choices import Reduction
from ..errors import DTypeError, StateError
from ..ops.shapes import check_choice, check_floating, working_dtype
from ..ops.softmax_cross_entropy import REDUCTIONS
from .row_weights import weigh


class Loss:
    """Base of all losses.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of values reduced; "none" leaves one value a row or element.

    Attributes
    ----------
    answers : {"classes", "yes_no", "numbers", None}
        What outputs are to the loss, and so how they are scored: by the largest one, by each one's
        sign, or by R². None: by what the targets look like.
    weighs_rows : bool
        Whether some rows count more than others, or not at all.
    """

    answers: str | None = None
    weighs_rows = False

    def __init__(self, reduction: Reduction = "mean"):
        check_choice(type(self).__name__, "reduction", reduction, REDUCTIONS)
        self.reduction: Reduction = reduction
        self._gradient: Any = None

    def forward(self, outputs: Array, targets: Array) -> Array:
        """The loss, of shape (…,), still on the device."""
        raise NotImplementedError

    def backward(self) -> Array:
        """Gradient of the last forward's loss with respect to its outputs, of their shape."""
        if self._gradient is None:
            raise StateError(
                f"`{type(self).__name__}.backward`: expected a forward before it; "
                "call loss.forward(outputs, targets) first"
            )
        if callable(self._gradient):  # of a compiled step: copied when first looked at
            self._gradient = self._gradient()
        return self._gradient

    def weighted(self, outputs: Array, targets: Array, weight: Array) -> Array:
        """The loss where each row i of a batch counts wᵢ-fold, of shape (…,).

        With "mean" that is ``Σ wᵢ uᵢ ℓᵢ / Σ wᵢ uᵢ``, where ``ℓᵢ`` is the row's own loss and ``uᵢ``
        what it counts for without a weight: 1, or its class's weight, or 0 if it is ignored. With
        "sum" and "none" each is ``wᵢ`` times what it was. A whole number as a weight is so many
        equal rows, and a weight of 0 none, whatever the row holds.

        Parameters
        ----------
        outputs, targets : array
            As for :meth:`forward`.
        weight : array, shape (N,) or (…, N)
            At least 0.

        Raises
        ------
        ShapeError, DTypeError, DataError
            For weights of another shape, that are no numbers, or negative.
        """
        self._gradient = None
        value, self._gradient = weigh(self, outputs, targets, weight)
        return value

    def row_units(self, outputs: Array, targets: Array) -> Array | None:
        """What each row counts for in the batch's mean, (…, N); None where all count 1."""
        return None

    def units(self, outputs: Array, targets: Array, weight: Array | None = None) -> Any:
        """What the batch's mean is a mean over, as a number or of shape (…,).

        The mean over several batches is ``Σ mean · units / Σ units``. ``weight`` is that of
        :meth:`weighted`.
        """
        rows = self.row_units(outputs, targets)
        if weight is None and rows is None:
            return outputs.shape[-2]
        xp = array_namespace(outputs)
        if weight is not None:
            weight = xp.astype(weight, working_dtype(xp, outputs), copy=False)
            rows = weight if rows is None else weight * rows
        return xp.sum(rows, axis=-1)

    def numbers(self, outputs: Array) -> Array:
        """Outputs that are numbers to the loss, as its targets are given: what R² is of."""
        return outputs

    def counted(self, targets: Array) -> Array | None:
        """Which rows count at all, (…, N) booleans; None for all of them."""
        return None

    def counted_elements(self, targets: Array) -> Array | None:
        """Which elements count at all, as booleans of the targets' shape; None for all of them."""
        return None

    def check_targets(self, targets: Array, classes: int) -> None:
        """Look at the targets' values: once a data set, before the first step.

        A forward looks as well where that is free, in host memory; on a device it never does, since
        every step would wait.

        Parameters
        ----------
        targets : array
            Of a batch, or of all rows.
        classes : int
            C, or M: how many outputs there are.

        Raises
        ------
        DataError
            For a class number that does not exist, or a share that is none.
        """

    def __call__(self, outputs: Array, targets: Array) -> Array:
        return self.forward(outputs, targets)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_gradient": None}  # for copies and pickles

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"

    def describe(self) -> str:
        """The options that differ from their defaults."""
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


def check_arrays(where: str, outputs: Array, targets: Array) -> None:
    """Raise DTypeError unless both are arrays, the outputs of floats."""
    for name, x in (("outputs", outputs), ("targets", targets)):
        if not hasattr(x, "dtype"):
            raise DTypeError(
                f"`{where}`: expected {name} as an array, got {type(x).__name__}; convert it with "
                f"xpmlp.asarray({name})"
            )
    array_namespace(outputs, targets)
    check_floating(where, "outputs", outputs)
    kind = dtype_name(targets.dtype)
    if not any(number in kind for number in ("int", "float", "bool")):
        raise DTypeError(f"`{where}`: expected targets that are real numbers, got {kind}")


def real_numbers(given: Any) -> np.ndarray:
    """Real numbers in any of their forms, in float64.

    Raises
    ------
    TypeError, ValueError
        If they are none.
    """
    numbers = to_numpy(given) if hasattr(given, "dtype") else np.asarray(given)
    if numbers.dtype.kind not in "iuf":
        raise TypeError(f"{numbers.dtype} are no real numbers")
    return numbers.astype(np.float64)
