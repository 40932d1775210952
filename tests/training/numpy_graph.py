"""What a captured step needs of CUDA, on NumPy: graphs that record and replay as CUDA's do.

While a step is recorded, every NumPy function that touches one of its arrays is written down with
the memory it reads and writes, and nothing is computed; a replay calls the same functions on the
same memory. So what is a number while recording stays that number at every replay, and what is
written anywhere else than to the recorded place is lost: the two mistakes a captured step can make.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp import ops
from xpmlp.ops.activations import FUSABLE
from xpmlp.random import permutation
from xpmlp.training.metrics import correct

_tape: list[Callable[[], Any]] | None = None
_VIEWS = (
    *(np.reshape, np.matrix_transpose, np.expand_dims, np.broadcast_to, np.transpose),
    *(np.ndim, np.shape, np.swapaxes, np.may_share_memory),
)


class Traced(np.ndarray):
    """An array whose operations are recorded."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            assert _tape is None, "write with array[...] = "
            options["out"] = out
        return _call(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function, types, args, kwargs):
        return _call(function, args, kwargs)

    def astype(self, dtype, *args, **kwargs):
        return _call(np.ndarray.astype, (self, dtype), {})

    def copy(self, order="C"):
        return _call(np.ndarray.copy, (self,), {})

    def set(self, values):
        assert _tape is None, "host values cannot travel while recording"
        _plain(self)[...] = values

    def get(self):
        assert _tape is None, "the host cannot wait while recording"
        return np.array(self)

    def __setitem__(self, key, value):
        memory, source = _plain(self), _plain(value)
        launch(lambda: memory.__setitem__(key, source))


def traced(values: Any) -> Any:
    return np.array(values).view(Traced)


def launch(kernel: Callable[[], Any]) -> None:
    """Run a function of no arguments now, or at each replay."""
    kernel() if _tape is None else _tape.append(kernel)


def _call(function: Callable, args: tuple, options: dict) -> Any:
    args, options = _plain(args), _plain(options)
    with np.errstate(all="ignore"):
        result = function(*args, **options)  # while recording only its shape and type count
    if isinstance(result, tuple | list):
        assert _tape is None
        return type(result)(traced(item) for item in result)
    if not isinstance(result, np.ndarray | np.generic):
        return result
    if function in _VIEWS and np.may_share_memory(result, args[0]):
        return result.view(Traced)
    place = np.array(result)
    if _tape is not None:
        place[...] = 77  # garbage until it is replayed
        _tape.append(lambda: place.__setitem__(..., function(*args, **options)))
    return place.view(Traced)


def _plain(value: Any) -> Any:
    """The same memory as ordinary arrays."""
    if isinstance(value, Traced):
        return value.view(np.ndarray)
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


class Recorder:
    def __init__(self):
        self.recording = False
        self.problem: Exception | None = None

    def rehearse(self, work):
        return work()

    def record(self, work):
        global _tape
        _tape, self.recording = [], True
        try:
            result = work()
            if self.problem is not None:
                raise self.problem
            recorded = _tape
        finally:
            _tape, self.recording = None, False

        def replay() -> None:
            with np.errstate(all="ignore"):
                for step in recorded:
                    step()

        return replay, result


class Counters:
    def __init__(self, values):
        self.array = traced(np.array(values, np.int64))
        self.travels = 0

    def __getitem__(self, number):
        return self.array[number : number + 1]

    def set(self, values):
        assert _tape is None, "host values cannot travel while recording"
        self.travels += 1
        _plain(self.array)[...] = values

    def advance(self):
        memory = _plain(self.array)
        launch(lambda: memory.__iadd__(1))


class Table:
    def __init__(self):
        self.grads = []

    def point_at(self, grads):
        assert _tape is None
        self.grads = _plain(grads)


