"""The captured step on NumPy, with graphs that record and replay as CUDA's do (numpy_graph.py)."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from step import numpy_graph
from step.numpy_graph import traced

from xpmlp import optim, schedules
from xpmlp.errors import BackendError, ConfigError, DTypeError, OutOfMemoryError, ShapeError
from xpmlp.layers import BatchNorm, Dropout, Flatten, Linear, ReLU, Residual, Sequential
from xpmlp.losses import MSE, NLL, BCEWithLogits, MulticlassHinge, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.penalties import L1, L2
from xpmlp.step import CapturedStep
from xpmlp.step.captured import fused_layers
from xpmlp.step.captured import step as captured
from xpmlp.training import TrainStep

STEPS = 100


@pytest.fixture(autouse=True)
def references_are_recorded(monkeypatch, without_kernels):
    """Numba's kernels would compute unseen by the recording; CUDA's kernels count as on."""
    monkeypatch.setattr(captured, "why_kernels_are_off", lambda: "")


def net(**options):
    options = {"normalization": None, "dropout": 0.0, "dtype": "float64"} | options
    return FullyConnectedNet([6, 9, 7, 4], **options)


def batches(rng, steps=STEPS, rows=8, members=None):
    lead = () if members is None else (members,)
    for _ in range(steps):
        yield rng.standard_normal((*lead, rows, 6)), rng.integers(0, 4, (*lead, rows))


def trace(model):
    """The same model on recorded arrays."""
    for _, layer in model.named_layers():
        for group in (layer.params, layer.state):
            group.update({name: traced(array) for name, array in group.items()})
    return model


def both(make_model, make_optimizer, loss=SoftmaxCrossEntropy, fused=True, **options):
    """(eager step, captured step) of equal networks."""
    eager = TrainStep(make_model(), loss(), make_optimizer(), **options)
    replayed = CapturedStep(
        trace(make_model()), loss(), make_optimizer(), cuda=numpy_graph.make(fused=fused), **options
    )
    return eager, replayed


def assert_equal_training(eager, replayed, data, rtol=1e-9):
    for number, (x, y) in enumerate(data):
        expected = eager.by_layers(x, y)
        value = replayed(traced(x), traced(y))
        np.testing.assert_allclose(value, expected, rtol=rtol, err_msg=f"loss of step {number}")
        np.testing.assert_allclose(replayed.outputs, eager.outputs, rtol=rtol, atol=1e-9)
    state = replayed.model.state_dict()
    for name, array in eager.model.state_dict().items():
        np.testing.assert_allclose(state[name], array, rtol=rtol, atol=1e-9, err_msg=name)
    assert replayed.optimizer.steps == eager.optimizer.steps


OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.1),
    "momentum": lambda: optim.SGD(0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: optim.SGD(0.05, momentum=0.9, nesterov=True),
    "adagrad": lambda: optim.AdaGrad(0.05),
    "rmsprop": lambda: optim.RMSProp(0.01, weight_decay=0.02),
    "adam": lambda: optim.Adam(0.01, weight_decay=0.02),
    "adamw": lambda: optim.AdamW(0.01, weight_decay=0.1, schedule=schedules.Cosine(total=80)),
    "muon": lambda: optim.Muon(0.01),
    "nadam": lambda: optim.NAdam(0.01),
    "lion": lambda: optim.Lion(0.001),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_replays_equal_eager_steps(rng, name):
    eager, replayed = both(net, OPTIMIZERS[name])
    assert_equal_training(eager, replayed, batches(rng))
    x, y = (traced(a) for a in next(batches(rng)))
    end = ", but for the update" if name in ("muon", "nadam", "lion") else ""
    assert replayed.explain(x, y) == f"captured{end}"


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"normalization": "batchnorm", "dropout": 0.3},
        {"normalization": "layernorm", "activation": "tanh", "dropout": 0.2},
        {"activation": "sigmoid", "bias": False, "dropout": 0.5},
        {"activation": "gelu", "normalization": "rmsnorm"},
    ],
    ids=["batchnorm", "layernorm", "sigmoid", "gelu"],
)
def test_every_kind_of_layer_can_be_replayed(rng, fused, options):
    """New dropout masks at every replay, running statistics that go on."""
    eager, replayed = both(lambda: net(**options), OPTIMIZERS["adam"], fused=fused)
    assert_equal_training(eager, replayed, batches(rng, 30))
    for (_, a), (_, b) in zip(
        eager.model.named_layers(), replayed.model.named_layers(), strict=True
    ):
        assert getattr(a, "step", None) == getattr(b, "step", None)


@pytest.mark.slow
def test_a_population_with_numbers_of_its_own(rng):
    P = 3

    def optimizer():
        return optim.AdamW([0.01, 0.02, 0.003], weight_decay=[0.0, 0.1, 0.2], schedule="cosine")

    def over(step):
        step.optimizer.schedule = step.optimizer.schedule.over(40)
        return step

    model = dict(population=P, dropout=[0.1, 0.0, 0.4], seed=[3, 1, 4])
    loss = lambda: SoftmaxCrossEntropy(label_smoothing=[0.0, 0.1, 0.2])  # noqa: E731
    eager, replayed = map(over, both(lambda: net(**model), optimizer, loss))
    assert_equal_training(eager, replayed, batches(rng, 30, members=P))
    # One batch for all of them.
    assert_equal_training(eager, replayed, batches(rng, 10))


@pytest.mark.slow
@pytest.mark.parametrize("members", [None, 2])
def test_penalties_and_clipping(rng, members):
    clip = 0.5 if members is None else [0.5, 0.1]
    for penalty in (L2(0.01), L1([0.01, 0.02] if members else 0.01)):
        eager, replayed = both(
            lambda: net(population=members),
            OPTIMIZERS["momentum"],
            penalty=penalty,
            clip_norm=clip,
        )
        assert_equal_training(eager, replayed, batches(rng, 20, members=members))


def test_class_weights_and_other_losses(rng):
    def loss():
        return SoftmaxCrossEntropy(class_weights=[1.0, 2.0, 0.5, 3.0], ignore_index=2, z_loss=1e-3)

    eager, replayed = both(net, OPTIMIZERS["sgd"], loss)
    assert_equal_training(eager, replayed, batches(rng, 10))
    eager, replayed = both(net, OPTIMIZERS["sgd"], MSE)
    data = [(x, rng.standard_normal((8, 4))) for x, _ in batches(rng, 10)]
    assert_equal_training(eager, replayed, data)
    assert replayed.correct is None


@pytest.mark.parametrize("kind", [NLL, MulticlassHinge])
def test_ignored_class_numbers(rng, kind):
    def loss():
        return kind(ignore_index=2)

    eager, replayed = both(net, OPTIMIZERS["sgd"], loss)
    assert_equal_training(eager, replayed, batches(rng, 5))


def test_options_of_yes_and_no(rng):
    def loss():
        return BCEWithLogits(pos_weight=[1.0, 2.0, 0.5, 3.0], ignore_index=-1)

    eager, replayed = both(net, OPTIMIZERS["sgd"], loss)
    data = [(x, rng.integers(-1, 2, (8, 4)).astype(float)) for x, _ in batches(rng, 5)]
    assert_equal_training(eager, replayed, data)


@pytest.mark.parametrize("fused", [True, False])
def test_class_weights_that_change_are_taken_over(rng, fused):
    def loss():
        return SoftmaxCrossEntropy(class_weights=[1.0, 2.0, 0.5, 3.0])

    eager, replayed = both(net, OPTIMIZERS["sgd"], loss, fused=fused)
    assert_equal_training(eager, replayed, batches(rng, 3))
    weights = replayed.loss.class_weights
    assert type(weights) is np.ndarray  # those of the device are there while recording only
    for step in (eager, replayed):
        step.loss.class_weights = [0.5, 1.0, 4.0, 1.0]
    assert_equal_training(eager, replayed, batches(rng, 3))


def test_each_shape_has_its_graph_and_they_share_all_state(rng):
    eager, replayed = both(lambda: net(dropout=0.2, normalization="batchnorm"), OPTIMIZERS["adam"])
    data = [next(batches(rng, 1, rows)) for rows in (8, 8, 5, 8, 5, 8)]
    assert_equal_training(eager, replayed, data)
    assert len(replayed._recordings.by_batch) == 2


def test_a_batch_is_counted(rng):
    _, replayed = both(net, OPTIMIZERS["sgd"])
    for x, y in batches(rng, 3):
        replayed(traced(x), traced(y))
        assert int(replayed.correct) == int((np.argmax(replayed.outputs, -1) == y).sum())


def test_images_are_flattened(rng):
    def model():
        first, last = (Linear(*n, rng=1, dtype="float64") for n in ((6, 5), (5, 4)))
        return Sequential(Flatten(), first, ReLU(), last)

    for make in (model, net):
        eager, replayed = both(make, OPTIMIZERS["sgd"])
        data = [(x.reshape(8, 2, 3), y) for x, y in batches(rng, 5)]
        assert_equal_training(eager, replayed, data)


def test_a_residual_block_runs_inside_a_graph(rng):
    def model():
        inner = Sequential(Linear(6, 6, rng=1, dtype="float64"), ReLU(), Dropout(0.2, rng=5))
        return Sequential(Residual(inner), Linear(6, 4, rng=2, dtype="float64"))

    eager, replayed = both(model, OPTIMIZERS["adam"])
    assert_equal_training(eager, replayed, batches(rng, 10))


# --- Changes from outside


def test_changes_from_outside_are_taken_over(rng):
    eager, replayed = both(lambda: net(dropout=0.2, normalization="batchnorm"), OPTIMIZERS["adam"])
    data = list(batches(rng, 40))
    assert_equal_training(eager, replayed, data[:5])
    for step in (eager, replayed):
        step.optimizer.lr = 0.003
    assert_equal_training(eager, replayed, data[5:10])
    best = eager.model.state_dict()
    assert_equal_training(eager, replayed, data[10:15])
    for step in (eager, replayed):  # new arrays in the layers' dicts
        step.model.load_state_dict(best)
    assert_equal_training(eager, replayed, data[15:20])
    for step in (eager, replayed):
        for layer in step.model.layers:
            if isinstance(layer, Dropout):
                layer.step = 3
        step.optimizer.schedule = schedules.Exponential(total=40)
    assert_equal_training(eager, replayed, data[20:25])
    graphs = list(replayed._recordings.by_batch.values())
    for x, y in data[25:27]:  # in between, without a graph
        assert float(eager.by_layers(x, y)) == pytest.approx(
            float(replayed._by_layers(traced(x), traced(y))), rel=1e-9
        )
    assert_equal_training(eager, replayed, data[27:30])
    assert list(replayed._recordings.by_batch.values()) == graphs
    for step in (eager, replayed):  # options that are part of a recording
        step.loss.label_smoothing = 0.1
        for layer in step.model.layers:
            if isinstance(layer, BatchNorm):
                layer.keep = 0.5
    assert_equal_training(eager, replayed, data[30:35])
    assert list(replayed._recordings.by_batch.values()) != graphs


def test_nothing_travels_when_nothing_has_changed(rng):
    _, replayed = both(lambda: net(dropout=0.2), OPTIMIZERS["adam"])
    data = [(traced(x), traced(y)) for x, y in batches(rng, 12)]
    for x, y in data[:2]:
        replayed(x, y)
    setup = replayed._recordings
    travels = setup.numbers.counters.travels, setup.rates.flat.travels
    for x, y in data[2:]:
        replayed(x, y)
    assert (setup.numbers.counters.travels, setup.rates.flat.travels) == travels


def test_a_full_schedule_table_is_replaced(rng, monkeypatch):
    monkeypatch.setattr("xpmlp.step.captured.optimizer.CAPACITY", 8)
    monkeypatch.setattr("xpmlp.step.captured.optimizer._BLOCK", 3)
    eager, replayed = both(net, OPTIMIZERS["adamw"])
    assert_equal_training(eager, replayed, batches(rng, 30))


def test_an_optimizer_of_the_users_own_updates_outside_of_the_graph(rng):
    class Signs(optim.SGD):
        def _step(self, w, g, lr, slots, matrix):
            return (w - lr * np.sign(g),)

    eager, replayed = both(net, lambda: Signs(0.01))
    assert_equal_training(eager, replayed, batches(rng, 10))
    x, y = (traced(a) for a in next(batches(rng)))
    assert replayed.explain(x, y) == "captured, but for the update"


def test_dropout_that_all_members_share(rng):
    """One seed for (P, N, M): not what the fused kernel draws for a population."""

    def model():
        layers = Linear(6, 5, population=2, rng=1, dtype="float64"), ReLU(), Dropout(0.4, rng=3)
        return Sequential(*layers, Linear(5, 4, population=2, rng=2, dtype="float64"))

    eager, replayed = both(model, OPTIMIZERS["sgd"])
    assert [type(part).__name__ for part in fused_layers.group(model(), numpy_graph)] == [
        "Block",
        "Alone",
        "Block",
    ]
    assert_equal_training(eager, replayed, batches(rng, 6, members=2))


def test_the_gradient_of_the_batch_is_not_computed(rng, monkeypatch):
    wanted = []
    backward = Sequential.backward

    def noted(self, dy, input_grad=True):
        wanted.append(input_grad)
        return backward(self, dy, input_grad)

    monkeypatch.setattr(Sequential, "backward", noted)
    _, replayed = both(net, OPTIMIZERS["sgd"], fused=False)
    replayed(*map(traced, next(batches(rng, 1))))
    assert wanted and not any(wanted)


def test_losses_are_arrays_of_their_own(rng):
    _, replayed = both(net, OPTIMIZERS["sgd"])
    values = [replayed(traced(x), traced(y)) for x, y in batches(rng, 3)]
    assert len({float(value) for value in values}) == 3


def test_the_users_arrays_are_not_written_to(rng):
    model = trace(net())
    before = {name: array for name, array in model.params.items()}
    copies = {name: np.array(array) for name, array in before.items()}
    step = CapturedStep(model, SoftmaxCrossEntropy(), optim.SGD(0.1), cuda=numpy_graph.make())
    x, y = next(batches(rng, 1))
    step(traced(x), traced(y))
    for name, array in before.items():
        np.testing.assert_array_equal(array, copies[name])


# --- Precision


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_lower_precision_follows_float32(rng, precision):
    def model():
        return net(dtype="float32", normalization="batchnorm", dropout=0.2)

    eager = TrainStep(model(), SoftmaxCrossEntropy(), optim.AdamW(0.01))
    replayed = CapturedStep(
        trace(model()),
        SoftmaxCrossEntropy(),
        optim.AdamW(0.01),
        precision=precision,
        cuda=numpy_graph.make(),
    )
    for x, y in batches(rng, 20, rows=64):
        x = x.astype(np.float32)
        expected = eager.by_layers(x, y)
        value = replayed(traced(x), traced(y))
        assert float(value) == pytest.approx(float(expected), rel=0.05)
        assert value.dtype == np.float32
    half = {"tf32": np.float32, "fp16": np.float16}.get(precision)
    linear = replayed.model.layers[0]
    assert linear.W.dtype == np.float32
    assert linear.dW.dtype == (half or linear.dW.dtype)
    assert (precision == "tf32") == bool(numpy_graph.module.entered)
    assert replayed.explain(traced(x), traced(y)) == f"captured, in {precision}"


def test_half_precision_copies_follow_what_is_loaded(rng):
    step = CapturedStep(
        trace(net(dtype="float32")),
        SoftmaxCrossEntropy(),
        optim.SGD(0.0),
        precision="fp16",
        cuda=numpy_graph.make(),
    )
    x, y = next(batches(rng, 1))
    x, y = traced(x.astype(np.float32)), traced(y)
    before = float(step(x, y))
    step.model.load_state_dict({n: 0 * a for n, a in step.model.state_dict().items()})
    assert float(step(x, y)) == pytest.approx(np.log(4), rel=1e-5) != before


def test_overflowing_gradients_skip_the_update_and_lower_the_scale(rng):
    step = CapturedStep(
        trace(net(dtype="float32")),
        SoftmaxCrossEntropy(),
        optim.Adam(0.01),
        precision="fp16",
        penalty=L2(0.01),
        clip_norm=1.0,
        cuda=numpy_graph.make(),
    )
    x, y = next(batches(rng, 1, rows=64))
    fine, huge = traced(x.astype(np.float32)), traced((x * 1e4).astype(np.float32))
    y = traced(y)
    step(fine, y)
    before = step.model.state_dict()
    with np.errstate(all="ignore"):
        step(huge, y)
    for name, array in step.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert float(step._recordings.scaler.scale[0]) == 2.0**15
    assert step.optimizer.steps == 2
    step.settle()
    assert step.optimizer.steps == 1
    step(fine, y)
    assert any((a != before[n]).any() for n, a in step.model.state_dict().items())


def test_another_step_goes_on_with_the_scale(rng):
    def new_step():
        options = {"precision": "fp16", "cuda": numpy_graph.make()}
        return CapturedStep(
            trace(net(dtype="float32")), SoftmaxCrossEntropy(), optim.SGD(0.1), **options
        )

    x, y = next(batches(rng, 1, rows=64))
    fine, huge, y = traced(x.astype("f")), traced((x * 1e4).astype("f")), traced(y)
    step, other = new_step(), new_step()
    assert step.loss_scale is None
    step(fine, y)
    with np.errstate(all="ignore"):
        step(huge, y)
    step(fine, y)
    saved = step.loss_scale
    assert [float(values[0]) for values in saved] == [2.0**15, 2.0**-15, 0, 1]
    other.loss_scale = list(saved)  # as a file gives it back, before the first step
    assert other.loss_scale[0][0] == 2.0**15
    other(fine, y)
    assert [float(values[0]) for values in other.loss_scale] == [2.0**15, 2.0**-15, 0, 2]
    other.loss.label_smoothing = 0.1  # another option, and so another recording
    other(fine, y)
    assert [float(values[0]) for values in other.loss_scale] == [2.0**15, 2.0**-15, 0, 3]


def test_scaled_gradients_with_penalty_and_clipping_equal_unscaled_ones(rng):
    """Powers of two in, powers of two out: the scale must cancel."""
    losses = []
    for initial in (1.0, 2.0**12):
        cuda = numpy_graph.make()
        cuda.LossScale = lambda initial=initial: numpy_graph.LossScale(initial)
        step = CapturedStep(
            trace(net(dtype="float32", init="he_normal")),
            SoftmaxCrossEntropy(),
            optim.SGD(0.1),
            precision="fp16",
            penalty=L2(0.1),
            clip_norm=0.3,
            cuda=cuda,
        )
        data = batches(np.random.default_rng(1), 10, rows=32)
        losses.append([float(step(traced(x.astype(np.float32)), traced(y))) for x, y in data])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    assert losses[0][-1] < losses[0][0]


# --- What cannot be captured, and bad input


def test_a_failed_recording_runs_by_layers_and_says_why(rng):
    eager, replayed = both(lambda: net(dropout=0.2), OPTIMIZERS["adam"])

    class Refusing(numpy_graph.Recorder):
        def record(self, work):
            def refused():
                work()
                raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted")

            return super().record(refused)

    replayed._cuda.Recorder = Refusing
    data = list(batches(rng, 5))
    with pytest.warns(UserWarning, match="layer by layer: RuntimeError: cudaErrorStreamCapture"):
        replayed(*map(traced, data[0]))
    eager.by_layers(*data[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert_equal_training(eager, replayed, data[1:])
    assert "cudaErrorStreamCapture" in replayed.explain(*map(traced, data[0]))


class FullDevice(MemoryError):
    """CuPy's own."""


