"""Members of a population are trained, stopped and kept as each would be alone."""

import signal

import numpy as np
import pytest

import xpmlp
from xpmlp.data import Normalization, load_digits
from xpmlp.data.orders import Orders, bootstrap_rows
from xpmlp.errors import ConfigError, ShapeError
from xpmlp.losses import MSE, BCEWithLogits, SoftmaxCrossEntropy
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD, Adam, AdamW
from xpmlp.penalties import L2
from xpmlp.training import (
    Callback,
    EarlyStopping,
    PopulationHistory,
    PopulationTrainer,
    Trainer,
)

P, ROWS = 4, 160
SEEDS = [3, 14, 15, 92]
RATES = [0.1, 0.03, 0.05, 0.01]


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    scaled = data.x_train / 16.0
    return scaled[:ROWS].reshape(ROWS, 64), data.y_train[:ROWS]


@pytest.fixture(scope="module")
def held_out():
    data = load_digits()
    return data.x_test[:90].reshape(90, 64) / 16.0, data.y_test[:90]


def population(**options):
    options = {"population": P, "seed": SEEDS, "dtype": "float64"} | options
    return FullyConnectedNet([64, 12, 10], **options)


def trainer(model=None, **options):
    options = {"progress": False, "epochs": 3, "batch_size": 32} | options
    return PopulationTrainer(population() if model is None else model, **options)


# Five epochs of 40 steps each make the 200 steps after which everything must still agree.
EXACT = {"epochs": 40, "batch_size": 32, "progress": False}
HYPERS = {
    "dropout": [0.0, 0.1, 0.3, 0.5],
    "smoothing": [0.0, 0.1, 0.2, 0.05],
    "momentum": [0.9, 0.5, 0.0, 0.8],
    "decay": [0.0, 1e-3, 1e-2, 5e-3],
    "clip": [0.5, 1.0, 5.0, 0.1],
    "strength": [1e-3, 0.0, 1e-4, 1e-2],
}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("sampling", ["shared", "own", "bootstrap"])
def test_members_equal_single_runs_over_200_steps(digits, held_out, sampling, dtype, tolerance):
    x, y = digits

    def run(pick, population, seed, order, rows, maker):
        model = FullyConnectedNet(
            [64, 12, 10],
            normalization="batchnorm",
            dropout=pick(HYPERS["dropout"]),
            population=population,
            seed=seed,
            dtype=dtype,
        )
        t = maker(
            model,
            SoftmaxCrossEntropy(label_smoothing=pick(HYPERS["smoothing"])),
            SGD(
                pick(RATES),
                momentum=pick(HYPERS["momentum"]),
                weight_decay=pick(HYPERS["decay"]),
                schedule="cosine",
            ),
            penalty=L2(pick(HYPERS["strength"])),
            clip_norm=pick(HYPERS["clip"]),
            restore_best=False,
            **order,
            **EXACT,
        )
        return t.fit(x[rows], y[rows], validation=held_out), model

    everyone = slice(None)
    order = {"sampling": sampling, "seed": 5 if sampling == "shared" else SEEDS}
    together, nets = run(lambda v: v, P, SEEDS, order, everyone, PopulationTrainer)
    assert together.step_losses.shape == (200, P)
    for number, seed in enumerate(SEEDS):
        rows = bootstrap_rows(ROWS, seed) if sampling == "bootstrap" else everyone
        own = {"seed": 5 if sampling == "shared" else seed}
        alone, net = run(lambda v, n=number: v[n], None, seed, own, rows, Trainer)
        close = {"rtol": tolerance, "atol": tolerance}
        np.testing.assert_allclose(together.step_losses[:, number], alone.step_losses, **close)
        np.testing.assert_allclose(
            together.curves["val_loss"][:, number], alone["val_loss"], **close
        )
        member = nets.member(number)
        for name, array in net.state_dict().items():
            np.testing.assert_allclose(member.state_dict()[name], array, **close, err_msg=name)
        history = together.member(number)
        assert history["val_accuracy"] == pytest.approx(alone["val_accuracy"])
        assert history["lr"] == pytest.approx(alone["lr"]) and history["step"] == alone["step"]