class FlatUpdate:
    """``kernels.cuda.update.FlatUpdate`` in NumPy; the formulas are those of ``ops.update``."""

    def __init__(self, kind, params, slots, decayed, members, *, nesterov, decoupled, copies,
                 capacity):  # fmt: skip
        self.kind, self.members, self.nesterov, self.decoupled = kind, members, nesterov, decoupled
        self.params, self.slots = _plain(params), _plain(slots)
        self.decayed, self.copies = decayed, _plain(copies or [None] * len(params))
        self.numbers = None
        self.count = np.zeros(1, np.int64)
        self.schedule = np.full(capacity, np.nan)
        self.now: dict[str, Any] = {}
        self.travels = 0

    def table(self):
        return Table()

    def set_step(self, step):
        assert _tape is None
        self.count[...] = step

    def step(self):
        return int(self.count[0])

    def set_rates(self, *numbers):
        assert _tape is None
        self.travels += 1
        self.numbers = [np.broadcast_to(n, (self.members,)).astype(float) for n in numbers]

    def set_schedule(self, first, factors):
        assert _tape is None
        self.schedule[first : first + len(factors)] = factors

    def tick(self, skip=None):
        def kernel():
            lr, decay, first, second, eps = self.numbers
            k = self.count[0]
            self.now = {"lr": lr * self.schedule[k], "decay": decay, "first": first, "eps": eps}
            self.now |= {"c1": 1 - first ** (k + 1.0), "c2": 1 - second ** (k + 1.0)}
            self.now["second"] = second
            if skip is None or not _plain(skip)[0]:
                self.count[0] += 1

        launch(kernel)

    def clip(self, table, max_norm, inverse=None):
        scale = np.zeros(self.members)
        bound, inverse = _plain(max_norm), None if inverse is None else _plain(inverse)

        def kernel():
            rows = [np.reshape(g, (self.members, -1)).astype(float) for g in table.grads]
            factor = 1.0 if inverse is None else inverse
            norm = np.sqrt(sum((g * g).sum(axis=1) for g in rows)) * factor
            scale[...] = factor * bound / np.maximum(norm, bound)

        launch(kernel)
        return scale.view(Traced)

    def find_nonfinite(self, table, found):
        memory = _plain(found)

        def kernel():
            if not all(np.isfinite(g).all() for g in table.grads):
                memory[0] = 1

        launch(kernel)

    def apply(self, table, grad_scale=None, skip=None):
        launch(lambda: self._apply(table, _plain(grad_scale), _plain(skip)))

    def _apply(self, table, grad_scale, skip):
        if skip is not None and skip[0]:
            return
        groups = zip(self.params, table.grads, self.slots, self.decayed, self.copies, strict=True)
        for w, g, slots, decays, copy in groups:
            at = {n: v.reshape(-1, *[1] * (w.ndim - 1)) for n, v in self.now.items()}
            if self.members == 1:
                at = {name: value.reshape(()) for name, value in at.items()}
            if grad_scale is not None:
                g = g * (grad_scale.reshape(-1, *[1] * (w.ndim - 1)) if self.members > 1
                         else grad_scale.reshape(()))  # fmt: skip
            old = w
            if decays and self.decoupled:
                old = w * (1 - at["lr"] * at["decay"])
            elif decays:
                g = g + at["decay"] * w
            new, *kept = self._formula(old, g, slots, at)
            w[...] = new
            for slot, value in zip(slots, kept, strict=True):
                slot[...] = value
            if copy is not None:
                copy[...] = w.astype(copy.dtype)

    def _formula(self, w, g, slots, at):
        lr, eps = at["lr"], at["eps"]
        if self.kind == "sgd":
            return (w - lr * g,)
        if self.kind == "momentum":
            v = at["first"] * slots[0] + g
            return w - lr * (g + at["first"] * v if self.nesterov else v), v
        if self.kind == "adagrad":
            s = slots[0] + g * g
            return w - lr * g / (np.sqrt(s) + eps), s
        if self.kind == "rmsprop":
            s = slots[0] + (1 - at["first"]) * (g * g - slots[0])
            return w - lr * g / (np.sqrt(s) + eps), s
        m = slots[0] + (1 - at["first"]) * (g - slots[0])
        v = slots[1] + (1 - at["second"]) * (g * g - slots[1])
        return w - lr * (m / at["c1"]) / (np.sqrt(v / at["c2"]) + eps), m, v


class LossScale:
    def __init__(self, initial=2.0**16, interval=2000):
        self.interval = interval
        self.scale, self.inverse = traced(np.float32([initial])), traced(np.float32([1 / initial]))
        self.found, self.good = traced(np.zeros(1, np.int32)), traced(np.zeros(1, np.int32))

    def values(self):
        return tuple(np.array(a) for a in (self.scale, self.inverse, self.found, self.good))

    def restore(self, values):
        for array, value in zip(
            (self.scale, self.inverse, self.found, self.good), values, strict=True
        ):
            _plain(array)[...] = value

    def adjust(self):
        scale, inverse, found, good = map(_plain, (self.scale, self.inverse, self.found, self.good))

        def kernel():
            good[0] = 0 if found[0] else good[0] + 1
            if found[0]:
                scale[0] *= 0.5
            elif good[0] == self.interval:
                scale[0], good[0] = 2 * scale[0], 0
            inverse[0], found[0] = 1 / scale[0], 0

        launch(kernel)


