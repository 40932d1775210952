"""update.cu on the CPU: several steps of every optimizer beside xpmlp.optim in float64."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.driver import At, Table
from kernels.cuda.elements import EPS, STORAGE, SUFFIXES, WIDE, decode, encode, poisoned

from xpmlp import optim
from xpmlp.kernels.cuda import geometry

SHAPES = {"W": (3, 5), "b": (5,), "V": (64, 65)}
RULES = {
    # optimizer, kernel, slots, nesterov, first, second, eps, decoupled
    "sgd": (optim.SGD, {}, "sgd_update", 0, 0, 0.0, 0.0, 0.0, 0),
    "momentum": (optim.SGD, {"momentum": 0.9}, "momentum_update", 1, 0, 0.9, 0.0, 0.0, 0),
    "nesterov": (
        *(optim.SGD, {"momentum": 0.8, "nesterov": True}, "momentum_update"),
        *(1, 1, 0.8, 0.0, 0.0, 0),
    ),
    "adagrad": (optim.AdaGrad, {}, "adagrad_update", 1, 0, 0.0, 0.0, 1e-10, 0),
    "rmsprop": (optim.RMSProp, {}, "rmsprop_update", 1, 0, 0.99, 0.0, 1e-8, 0),
    "adam": (optim.Adam, {}, "adam_update", 2, 0, 0.9, 0.999, 1e-8, 0),
    "adamw": (optim.AdamW, {}, "adam_update", 2, 0, 0.9, 0.999, 1e-8, 1),
}


class Parameters:
    """Parameters, gradients and slots in one element type, and the table that lists them."""

    def __init__(self, rng, suffix, slots, members=None, decays=("W", "V"), copies=0):
        lead = () if members is None else (members,)
        self.suffix, self.members = suffix, members or 1
        self.shapes = {name: (*lead, *shape) for name, shape in SHAPES.items()}
        random = {name: rng.normal(size=shape) for name, shape in self.shapes.items()}
        self.w = {name: encode(values, suffix) for name, values in random.items()}
        self.g = {name: np.zeros_like(w) for name, w in self.w.items()}
        self.slots = {n: [np.zeros_like(w) for _ in range(slots)] for n, w in self.w.items()}
        self.copies = {n: poisoned(w.shape, np.uint16) for n, w in self.w.items()}
        self.decays, self.copy_flags, self.gradient_flag = decays, copies, 0
        self.sizes = [w.size for w in self.w.values()]

    def table(self):
        rows, pointers = np.zeros((len(self.w), 8), np.int64), {}
        for i, (name, w) in enumerate(self.w.items()):
            pointers[8 * i], pointers[8 * i + 1] = w, self.g[name]
            for k, slot in enumerate(self.slots[name]):
                pointers[8 * i + 2 + k] = slot
            if self.copy_flags:
                pointers[8 * i + 4] = self.copies[name]
            rows[i, 5:] = w.size, w.size // self.members, int(name in self.decays)
            rows[i, 7] |= self.copy_flags | self.gradient_flag
        return Table(rows, pointers)

    def chunks(self):
        return np.array(geometry.update_chunks(self.sizes), np.int64)

    def new_gradients(self, rng):
        for name, shape in self.shapes.items():
            self.g[name][...] = encode(rng.normal(size=shape), self.suffix)

    def new_half_gradients(self, rng, half):
        """In another type than the parameters', and the same ones in float64."""
        self.gradient_flag = {"bf16": 8, "f16": 16}[half]
        self.g = {name: encode(rng.normal(size=s), half) for name, s in self.shapes.items()}
        return {name: decode(g, half) for name, g in self.g.items()}


def settings(members, lr, decay, first, second, eps):
    columns = [np.broadcast_to(v, members) for v in (lr, decay, first, second, eps)]
    return np.ascontiguousarray(np.stack(columns, axis=1), np.float64)


def tick(program, suffix, step, table, schedule=None, skip=None):
    hyper = poisoned((len(table), 9), WIDE[suffix])
    length = 0 if schedule is None else len(schedule)
    arguments = (step, table, schedule, length, len(table), hyper, skip)
    program.launch(geometry.tick(suffix), *arguments)
    return hyper


def update(
    program, p, kernel, hyper, *, nesterov=0, decoupled=0, scale=None, each=0, skip=None,
    counters=None,
):  # fmt: skip
    count = 0 if counters is None else len(counters)
    program.launch(
        geometry.update(kernel, p.sizes, p.suffix),
        *(p.table(), p.chunks(), len(p.sizes), hyper, nesterov, decoupled, scale, each, skip),
        *(counters, count),
    )


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("rule", ["rmsprop", "adam"])
def test_means_that_keep_nothing_are_the_last_gradients_own(shim, rng, suffix, rule):
    _, _, kernel, slots, *_ = RULES[rule]
    p = Parameters(rng, suffix, slots)
    program, step = shim("update", suffix), np.zeros(1, np.int64)
    table = settings(1, 0.01, 0.0, 0.0, 0.0, 1e-8)  # no decay: gains of 1
    for size in (1e3, 1e-6):  # a sum that cancels would leave rounding of the first
        p.new_gradients(rng)
        for g in p.g.values():
            g *= size
        update(program, p, kernel, tick(program, suffix, step, table))
    for name, g in p.g.items():
        np.testing.assert_array_equal(p.slots[name][-1], g * g)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize("rule", RULES)