def test_early_stopping_and_best_epochs_are_those_of_single_runs(digits, held_out):
    """Members that stop are dropped from the computation; nobody notices."""
    x, y = digits
    rates = [0.3, 0.01, 0.1, 1.0]
    options = {"epochs": 30, "batch_size": 32, "progress": False}

    def stopper():
        return EarlyStopping(2, monitor="val_accuracy")

    def regularised(pick):
        return {
            "loss": SoftmaxCrossEntropy(label_smoothing=pick(HYPERS["smoothing"])),
            "optimizer": Adam(pick(rates), weight_decay=pick(HYPERS["decay"])),
            "penalty": L2(pick(HYPERS["strength"])),
            "clip_norm": pick([1.0, 2.0, 0.5, 3.0]),
            "callbacks": [stopper()],
        }

    nets = population(dropout=HYPERS["dropout"])
    t = PopulationTrainer(nets, **regularised(lambda values: values), **options)
    computed = []
    run_epoch = t._run_epoch
    t._run_epoch = lambda step, batches: (
        computed.append(step.model.population),
        run_epoch(step, batches),
    )[1]
    history = t.fit(x, y, validation=held_out)
    ends = []
    for number, seed in enumerate(SEEDS):
        dropout = HYPERS["dropout"][number]
        net = FullyConnectedNet([64, 12, 10], seed=seed, dropout=dropout, dtype="float64")
        alone = Trainer(net, **regularised(lambda values, n=number: values[n]), **options)
        expected = alone.fit(x, y, validation=held_out)
        found = history.member(number)
        assert (found.best_epoch, found.ending) == (expected.best_epoch, expected.ending)
        assert len(found) == len(expected)
        np.testing.assert_allclose(found.step_losses, expected.step_losses, rtol=1e-9)
        for name, array in net.state_dict().items():
            np.testing.assert_allclose(nets.member(number).state_dict()[name], array, rtol=1e-7)
        ends.append(len(expected))
    assert len(set(ends)) > 2 and len(history) == max(ends)
    assert computed[0] == P and min(computed) == 1 and len(computed) == max(ends)
    assert np.isnan(history.curves["val_loss"][ends[0] :, 0]).all()
    assert history.rows[-1]["running"] == 1


@pytest.mark.parametrize("validated", [True, False])
def test_a_member_that_diverges_is_frozen_and_the_others_do_not_feel_it(
    digits, held_out, validated
):
    x, y = digits
    validation = held_out if validated else None

    class Explode(Callback):
        def on_epoch(self, trainer, row):
            if row["epoch"] == 2:
                trainer.optimizer.lr[2] = 1e200

    def run(*callbacks):
        nets = population()
        t = trainer(nets, optimizer=SGD(RATES), callbacks=callbacks, epochs=6)
        return nets, t.fit(x, y, validation=validation)

    calm_nets, calm = run()
    nets, history = run(Explode())
    assert history.endings[2].startswith("diverged: the loss is")
    assert history.endings[0] == history.endings[3] == history.ending == "finished"
    others = [0, 1, 3]
    np.testing.assert_allclose(
        history.step_losses[:, others], calm.step_losses[:, others], rtol=1e-12
    )
    assert np.isnan(history.curves["train_loss"][2:, 2]).all()
    assert history.best_epochs[2] == 2
    for number in others:
        np.testing.assert_allclose(
            nets.member(number).params["0.W"], calm_nets.member(number).params["0.W"], rtol=1e-12
        )
    assert np.isfinite(nets.member(2).forward(held_out[0])).all()
    row = history.table()[2]
    assert row["epochs"] == 3 and np.isfinite(row["train_loss"])


def test_a_member_that_never_had_a_finite_loss_keeps_its_start(digits):
    nets = population()
    start = nets.member(1)
    with np.errstate(all="ignore"):
        history = trainer(nets, optimizer=SGD([0.1, 1e307, 0.1, 0.1]), epochs=2).fit(*digits)
    assert history.best_epochs == [2, 0, 2, 2] and np.isnan(history.best("train_loss")[1])
    np.testing.assert_array_equal(nets.member(1).params["0.W"], start.params["0.W"])
    assert len(history.member(1)) == 1


def test_figures_are_those_of_the_best_epoch():
    history = PopulationHistory(best_epochs=[2, 0], endings=["finished", "diverged"])
    for epoch, values in enumerate(([0.5, 9.0], [0.3, 8.0], [0.4, 7.0]), 1):
        row = {"epoch": epoch, "step": 10 * epoch}
        history.add(row, {"val_loss": np.array(values)}, np.array([0.1, 0.2]))
    np.testing.assert_array_equal(history.best("val_loss"), [0.3, np.nan])
    assert history.member(0)["val_loss"] == [0.5, 0.3, 0.4]
    with pytest.raises(ConfigError, match="val_loss"):
        history.best("val_los")


def test_callbacks_may_drop_members(digits):
    class Drop(Callback):
        def on_epoch(self, trainer, row):
            trainer.drop([0, 3], "not wanted")

    history = trainer(callbacks=[Drop()]).fit(*digits)
    assert history.endings == ["not wanted", "finished", "finished", "not wanted"]
    assert [row["running"] for row in history.rows] == [4, 2, 2]
    lengths = [len(history.member(number)) for number in range(P)]
    assert lengths == [1, 3, 3, 1]


