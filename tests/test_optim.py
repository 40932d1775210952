"""Optimizers: step by step against torch.optim, alone, scheduled, and one for each member."""

import numpy as np
import pytest

import xpmlp
from xpmlp import optim
from xpmlp.backend import dtype_name
from xpmlp.errors import ConfigError, ShapeError
from xpmlp.optim import SGD, AdaGrad, Adam, AdamW, Muon, RMSProp, clip_by_global_norm
from xpmlp.schedules import Cosine, Step

SHAPES = {"W": (5, 4), "b": (4,), "V": (4, 3)}
WEIGHTS = ("W", "V")
P = 3
MAKE = {
    "sgd": lambda lr, **o: SGD(lr, **o),
    "momentum": lambda lr, **o: SGD(lr, momentum=0.9, **o),
    "nesterov": lambda lr, **o: SGD(lr, momentum=0.8, nesterov=True, **o),
    "adagrad": lambda lr, **o: AdaGrad(lr, **o),
    "rmsprop": lambda lr, **o: RMSProp(lr, decay=0.95, **o),
    "adam": lambda lr, **o: Adam(lr, beta1=0.8, beta2=0.99, **o),
    "adamw": lambda lr, **o: AdamW(lr, beta1=0.8, beta2=0.99, **o),
    "muon": lambda lr, **o: Muon(lr, **o),
    "amsgrad": lambda lr, **o: optim.AMSGrad(lr, **o),
    "nadam": lambda lr, **o: optim.NAdam(lr, beta2=0.99, **o),
    "radam": lambda lr, **o: optim.RAdam(lr, beta2=0.9, **o),
    "adamax": lambda lr, **o: optim.Adamax(lr, **o),
    "adadelta": lambda lr, **o: optim.Adadelta(lr, eps=0.01, **o),
    "lion": lambda lr, **o: optim.Lion(lr, **o),
}
TORCH = {
    "sgd": lambda torch, p, lr, wd: torch.SGD(p, lr, weight_decay=wd),
    "momentum": lambda torch, p, lr, wd: torch.SGD(p, lr, momentum=0.9, weight_decay=wd),
    "nesterov": lambda torch, p, lr, wd: torch.SGD(
        p, lr, momentum=0.8, nesterov=True, weight_decay=wd
    ),
    "adagrad": lambda torch, p, lr, wd: torch.Adagrad(p, lr, weight_decay=wd),
    "rmsprop": lambda torch, p, lr, wd: torch.RMSprop(p, lr, alpha=0.95, weight_decay=wd),
    "adam": lambda torch, p, lr, wd: torch.Adam(p, lr, betas=(0.8, 0.99), weight_decay=wd),
    "adamw": lambda torch, p, lr, wd: torch.AdamW(p, lr, betas=(0.8, 0.99), weight_decay=wd),
}


@pytest.fixture
def torch():
    """torch as an independent reference."""
    return pytest.importorskip("torch", reason="torch is the reference here; pip install torch")


def start(rng, lead=(), dtype="float64"):
    return {name: rng.normal(size=(*lead, *s)).astype(dtype) for name, s in SHAPES.items()}


def gradient(params):
    """That of a bowl with other curvatures and another lowest point for each element."""
    grads = {}
    for name, w in params.items():
        at = np.arange(w.size, dtype=w.dtype).reshape(w.shape)
        grads[name] = ((1.0 + at % 3) * (w - np.cos(at))).astype(w.dtype)
    return grads


def run(optimizer, params, steps, weights=WEIGHTS):
    for _ in range(steps):
        params = optimizer.update(params, gradient(params), weights)
    return params