def test_three_steps_of_every_optimizer(shim, rng, suffix, members, rule):
    optimizer, made_with, kernel, slots, nesterov, first, second, eps, decoupled = RULES[rule]
    half = "16" in suffix
    if half and rule == "adagrad":
        eps = 1e-3
        made_with = {"eps": eps}  # 1e-10 is 0 in half precision
    lr = 0.01 if members is None else np.array([0.01, 0.02, 0.04])
    decay = 0.1 if members is None else np.array([0.0, 0.1, 0.2])
    schedule = np.array([1.0, 0.5])  # its last factor stays
    p = Parameters(rng, suffix, slots, members, copies=2 if members else 4)
    halves = np.full(p.members, 0.5, WIDE[suffix])  # gradients come doubled and are scaled back
    reference = optimizer(
        lr, weight_decay=decay, schedule=lambda step: schedule[min(step, 1)], **made_with
    )
    program, step = shim("update", suffix), np.zeros(1, np.int64)
    table = settings(p.members, lr, decay, first, second, eps)
    w = {name: decode(values, suffix) for name, values in p.w.items()}
    for _ in range(3):
        p.new_gradients(rng)
        if half:  # what half precision rounds between steps is not under test
            w = {name: decode(values, suffix) for name, values in p.w.items()}
            reference.state = {n: [decode(s, suffix) for s in p.slots[n]] for n in w}
        g = {name: decode(values, suffix) / 2 for name, values in p.g.items()}
        w = reference.update(w, g, ("W", "V"))
        nothing = np.zeros(1, np.int32)  # no gradient was infinite: no step is skipped
        hyper = tick(program, suffix, step, table, schedule, nothing)
        options = {"nesterov": nesterov, "decoupled": decoupled, "skip": nothing}
        each = int(members is not None)
        update(program, p, kernel, hyper, scale=halves, each=each, **options)
        tolerance = EPS[suffix] * (1 if half else 32)
        for name in w:
            np.testing.assert_allclose(
                decode(p.w[name], suffix), w[name], rtol=tolerance, atol=tolerance
            )
            for slot, expected in zip(p.slots[name], reference.state[name], strict=True):
                np.testing.assert_allclose(
                    decode(slot, suffix), expected, rtol=tolerance, atol=tolerance
                )
        half_type = "bf16" if members else "f16"
        for name, w_now in p.w.items():
            copy = decode(p.copies[name].view(STORAGE[half_type]), half_type)
            np.testing.assert_allclose(
                copy, decode(w_now, suffix), rtol=EPS[half_type] + EPS[suffix], atol=1e-7
            )
    assert step[0] == 3


