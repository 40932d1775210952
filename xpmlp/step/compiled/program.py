"""What a compiled training step is while it is being put together: a tape and its buffers.

Activations are (P, N, F), P = 1 without a population, one after another in memory. The batch x
comes from the user at another address each time, or the same for all members: it is an
:class:`Activation` without an array, and the program remembers which arguments stand for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...communication import Share
from ...ops.dispatch import load_kernels
from .later import Later
from .memory import StepMemory, zeros


class NotCompiled(Exception):
    """Why a step runs layer by layer instead."""


@dataclass(frozen=True)
class Activation:
    """What goes from one layer to the next.

    Attributes
    ----------
    array : array, shape (P, N, F), or None for the batch itself
    features : int
        F.
    batch : int
        Elements from one member's to the next one's; 0 if all share it.
    gated : bool
        It is a rectifier's output: whoever computes its gradient sets that to 0 where it is 0.
    product : array of int64, optional
        The arguments of the product that made it and may still rectify it.
    shared : bool
        Others read it too: it must stay as it is.
    axes : tuple of ints
        Of a row, where it has several layer by layer, so that what follows must flatten it.
    channels_last : bool
        Of an image, whose axes are (C, H, W), memory has (H, W, C).
    """

    array: np.ndarray | None
    features: int
    batch: int
    gated: bool = False
    product: np.ndarray | None = None
    shared: bool = False
    axes: tuple[int, ...] = ()
    channels_last: bool = False


Backward = Callable[[np.ndarray, bool], "np.ndarray | None"]
"""``dx = backward(dy, wanted)``; dx is None unless it is wanted. What overwrites dy does so only
after :meth:`Program.own`."""
Lowered = tuple[Activation, Backward]
"""What the lowering of a layer gives: its output, and what appends its backward."""


class Program:
    """A tape for batches of one shape.

    Parameters
    ----------
    population : int, optional
        P.
    rows : int
        N.
    x : Activation
    memory : StepMemory or ModelArrays
        Where parameters are.
    training : bool
        Whether dropout and batch statistics are on, and a backward may follow.
    share : Share, optional
        Where the batch is a part of one that is divided among several ranks.
    multiply : instruction, optional
        Another product than that of the arrays' dtype.

    Attributes
    ----------
    members : int
        P, or 1.
    later : list of (array of int64, int, Later)
        A record, a place in it, and what is to be written there before each run.
    nbytes : int
        Of its buffers.
    hits : array of int64, shape (P,), or None
        For class numbers: how many rows were right.
    weights : array, shape (N,) or (P, N), or None
        What the rows of each batch count for, where it comes with that.
    before : list of callables
        What each run starts with: they write numbers that change from step to step.
    looks : list of callables
        Of a batch x that a check refused: they raise an error that says where it is wrong.
    """

    def __init__(
        self,
        population: int | None,
        rows: int,
        x: Activation,
        memory: StepMemory,
        *,
        training: bool = True,
        share: Share | None = None,
        multiply: Any = None,
    ):
        self.share = share
        self.population, self.members = population, population or 1
        self.rows, self.x, self.memory, self.training = rows, x, memory, training
        self.dtype = memory.dtype
        self.instructions = load_kernels("numba", "instructions")
        self.tape = load_kernels("numba", "tape").Tape(self.members)
        self._gemm = load_kernels("numba", "gemm")
        self.multiply = multiply or self._gemm.product
        self._records = load_kernels("numba", "records")
        self._kept: list[np.ndarray] = []
        self.nbytes = 0
        self._x_arguments: list[tuple[np.ndarray, int]] = []
        self.later: list[tuple[np.ndarray, int, Later]] = []
        self.hits: np.ndarray | None = None
        self.weights: Any = None
        self.before: list[Callable[[], None]] = []
        self.looks: list[Callable[[np.ndarray], Any]] = []
        self._watched: list[tuple[Any, str, Any]] = []
        self._held: list[np.ndarray] = []
        self._parts: list[tuple[Any, Callable[[], None]]] = []

    def cut(self, action: Callable[[], None]) -> None:
        """Call a function between the instructions so far and those that follow."""
        self._parts.append((self.tape, action))
        self.tape = type(self.tape)(self.members)

    def watch(self, owner: Any, *names: str) -> None:
        """These attributes are built into the program; it is stale once they change."""
        self._watched += [(owner, name, getattr(owner, name)) for name in names]

    def is_stale(self) -> bool:
        """Whether a watched attribute is another one now."""
        return any(getattr(owner, name) is not value for owner, name, value in self._watched)

    def buffer(self, *shape: int, dtype: Any = None) -> np.ndarray:
        """Memory that lives as long as the program."""
        array = zeros(shape, self.dtype if dtype is None else dtype)
        self.nbytes += array.nbytes
        self._kept.append(array)
        return array

    def activation(self, features: int, **more: Any) -> Activation:
        """A new one, (P, N, F)."""
        array = self.buffer(self.members, self.rows, features)
        return Activation(array, features, self.rows * features, **more)

    def parameter(self, name: str) -> Any:
        """A parameter's memory, flat."""
        return self.memory.parameter(name)

    def gradient(self, name: str) -> np.ndarray:
        """Its gradient's memory, flat."""
        begin, size = self.memory.offsets[name]
        return self.memory.grads[begin : begin + size]

    def state(self, name: str) -> Any:
        """What a layer keeps but does not train, such as a running mean."""
        return self.memory.statistic(name)

    def add(
        self, instruction: Any, *arguments: Any, work: float, check: bool = False, **given: Any
    ) -> np.ndarray:
        """Append an instruction, its record's fields given by name.

        Arrays and activations become addresses, numbers in memory may be given as numbers, and
        members and rows are the program's unless they are given.

        Returns
        -------
        array of int64
            The record where the instruction reads it, its last field last.

        Raises
        ------
        TypeError
            If a field is missing or unknown, or an array too small or of another type.
        """
        if given:
            arguments = self._fields(instruction.record, given)
        row = self.tape.add(
            instruction(self.dtype), [_integer(a) for a in arguments], work=int(work), check=check
        )
        for position, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                self._kept.append(argument)
            elif isinstance(argument, Activation) and argument.array is None:
                self._x_arguments.append((row, position))
            elif isinstance(argument, Later):
                self.later.append((row, position, argument))
        return row

    def _fields(self, record: Any, given: dict[str, Any]) -> tuple[Any, ...]:
        """A record's values one after another: integers, arrays, and the batch itself."""
        own = {"members": self.members, "rows": self.rows}
        filled = record(**{name: own[name] for name in own if name in record._fields} | given)
        numbers = {
            name: self._number(value)
            for name, value in zip(filled._fields, filled, strict=True)
            if record.__annotations__[name] is self._records.NUMBER
        }
        filled = filled._replace(**numbers)
        self._records.check(filled._make(map(_array, filled)), self.dtype)
        return tuple(self._records.flat(filled))

    def _number(self, value: Any) -> np.ndarray:
        """A number's place in memory."""
        if isinstance(value, np.ndarray):
            return value
        array = self.buffer(1, dtype=np.float64)
        array[0] = value
        return array

    def run(
        self, x: np.ndarray, y: np.ndarray | None = None, weight: np.ndarray | None = None
    ) -> int:
        """Run the tape on a batch; the status that a check ended it with, or 0."""
        if not (x.flags.c_contiguous and x.flags.aligned):
            x = np.ascontiguousarray(x)
        address = _integer(x)
        for row, position in self._x_arguments:
            row[position] = address
        if y is not None:
            np.copyto(self._targets, y, casting="unsafe")
        if weight is not None:
            np.copyto(self.weights, weight, casting="unsafe")
        status = self.tape.check()
        for tape, _ in self._parts:
            status = tape.check() or status
        if status == 0:
            for prepare in self.before:
                prepare()
            for tape, action in self._parts:
                tape.run()
                action()
            self.tape.run()
        return status

    def bind_targets(self, y: np.ndarray, dtype: np.dtype, tail: tuple[int, ...]) -> np.ndarray:
        """Where the targets are each time; copied there in ``dtype`` by :meth:`__call__`."""
        own = (self.rows, *tail)
        if y.shape not in (own, (self.members, *own)) or (
            self.population is None and y.shape != own
        ):
            raise NotCompiled(f"targets have shape {y.shape}")
        self._targets = self.buffer(*y.shape, dtype=dtype)
        return self._targets

    def bind_weights(self, weight: np.ndarray) -> np.ndarray:
        """Where the weights of rows are each time, (N,) or (P, N)."""
        own = (self.rows,)
        if weight.shape != own and weight.shape != (self.population, *own):
            raise NotCompiled(f"weights have shape {weight.shape}")
        if weight.dtype.kind not in "biuf":
            raise NotCompiled(f"weights are {weight.dtype}")
        self.weights = self.buffer(*weight.shape)
        return self.weights

    @property
    def targets(self) -> np.ndarray:
        """Where :meth:`bind_targets` has put them."""
        return self._targets

    def product(
        self,
        rows: int,
        columns: int,
        depth: int,
        a: tuple[Any, int, int, int],
        b: tuple[Any, int, int, int],
        c: tuple[Any, int, int],
        *,
        cut: int,
        bias: Any = 0,
        bias_apart: int | None = None,
        gate: Any = 0,
        count: int | None = None,
    ) -> np.ndarray:
        """``C = A B + bias``; operands as (start, stride of members, of rows, of columns); C's
        columns are contiguous.

        ``cut`` is the axis of C that the threads divide; biases of members follow one another
        unless ``bias_apart`` says how far they are apart. There are as many products as members
        unless ``count`` says otherwise.
        """
        given = self.problem(rows, columns, depth, a, b, c, bias=bias, gate=gate)
        if bias_apart is not None:
            given["bias"] = self._gemm.Bias(bias, bias_apart)
        if count is not None:
            given["count"] = count
        given["axis"] = self._gemm.BATCH if given["count"] > 1 else cut
        return self.add(self.multiply, **given, work=rows * columns * depth / 100)

    def problem(
        self,
        rows: int,
        columns: int,
        depth: int,
        a: Any,
        b: Any,
        c: Any,
        *,
        bias: Any = 0,
        gate: Any = 0,
    ) -> dict[str, Any]:
        """The record of a product that is not cut."""
        sizes = {"count": self.members, "rows": rows, "columns": columns, "depth": depth}
        of_bias = self._gemm.Bias(bias, columns)
        operands = {"a": self._gemm.Matrix(*a), "b": self._gemm.Matrix(*b), "bias": of_bias}
        operands["c"] = self._gemm.Matrix(*c, 1)
        return {**sizes, **operands, "gate": gate, "flags": 0, "axis": self._gemm.WHOLE}

    def rectify(self, x: Activation) -> Activation:
        """``max(x, 0)``, in place, inside the product that makes x if there is one."""
        if x.product is not None:
            self.rectify_product(x.product)
            return Activation(x.array, x.features, x.batch, gated=True)
        if x.array is None or x.shared:
            y = self.activation(x.features)
            self._copy(x, y)
            x = y
        work = self.rows * x.features / 40
        self.add(self.instructions.rectified, columns=x.features, x=x, work=work)
        return Activation(x.array, x.features, x.batch, gated=True)

    def rectify_product(self, made_by: np.ndarray) -> None:
        """Let a product set to 0 what is below."""
        made_by[-1] |= self._gemm.RELU

    def gate(self, dx: np.ndarray, x: Activation) -> np.ndarray:
        """dx as the gradient of x: where x was rectified, 0."""
        if x.gated:
            dx, work = self.own(dx), self.rows * x.features / 40
            self.add(self.instructions.gated, columns=x.features, dy=dx, y=x, work=work)
        return dx

    def sum(self, a: Any, b: Any, features: int) -> np.ndarray:
        """``a + b`` of activations or gradients, in a new buffer."""
        array, work = self.buffer(self.members, self.rows, features), self.rows * features / 25
        self.add(self.instructions.summed, columns=features, a=a, b=b, y=array, work=work)
        return array

    def own(self, dy: np.ndarray) -> np.ndarray:
        """A gradient that may be overwritten: dy, or a copy while dy is held."""
        if not any(dy is held for held in self._held):
            return dy
        copy = self.buffer(*dy.shape)
        self._copy(dy, Activation(copy, dy.shape[-1], 0))
        return copy

    @contextmanager
    def rows_are(self, rows: int) -> Iterator[None]:
        """Instructions that are appended meanwhile have so many rows, such as pixels."""
        own, self.rows = self.rows, rows
        yield
        self.rows = own

    @contextmanager
    def holding(self, dy: np.ndarray) -> Iterator[None]:
        """Instructions that are appended meanwhile leave dy as it is."""
        self._held.append(dy)
        yield
        self._held.pop()

    def _copy(self, source: Any, target: Activation) -> None:
        F = target.features
        given = {"columns": F, "x": source, "y": target}
        self.add(self.instructions.copied, **given, work=self.rows * F / 25)


def _array(argument: Any) -> Any:
    return argument.array if isinstance(argument, Activation) else argument


def _integer(argument: Any) -> int:
    if isinstance(argument, Activation):
        return 0 if argument.array is None else _integer(argument.array)
    if isinstance(argument, np.ndarray):
        return argument.__array_interface__["data"][0]
    return int(argument)