@pytest.mark.parametrize("decay", [0.0, 0.03], ids=["plain", "decay"])
@pytest.mark.parametrize("name", TORCH)
def test_20_steps_equal_torch(torch, rng, name, decay):
    params = start(rng)
    tensors = {key: torch.tensor(value) for key, value in params.items()}
    groups = [
        {"params": [tensors[key]], "weight_decay": decay if key in WEIGHTS else 0.0}
        for key in tensors
    ]
    reference = TORCH[name](torch.optim, groups, 0.05, decay)
    for _ in range(20):
        now = gradient({key: value.numpy() for key, value in tensors.items()})
        for key, tensor in tensors.items():
            tensor.grad = torch.tensor(now[key])
        reference.step()
    ours = run(MAKE[name](0.05, weight_decay=decay), params, 20)
    for key, value in ours.items():
        np.testing.assert_allclose(value, tensors[key].numpy(), rtol=1e-12, atol=1e-14)


def test_muon_makes_the_momentum_orthogonal(rng):
    w, g = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    optimizer = Muon(0.5, momentum=0.9, nesterov=False)
    step = (w - optimizer.update({"W": w}, {"W": g})["W"]) / 0.5
    left, _, right = np.linalg.svd(g, full_matrices=False)
    values = np.linalg.svd(step, compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3  # five steps get this near to 1
    assert np.diag(left.T @ step @ right.T).min() > 0.6  # and turn the directions of g nowhere
    np.testing.assert_array_equal(optimizer.state["W"][0], g)


def test_muon_steps_biases_with_adamw(rng):
    params = start(rng)
    ours = run(Muon(0.02, adam_lr=0.05, weight_decay=0.1), params, 5)
    adam = run(AdamW(0.05, weight_decay=0.1), params, 5)
    np.testing.assert_array_equal(ours["b"], adam["b"])
    assert np.abs(ours["W"] - adam["W"]).max() > 1e-3


def test_muon_shrinks_weights_by_their_own_rate():
    params = {"W": np.ones((3, 3))}
    shrunk = Muon(0.5, weight_decay=0.2).update(params, {"W": np.zeros((3, 3))})["W"]
    np.testing.assert_allclose(shrunk, 0.9, rtol=1e-14)


@pytest.mark.parametrize("name", MAKE)
def test_weight_decay_leaves_biases_alone(rng, name):
    params = start(rng)
    plain = run(MAKE[name](0.05, weight_decay=0.0), params, 3)
    decayed = run(MAKE[name](0.05, weight_decay=0.1), params, 3)
    np.testing.assert_array_equal(plain["b"], decayed["b"])
    assert np.abs(plain["W"] - decayed["W"]).max() > 1e-4
    everything = run(MAKE[name](0.05, weight_decay=0.1), params, 3, weights=None)
    assert np.abs(plain["b"] - everything["b"]).max() > 1e-5


@pytest.mark.parametrize("name", MAKE)
def test_library_dtype_and_inputs_are_kept(library, rng, name):
    params, grads = start(rng, dtype="float32"), start(rng, dtype="float32")
    arrays = {key: library.array(value) for key, value in params.items()}
    slopes = {key: library.array(value) for key, value in grads.items()}
    optimizer = MAKE[name](0.05, weight_decay=0.1)
    # Another current backend must not matter: an optimizer follows its arrays.
    with xpmlp.use_backend("numpy" if "numpy" not in library.name else "array_api_strict"):
        updated = optimizer.update(arrays, slopes, WEIGHTS)
        updated = optimizer.update(updated, slopes, WEIGHTS)
    for key, value in arrays.items():
        for array in (updated[key], *optimizer.state[key]):
            assert type(array) is type(value) and dtype_name(array.dtype) == "float32"
            assert tuple(array.shape) == tuple(value.shape)
        np.testing.assert_array_equal(library.numpy(value), params[key])
        np.testing.assert_array_equal(library.numpy(slopes[key]), grads[key])


def hypers(name):
    """Per-member hyperparameters for an optimizer, and what else it is made with."""
    own = {"lr": [0.05, 0.01, 0.0], "weight_decay": [0.1, 0.0, 0.01]}
    betas = {"beta1": [0.9, 0.8, 0.0], "beta2": [0.999, 0.9, 0.99]}
    return {
        "sgd": (SGD, own, {}),
        "momentum": (SGD, {**own, "momentum": [0.9, 0.5, 0.0]}, {}),
        "nesterov": (SGD, {**own, "momentum": [0.9, 0.5, 0.1]}, {"nesterov": True}),
        "adagrad": (AdaGrad, own, {}),
        "rmsprop": (RMSProp, {**own, "decay": [0.9, 0.99, 0.999]}, {}),
        "adam": (Adam, {**own, "beta1": [0.9, 0.8, 0.0], "beta2": [0.999, 0.9, 0.99]}, {}),
        "adamw": (AdamW, {**own, "beta1": [0.9, 0.8, 0.0], "beta2": [0.999, 0.9, 0.99]}, {}),
        "muon": (Muon, {**own, "momentum": [0.95, 0.5, 0.0]}, {}),
        "amsgrad": (optim.AMSGrad, {**own, **betas}, {}),
        "nadam": (optim.NAdam, {**own, **betas}, {}),
        "radam": (optim.RAdam, {**own, **betas, "beta2": [0.999, 0.5, 0.0]}, {}),
        "adamax": (optim.Adamax, {**own, **betas}, {}),
        "adadelta": (optim.Adadelta, {**own, "decay": [0.9, 0.99, 0.0]}, {}),
        "lion": (optim.Lion, {**own, **betas}, {}),
    }[name]


def check_members(name, dtype, rtol, array, numpy, rng):
    kind, own, common = hypers(name)
    start_ = start(rng, (P,), dtype)
    slopes = [start(rng, (P,), dtype) for _ in range(4)]
    schedule = Step(every=2, factor=0.3)
    together = kind(**own, **common, schedule=schedule)
    params = {key: array(value) for key, value in start_.items()}
    for grads in slopes:
        params = together.update(params, {key: array(g) for key, g in grads.items()}, WEIGHTS)
    for key, value in start_.items():
        assert type(params[key]) is type(array(value))
        assert dtype_name(params[key].dtype) == dtype
    for p in range(P):
        mine = {key: values[p] for key, values in own.items()}
        alone = kind(**mine, **common, schedule=schedule)
        single = {key: value[p] for key, value in start_.items()}
        for grads in slopes:
            single = alone.update(single, {key: g[p] for key, g in grads.items()}, WEIGHTS)
        for key, value in single.items():
            np.testing.assert_allclose(
                numpy(params[key])[p], value, rtol=rtol, atol=rtol, err_msg=f"{key} of {p}"
            )


@pytest.mark.parametrize("name", ["momentum", "muon"])
def test_members_step_as_they_would_alone_on_any_library(library, rng, name):
    check_members(name, "float32", 1e-6, library.array, library.numpy, rng)


@pytest.mark.parametrize("name", MAKE)
def test_members_step_as_they_would_alone(rng, name):
    check_members(name, "float64", 1e-13, np.asarray, np.asarray, rng)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_the_schedule_multiplies_the_rate(rng, name):
    params = start(rng)
    schedule = Cosine(total=6, final=0.1)
    scheduled = MAKE[name](0.05, weight_decay=0.1, schedule=schedule)
    if name == "sgd":
        assert repr(scheduled) == "SGD(lr=0.05)"
    by_hand, expected = MAKE[name](0.05, weight_decay=0.1), params
    for step in range(6):
        by_hand.lr = 0.05 * schedule(step)
        if name == "muon":
            by_hand.adam_lr = 1e-3 * schedule(step)
        expected = run(by_hand, expected, 1)
    ours = run(scheduled, params, 6)
    assert scheduled.steps == 6
    for key, value in ours.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-14)