def gather(x, labels, x_out, labels_out, *, mean, std, rows, batch, batches, seeds, shuffle,
           step=None, offset=0):  # fmt: skip
    """``kernels.cuda.gather.gather`` for one member."""
    x, labels, x_out, labels_out = map(_plain, (x, labels, x_out, labels_out))
    counter = None if step is None else _plain(step)

    def kernel():
        epoch, index = divmod(offset + (0 if counter is None else int(counter[0])), batches)
        order = np.arange(len(x))
        if shuffle:
            order = permutation(len(x), seed=int(seeds[0]), epoch=epoch)
        chosen = order[index * batch :][:rows]
        values = x[chosen].astype(x_out.dtype)
        x_out[...] = values if mean is None else (values - mean) / std
        labels_out[...] = labels[chosen]

    launch(kernel)


class DoubleBuffer:
    """``kernels.cuda.transfer.DoubleBuffer``; what is sent arrives when it is received."""

    def __init__(self, *layouts):
        self.pinned = [[np.zeros(*layout) for layout in layouts] for _ in range(2)]
        self.device = [[traced(np.zeros(*layout)) for layout in layouts] for _ in range(2)]
        self.log = []

    def host(self, place):
        self.log.append(("host", place))
        return self.pinned[place]

    def send(self, place):
        assert ("used", place) in self.log or ("sent", place) not in self.log
        self.log.append(("sent", place))

    def receive(self, place):
        for there, here in zip(self.device[place], self.pinned[place], strict=True):
            _plain(there)[...] = here
        self.log.append(("received", place))
        return self.device[place]

    def done(self, place):
        self.log.append(("used", place))

    def wait(self):
        self.log.append(("waited", None))


def contiguous(array):
    return array if array.flags.c_contiguous else array.copy()


def _dropped(x, drop):
    if drop is None:
        return x
    rates, generator, step = drop
    return ops.dropout(x, rates, generator, step)


def linear(x, W, b, activation, drop):
    return _dropped(ops.linear(x, W, b, activation), drop)


def activate(x, b, activation, drop):
    assert b is None
    return _dropped(FUSABLE[activation][0](x), drop)


def activate_backward(dy, y, activation, drop, *, want_bias):
    dy = _dropped(dy, drop)
    if activation is not None:
        undropped = y
        if drop is not None:  # the kernel undoes the scale of what was kept
            undropped = y * (1.0 - drop[0][0])
        dy = FUSABLE[activation][1](dy, undropped, undropped)
    return dy, None


def linear_backward(dy, x, W, y, activation, drop, bias_shape, input_grad):
    dz, _ = activate_backward(dy, y, activation, drop, want_bias=None)
    dx, dW, db = ops.linear_backward(dz, x, W, input_grad=input_grad)
    return dx, dW, None if bias_shape is None else db


def cross_entropy(logits, targets, **options):
    loss, gradient = ops.softmax_cross_entropy(logits, targets, **options)
    indices = targets.dtype.kind in "iu"
    return loss, gradient, correct(logits, targets) if indices else None


@contextmanager
def tensor_float_32():
    module.entered += 1
    yield


def make(*, fused: bool = True) -> Any:
    """A module's worth of the above; without ``fused``, layers run one by one."""
    import ml_dtypes

    global module
    names = dict(
        Recorder=Recorder,
        Counters=Counters,
        FlatUpdate=FlatUpdate,
        LossScale=LossScale,
        contiguous=contiguous,
        gather=gather,
        DoubleBuffer=DoubleBuffer,
        free_memory=lambda: 1 << 40,
        tensor_float_32=tensor_float_32,
        explained_memory=lambda where, what, lower: nullcontext(),
        precision_problem=lambda precision: None,
        half_dtype=lambda p: np.dtype(np.float16 if p == "fp16" else ml_dtypes.bfloat16),
        entered=0,
    )
    if fused:
        names |= dict(
            linear=linear,
            linear_backward=linear_backward,
            activate=activate,
            activate_backward=activate_backward,
            cross_entropy=cross_entropy,
        )
    module = SimpleNamespace(**names)
    return module


module: Any = None