@pytest.fixture
def small_device():
    """Memory for no more than 40 rows; what is said of it as xpmlp.kernels.cuda says it."""

    @contextmanager
    def explained(where, what, lower):
        try:
            yield
        except FullDevice as error:
            raise OutOfMemoryError(f"`{where}`: {what}; {lower}") from error

    class Small(numpy_graph.Recorder):
        def rehearse(self, work):
            made = super().rehearse(work)
            if made.outputs.shape[0] > 40:
                raise FullDevice
            return made

    cuda = numpy_graph.make()
    cuda.explained_memory, cuda.Recorder = explained, Small
    return cuda


def test_a_device_that_is_full_is_explained_and_takes_a_smaller_batch(rng, small_device):
    eager, replayed = both(lambda: net(dropout=0.2), OPTIMIZERS["adam"])
    replayed._cuda = small_device
    x, y = next(batches(rng, 1, rows=50))
    words = "`CapturedStep`: recording a training step; lower the batch size, ask for precision="
    with pytest.raises(OutOfMemoryError, match=words):
        replayed(traced(x), traced(y))
    assert replayed._recordings is None  # and with it all that it held
    assert_equal_training(eager, replayed, batches(rng, 5))
    with pytest.raises(OutOfMemoryError):
        replayed(traced(x), traced(y))
    assert_equal_training(eager, replayed, batches(rng, 5))