def test_ctrl_c_keeps_the_best_so_far(default_ctrl_c, digits):
    class Press(Callback):
        def on_epoch(self, trainer, row):
            if row["epoch"] == 2:
                signal.raise_signal(signal.SIGINT)

    history = trainer(callbacks=[Press()], epochs=9).fit(*digits)
    assert len(history) == 2 and history.interrupted
    assert history.endings == ["interrupted"] * P and history.best_epochs == [2] * P
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_ends_when_nobody_runs(digits):
    class Drop(Callback):
        def on_epoch(self, trainer, row):
            trainer.drop(range(P), "enough")

    history = trainer(callbacks=[Drop()]).fit(*digits)
    assert len(history) == 1 and set(history.endings) == {"enough"}


def test_members_see_their_own_rows_only(digits):
    _, y = digits
    rows = [np.arange(40), np.arange(40, 90), np.arange(90, 130), np.arange(120, 160)]
    seen = [set() for _ in range(P)]
    marked = np.arange(ROWS)[:, None] * np.ones((1, 64))

    t = trainer(population(), orders=Orders(rows, SEEDS), batch_size=16, epochs=4)
    run_epoch = t._run_epoch

    class Watched:
        def __init__(self, batches):
            self.batches = batches

        def epoch(self, number):
            for xb, yb in self.batches.epoch(number):
                for own, part in zip(seen, xb, strict=True):
                    own.update(part[:, 0].astype(int).tolist())
                yield xb, yb

    t._run_epoch = lambda step, batches: run_epoch(step, Watched(batches))
    t.fit(marked, y)
    assert [sorted(own) for own in seen] == [own.tolist() for own in rows]


def test_rows_may_stay_in_order(digits):
    x, y = digits
    orders = Orders([np.arange(30, 70)] * P, SEEDS)
    history = trainer(orders=orders, shuffle=False, batch_size=20).fit(x, y)
    alone = Trainer(
        population().member(2), shuffle=False, batch_size=20, epochs=3, progress=False
    ).fit(x[30:70], y[30:70])
    np.testing.assert_allclose(history.step_losses[:, 2], alone.step_losses, rtol=1e-10)
    assert orders.shuffle  # the caller's is left alone


def test_evaluation_on_rows_of_their_own(digits):
    x, y = digits
    rows = [np.arange(5), np.arange(5, 60), np.arange(5), np.arange(100, 160)]
    nets = population()
    t = trainer(nets)
    scores = t.evaluate_members(x, y, rows)
    for number, own in enumerate(rows):
        alone = Trainer(nets.member(number), progress=False).evaluate(x[own], y[own])
        assert scores["loss"][number] == pytest.approx(alone["loss"])
        assert scores["accuracy"][number] == pytest.approx(alone["accuracy"])
    everywhere = t.evaluate_members(x, y)
    assert t.evaluate(x, y)["loss"] == pytest.approx(everywhere["loss"].mean())


def test_normalization_of_their_own(digits):
    x, y = digits
    rows = [np.arange(start, start + 40) for start in (0, 40, 80, 120)]
    fitted = [Normalization.fit(x[own] + number) for number, own in enumerate(rows)]
    nets = population()
    t = trainer(nets, orders=Orders(rows, SEEDS), normalization=fitted, batch_size=20)
    history = t.fit(x, y)
    for number, own in enumerate(rows):
        net = FullyConnectedNet([64, 12, 10], seed=SEEDS[number], dtype="float64")
        alone = Trainer(
            net,
            normalization=fitted[number],
            seed=SEEDS[number],
            batch_size=20,
            epochs=3,
            progress=False,
        )
        expected = alone.fit(x[own], y[own]).step_losses
        np.testing.assert_allclose(history.step_losses[:, number], expected, rtol=1e-9)
        scores = t.evaluate_members(x, y, rows)
        assert scores["loss"][number] == pytest.approx(alone.evaluate(x[own], y[own])["loss"])
    with pytest.raises(ConfigError, match="one normalization"):
        t.fit(x, y, validation=(x, y))


def test_regression_has_r2_for_each_member(rng):
    x = rng.normal(size=(80, 3))
    y = x @ rng.normal(size=(3, 2))
    nets = FullyConnectedNet([3, 8, 2], output="identity", population=2, dtype="float64")
    t = trainer(nets, loss=MSE(), optimizer=Adam([0.03, 1e-6]), epochs=20, batch_size=16)
    history = t.fit(x, y, validation=(x, y))
    good, bad = history.best("val_r2")
    assert good > 0.9 > bad


