"""What a captured step needs of CUDA, on NumPy: graphs that record and replay as CUDA's do.

While a step is recorded, every NumPy function that touches one of its arrays is written down with
the addresses it reads and writes (device_memory.py), and nothing is computed; a replay calls the
same functions on the same memory. So what is a number while recording stays that number at every
replay, what is written anywhere else than to the recorded place is lost, and memory that nobody
holds any more is gone: the three mistakes a captured step can make.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from step import device_memory, device_streams

from xpmlp import ops
from xpmlp.kernels.cuda import graph
from xpmlp.kernels.cuda.sums import Sum
from xpmlp.metrics import hits
from xpmlp.ops.activations import FUSABLE
from xpmlp.random import permutation

_VIEWS = (
    *(np.reshape, np.matrix_transpose, np.expand_dims, np.broadcast_to, np.transpose),
    *(np.ndim, np.shape, np.swapaxes, np.may_share_memory),
)


class Recorder(graph.Recorder):
    """The real one, on all of the above."""

    def __init__(self) -> None:
        super().__init__(device_streams.library)


# --- arrays


class Traced(np.ndarray):
    """An array whose operations are recorded."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            assert not device_streams.is_recording(), "write with array[...] = "
            options["out"] = out
        return _call(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function, types, args, kwargs):
        return _call(function, args, kwargs)

    @property
    def data(self):
        """Where it is, as CuPy's arrays say it."""
        return SimpleNamespace(ptr=self.ctypes.data)

    def astype(self, dtype, *args, **kwargs):
        return _call(np.ndarray.astype, (self, dtype), {})

    def copy(self, order="C"):
        return _call(np.ndarray.copy, (self,), {})

    def set(self, values):
        assert not device_streams.is_recording(), "host values cannot travel while recording"
        _plain(self)[...] = values

    def get(self):
        assert not device_streams.is_recording(), "the host cannot wait while recording"
        return np.array(self)

    def __setitem__(self, key, value):
        launch(lambda memory, source: memory.__setitem__(key, source), self, value, name="copy")