def test_where_memory_is_short_a_new_shape_takes_the_place_of_others(rng):
    """Graphs are made again; what they are made of is the device's most needed memory."""
    eager, replayed = both(lambda: net(dropout=0.2), OPTIMIZERS["adam"])
    cuda, given_back = numpy_graph.make(), []

    @contextmanager
    def explained(where, what, lower):
        try:
            yield
        except FullDevice as error:
            raise OutOfMemoryError(what) from error

    class RoomForOne(numpy_graph.Recorder):
        def rehearse(self, work):
            if replayed._recordings.by_batch:
                raise FullDevice
            return super().rehearse(work)

    cuda.explained_memory, cuda.Recorder = explained, RoomForOne
    cuda.release_memory = lambda: given_back.append(len(replayed._recordings.by_batch))
    replayed._cuda = cuda
    data = [next(batches(rng, 1, rows)) for rows in (8, 8, 5, 8, 5)]
    assert_equal_training(eager, replayed, data)
    assert given_back == [0, 0, 0] and len(replayed._recordings.by_batch) == 1


def test_a_device_that_is_full_is_explained_layer_by_layer(rng, small_device, monkeypatch):
    def by_layers(task, x, y):
        raise FullDevice

    monkeypatch.setattr(captured, "by_layers", by_layers)
    options = {"precision": "bf16", "cuda": small_device}
    step = CapturedStep(net(dtype="float32"), SoftmaxCrossEntropy(), optim.SGD(0.1), **options)
    words = "running a training step; lower the batch size, keep fewer data on it"
    with pytest.raises(OutOfMemoryError, match=words):
        step._by_layers(*next(batches(rng, 1)))