def test_a_schedule_may_be_named_or_a_function(rng):
    params = start(rng)
    frozen = run(SGD(0.1, schedule=lambda step: 0), params, 2)
    np.testing.assert_array_equal(frozen["W"], params["W"])
    with pytest.raises(ConfigError, match="expected total="):
        run(SGD(0.1, schedule="cosine"), params, 1)


@pytest.mark.parametrize("name", MAKE)
def test_every_optimizer_finds_the_lowest_point(rng, name):
    params = start(rng)
    schedule = Cosine(total=300)
    # AdaGrad's own steps shrink already.
    lr = {"sgd": 0.05, "momentum": 0.05, "nesterov": 0.05, "adagrad": 1.0, "adadelta": 1.0}.get(
        name, 0.2
    )
    options = {"adam_lr": 0.2} if name == "muon" else {}
    optimizer = MAKE[name](lr, weight_decay=0.0, schedule=schedule, **options)
    for value in run(optimizer, params, 300).values():
        at = np.arange(value.size).reshape(value.shape)
        np.testing.assert_allclose(value, np.cos(at), atol=5e-3)


def test_names_lead_to_optimizers():
    assert set(optim.OPTIMIZERS) == set(MAKE) - {"momentum", "nesterov"}
    for make in optim.OPTIMIZERS.values():
        assert make().update({"W": np.ones((2, 2))}, {"W": np.ones((2, 2))})["W"].shape == (2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-0.1), "`SGD`: expected lr finite and ≥ 0"),
        (lambda: Adam(float("nan")), "`Adam`: expected lr finite"),
        (lambda: Adam(float("inf")), "`Adam`: expected lr finite"),
        (lambda: SGD("fast"), "`SGD`: expected lr finite and ≥ 0, .* got 'fast'"),
        (lambda: SGD([[0.1]]), "`SGD`: expected lr .* one for each member"),
        (lambda: SGD([]), "`SGD`: expected lr"),
        (lambda: AdamW(weight_decay=-1.0), "`AdamW`: expected weight_decay finite and ≥ 0"),
        (lambda: SGD(momentum=1.0), r"`SGD`: expected momentum in \[0, 1\)"),
        (lambda: RMSProp(decay=-0.1), r"`RMSProp`: expected decay in \[0, 1\)"),
        (lambda: AdamW(beta2=[0.9, 1.0]), r"`AdamW`: expected beta2 in \[0, 1\)"),
        (lambda: SGD(nesterov=True), "`SGD`: expected momentum > 0 with nesterov=True"),
        (lambda: SGD(schedule="linear"), "expected a schedule among"),
    ],
    ids=[
        "lr",
        "nan",
        "inf",
        "text",
        "nested",
        "empty",
        "decay",
        "momentum",
        "rms",
        "beta",
        "nesterov",
        "schedule",
    ],
)
def test_impossible_hyperparameters_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({}, "expected gradients for W, b, V, got ; call backward before update"),
        ({"W": np.ones((5, 4))}, "expected gradients for W, b, V, got W"),
        ({**{k: np.ones(s) for k, s in SHAPES.items()}, "b": np.ones(5)}, r"gradient of b to have"),
    ],
    ids=["none", "missing", "shape"],
)
def test_gradients_that_do_not_fit_are_refused(rng, grads, message):
    with pytest.raises(ShapeError, match=message):
        Adam().update(start(rng), grads)


