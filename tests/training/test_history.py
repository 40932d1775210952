"""Histories: how they show themselves."""

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