def test_a_dropout_layer_used_twice_is_not_captured(rng):
    drop = Dropout(0.3, rng=0)
    model = Sequential(Linear(6, 4, rng=1, dtype="float64"), drop, ReLU())
    model.layers = (*model.layers, drop)  # which the container itself refuses
    step = CapturedStep(
        trace(model), SoftmaxCrossEntropy(), optim.SGD(0.1), cuda=numpy_graph.make()
    )
    with pytest.warns(UserWarning, match="runs 2 times in one step"):
        step(*map(traced, next(batches(rng, 1))))
    assert drop.step == 2


def test_kernels_off_means_by_layers(rng, monkeypatch):
    monkeypatch.setattr(captured, "why_kernels_are_off", lambda: "a reason")
    eager, replayed = both(net, OPTIMIZERS["sgd"])
    assert_equal_training(eager, replayed, batches(rng, 2))
    x, y = next(batches(rng, 1))
    assert replayed.explain(traced(x), traced(y)) == "layer by layer (a reason)"


def test_errors_of_the_batch_are_those_of_the_layers(rng):
    _, replayed = both(net, OPTIMIZERS["sgd"])
    x, y = next(batches(rng, 1))
    with pytest.raises(ShapeError, match=r"Linear.forward.*6"):
        replayed(traced(x[:, :5]), traced(y))
    with pytest.raises(DTypeError, match="expected x of dtype float64"):
        replayed(traced(x.astype(np.float32)), traced(y))
    with pytest.raises(ShapeError, match="targets"):
        replayed(traced(x), traced(y[:5]))
    replayed(traced(x), traced(y))  # nothing is broken afterwards


