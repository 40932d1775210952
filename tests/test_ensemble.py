"""An ensemble answers with the mean of its members, and knows how sure it is."""

import numpy as np
import pytest

from xpmlp.calibration import entropy, temper
from xpmlp.data import load_digits
from xpmlp.ensemble import Ensemble
from xpmlp.errors import CheckpointError, ConfigError, DataError
from xpmlp.losses import MSE
from xpmlp.models import FullyConnectedNet
from xpmlp.onnx import export_onnx
from xpmlp.optim import Adam
from xpmlp.training import PopulationTrainer, load_model, save_model

P = 4


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x = (data.x_train / 16.0).reshape(len(data.x_train), 64).astype(np.float32)
    return x, data.y_train


@pytest.fixture(scope="module")
def nets(digits):
    x, y = digits
    nets = FullyConnectedNet([64, 12, 10], population=P)
    PopulationTrainer(
        nets, optimizer=Adam(0.02), sampling="own", epochs=15, batch_size=32, progress=False
    ).fit(x[:300], y[:300])
    return nets


def test_probabilities_are_means(nets, digits):
    x = digits[0][300:500]
    ensemble = Ensemble(nets)
    each = [np.asarray(nets.member(number).predict_proba(x)) for number in range(P)]
    found = ensemble.predict_proba(x)
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(ensemble.predict(x), found.argmax(axis=1))
    np.testing.assert_allclose(ensemble.predict_proba(x, batch_size=36), found, rtol=1e-5)
    assert len(ensemble) == P and "temperature=1" in repr(ensemble)


def test_many_are_better_than_one_on_average(nets, digits):
    x, y = digits[0][500:], digits[1][500:]
    alone = [np.mean(np.asarray(nets.member(i).predict(x)) == y) for i in range(P)]
    assert Ensemble(nets).evaluate(x, y)["accuracy"] > np.mean(alone)


def test_networks_of_different_widths(digits):
    members = [FullyConnectedNet([64, width, 10], seed=width) for width in (5, 9)]
    ensemble = Ensemble(members)
    x = digits[0][:20]
    expected = np.mean([np.asarray(net.predict_proba(x)) for net in members], axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(x), expected, rtol=1e-5)
    assert len(Ensemble(members[0])) == 1


def test_calibration_lowers_the_loss_and_keeps_the_classes(nets, digits):
    x, y = digits
    # Members that agree, and are much too sure: their last weights are five times as large.
    sure = nets.select([0, 0])
    sure.params = {name: 5.0 * sure.params[name] for name in ("2.W", "2.b")}
    ensemble = Ensemble(sure)
    before = ensemble.evaluate(x[900:], y[900:])
    classes = ensemble.predict(x[900:])
    temperature = ensemble.calibrate(x[300:900], y[300:900])
    after = ensemble.evaluate(x[900:], y[900:])
    assert temperature == ensemble.temperature > 1.5
    assert after["log_loss"] < before["log_loss"]
    assert after["calibration_error"] < before["calibration_error"]
    np.testing.assert_array_equal(ensemble.predict(x[900:]), classes)
    p = Ensemble(sure).predict_proba(x[900:])
    np.testing.assert_allclose(ensemble.predict_proba(x[900:]), temper(p, temperature))
    assert ensemble.calibrate(x[300:900], y[300:900]) == temperature  # not on top of the first


