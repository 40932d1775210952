"""Parameter updates against torch.optim, and the orthogonalisation of Muon."""

from __future__ import annotations

import numpy as np
import pytest
from checks import assert_result, torch_or_skip, unchanged
from tolerances import tolerance

from xpmlp import ops
from xpmlp.errors import BackendError

SHAPE = (4, 3)
STEPS = 5


def sgd(state, w, g, t):
    return (ops.sgd_update(w, g, lr=0.1),)


def momentum(nesterov):
    def step(state, w, g, t):
        return ops.momentum_update(w, g, *state, lr=0.1, momentum=0.9, nesterov=nesterov)

    return step


def adagrad(state, w, g, t):
    return ops.adagrad_update(w, g, *state, lr=0.1, eps=1e-10)


def rmsprop(state, w, g, t):
    return ops.rmsprop_update(w, g, *state, lr=0.01, gain=0.1, eps=1e-8)


def adam(shrink=1.0):
    def step(state, w, g, t):
        return ops.adam_update(
            w * shrink,
            g,
            *state,
            lr=0.01,
            gain1=0.1,
            gain2=0.01,
            correction1=1 - 0.9**t,
            correction2=1 - 0.99**t,
            eps=1e-8,
        )

    return step


# our step, its number of slots, torch's class and options
RULES = {
    "sgd": (sgd, 0, "SGD", {"lr": 0.1}),
    "momentum": (momentum(False), 1, "SGD", {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (momentum(True), 1, "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adagrad": (adagrad, 1, "Adagrad", {"lr": 0.1, "eps": 1e-10}),
    "rmsprop": (rmsprop, 1, "RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-8}),
    "adam": (adam(), 2, "Adam", {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8}),
    "adamw": (
        adam(1 - 0.01 * 0.1),
        2,
        "AdamW",
        {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1},
    ),
}


def by_torch(rule, w, gradients):
    torch = torch_or_skip()
    _, _, name, options = RULES[rule]
    parameter = torch.nn.Parameter(torch.tensor(w.astype(np.float64)))
    optimizer = getattr(torch.optim, name)([parameter], **options)
    for g in gradients:
        parameter.grad = torch.tensor(g.astype(np.float64))
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", RULES)
def test_several_steps_equal_torch(library, rng, rule, dtype):
    step, slots, *_ = RULES[rule]
    start = rng.normal(size=SHAPE).astype(dtype)
    gradients = [rng.normal(size=SHAPE).astype(dtype) for _ in range(STEPS)]
    w = library.array(start)
    state = [library.array(np.zeros_like(start)) for _ in range(slots)]
    for t, g in enumerate(gradients, 1):
        ag = library.array(g)
        with unchanged(w, ag, *state):
            w_new, *state_new = step(state, w, ag, t)
        w, state = w_new, state_new
    assert_result(library, w, by_torch(rule, start, gradients), "update", dtype)
    for slot in state:
        assert library.numpy(slot).dtype == dtype


@pytest.mark.parametrize("rule", RULES)
def test_mixed_libraries_are_refused(rule):
    torch = torch_or_skip()
    step, slots, *_ = RULES[rule]
    with pytest.raises(BackendError, match="one library"):
        step([np.zeros(2)] * slots, np.zeros(2), torch.zeros(2), 1)


@pytest.mark.parametrize("rule", ["adagrad", "rmsprop", "adam"])
def test_a_zero_gradient_moves_nothing(library, rule):
    step, slots, *_ = RULES[rule]
    zero, w = library.array(np.zeros(3)), library.array(np.ones(3))
    moved, *_ = step([zero] * slots, w, zero, 1)
    np.testing.assert_array_equal(library.numpy(moved), 1)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((16, 16), "float32"),
        ((24, 8), "float64"),
        ((8, 24), "float32"),
        ((3, 8, 12), "float64"),
        ((1, 1), "float32"),
    ],
    ids=str,
)
def test_orthogonalize_brings_singular_values_near_one(library, rng, shape, dtype):
    g = rng.normal(size=shape).astype(dtype)
    ag = library.array(g)
    with unchanged(ag):
        x = ops.orthogonalize(ag)
    assert tuple(x.shape) == shape
    values = np.linalg.svd(library.numpy(x), compute_uv=False)
    # The quintic's coefficients trade accuracy for speed: it swings within these bounds.
    assert values[..., :-1].min(initial=1) > 0.68
    assert values.max() < 1.13 + 1e-2
    expected = [orthogonalize64(a) for a in g.reshape(-1, *shape[-2:]).astype(np.float64)]
    assert_result(library, x, np.reshape(expected, shape), "orthogonal", dtype)


def orthogonalize64(g):
    """The same polynomial applied to each singular value."""
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    s = s / (np.linalg.norm(g) + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ vt


def test_orthogonalize_of_zero_is_zero(library):
    x = ops.orthogonalize(library.array(np.zeros((2, 3))))
    np.testing.assert_array_equal(library.numpy(x), 0)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(8, 18), (18, 8), (2, 8, 18)], ids=str)
def test_muon(library, rng, shape, nesterov):
    w, g, v = (rng.normal(size=shape) for _ in range(3))
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov, "steps": 5}
    arrays = [library.array(a) for a in (w, g, v)]
    with unchanged(*arrays):
        new, velocity = ops.muon_update(*arrays, **options)
    expected_v = 0.9 * v + g
    look = g + 0.9 * expected_v if nesterov else expected_v
    direction = [orthogonalize64(a) for a in look.reshape(-1, *shape[-2:])]
    scale = max(1, shape[-1] / shape[-2]) ** 0.5
    assert_result(library, velocity, expected_v, "update", "float64")
    expected = w - 0.1 * scale * np.reshape(direction, shape)
    np.testing.assert_allclose(library.numpy(new), expected, **tolerance("orthogonal", "float64"))


def test_members_with_their_own_rates_equal_separate_updates(library, rng):
    w, g = rng.normal(size=(2, *SHAPE)), rng.normal(size=(2, *SHAPE))
    v = rng.normal(size=w.shape)
    lr, decay = np.array([0.1, 0.3]), np.array([0.5, 0.9])

    def each(values):
        return library.array(values.reshape(2, 1, 1))

    new, velocity = ops.momentum_update(
        *(library.array(a) for a in (w, g, v)), lr=each(lr), momentum=each(decay), nesterov=True
    )
    for p in range(2):
        alone = ops.momentum_update(w[p], g[p], v[p], lr=lr[p], momentum=decay[p], nesterov=True)
        np.testing.assert_allclose(library.numpy(new)[p], alone[0], rtol=1e-13)
        np.testing.assert_allclose(library.numpy(velocity)[p], alone[1], rtol=1e-13)
