"""Saved models: whole or absent, checked when read, never unpickled."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

import xpmlp
from xpmlp.errors import CheckpointError, MissingDependencyError
from xpmlp.layers import Linear, ReLU, Sequential
from xpmlp.models import FullyConnectedNet
from xpmlp.training import checkpoint, load_model, save_model

FORMATS = ("model.safetensors", "model.npz")


def model(**options):
    options = {"normalization": "batchnorm", "dropout": 0.1, "seed": 3} | options
    net = FullyConnectedNet([5, 7, 3], **options)
    x = np.random.default_rng(0).normal(size=(20, 5)).astype(options.get("dtype", "float32"))
    net.forward(xpmlp.asarray(x), training=True)  # so that running statistics are not the initial
    return net


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}, {"population": 2}], ids=str)
def test_model_comes_back_as_it_was(tmp_path, name, options):
    original = model(**options)
    save_model(tmp_path / name, original, {"classes": ["a", "b", "ç"]})
    loaded, extras = load_model(tmp_path / name)
    assert extras == {"classes": ["a", "b", "ç"]}
    assert loaded.config == original.config
    for key, array in original.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[key], array)
        assert loaded.state_dict()[key].dtype == array.dtype


def test_model_moves_between_libraries(tmp_path, library):
    original = model()
    save_model(tmp_path / "model.npz", original)
    with xpmlp.use_backend("numpy"):
        loaded, _ = load_model(tmp_path / "model.npz")
        for key, array in original.state_dict().items():
            np.testing.assert_array_equal(loaded.state_dict()[key], array)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("keep", [0, 4, 60, 0.5, -1])
def test_truncated_file_is_refused(tmp_path, name, keep):
    path = tmp_path / name
    save_model(path, model())
    content = path.read_bytes()
    length = int(len(content) * keep) if isinstance(keep, float) else keep
    path.write_bytes(content[:length])
    with pytest.raises(CheckpointError, match=name):
        load_model(path)


@pytest.mark.parametrize("name", FORMATS)
def test_noise_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(CheckpointError, match=name):
        load_model(tmp_path / name)


def test_pickled_arrays_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "model.npz"
    np.savez(path, xpmlp=np.array(Bomb(), dtype=object))
    with pytest.raises(CheckpointError):
        load_model(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "header",
    [
        {"format": "other", "model": {}, "extras": {}},
        {"format": "xpmlp-1", "model": {"sizes": [5, 9, 3]}, "extras": {}},
        {"format": "xpmlp-1", "model": {"sizes": [5, 7, 3], "nonsense": 1}, "extras": {}},
        {"format": "xpmlp-1"},
        [],
    ],
    ids=["format", "sizes", "option", "incomplete", "list"],
)
def test_header_that_does_not_fit_is_refused(tmp_path, header):
    path = tmp_path / "model.npz"
    np.savez(path, xpmlp=np.array(json.dumps(header)), **model().state_dict())
    with pytest.raises(CheckpointError):
        load_model(path)


def test_foreign_npz_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.ones(3))
    with pytest.raises(CheckpointError, match="written by xpmlp"):
        load_model(tmp_path / "data.npz")


def test_missing_file_and_unknown_ending_say_so(tmp_path):
    with pytest.raises(CheckpointError, match="found none"):
        load_model(tmp_path / "nothing.npz")
    with pytest.raises(CheckpointError, match=r"ending in \.safetensors or \.npz"):
        save_model(tmp_path / "model.pkl", model())
    (tmp_path / "model.pkl").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"\.safetensors or \.npz"):
        load_model(tmp_path / "model.pkl")


@pytest.mark.parametrize("name", FORMATS)
def test_full_disk_leaves_the_old_file(tmp_path, name, monkeypatch):
    path = tmp_path / name
    save_model(path, model())
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(path, model(seed=9))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_missing_folder_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="choose a folder"):
        save_model(tmp_path / "absent" / "model.npz", model())


def test_missing_safetensors_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(MissingDependencyError, match=r"xpmlp\[cli\]"):
        save_model(tmp_path / "model.safetensors", model())


@pytest.mark.parametrize("name", ["m.npz", "m.safetensors"])
def test_extras_that_json_cannot_hold_are_refused(name, tmp_path):
    model = FullyConnectedNet([2, 3])
    with pytest.raises(CheckpointError, match=r"ndarray .*\.tolist\(\)"):
        save_model(tmp_path / name, model, {"scale": np.ones(2)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_unless_asked_for(tmp_path, suffix, number):
    net = FullyConnectedNet([2, 3, 2])
    weights = np.array(net.params["0.W"])
    weights[1, 2] = number
    net.params["0.W"] = weights
    path = tmp_path / f"m{suffix}"
    save_model(path, net)
    with pytest.raises(CheckpointError, match=r"'0\.W'.*allow_nan"):
        load_model(path)
    found, _ = load_model(path, allow_nan=True)
    np.testing.assert_array_equal(found.params["0.W"], weights)


@pytest.mark.parametrize("options", [{"sizes": [6, 8000, 8000, 3]}, {"population": 10**8}])
def test_a_file_too_small_for_its_network_is_refused_before_that_is_built(
    tmp_path, monkeypatch, options
):
    net = FullyConnectedNet([2, 3, 2])
    net.config |= options
    save_model(tmp_path / "m.npz", net)
    monkeypatch.setattr(checkpoint, "FullyConnectedNet", None)
    with pytest.raises(CheckpointError, match="holds 17 numbers, and its network has"):
        load_model(tmp_path / "m.npz")


def test_a_model_that_no_file_could_build_is_refused_and_told_how_else(tmp_path):
    parts = Sequential(Linear(5, 3), ReLU())
    with pytest.raises(CheckpointError, match=r"or a ConvNet, got a Sequential; keep its arrays"):
        save_model(tmp_path / "model.npz", parts)
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "arrays.npz", **parts.state_dict())
    again = Sequential(Linear(5, 3), ReLU())
    again.load_state_dict(dict(np.load(tmp_path / "arrays.npz")))
    assert np.array_equal(again.params["0.W"], parts.params["0.W"])