def test_gradients_are_scaled_for_all_or_each_member(shim, rng):
    p = Parameters(rng, "f32", 0, 3)
    p.new_gradients(rng)
    program = shim("update", "f32")
    before = {name: w.copy() for name, w in p.w.items()}
    hyper = tick(program, "f32", np.zeros(1, np.int64), settings(3, 1.0, 0.0, 0.0, 0.0, 0.0))
    update(program, p, "sgd_update", hyper, scale=np.array([0.5], np.float32))
    scales = np.array([0.0, 1.0, 2.0], np.float32)
    update(program, p, "sgd_update", hyper, scale=scales, each=1)
    for name, w in before.items():
        factors = (scales + 0.5).reshape(3, *(1,) * (w.ndim - 1))
        np.testing.assert_allclose(p.w[name], w - factors * p.g[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("half, flags", [("bf16", 2), ("f16", 4)])
def test_a_half_precision_copy_is_written_beside_the_weights(shim, rng, suffix, half, flags):
    p = Parameters(rng, suffix, 2, copies=flags)
    p.new_gradients(rng)
    program = shim("update", suffix)
    table = settings(1, 0.01, 0.0, 0.9, 0.999, 1e-8)
    hyper = tick(program, suffix, np.zeros(1, np.int64), table)
    update(program, p, "adam_update", hyper)
    for name, w in p.w.items():
        expected = encode(w.astype(np.float32), half).view(np.uint16)
        np.testing.assert_array_equal(p.copies[name], expected)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_infinite_gradient_skips_the_step_and_halves_the_scale(shim, rng, value):
    program = shim("update", "f32")
    p = Parameters(rng, "f32", 2)
    p.new_gradients(rng)
    found = np.zeros(1, np.int32)
    look = (geometry.update("find_nonfinite", p.sizes, "f32"), p.table(), p.chunks(), 3, found)
    program.launch(*look)
    assert found[0] == 0
    p.g["V"].reshape(-1)[-1] = value
    program.launch(*look)
    assert found[0] == 1
    before, step = {name: w.copy() for name, w in p.w.items()}, np.array([4], np.int64)
    table, counters = settings(1, 0.01, 0.0, 0.9, 0.999, 1e-8), np.arange(300)
    hyper = tick(program, "f32", step, table, skip=found)
    update(program, p, "adam_update", hyper, skip=found, counters=counters)
    assert step[0] == 4
    np.testing.assert_array_equal(counters, np.arange(300) + 1)  # the batch is over all the same
    for name, w in before.items():
        np.testing.assert_array_equal(p.w[name], w)
        assert not np.any(p.slots[name])

    scale, inverse = np.array([1024], np.float32), np.zeros(1, np.float32)
    good = np.array([7], np.int32)
    launch = geometry.adjust_scale("f32")
    program.launch(launch, scale, inverse, found, good, 2.0, 0.5, 2)
    assert (scale[0], inverse[0], found[0], good[0]) == (512, 1 / 512, 0, 0)
    program.launch(launch, scale, inverse, found, good, 2.0, 0.5, 2)
    assert (scale[0], good[0]) == (512, 1)
    program.launch(launch, scale, inverse, found, good, 2.0, 0.5, 2)
    assert (scale[0], inverse[0], good[0]) == (1024, 1 / 1024, 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_clipping_is_by_each_members_own_norm(shim, rng, suffix):
    p = Parameters(rng, suffix, 0, 3)
    p.new_gradients(rng)
    for g in p.g.values():
        g[1] = 0  # a member without gradients
    program, wide = shim("update", suffix), WIDE[suffix]
    launch = geometry.squared_norm(3 * geometry.UPDATE_CHUNK, len(p.sizes), 3, suffix)
    partial = poisoned((launch.grid[0], len(p.sizes), 3), wide)
    few = geometry.Launch(launch.kernel, (*launch.grid[:2], 2), launch.block)
    program.launch(few, p.table(), 3, partial)
    bounds = np.array([1.0, 1.0, 1000.0], wide)
    finish = geometry.finish("clip_scale", 3, suffix)
    norms = np.sqrt(sum((decode(g, suffix) ** 2).reshape(3, -1).sum(1) for g in p.g.values()))
    for each, inverse in ((1, None), (0, np.array([0.25], wide))):
        scale = poisoned((3,), wide)
        parts = partial.shape[0] * partial.shape[1]
        program.launch(finish, partial, parts, 3, bounds, each, inverse, scale)
        unscale = 1.0 if inverse is None else 0.25
        limit = bounds if each else bounds[0]
        true = norms * unscale
        expected = unscale * np.where(true > limit, limit / np.where(true > 0, true, 1), 1.0)
        np.testing.assert_allclose(scale, expected, rtol=1e-5)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("half", ["bf16", "f16"])
def test_gradients_in_half_precision_are_read_as_they_are(shim, rng, suffix, half):
    """By the update, by the search for infinite ones, and by the norm."""
    p = Parameters(rng, suffix, 0, 3)
    g, w = p.new_half_gradients(rng, half), {n: decode(v, suffix) for n, v in p.w.items()}
    program = shim("update", suffix)
    hyper = tick(program, suffix, np.zeros(1, np.int64), settings(3, 0.5, 0.0, 0.0, 0.0, 0.0))
    update(program, p, "sgd_update", hyper)
    for name in w:
        np.testing.assert_allclose(p.w[name], w[name] - 0.5 * g[name], rtol=1e-6, atol=1e-6)
    launch = geometry.squared_norm(4096, len(p.sizes), 3, suffix)
    partial = poisoned((launch.grid[0], len(p.sizes), 3), WIDE[suffix])
    program.launch(launch, p.table(), 3, partial)
    expected = sum((v**2).reshape(3, -1).sum(1) for v in g.values())
    np.testing.assert_allclose(partial.sum(axis=(0, 1)), expected, rtol=1e-5)
    found = np.zeros(1, np.int32)
    look = geometry.update("find_nonfinite", p.sizes, suffix), p.table(), p.chunks(), 3, found
    program.launch(*look)
    assert found[0] == 0
    p.g["V"].reshape(-1)[-1] = encode(np.full(1, np.inf), half)[0]
    program.launch(*look)
    assert found[0] == 1


def test_unaligned_parameters_and_counters(shim, rng):
    program = shim("update", "f32")
    counters = np.arange(5, dtype=np.int64)
    program.launch(geometry.Launch("advance_f32", (1, 1, 1), (128, 1, 1)), counters, 5)
    assert counters.tolist() == [1, 2, 3, 4, 5]
    w, g = (rng.normal(size=9).astype(np.float32) for _ in range(2))
    expected = w - g
    table = Table(np.array([[0, 0, 0, 0, 0, 9, 9, 0]], np.int64), {0: At(w, 4), 1: At(g, 8)})
    hyper = tick(program, "f32", np.zeros(1, np.int64), settings(1, 1.0, 0.0, 0.0, 0.0, 0.0))
    launch = geometry.update("sgd_update", [9], "f32")
    chunks = np.array([0, 1], np.int64)
    program.launch(launch, table, chunks, 1, hyper, 0, 0, None, 0, None, None, 0)
    np.testing.assert_allclose(w, expected, rtol=1e-6)