@pytest.mark.parametrize("name", ["lr", "weight_decay", "momentum"])
def test_as_many_hyperparameters_as_members(rng, name):
    optimizer = SGD(**{name: [0.1, 0.2]})
    with pytest.raises(ShapeError, match=f"`SGD`: expected 3 values of {name}.* got 2"):
        optimizer.update(start(rng, (P,)), start(rng, (P,)))


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1e4])
def test_clipping_equals_torch(torch, rng, max_norm):
    grads = start(rng)
    tensors = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES.values()]
    for tensor, grad in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.tensor(grad)
    torch.nn.utils.clip_grad_norm_(tensors, max_norm)
    clipped = clip_by_global_norm(grads, max_norm)
    for tensor, ours in zip(tensors, clipped.values(), strict=True):
        # torch adds 1e-6 to the norm that it divides by.
        np.testing.assert_allclose(ours, tensor.grad.numpy(), rtol=3e-6)


@pytest.mark.parametrize("limit", [0.5, [0.5, 100.0, 2.0]], ids=["shared", "own"])
def test_clipping_takes_each_member_by_its_own_norm(library, rng, limit):
    grads = start(rng, (P,), "float32")
    arrays = {key: library.array(value) for key, value in grads.items()}
    clipped = clip_by_global_norm(arrays, limit, population=P)
    for p, own in enumerate(np.broadcast_to(limit, P)):
        alone = clip_by_global_norm({key: g[p] for key, g in grads.items()}, own)
        for key, value in alone.items():
            assert type(clipped[key]) is type(arrays[key])
            assert dtype_name(clipped[key].dtype) == "float32"
            np.testing.assert_allclose(library.numpy(clipped[key])[p], value, rtol=1e-6)


