"""The compiled evaluation against ``model.forward``, and what it must leave alone."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from tests.step.test_compiled import ELEMENTWISE, LOSSES, MODELS, C, D, batch
from xpmlp import ops
from xpmlp.errors import DataError
from xpmlp.layers import (
    GLU,
    BatchNorm,
    Dropout,
    EmbedColumns,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    Linear,
    LogSoftmax,
    Periodic,
    PReLU,
    ReLU,
    Residual,
    RMSNorm,
    Sequential,
    Sigmoid,
    Softmax,
    SwiGLU,
    Tanh,
)
from xpmlp.losses import MSE, Loss, SoftmaxCrossEntropy
from xpmlp.metrics import right_answers
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import Adam
from xpmlp.step import evaluation
from xpmlp.step.compiled.later import Rows
from xpmlp.training import Evaluation, TrainStep
from xpmlp.training.scores import scores_of

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

TOLERANCES = {"float32": 2e-6, "float64": 1e-14}
LEADS = [(None, ()), (3, ()), (3, (3,))]
"""A network; a population with one batch, and with one for each member."""


def close(found, wanted, dtype="float32"):
    size = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCES[dtype] * size)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape


def net(dtype="float32", population=None, **options):
    sizes = options.pop("sizes", [D, 17, 9, C])
    return FullyConnectedNet(sizes, seed=3, dtype=dtype, population=population, **options)


def trained(model, x, steps=3):
    """The same model after a few steps, so that running statistics are not where they began."""
    y = np.zeros(x.shape[:-1], np.int64)
    step = TrainStep(model, SoftmaxCrossEntropy(), Adam(0.01))
    for _ in range(steps):
        step(x, y)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("population", "lead"), LEADS)
@pytest.mark.parametrize("name", MODELS)
def test_networks(name, population, lead, dtype, rng):
    model = net(dtype, population, **MODELS[name])
    trained(model, batch(rng, dtype, 13, lead)[0])
    for rows in (13, 1, 40, 33):
        x, _ = batch(rng, dtype, rows, lead)
        assert Evaluation(model).explain(x) == "compiled"
        close(Evaluation(model).outputs(x), model.forward(x), dtype)


@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("kind", ["softmax", "residual", "norms", "rectified", "flat"])
def test_other_layers(kind, population, rng):
    common = {"population": population}
    seed = 3 if population is None else range(3, 6)

    def linear(*sizes):
        return Linear(*sizes, rng=seed, **common)

    layers = {
        "softmax": lambda: [linear(D, 33), Softmax(), linear(33, C), LogSoftmax()],
        "residual": lambda: [
            linear(D, 20),
            Residual(Sequential(LayerNorm(20, **common), ReLU(), linear(20, 20), Sigmoid())),
            linear(20, C),
        ],
        "norms": lambda: [
            linear(D, 40), BatchNorm(40, **common), Tanh(), linear(40, 40), RMSNorm(40, **common),
            Dropout(0.3, population=population, rng=seed), linear(40, C),
        ],
        "rectified": lambda: [ReLU(), linear(D, C), ReLU()],
        "flat": lambda: [Flatten(1), linear(D, C)],
    }  # fmt: skip
    model = Sequential(*layers[kind]())
    lead = () if population is None else (3,)
    for rows in (20, 7):
        x, _ = batch(rng, rows=rows, lead=lead)
        assert Evaluation(model).explain(x) == "compiled"
        before = x.copy()
        close(Evaluation(model).outputs(x), model.forward(x))
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "batchnorm"])
def test_members_of_different_widths(norm, rng):
    sizes = [D, [17, 3, 9], 9, C]
    model = net(population=3, sizes=sizes, normalization=norm, activation="sigmoid", dropout=0.1)
    for lead in ((), (3,)):
        x, _ = batch(rng, lead=lead)
        assert Evaluation(model).explain(x) == "compiled"
        close(Evaluation(model).outputs(x), model.forward(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("population", "lead"), LEADS)
@pytest.mark.parametrize("name", LOSSES | ELEMENTWISE)
def test_losses(name, population, lead, dtype, rng):
    model, loss = net(dtype, population), (LOSSES | ELEMENTWISE)[name]()
    for rows in (13, 4):
        x, y = batch(rng, dtype, rows, lead, name)
        assert Evaluation(model, loss).explain(x, y) == "compiled"
        found = Evaluation(model, loss).score(x, y)
        outputs = model.forward(x)
        close(found.outputs, outputs, dtype)
        wanted = np.asarray(loss.forward(outputs, y))
        np.testing.assert_allclose(found.value, wanted, rtol=10 * TOLERANCES[dtype])
        if found.correct is not None:
            np.testing.assert_array_equal(found.correct, right_answers(loss, outputs, y))


@pytest.mark.parametrize(("population", "lead"), LEADS)
def test_scores_of_uneven_batches_are_those_of_all_rows(population, lead, rng, monkeypatch):
    model = net(population=population, normalization="batchnorm", dropout=0.2)
    loss = SoftmaxCrossEntropy(class_weights=[1, 2, 3, 4], ignore_index=1)
    x, y = batch(rng, rows=50, lead=lead)
    cuts = [slice(0, 20), slice(20, 40), slice(40, 50)]
    parts = [(x[..., cut, :], y[..., cut]) for cut in cuts]
    found = scores_of(model, loss, parts)
    monkeypatch.setattr(Evaluation, "score", lambda self, x, y: None)
    monkeypatch.setattr(Evaluation, "outputs", lambda self, x: self.model.forward(x))
    for name, wanted in scores_of(model, loss, [(x, y)]).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5)


@pytest.mark.parametrize(("population", "lead"), LEADS)
def test_many_rows_are_computed_in_parts(population, lead, rng, monkeypatch):
    model = net(population=population)
    x, _ = batch(rng, rows=300, lead=lead)
    monkeypatch.setattr(evaluation, "_ELEMENTS", 1)
    found = Evaluation(model).outputs(x)
    assert {key[0] for key in vars(model)["_evaluations"]} == {64}
    close(found, model.forward(x))


def test_as_many_rows_as_members_each_with_its_own(rng, monkeypatch):
    model = net(population=130)
    x, _ = batch(rng, rows=130, lead=(130,))
    monkeypatch.setattr(evaluation, "_ELEMENTS", 1)
    close(Evaluation(model).outputs(x), model.forward(x))


@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("options", [{}, {"bias": False, "activation": "silu"}])
def test_columns_of_bins_and_levels(options, population, rng):
    columns = [("bins", 5), ("levels", 3), ("linear", 1)]
    model = net(population=population, sizes=[3, 9, C], columns=columns, **options)
    for lead in ((),) if population is None else ((), (3,)):
        for rows in (20, 7, 33):
            x = rng.uniform(0, 5, (*lead, rows, 3)).astype("float32")
            x[..., 1] = np.floor(x[..., 1])
            assert Evaluation(model).explain(x) == "compiled"
            close(Evaluation(model).outputs(x), model.forward(x))
            model.params["0.W"][...] *= 0.9


@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("dim", [None, 6])
def test_waves(dim, population, rng):
    seed = 3 if population is None else range(3, 6)
    common = {"population": population, "rng": seed}
    first = Periodic(5, 4, dim=dim, **common)
    model = Sequential(first, Linear(5 * (dim or 8), C, **common))
    for lead in ((),) if population is None else ((), (3,)):
        for rows in (20, 7, 33):
            x = rng.normal(size=(*lead, rows, 5)).astype("float32")
            assert Evaluation(model).explain(x) == "compiled"
            close(Evaluation(model).outputs(x), model.forward(x))


@pytest.mark.parametrize("population", [None, 3])
def test_gates_and_learned_slopes(population, rng):
    seed = 3 if population is None else range(3, 6)
    common = {"population": population, "rng": seed}
    slopes = PReLU(4, population=population)
    model = Sequential(Linear(5, 12, **common), SwiGLU(), Linear(6, 8, **common), GLU(), slopes)
    for lead in ((),) if population is None else ((), (3,)):
        for rows in (20, 7, 33):
            x = rng.normal(size=(*lead, rows, 5)).astype("float32")
            assert Evaluation(model).explain(x) == "compiled"
            close(Evaluation(model).outputs(x), model.forward(x))
            slopes.a = slopes.a * 0.9


@pytest.mark.parametrize("population", [None, 3])
def test_codes(population, rng):
    seed = 3 if population is None else range(3, 6)
    common = {"population": population, "rng": seed}
    columns = EmbedColumns(4, {1: (5, 2), 3: (7, 3)}, **common)
    several = Sequential(Embedding(6, 3, **common), Flatten(2), Linear(12, C, **common))
    for model, limits in (
        (Sequential(columns, Linear(7, C, **common)), [5, 7]),
        (several, [6, 6]),
    ):
        for lead in ((),) if population is None else ((), (3,)):
            for rows in (20, 7, 33):
                x = rng.integers(0, limits[0], (*lead, rows, 4)).astype("float32")
                assert Evaluation(model).explain(x) == "compiled"
                close(Evaluation(model).outputs(x), model.forward(x))
            x[..., -1, 3] = 99
            with pytest.raises(DataError, match="99"):
                Evaluation(model).outputs(x)
            with pytest.raises(DataError, match="99"):
                Evaluation(model, SoftmaxCrossEntropy()).score(x, np.zeros(rows, np.int64))


def test_multiples_of_rows():
    rows = Rows(8)
    for multiple in (rows * 3, 3 * rows, rows * np.int64(3), np.int64(3) * rows):
        assert multiple == 24
        assert (multiple.most, multiple.each) == (8, 3)
    assert type(rows * 0.5) is float


def test_strided_batches(rng):
    model = net()
    wide = rng.normal(size=(20, 2 * D)).astype("float32")
    for x in (wide[:, ::2], wide[::2, :D], np.asfortranarray(wide[:, :D])):
        close(Evaluation(model).outputs(x), model.forward(x))


def test_parameters_that_changed_are_seen(rng):
    model = trained(net(normalization="batchnorm"), batch(rng)[0])
    x, _ = batch(rng)

    def check():
        close(Evaluation(model).outputs(x), model.forward(x))

    check()
    model.params["0.W"][...] *= 2.0  # by hand
    model.state["1.running_mean"][...] += 1.0
    check()
    model.params["0.W"] = rng.normal(size=(D, 17)).astype("float32")  # replaced
    check()
    model.layers[0].W = np.asfortranarray(model.layers[0].W)  # not row by row
    check()
    model.layers[0].W[...] += 1.0
    check()
    model.load_state_dict({name: 0.5 * array for name, array in model.state_dict().items()})
    check()
    trained(model, x)  # which keeps them in memory of its own
    check()
    trained(model, x, 1)
    check()
    model.layers[0].params = {"W": np.ones((D, 17), "float32"), "b": np.ones(17, "float32")}
    check()


def test_layers_and_options_that_changed_are_seen(rng):
    model = Sequential(Linear(D, 9, rng=0), LayerNorm(9), Residual(Tanh()), Linear(9, C, rng=1))
    x, _ = batch(rng)

    def check():
        close(Evaluation(model).outputs(x), model.forward(x))

    check()
    model.layers[1].eps = 1.0
    check()
    model.children["3"] = Linear(9, C, rng=2)
    model.layers = tuple(model.children.values())
    check()
    assert Evaluation(model).explain(x) == "compiled"
    model.layers[1].forward = lambda x, training=False: x
    check()
    assert "another forward" in Evaluation(model).explain(x)
    x = x[:1]  # for which there is no answer yet
    del model.layers[1].forward
    model.layers[2].inner = Sigmoid()
    check()
    assert "other layers than its children" in Evaluation(model).explain(x)


def test_options_of_the_loss_that_changed_are_seen(rng):
    model, loss = net(), SoftmaxCrossEntropy()
    x, y = batch(rng)
    plain = Evaluation(model, loss).score(x, y).value
    loss.label_smoothing = 0.5
    smoothed = Evaluation(model, loss).score(x, y).value
    assert smoothed != plain
    assert smoothed == pytest.approx(float(loss.forward(model.forward(x), y)), rel=1e-6)


class Doubled(Layer):
    def forward(self, x, training=False):
        return 2.0 * x


class OwnLoss(Loss):
    def forward(self, outputs, targets):
        return np.mean(outputs**2, axis=(-2, -1))


def test_what_has_no_instructions_runs_layer_by_layer(rng):
    x, y = batch(rng)
    model = Sequential(Linear(D, C, rng=0), Doubled())
    assert "no instructions for Doubled" in Evaluation(model).explain(x)
    close(Evaluation(model).outputs(x), model.forward(x))
    known = net()
    assert "OwnLoss" in Evaluation(known, OwnLoss()).explain(x, y)
    assert Evaluation(known, OwnLoss()).score(x, y) is None
    assert scores_of(known, OwnLoss(), [(x, y)])["loss"] == pytest.approx(
        float(np.mean(known.forward(x) ** 2)), rel=1e-6
    )
    half = net("float16")
    assert "float32" in Evaluation(half).explain(x.astype("float16"))
    np.testing.assert_array_equal(
        Evaluation(half).outputs(x.astype("float16")), half.forward(x.astype("float16"))
    )
    with ops.without_kernels():
        assert "without_kernels" in Evaluation(known).explain(x)
        close(Evaluation(known).outputs(x), known.forward(x))
    assert Evaluation(known).explain(x) == "compiled"


def test_sequences_run_layer_by_layer(rng):
    model, x = net(), rng.normal(size=(5, 6, D)).astype("float32")
    assert "which the first layer keeps" in Evaluation(model).explain(x)
    np.testing.assert_array_equal(Evaluation(model).outputs(x), model.forward(x))
    y = rng.integers(0, C, (5, 6))
    scores = scores_of(model, SoftmaxCrossEntropy(), [(x, y)])
    flat = scores_of(model, SoftmaxCrossEntropy(), [(x.reshape(-1, D), y.reshape(-1))])
    assert scores["loss"] == pytest.approx(float(flat["loss"]), rel=1e-6)
    assert scores["accuracy"] == flat["accuracy"]


def test_wrong_batches_are_refused_as_by_the_layers(rng):
    model = net()
    assert Evaluation(model).outputs(np.ones((0, D), "float32")).shape == (0, C)
    for x in (np.ones((3, D + 1), "float32"), np.ones((3, D))):
        with pytest.raises(Exception) as wanted:
            model.forward(x)
        with pytest.raises(type(wanted.value)) as found:
            Evaluation(model).outputs(x)
        assert str(found.value) == str(wanted.value)
    x, y = batch(rng)
    y[2] = C
    with pytest.raises(DataError, match=r"0…3"):
        Evaluation(model, SoftmaxCrossEntropy()).score(x, y)
    y[2] = 0  # and the next batch is none the wiser
    assert np.isfinite(Evaluation(model, SoftmaxCrossEntropy()).score(x, y).value)


def test_nothing_is_left_in_layers_and_loss(rng):
    model, loss = net(normalization="batchnorm"), SoftmaxCrossEntropy()
    x, y = batch(rng)
    twin = copy.deepcopy(model)
    for each in (model, twin):
        loss.forward(each.forward(x, training=True), y)
        if each is model:
            other, labels = batch(rng, rows=7)
            state = {name: array.copy() for name, array in model.state.items()}
            Evaluation(model, loss).score(other, labels)
            Evaluation(model).outputs(other)
            assert all((model.state[name] == state[name]).all() for name in state)
            assert all(not layer.grads for _, layer in model.named_layers())
        each.backward(loss.backward())
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, twin.grads[name])


def test_outputs_are_the_callers(rng):
    model, loss = net(), MSE()
    (x, t), (other, _) = batch(rng, loss="mse"), batch(rng)
    kept = Evaluation(model).outputs(x), Evaluation(model, loss).score(x, t).outputs
    before = [array.copy() for array in kept]
    Evaluation(model).outputs(other)
    Evaluation(model, loss).score(other, t)
    for array, was in zip(kept, before, strict=True):
        np.testing.assert_array_equal(array, was)


def test_copies_and_pickles_are_without_programs(rng):
    model = net()
    x, _ = batch(rng)
    size = len(pickle.dumps(model))
    wanted = Evaluation(model).outputs(x)
    assert len(pickle.dumps(model)) == size
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert "_evaluations" not in vars(other)
        np.testing.assert_array_equal(Evaluation(other).outputs(x), wanted)


def test_a_model_ends_with_its_last_name(rng):
    model = net(normalization="layernorm")
    x, y = batch(rng)
    Evaluation(model, SoftmaxCrossEntropy()).score(x, y)
    Evaluation(model).outputs(x)
    last = weakref.ref(model)
    del model
    assert last() is None  # nothing in its programs leads back to it


def test_a_model_keeps_few_programs_and_no_large_ones(rng, monkeypatch):
    model = net()
    for rows in range(1, 70):
        x, y = batch(rng, rows=rows)
        Evaluation(model).outputs(x)
        Evaluation(model, SoftmaxCrossEntropy()).score(x, y)
    assert len(vars(model)["_evaluations"]) <= evaluation._KINDS
    monkeypatch.setattr(evaluation, "_KEPT", 0)
    model = net()
    for _ in range(2):
        close(Evaluation(model).outputs(x), model.forward(x))
    assert not vars(model)["_evaluations"]


def test_threads_share_a_model(rng):
    model = net(sizes=[D, 200, 200, C])
    batches = [batch(rng, rows=60)[0] for _ in range(4)]
    wanted = [model.forward(x) for x in batches]
    wrong = []

    def work(x, y):
        for _ in range(200):
            if not np.allclose(Evaluation(model).outputs(x), y, atol=1e-4):
                wrong.append(1)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(batches, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX on a fork beside its threads
def test_a_forked_child_goes_on(rng):
    model = net(sizes=[D, 200, 200, C])
    x, _ = batch(rng, rows=60)
    wanted = Evaluation(model).outputs(x)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(Evaluation(model).outputs(x)))
    child.start()
    found = queue.get()
    child.join()
    np.testing.assert_array_equal(found, wanted)


def test_validation_and_predictions_compile_nothing():
    """What a first training has not compiled for itself is not compiled to judge it."""
    code = """
import numpy as np
from xpmlp.kernels.numba import tape
from xpmlp.models import FullyConnectedNet
from xpmlp.training import PopulationTrainer, Trainer

rng = np.random.default_rng(0)
x, y = rng.normal(size=(60, 6)), rng.integers(0, 3, 60)
quick = {"epochs": 2, "batch_size": 20, "progress": False}
made = lambda: {function.__name__ for function in tape._alive}

model = FullyConnectedNet([6, 8, 3], normalization="batchnorm", dropout=0.1)
nets = FullyConnectedNet([6, 8, 3], population=4, activation="silu")
trainer, trainer_of_nets = Trainer(model, **quick), PopulationTrainer(nets, folds=2, **quick)
trainer.fit(x, y)
trainer_of_nets._together = lambda work, figures: {}
trainer_of_nets.fit(x, y)
before = made()
assert "_product.<locals>.run" in {function.__qualname__ for function in tape._alive}
trainer.fit(x, y, validation=(x[:25], y[:25]))
PopulationTrainer(nets, folds=2, **quick).fit(x, y, validation=(x[:25], y[:25]))
for each in (model, nets):
    each.predict(x), each.predict_proba(x)
trainer.evaluate(x, y)
print(*sorted(made() - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
