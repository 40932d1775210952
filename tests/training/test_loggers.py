"""Loggers, against the real libraries where they are installed, else against stand-ins."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from xpmlp.errors import MissingDependencyError
from xpmlp.models import FullyConnectedNet
from xpmlp.training import MLflow, TensorBoard, Trainer, WeightsAndBiases, loggers


def train(callback, epochs=2):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 2, 40)
    net = FullyConnectedNet([3, 4, 2], seed=0)
    trainer = Trainer(net, epochs=epochs, metrics="f1", callbacks=callback, progress=False)
    history = trainer.fit(x, y, validation=(x, y))
    again = pickle.loads(pickle.dumps(trainer))
    assert again.callbacks[0]._to is None
    return history


def installed(name):
    return importlib.util.find_spec(name) is not None


def test_tensorboard_gets_a_scalar_for_each_column(tmp_path):
    if not installed("tensorboard"):
        pytest.skip("tensorboard is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = train(TensorBoard(tmp_path / "run"))
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "run"))
        events.Reload()
    scalars = events.Scalars("val_f1")
    assert [scalar.step for scalar in scalars] == [1, 2]
    np.testing.assert_allclose([s.value for s in scalars], history["val_f1"], rtol=1e-6)
    assert {"train_loss", "val_loss", "lr"} <= set(events.Tags()["scalars"])


@pytest.mark.slow
def test_mlflow_gets_a_run_in_a_local_folder(tmp_path, monkeypatch):
    if not installed("mlflow"):
        pytest.skip("mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        uri = (tmp_path / "mlruns").as_uri()
        history = train(MLflow("first", experiment="ours", tracking_uri=uri))
        import mlflow

        assert mlflow.active_run() is None
        client = mlflow.MlflowClient(uri)
        run = client.search_runs([client.get_experiment_by_name("ours").experiment_id])[0]
        values = client.get_metric_history(run.info.run_id, "val_loss")
    assert run.info.run_name == "first" and run.info.status == "FINISHED"
    assert run.data.tags["ending"] == "finished" and run.data.params["epochs"] == "2"
    assert [value.step for value in values] == [1, 2]
    np.testing.assert_allclose([value.value for value in values], history["val_loss"])


@pytest.mark.slow
def test_wandb_gets_an_offline_run(tmp_path):
    if not installed("wandb"):
        pytest.skip("wandb is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(WeightsAndBiases(project="ours", mode="offline", dir=str(tmp_path)))
    files = [*tmp_path.rglob("run-*.wandb")]
    assert len(files) == 1 and b"val_f1" in files[0].read_bytes()


def stand_in(monkeypatch, name, **functions):
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_mlflow_is_called_as_documented(monkeypatch):
    """A stand-in with the names and arguments of mlflow's fluent functions."""
    said, active = [], []
    stand_in(
        monkeypatch,
        "mlflow",
        set_tracking_uri=lambda uri: said.append(("uri", uri)),
        set_experiment=lambda name: said.append(("experiment", name)),
        active_run=lambda: active[-1] if active else None,
        start_run=lambda run_name=None: active.append(run_name),
        end_run=lambda: active.pop(),
        log_params=lambda params: said.append(("params", params)),
        log_metrics=lambda metrics, step: said.append((step, metrics)),
        set_tag=lambda key, value: said.append((key, value)),
    )
    history = train(MLflow("first", experiment="ours", tracking_uri="file:x"))
    assert said[:2] == [("uri", "file:x"), ("experiment", "ours")] and active == []
    assert said[3][0] == 1 and said[3][1]["val_f1"] == history["val_f1"][0]
    assert "epoch" not in said[3][1] and said[-1] == ("ending", "finished")
    active.append("theirs")
    train(MLflow())
    assert active == ["theirs"]  # which is not ours to end


def test_wandb_is_called_as_documented(monkeypatch):
    said, summary = [], {}
    run = SimpleNamespace(
        log=lambda row, step: said.append((step, row)),
        finish=lambda: said.append("finished"),
        summary=summary,
    )
    stand_in(monkeypatch, "wandb", init=lambda **options: said.append(options) or run)
    history = train(WeightsAndBiases(project="ours", config={"note": 1}))
    assert said[0]["project"] == "ours" and said[0]["config"]["note"] == 1
    assert said[0]["config"]["batch_size"] == 128
    assert said[2] == (2, {n: v for n, v in history.rows[1].items() if n != "epoch"})
    assert said[-1] == "finished" and summary["ending"] == "finished"


@pytest.mark.parametrize(
    ("callback", "says"),
    [
        (TensorBoard("runs"), "pip install tensorboardX"),
        (MLflow(), "pip install mlflow"),
        (WeightsAndBiases(), "pip install wandb"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_missing_library_is_named(monkeypatch, callback, says):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(loggers.importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=says):
        callback.open({})
