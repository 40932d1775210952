"""The compiled step against the same step layer by layer, and what it must leave alone."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from xpmlp.errors import DataError, ShapeError
from xpmlp.layers import Dropout, Flatten, Linear, ReLU, Residual, Sequential
from xpmlp.losses import MAE, MSE, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, AdaGrad, Adam, AdamW, Muon, RMSProp
from xpmlp.penalties import L2
from xpmlp.schedules import Step
from xpmlp.training import TrainStep

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

D, C = 12, 4
TOLERANCES = {"float32": 2e-5, "float64": 1e-13}

MODELS = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "linear with dropout": {"activation": "identity", "dropout": 0.3},
    "no bias": {"bias": False},
    "batchnorm": {"normalization": "batchnorm", "dropout": 0.2, "bias": False},
    "batchnorm cs231n": {"normalization": "batchnorm", "batchnorm": "cs231n", "bias": False},
    "layernorm": {"normalization": "layernorm"},
    "tanh": {"activation": "tanh"},
    "sigmoid": {"activation": "sigmoid"},
    "silu": {"activation": "silu", "dropout": 0.2},
    "leaky relu": {"activation": "leaky_relu", "normalization": "layernorm"},
}
LOSSES = {
    "cross-entropy": SoftmaxCrossEntropy,
    "smoothed": lambda: SoftmaxCrossEntropy(label_smoothing=0.1, z_loss=0.01),
    "weighted": lambda: SoftmaxCrossEntropy(class_weights=[1, 2, 3, 4], ignore_index=1),
    "summed": lambda: SoftmaxCrossEntropy(reduction="sum"),
    "mse": MSE,
    "mse summed": lambda: MSE(reduction="sum"),
}
OPTIMIZERS = {
    "sgd": lambda: SGD(0.05),
    "decayed sgd": lambda: SGD(0.05, weight_decay=0.1),
    "momentum": lambda: SGD(0.02, momentum=0.9),
    "nesterov": lambda: SGD(0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adagrad": lambda: AdaGrad(0.01),
    "rmsprop": lambda: RMSProp(0.001, weight_decay=0.1),
    "adam": lambda: Adam(0.01, weight_decay=0.1),
    "adamw": lambda: AdamW(0.01, weight_decay=0.1, schedule=Step(every=2, factor=0.5)),
}


def batch(rng, dtype="float32", rows=13, lead=(), loss="cross-entropy"):
    x = rng.normal(size=(*lead, rows, D)).astype(dtype)
    if loss.startswith("mse"):
        return x, rng.normal(size=(*lead, rows, C)).astype(dtype)
    return x, rng.integers(0, C, (*lead, rows))


def pair(dtype="float32", *, loss=SoftmaxCrossEntropy, optimizer=lambda: SGD(0.1), **options):
    """Two equal steps, to be run one compiled, one by layers."""
    options = {"sizes": [D, 17, 9, C], "seed": 3, "dtype": dtype, **options}
    models = [
        FullyConnectedNet(options["sizes"], **{k: v for k, v in options.items() if k != "sizes"})
        for _ in range(2)
    ]
    return [TrainStep(model, loss(), optimizer()) for model in models]


def assert_same(compiled, by_layers, tolerance):
    for a, b in ((compiled.model, by_layers.model),):
        mine, others = a.state_dict(), b.state_dict()
        for name, values in others.items():
            np.testing.assert_allclose(
                mine[name], values, rtol=tolerance, atol=tolerance, err_msg=name
            )
        for name, values in b.grads.items():
            np.testing.assert_allclose(a.grads[name], values, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        compiled.outputs, by_layers.outputs, rtol=tolerance, atol=10 * tolerance
    )


def run_both(steps, batches, tolerance):
    compiled, by_layers = steps
    for x, y in batches:
        assert compiled.explain(x, y) == "compiled"
        value, expected = compiled(x, y), by_layers.by_layers(x, y)
        assert np.shape(value) == np.shape(expected)
        assert np.asarray(value).dtype == np.asarray(expected).dtype
        np.testing.assert_allclose(value, expected, rtol=tolerance)
        np.testing.assert_array_equal(compiled.correct, by_layers.correct)
    assert_same(compiled, by_layers, tolerance)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("model", MODELS)
def test_models_take_the_same_steps(model, dtype, rng):
    batches = [batch(rng, dtype) for _ in range(5)]
    run_both(pair(dtype, **MODELS[model]), batches, TOLERANCES[dtype])


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_give_the_same_steps(loss, rng):
    batches = [batch(rng, "float64", loss=loss) for _ in range(3)]
    run_both(pair("float64", loss=LOSSES[loss], optimizer=lambda: SGD(0.01)), batches, 1e-13)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("population", [None, 3])
def test_optimizers_take_the_same_steps(optimizer, population, rng):
    steps = pair("float64", optimizer=OPTIMIZERS[optimizer], population=population)
    run_both(steps, [batch(rng, "float64") for _ in range(5)], 1e-11)
    state, expected = steps[0].optimizer.state, steps[1].optimizer.state
    for name, slots in expected.items():
        for slot, values in zip(state[name], slots, strict=True):
            np.testing.assert_allclose(slot, values, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("lead", [(), (3,)], ids=["shared", "separate"])
@pytest.mark.parametrize("model", MODELS)
def test_populations_take_the_same_steps(model, lead, rng):
    batches = [batch(rng, "float64", lead=lead) for _ in range(3)]
    run_both(pair("float64", population=3, **MODELS[model]), batches, 1e-13)


def test_members_may_have_their_own_options(rng):
    steps = pair(
        "float64",
        population=2,
        dropout=[0.1, 0.5],
        loss=lambda: SoftmaxCrossEntropy(label_smoothing=[0.0, 0.2]),
        optimizer=lambda: AdamW([0.01, 0.02], weight_decay=[0.0, 0.5], beta1=[0.9, 0.5]),
    )
    run_both(steps, [batch(rng, "float64") for _ in range(4)], 1e-11)


def test_a_population_of_one(rng):
    steps = pair("float64", population=1, optimizer=lambda: SGD([0.1], momentum=[0.9]))
    run_both(steps, [batch(rng, "float64"), batch(rng, "float64", lead=(1,))] * 2, 1e-13)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(1, [D, C]), (1, [D, 1, C]), (64, [D, 33, C]), (5, [300, 130, C]), (40, [D, 65, 70, C])],
)
def test_odd_sizes(rows, sizes, rng):
    steps = pair("float64", sizes=sizes)
    batches = [(rng.normal(size=(rows, sizes[0])), rng.integers(0, C, rows)) for _ in range(3)]
    run_both(steps, batches, 1e-12)


def test_large_layers_are_cut_among_threads_to_the_same_bits(rng, monkeypatch):
    # 784 inputs for 64 rows are halved in depth, the next layer cut by rows, the last not at all.
    from xpmlp.kernels.numba import tape

    x = rng.normal(size=(64, 784)).astype(np.float32)
    y = rng.integers(0, 10, 64)
    steps = pair(sizes=[784, 200, 300, 10], normalization="batchnorm", dropout=0.2)
    steps[0](x, y)
    monkeypatch.setattr(tape, "enter_parallel", lambda: False)
    steps[1](x, y)
    for name, values in steps[0].model.state_dict().items():
        np.testing.assert_array_equal(values, steps[1].model.state_dict()[name], err_msg=name)


def test_populations_are_cut_among_threads_to_the_same_bits(rng, monkeypatch):
    from xpmlp.kernels.numba import tape

    x, y = batch(rng, rows=40)
    steps = pair(population=5, normalization="layernorm", dropout=0.2, optimizer=lambda: Adam(0.01))
    steps[0](x, y)
    monkeypatch.setattr(tape, "enter_parallel", lambda: False)
    steps[1](x, y)
    for name, values in steps[0].model.state_dict().items():
        np.testing.assert_array_equal(values, steps[1].model.state_dict()[name], err_msg=name)


def test_images_are_flattened(rng):
    images = rng.normal(size=(13, 3, 4)).astype(np.float64)
    labels = rng.integers(0, C, 13)
    run_both(pair("float64"), [(images, labels)] * 2, 1e-13)
    models = [Sequential(Flatten(), Linear(D, C, rng=0, dtype="float64")) for _ in range(2)]
    steps = [TrainStep(model, SoftmaxCrossEntropy(), SGD(0.1)) for model in models]
    run_both(steps, [(images, labels)] * 2, 1e-13)


def test_batches_of_any_layout(rng):
    x, y = batch(rng, "float64", rows=26)
    readonly = x[:13].copy()
    readonly.flags.writeable = False
    batches = [
        (x[::2], y[::2]),
        (np.asfortranarray(x[:13]), y[:13].astype(np.uint8)),
        (readonly, y[:13].astype(np.int32)),
    ]
    run_both(pair("float64"), batches, 1e-13)


def test_a_short_last_batch_takes_its_turn(rng):
    full, short = batch(rng, "float64"), batch(rng, "float64", rows=5)
    run_both(pair("float64", optimizer=lambda: Adam(0.01)), [full, short, full, short], 1e-11)


def test_steady_state_asks_for_no_memory(rng):
    step, _ = pair(normalization="batchnorm", dropout=0.2, optimizer=lambda: AdamW(0.01))
    x, y = batch(rng, rows=2000)
    for _ in range(3):
        step(x, y)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(20):
        step(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Kernels use scratch of a few kilobytes; the smallest activation here has 32,000 bytes.
    assert peak - before < 24_000


def test_given_arrays_are_never_written_to(rng):
    step, _ = pair(optimizer=lambda: SGD(1.0))
    x, y = batch(rng)
    given = dict(step.model.params)
    copies = {name: array.copy() for name, array in given.items()}
    x_before, y_before = x.copy(), y.copy()
    step(x, y)
    for name, array in given.items():
        np.testing.assert_array_equal(array, copies[name])
        assert np.abs(step.model.params[name] - array).max() > 0
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(y, y_before)


def test_what_is_assigned_between_steps_counts(rng):
    steps = pair("float64", normalization="batchnorm", bias=False, optimizer=lambda: Adam(0.01))
    batches = [batch(rng, "float64") for _ in range(2)]
    run_both(steps, batches, 1e-11)
    other = FullyConnectedNet(
        [D, 17, 9, C], normalization="batchnorm", bias=False, seed=8, dtype="float64"
    )
    for step in steps:
        step.model.load_state_dict(other.state_dict())
        step.model.layers[0].W = step.model.layers[0].W * 2
        step.optimizer.lr = 0.003
    run_both(steps, batches, 1e-11)


def test_steps_by_layers_may_be_mixed_in(rng):
    steps = pair("float64", dropout=0.3, optimizer=lambda: Adam(0.01))
    x, y = batch(rng, "float64")
    for step in steps:
        step.by_layers(x, y)
    run_both(steps, [batch(rng, "float64")], 1e-11)
    for step in steps:
        step.by_layers(x, y)
    run_both(steps, [batch(rng, "float64")], 1e-11)


def test_changed_options_are_heeded(rng):
    steps = pair("float64", dropout=0.3)
    batches = [batch(rng, "float64")]
    run_both(steps, batches, 1e-13)
    for step in steps:
        step.loss.label_smoothing = 0.2
    run_both(steps, batches, 1e-13)
    for step in steps:
        next(layer for layer in step.model.layers if isinstance(layer, Dropout)).p = 0.7
    run_both(steps, batches, 1e-13)


def test_another_loss_or_optimizer_may_be_assigned(rng):
    steps = pair("float64")
    batches = [batch(rng, "float64")]
    run_both(steps, batches, 1e-13)
    for step in steps:
        step.loss = SoftmaxCrossEntropy(label_smoothing=0.3)
        step.optimizer = Adam(0.01)
    run_both(steps, batches * 2, 1e-11)


def test_wrong_labels_change_nothing(rng):
    step, _ = pair(dropout=0.3, normalization="batchnorm", optimizer=lambda: Adam(0.01))
    x, y = batch(rng)
    step(x, y)
    before, wrong = step.model.state_dict(), y.copy()
    wrong[3] = C
    masks = [layer.step for layer in step.model.layers if isinstance(layer, Dropout)]
    with pytest.raises(DataError, match=f"0…{C - 1}, got {C} in row 3"):
        step(x, wrong)
    for name, values in step.model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
    assert step.optimizer.steps == 1
    assert [la.step for la in step.model.layers if isinstance(la, Dropout)] == masks


def test_parameters_of_another_shape_are_refused(rng):
    step, _ = pair()
    x, y = batch(rng)
    step(x, y)
    step.model.layers[0].b = np.zeros(3, np.float32)
    with pytest.raises(ShapeError, match="to keep its shape"):
        step(x, y)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda: TrainStep(Residual(Linear(D, D)), MSE(), SGD(0.1)), "not a Sequential"),
        (lambda: TrainStep(FullyConnectedNet([D, D]), MAE(), SGD(0.1)), "MAE"),
        (
            lambda: TrainStep(FullyConnectedNet([D, 5, D], activation="elu"), MSE(), SGD(0.1)),
            "ELU",
        ),
        (lambda: TrainStep(FullyConnectedNet([D, D], dtype="float64"), MSE(), SGD(0.1)), "float"),
        (lambda: TrainStep(Sequential(ReLU(), Linear(D, D)), MSE(), SGD(0.1)), "into the batch"),
    ],
)
def test_explain_says_why_a_step_runs_layer_by_layer(step, why, rng):
    x = rng.normal(size=(5, D)).astype(np.float32)
    assert why in step().explain(x, x)
    assert step().explain(x, x).startswith("layer by layer")


def test_kernels_can_be_switched_off(monkeypatch, rng):
    monkeypatch.setenv("XPMLP_KERNELS", "off")
    step, _ = pair()
    assert step.explain(*batch(rng)) == "layer by layer (XPMLP_KERNELS=off)"


@pytest.mark.parametrize(
    "options",
    [{"penalty": L2(0.1)}, {"clip_norm": 0.01}, {}],
    ids=["penalty", "clipping", "an optimizer without instructions"],
)
def test_what_has_no_instructions_follows_the_compiled_backward(options, rng):
    models = [FullyConnectedNet([D, 9, C], seed=1, dtype="float64") for _ in range(2)]
    make = (lambda: Adam(0.01)) if options else (lambda: Muon(0.01))
    compiled, by_layers = (
        TrainStep(model, SoftmaxCrossEntropy(), make(), **options) for model in models
    )
    for _ in range(3):
        x, y = batch(rng, "float64")
        assert compiled.explain(x, y) == "compiled, but for the update"
        assert compiled(x, y) == pytest.approx(by_layers.by_layers(x, y), rel=1e-12)
    for name, values in by_layers.model.params.items():
        np.testing.assert_allclose(compiled.model.params[name], values, rtol=1e-9, atol=1e-11)


def test_steps_in_several_threads_do_not_disturb_each_other(rng):
    batches = [batch(rng, "float64", rows=64) for _ in range(30)]
    sizes = [D, 128, 128, C]

    def train(results, number):
        step, _ = pair("float64", sizes=sizes, dropout=0.1)
        results[number] = [float(step(x, y)) for x, y in batches]

    results: dict[int, list[float]] = {}
    train(results, -1)
    threads = [threading.Thread(target=train, args=(results, n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert results[number] == results[-1]
