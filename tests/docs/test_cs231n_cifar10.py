"""The CIFAR-10 example, on a stand-in data set of its shape (and on the real one, if there)."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from xpmlp.data import Dataset

PATH = Path(__file__).parents[2] / "docs" / "examples" / "cs231n_cifar10.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("cs231n_cifar10", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in() -> Dataset:
    """Noise around ten random pictures: learnable, in CIFAR-10's shape and dtype."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(60, 190, size=(10, 3, 32, 32))

    def part(rows):
        y = rng.integers(0, 10, rows)
        noise = rng.normal(0, 60, size=(rows, 3, 32, 32))
        return np.clip(pictures[y] + noise, 0, 255).astype(np.uint8), y

    (x_train, y_train), (x_test, y_test) = part(500), part(100)
    classes = tuple("abcdefghij")
    return Dataset("cifar10", x_train, y_train, x_test, y_test, classes, None, "made up")


def test_example_overfits_then_learns(example, monkeypatch, capsys):
    data = stand_in()
    monkeypatch.setattr(example, "load_cifar10", lambda folder: data)
    figures = example.main(["--epochs", "3", "--hidden", "32"])
    assert figures["overfit_accuracy"] == 1.0
    assert figures["validation_accuracy"] > 0.9
    assert "100 validation images" in capsys.readouterr().out


def test_split_takes_the_last_images(example):
    data = stand_in()
    (x, _), (x_val, y_val) = example.split(data)
    np.testing.assert_array_equal(x_val, data.x_train[400:])
    np.testing.assert_array_equal(y_val, data.y_train[400:])
    assert len(x) == 400


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("XPMLP_DATA"), reason="XPMLP_DATA is not set")
def test_fifty_real_images_are_learned_by_heart(example):
    from xpmlp.data import load_cifar10

    (x, y), (x_val, _) = example.split(load_cifar10())
    assert len(x) == 49_000 and len(x_val) == 1_000
    assert example.overfit_small(x, y) == 1.0