def test_widths_may_differ_and_units_that_are_not_there_stay_zero(digits):
    x, y = digits
    widths = [3, 12, 7, 12]
    nets = FullyConnectedNet(
        [64, widths, 8, 10], population=P, seed=SEEDS, activation="sigmoid", dtype="float64"
    )
    rates = [0.02, 0.01, 0.03, 0.005]
    history = trainer(nets, optimizer=AdamW(rates)).fit(x, y)
    for number, width in enumerate(widths):
        net = FullyConnectedNet(
            [64, width, 8, 10], seed=SEEDS[number], activation="sigmoid", dtype="float64"
        )
        alone = Trainer(
            net, optimizer=AdamW(rates[number]), epochs=3, batch_size=32, progress=False
        )
        expected = alone.fit(x, y).step_losses
        np.testing.assert_allclose(history.step_losses[:, number], expected, rtol=1e-9)
        assert nets.member(number).config["sizes"] == [64, width, 8, 10]
        assert not np.any(nets.params["0.W"][number, :, width:])
        assert not np.any(nets.params["3.W"][number, width:])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": SGD([0.1, 0.2])}, ConfigError, "4 values of optimizer.lr"),
        (
            {"loss": SoftmaxCrossEntropy(label_smoothing=[0.1] * 3)},
            ConfigError,
            "4 values of loss.label_smoothing",
        ),
        ({"penalty": L2([0.1] * 5)}, ConfigError, "4 values of penalty.strength"),
        ({"clip_norm": [1.0, 2.0]}, ConfigError, "4 values of clip_norm"),
        ({"sampling": "own", "seed": [1, 2]}, ShapeError, "seed for each of 4"),
        ({"seed": [1, 2, 3, 4]}, ConfigError, "sampling='own'"),
        ({"sampling": "ownn"}, ConfigError, "shared, own, bootstrap"),
        ({"orders": Orders([np.arange(3)], [0])}, ShapeError, "orders for each of 4"),
        ({"model": FullyConnectedNet([4, 2])}, ConfigError, "population=P"),
    ],
)
def test_what_does_not_fit_is_named(options, error, message):
    with pytest.raises(error, match=message):
        trainer(**options)


def test_a_population_too_large_for_memory_says_what_fits(digits, monkeypatch):
    monkeypatch.setattr("xpmlp.memory_budget.free_bytes", lambda: 1_500_000)
    with pytest.raises(ConfigError, match=r"4 members of about .* KB each .*; 2 fit"):
        trainer(batch_size=350).fit(*digits)


def test_on_every_library(library, digits):
    """Members of their own rates and orders, one of which diverges, as on NumPy."""
    x, y = digits

    def run():
        nets = FullyConnectedNet(
            [64, [12, 5, 9], 10], population=3, dtype="float64", normalization="layernorm"
        )
        t = trainer(nets, optimizer=SGD([0.1, 1e200, 0.02]), sampling="own", epochs=2)
        history = t.fit(x, y, validation=(x[:40], y[:40]))
        return history, nets.state_dict()

    with np.errstate(all="ignore"):
        history, arrays = run()
        with xpmlp.use_backend("numpy"):
            expected, wanted = run()
    assert [e[:8] for e in history.endings] == [e[:8] for e in expected.endings]
    for member in (0, 2):
        np.testing.assert_allclose(
            history.step_losses[:, member], expected.step_losses[:, member], rtol=1e-9
        )
        for name, array in wanted.items():
            np.testing.assert_allclose(arrays[name][member], array[member], rtol=1e-7, atol=1e-12)


def test_shared_inputs_are_in_memory_once(digits):
    """A batch (N, D) goes to all members; nothing of shape (P, N, D) is made."""
    shapes = []
    t = trainer()
    run_epoch = t._run_epoch

    def watch(step, batches):
        shapes.extend(tuple(xb.shape) for xb, _ in batches.epoch(0))
        return run_epoch(step, batches)

    t._run_epoch = watch
    t.fit(*digits)
    assert set(shapes) == {(32, 64)}


def test_a_losses_weights_of_answers_are_not_of_members(rng):
    x, y = rng.normal(size=(40, 5)), rng.integers(0, 2, (40, 3)).astype(float)

    def fit(seed, **options):
        model = FullyConnectedNet([5, 6, 3], seed=seed, dtype="float64", **options)
        trainer = PopulationTrainer if options else Trainer
        loss = BCEWithLogits(pos_weight=[1.0, 2.0, 0.5])
        return trainer(model, loss, SGD(0.1), epochs=3, shuffle=False, progress=False).fit(x, y)

    both = fit([1, 2], population=2)
    for member, seed in enumerate([1, 2]):
        alone = fit(seed)["train_loss"]
        np.testing.assert_allclose(both.member(member)["train_loss"], alone, rtol=1e-9)