def test_uncertainty_is_split_into_disagreement_and_the_rest(nets, digits):
    x = digits[0][300:400]
    ensemble = Ensemble(nets, temperature=2.0)
    found = ensemble.uncertainty(x)
    each = np.stack([np.asarray(nets.member(i).predict_proba(x)) for i in range(P)])
    np.testing.assert_allclose(found["entropy"], entropy(each.mean(axis=0)), atol=1e-6)
    np.testing.assert_allclose(found["expected_entropy"], entropy(each).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(
        found["mutual_information"], found["entropy"] - found["expected_entropy"], atol=1e-6
    )
    assert (found["mutual_information"] >= 0).all()
    noise = np.random.default_rng(0).uniform(size=x.shape).astype(np.float32)
    strange = ensemble.uncertainty(noise)["mutual_information"]
    assert strange.mean() > 2 * found["mutual_information"].mean()
    same = Ensemble([nets.member(0)] * 3).uncertainty(x)
    np.testing.assert_allclose(same["mutual_information"], 0.0, atol=1e-6)


def test_regression_gives_mean_and_spread(rng):
    x = rng.normal(size=(30, 3)).astype(np.float32)
    nets = FullyConnectedNet([3, 6, 2], output="identity", population=P)
    ensemble = Ensemble(nets)
    each = np.asarray(nets.predict(x))
    np.testing.assert_allclose(ensemble.predict(x), each.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(ensemble.uncertainty(x)["std"], each.std(axis=0), rtol=1e-4)
    for refused in (ensemble.predict_proba, lambda x: ensemble.calibrate(x, np.zeros(30, int))):
        with pytest.raises(ConfigError, match="identity"):
            refused(x)


def test_independent_questions(rng):
    x = rng.normal(size=(30, 3)).astype(np.float32)
    nets = FullyConnectedNet([3, 6, 2], output="sigmoid", population=P)
    ensemble = Ensemble(nets)
    each = np.asarray(nets.predict_proba(x))
    np.testing.assert_allclose(ensemble.predict_proba(x), each.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(ensemble.predict(x), each.mean(axis=0) > 0.5)
    p = each.mean(axis=0)
    both = -p * np.log(p) - (1.0 - p) * np.log(1.0 - p)
    np.testing.assert_allclose(ensemble.uncertainty(x)["entropy"], both, rtol=1e-4)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_saved_and_loaded(nets, digits, tmp_path, ending):
    ensemble = Ensemble(nets, temperature=1.7)
    ensemble.save(tmp_path / f"e{ending}", {"classes": ["a", "b"]})
    loaded, extras = Ensemble.load(tmp_path / f"e{ending}")
    assert loaded.temperature == 1.7 and extras == {"classes": ["a", "b"]}
    x = digits[0][:20]
    np.testing.assert_array_equal(loaded.predict_proba(x), ensemble.predict_proba(x))
    # As a model file, it is a population.
    assert load_model(tmp_path / f"e{ending}")[0].population == P


def test_a_model_is_no_ensemble(nets, tmp_path):
    save_model(tmp_path / "model.npz", nets)
    with pytest.raises(CheckpointError, match="temperature"):
        Ensemble.load(tmp_path / "model.npz")


@pytest.mark.parametrize("temperature", [1.0, 1.8])
@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm", "rmsnorm"])
def test_exported_as_one_graph(tmp_path, rng, normalization, temperature):
    runtime = pytest.importorskip("onnx.reference")
    nets = FullyConnectedNet(
        [6, [3, 7, 5], 4], population=3, normalization=normalization, activation="sigmoid"
    )
    ensemble = Ensemble(nets, temperature=temperature)
    path = export_onnx(ensemble, tmp_path / "ensemble.onnx")
    x = rng.normal(size=(9, 6)).astype(np.float32)
    (found,) = runtime.ReferenceEvaluator(str(path)).run(["probabilities"], {"input": x})
    np.testing.assert_allclose(found, ensemble.predict_proba(x), rtol=1e-5, atol=1e-6)


def test_exported_regression(tmp_path, rng):
    runtime = pytest.importorskip("onnx.reference")
    nets = FullyConnectedNet([6, 5, 2], population=3, output="identity")
    path = export_onnx(Ensemble(nets), tmp_path / "ensemble.onnx")
    x = rng.normal(size=(9, 6)).astype(np.float32)
    (found,) = runtime.ReferenceEvaluator(str(path)).run(["output"], {"input": x})
    np.testing.assert_allclose(found, Ensemble(nets).predict(x), rtol=1e-5, atol=1e-6)


def test_mistakes(nets):
    with pytest.raises(ConfigError, match="temperature"):
        Ensemble(nets, temperature=0.0)
    with pytest.raises(ConfigError, match="at least one"):
        Ensemble([])


def test_a_regression_ensemble_is_trained_like_any_population(rng):
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = (x @ rng.normal(size=(3, 1))).astype(np.float32)
    nets = FullyConnectedNet([3, 8, 1], output="identity", population=P)
    trainer = PopulationTrainer(
        nets, MSE(), Adam(0.02), sampling="bootstrap", epochs=40, batch_size=16, progress=False
    )
    trainer.fit(x, y)
    error = np.mean((Ensemble(nets).predict(x) - y) ** 2)
    assert error < 0.05 * y.var()


@pytest.mark.parametrize("labels", [[0, 1, 99], [0, 1, -1], [0.0, 1.0, 2.0], [[0], [1], [2]], [0]])
def test_labels_that_are_none_are_refused_and_change_nothing(labels):
    ensemble = Ensemble(FullyConnectedNet([4, 3], population=2), temperature=2.0)
    for attempt in (ensemble.evaluate, ensemble.calibrate):
        with pytest.raises(ValueError, match="class numbers"):
            attempt(np.ones((3, 4)), np.array(labels))
    assert ensemble.temperature == 2.0


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
def test_an_ensemble_refuses_what_is_not_finite(output):
    ensemble = Ensemble(FullyConnectedNet([4, 3], population=2, output=output))
    with pytest.raises(DataError, match="finite"):
        ensemble.predict(np.full((3, 4), np.nan))
