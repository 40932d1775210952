"""Histories: how they show themselves."""

import sys

import pytest

from xpmlp.errors import ConfigError, MissingDependencyError
from xpmlp.training import History, PopulationHistory


def test_history_is_shown_in_a_line():
    rows = [
        {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "val_loss": 1.5, "val_accuracy": 0.5},
        {"epoch": 2, "lr": 0.1, "train_loss": 1.0, "val_loss": 1.75, "val_accuracy": 0.25},
    ]
    assert repr(History(rows=rows, best_epoch=1)) == (
        "<History: 2 epochs, finished; best epoch 1: train_loss=2 val_loss=1.5 val_accuracy=0.5>"
    )
    assert repr(History(rows=[{"epoch": 1, "train_loss": 2.0}], ending="interrupted")) == (
        "<History: 1 epoch, interrupted; epoch 1: train_loss=2>"
    )
    assert repr(History()) == "<History: 0 epochs, finished>"


def test_history_of_many_members_is_shown_in_a_line():
    endings = ["finished", "early stopping: no better val_loss", "finished", "diverged: nan", ""]
    history = PopulationHistory(rows=[{}, {}], best_epochs=[1] * 5, endings=endings)
    assert repr(history) == (
        "<PopulationHistory: 5 members, 2 epochs; "
        "2 finished, 1 early stopping, 1 diverged, 1 running>"
    )


def test_a_history_is_a_finite_table_of_known_columns():
    history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
    assert list(history) == history.rows and len(list(history)) == 2
    assert history["train_loss"] == [0.5, 0.25] and History()["train_loss"] == []
    for wrong in ("val_loss", 0, -1, slice(1)):
        with pytest.raises(ConfigError, match=r"epoch, train_loss, got .*history.rows"):
            history[wrong]


def test_a_history_as_a_data_frame(monkeypatch):
    pytest.importorskip("pandas")
    history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
    frame = history.to_pandas()
    assert list(frame.columns) == ["train_loss"] and list(frame.index) == [1, 2]
    assert frame.loc[2, "train_loss"] == 0.25
    assert History().to_pandas().empty
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        history.to_pandas()