def test_arrays_of_two_libraries_are_named(rng):
    torch = pytest.importorskip("torch")
    _, replayed = both(net, OPTIMIZERS["sgd"])
    x, y = next(batches(rng, 1))
    with pytest.raises(BackendError, match=r"parameter 0.W from .*, x from .*, y from torch"):
        replayed(traced(x), torch.tensor(y))


def test_precision_needs_float32_and_plain_layers(rng):
    make = numpy_graph.make
    with pytest.raises(DTypeError, match=r"float32 parameters for precision='bf16'.*float64"):
        CapturedStep(net(), MSE(), optim.SGD(0.1), precision="bf16", cuda=make())
    with pytest.raises(ConfigError, match="Sequential"):
        model = Linear(6, 4)
        CapturedStep(model, MSE(), optim.SGD(0.1), precision="fp16", cuda=make())
    with pytest.raises(ConfigError, match="one of None, tf32, bf16, fp16"):
        CapturedStep(net(), MSE(), optim.SGD(0.1), precision="fp8", cuda=make())
    old = make()
    old.precision_problem = lambda precision: "it is from 2018"
    with pytest.raises(ConfigError, match="it is from 2018"):
        CapturedStep(net(dtype="float32"), MSE(), optim.SGD(0.1), precision="tf32", cuda=old)