def test_short_gradients_are_not_clipped_and_zero_ones_stay(rng):
    grads = start(rng)
    for key, value in clip_by_global_norm(grads, 1e3).items():
        np.testing.assert_array_equal(value, grads[key])
    zeros = {"W": np.zeros((2, 2))}
    np.testing.assert_array_equal(clip_by_global_norm(zeros, 1.0)["W"], 0.0)
    assert clip_by_global_norm({}, 1.0) == {}


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), [1.0, 2.0], [[1.0]]], ids=str)
def test_an_impossible_norm_is_refused(rng, limit):
    with pytest.raises(
        ConfigError, match="`clip_by_global_norm`: expected max_norm finite and > 0"
    ):
        clip_by_global_norm(start(rng), limit)


@pytest.mark.parametrize(("population", "values"), [(None, 2), (None, 4), (3, 2)])
def test_values_for_members_that_there_are_not_are_refused(population, values):
    from xpmlp.losses import MSE
    from xpmlp.models import FullyConnectedNet
    from xpmlp.training import TrainStep

    model = FullyConnectedNet([4, 4, 1], population=population)
    x = np.zeros((5, 4), np.float32)
    for run in ("__call__", "by_layers"):
        step = TrainStep(model, MSE(), SGD([0.1] * values))
        with pytest.raises(ConfigError, match=f"expected lr to be one number.*got {values} of"):
            getattr(step, run)(x, x[:, :1])


def test_lion_follows_its_formula(rng):
    lion, w = optim.Lion(0.1, beta1=0.8, beta2=0.6, weight_decay=0.5), rng.normal(size=(3, 2))
    params, mean, expected = {"W": w}, np.zeros_like(w), w
    for _ in range(4):
        g = rng.normal(size=w.shape)
        params = lion.update(params, {"W": g})
        step = np.sign(0.8 * mean + 0.2 * g)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * step
        mean = 0.6 * mean + 0.4 * g
        np.testing.assert_allclose(params["W"], expected, rtol=1e-14)


def test_nadam_is_the_same_after_a_copy_a_load_and_a_changed_momentum(rng):
    first, start_, grads = optim.NAdam(0.1), rng.normal(size=4), rng.normal(size=(6, 4))
    params = {"W": start_}
    for g in grads[:3]:
        params = first.update(params, {"W": g})
    loaded = optim.NAdam(0.1)
    loaded.load_state_dict(first.state_dict(), params)
    again = first.copy()
    ends = []
    for one in (first, loaded, again):
        now = params
        for g in grads[3:]:
            now = one.update(now, {"W": g})
        ends.append(now["W"])
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])
    first.beta1 = 0.5
    fresh = optim.NAdam(0.1, beta1=0.5)
    fresh.steps = first.steps
    assert first.rates(0.1) == fresh.rates(0.1) and first.fresh().steps == 0