def empty(shape: Any, dtype: Any) -> Any:
    """Device memory full of NaN bits: what a kernel does not write is seen."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return device_memory.array_of(device_streams.allocate(size), shape, dtype).view(Traced)


def traced(values: Any) -> Any:
    values = _plain(np.asarray(values))
    array = empty(values.shape, values.dtype)
    _plain(array)[...] = values
    return array


def launch(kernel: Callable[..., Any], *arguments: Any, name: str = "kernel") -> None:
    """Call a function now, or at each replay; by then, of arrays it has the addresses only."""
    device_streams.launch(kernel, *_plain(arguments), name=name)


def _call(function: Callable, args: tuple, options: dict) -> Any:
    args, options = _plain(args), _plain(options)
    with np.errstate(all="ignore"):
        # While recording only its shape and type count; row numbers may be garbage then.
        garbage = function is np.take and device_streams.is_recording()
        result = function(*args, **options, **({"mode": "clip"} if garbage else {}))
    if isinstance(result, tuple | list):
        assert not device_streams.is_recording()
        return type(result)(traced(item) for item in result)
    if not isinstance(result, np.ndarray | np.generic):
        return result
    if function in _VIEWS and np.may_share_memory(result, args[0]):
        return result.view(Traced)
    place = traced(result)
    if device_streams.is_recording():
        _plain(place)[...] = 77  # garbage until it is replayed

        def again(place: Any, args: Any, options: Any) -> None:
            place[...] = function(*args, **options)

        launch(again, place, args, options, name=f"numpy.{function.__name__}")
    return place


def _plain(value: Any) -> Any:
    """The same memory as ordinary arrays."""
    if isinstance(value, Traced):
        return value.view(np.ndarray)
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


class Counters:
    def __init__(self, values):
        self.array = traced(np.array(values, np.int64))
        self.travels = 0

    def __getitem__(self, number):
        return self.array[number : number + 1]

    def set(self, values):
        assert not device_streams.is_recording(), "host values cannot travel while recording"
        self.travels += 1
        _plain(self.array)[...] = values

    def advance(self):
        launch(lambda memory: memory.__iadd__(1), self.array, name="advance")


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

    def table(self, grads, send):
        return list(grads)

    def set_step(self, step):
        assert not device_streams.is_recording()
        self.count[...] = step

    def step(self):
        return int(self.count[0])

    def set_rates(self, *numbers):
        assert not device_streams.is_recording()
        self.travels += 1
        self.numbers = [np.broadcast_to(n, (self.members,)).astype(float) for n in numbers]

    def set_schedule(self, first, factors):
        assert not device_streams.is_recording()
        self.schedule[first : first + len(factors)] = factors

    def tick(self, skip=None):
        launch(self._tick, skip, name="tick")

    def _tick(self, skip):
        lr, decay, first, second, eps = self.numbers
        k = self.count[0]
        self.now = {"lr": lr * self.schedule[k], "decay": decay, "first": first, "eps": eps}
        self.now |= {"c1": 1 - first ** (k + 1.0), "c2": 1 - second ** (k + 1.0)}
        self.now["second"] = second
        if skip is None or not skip[0]:
            self.count[0] += 1

    def clip(self, table, max_norm, inverse=None):
        scale = empty((self.members,), float)

        def kernel(grads, scale, bound, inverse):
            rows = [np.reshape(g, (self.members, -1)).astype(float) for g in grads]
            factor = 1.0 if inverse is None else inverse
            norm = np.sqrt(sum((g * g).sum(axis=1) for g in rows)) * factor
            scale[...] = factor * bound / np.maximum(norm, bound)

        launch(kernel, table, scale, max_norm, inverse, name="clip")
        return scale

    def find_nonfinite(self, table, found):
        def kernel(grads, found):
            if not all(np.isfinite(g).all() for g in grads):
                found[0] = 1

        launch(kernel, table, found, name="find_nonfinite")

    def apply(self, table, grad_scale=None, skip=None, counters=None):
        count = None if counters is None else counters.array
        launch(self._apply, table, grad_scale, skip, count, name="update")

    def _apply(self, grads, grad_scale, skip, counters):
        if counters is not None:
            counters += 1
        if skip is not None and skip[0]:
            return
        groups = zip(self.params, grads, self.slots, self.decayed, self.copies, strict=True)
        for w, g, slots, decays, copy in groups:
            g = g.astype(w.dtype)
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
        def kernel(scale, inverse, found, good):
            good[0] = 0 if found[0] else good[0] + 1
            if found[0]:
                scale[0] *= 0.5
            elif good[0] == self.interval:
                scale[0], good[0] = 2 * scale[0], 0
            inverse[0], found[0] = 1 / scale[0], 0

        launch(kernel, self.scale, self.inverse, self.found, self.good, name="adjust_scale")


def finish(sums, *, send, slot=None, flat=None):
    """``kernels.cuda.sums.finish``."""

    def kernel(parts, outs, scales, extras, slot):
        for one, part, out, scale, extra in zip(sums, parts, outs, scales, extras, strict=True):
            total = part.sum(axis=0, dtype=out.dtype) * one.scale
            total = total if scale is None else total * scale.reshape(-1)
            total = total if extra is None else total + extra.reshape(-1)
            slots = one.slots or 1
            out.reshape(slots, -1)[int(slot[0]) % slots if one.slots else 0] = total
        if flat is not None:
            flat._tick(None)

    sums = list(sums)
    columns = ([getattr(s, n) for s in sums] for n in ("parts", "out", "scales", "extra"))
    arguments = [list(column) for column in columns]
    sums = [replace(s, parts=None, out=None, scales=None, extra=None) for s in sums]
    launch(kernel, *arguments, slot, name="finish")


def gather(x, labels, x_out, labels_out, *, mean, std, rows, batch, batches, seeds, shuffle,
           step=None, offset=0):  # fmt: skip
    """``kernels.cuda.gather.gather`` for one member."""

    def kernel(x, labels, x_out, labels_out, mean, std, seeds, step):
        epoch, index = divmod(offset + (0 if step is None else int(step[0])), batches)
        order = np.arange(len(x))
        if shuffle:
            order = permutation(len(x), seed=int(seeds[0]), epoch=epoch)
        chosen = order[index * batch :][:rows]
        values = x[chosen].astype(np.float64 if x_out.dtype == np.float64 else np.float32)
        x_out[...] = values if mean is None else (values - mean) / std
        labels_out[...] = labels[chosen]

    arrays = x, labels, x_out, labels_out, mean, std, seeds, step
    launch(kernel, *arrays, name="gather")


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


def activate_backward(dy, y, activation, drop, *, want_bias, sums):
    dy = _dropped(dy, drop)
    if activation is not None:
        undropped = y
        if drop is not None:  # the kernel undoes the scale of what was kept
            undropped = y * (1.0 - drop[0][0])
        dy = FUSABLE[activation][1](dy, undropped, undropped)
    if want_bias is None:
        return dy, None
    members = want_bias[0] if len(want_bias) == 2 else 1
    rows = np.reshape(dy, (members, -1, want_bias[-1]))
    db = empty(want_bias, np.float32 if dy.dtype.itemsize == 2 else dy.dtype)
    for member in range(members):
        sums.append(Sum(rows[member], want_bias, out=np.reshape(db, (members, -1))[member]))
    return dy, db


def weight_gradient(x, dz, W):
    return ops.linear_backward(dz, x, W, input_grad=False)[1]


def input_gradient(dz, x, W):
    return ops.linear_backward(dz, x, W, input_grad=True)[0]


def cross_entropy(logits, targets, *, loss_scale=None, **options):
    loss, gradient = ops.softmax_cross_entropy(logits, targets, **options)
    if loss_scale is not None:
        gradient = (gradient * loss_scale).astype(logits.dtype)
    total = Sum(np.reshape(loss, (1, -1)), loss.shape)
    if targets.dtype.kind not in "iu":
        return total, gradient, None
    found = hits(logits, targets)
    rows = np.swapaxes(np.reshape(found, (-1, found.shape[-1])), 0, 1)
    return total, gradient, Sum(rows, found.shape[:-1])


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
        Sum=Sum,
        Counters=Counters,
        FlatUpdate=FlatUpdate,
        LossScale=LossScale,
        contiguous=contiguous,
        empty=empty,
        finish=finish,
        gather=gather,
        DoubleBuffer=DoubleBuffer,
        free_memory=lambda: 1 << 40,
        tensor_float_32=tensor_float_32,
        explained_memory=lambda where, what, lower: nullcontext(),
        precision_problem=lambda precision: None,
        release_memory=lambda: None,
        half_dtype=lambda p: np.dtype(np.float16 if p == "fp16" else ml_dtypes.bfloat16),
        entered=0,
    )
    if fused:
        names |= dict(
            linear=linear,
            weight_gradient=weight_gradient,
            input_gradient=input_gradient,
            activate=activate,
            activate_backward=activate_backward,
            cross_entropy=cross_entropy,
        )
    module = SimpleNamespace(**names)
    return module


module: Any = None
