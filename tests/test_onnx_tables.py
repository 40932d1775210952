"""An exported estimator of tables answers as the estimator does, from the columns as they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pandas as pd
import pytest

from xpmlp.data.tables import Column, NumberCodes, TableEncoder
from xpmlp.errors import ConfigError
from xpmlp.models import FullyConnectedNet
from xpmlp.onnx.table import Numbers, export_table
from xpmlp.sklearn import TableClassifier, TableRegressor

pytest.importorskip("sklearn")
QUICK = {
    "n_members": 3,
    "folds": 3,
    "hidden_layer_sizes": (16,),
    "learning_rate_init": 5e-3,
    "max_iter": 6,
    "random_state": 0,
}


def table(rows=400, seed=0):
    """Every kind of column but dates; numbers and text with gaps, 0 for none, rare levels."""
    rng = np.random.default_rng(seed)
    size = np.where(rng.random(rows) < 0.3, 0.0, rng.lognormal(size=rows))
    text = rng.choice(["red", "green", " blue", "teal"], rows, p=[0.4, 0.3, 0.29, 0.01])
    frame = pd.DataFrame(
        {
            "size": size,
            "text": text,
            "flag": rng.random(rows) < 0.4,
            "maybe": pd.array(rng.random(rows) < 0.4, dtype="boolean"),
            "level": pd.Categorical(rng.integers(0, 4, rows)),
            "whole": pd.array(rng.integers(0, 9, rows), dtype="Int64"),
            "third": rng.integers(0, 9, rows) / 3,
            "same": 1.0,
        }
    )
    signal = (size == 0) + np.log(size + 0.1) + (text == "red") + rng.normal(size=rows) / 10
    for name, share in (("size", 0.1), ("text", 0.1), ("whole", 0.05), ("maybe", 0.05)):
        frame.loc[rng.random(rows) < share, name] = None
    return frame, signal


def unlike(frame):
    """Rows with what the training has not: other levels, huge numbers, gaps elsewhere."""
    new = frame.iloc[:60].copy()
    new["level"] = new["level"].astype(object)
    new.loc[:9, "text"] = "violet"
    new.loc[10:19, "level"] = "7"
    new.loc[20:24, "size"] = [1e300, -1e300, 1e-300, 1e9, -0.0]
    new.loc[30:34, "level"] = None
    new.loc[35:39, "third"] = np.nan
    new.loc[40:44, "same"] = 5.0
    return new


def inputs(frame):
    """The graph's inputs."""
    given = {}
    for name, column in frame.items():
        if pd.api.types.is_datetime64_dtype(column):
            seconds = column.to_numpy().astype("M8[s]").astype(np.int64).astype(np.float64)
            given[name] = np.where(column.isna(), np.nan, seconds)[:, None]
        elif pd.api.types.is_numeric_dtype(column):
            given[name] = column.to_numpy(dtype=np.float64, na_value=np.nan)[:, None]
        else:
            known = column.astype(object)
            texts = ["" if pd.isna(value) else str(value).strip() for value in known]
            given[name] = np.array(texts, dtype=object)[:, None]
    return given


def check(model, frame, path, tolerance=2e-6):
    """Both runtimes answer as the model."""
    assert model.export_onnx(path) == path
    given = inputs(frame) if hasattr(frame, "columns") else None
    given = given or {f"x{i}": frame[:, i : i + 1] for i in range(frame.shape[1])}
    reference = onnx.reference.ReferenceEvaluator(str(path)).run(None, given)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for answers in (reference, session.run(None, given)):
        if isinstance(model, TableClassifier):
            probabilities, label = answers
            expected = model.predict_proba(frame)
            assert expected.std() > 0.02 and probabilities.dtype == np.float64
            np.testing.assert_allclose(probabilities, expected, rtol=tolerance, atol=tolerance)
            np.testing.assert_array_equal(np.asarray(label), model.predict(frame))
        else:
            (prediction,) = answers
            expected = model.predict(frame)
            assert prediction.shape == expected.shape and expected.std() > 0.02
            scale = np.abs(expected).max()
            np.testing.assert_allclose(prediction, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(
    "options", [{}, {"bins": 0}, {"max_levels": 1}, {"calibrate": False}], ids=str
)
def test_probabilities_and_labels(options, tmp_path):
    frame, signal = table()
    labels = np.where(signal > 0.5, "yes", "no")
    model = TableClassifier(**QUICK | options).fit(frame, labels)
    assert options or model._codes.codes[0].values  # the telling 0 among them
    assert options or model.temperature_ != 1.0
    for rows in (frame, unlike(frame), frame[:1]):
        check(model, rows, tmp_path / "classes.onnx")


@pytest.mark.parametrize("targets", [1, 3])
def test_predictions_in_their_units(targets, tmp_path):
    frame, signal = table()
    y = 1000.0 + 50.0 * signal
    y = y if targets == 1 else np.stack([y, -y / 100, np.full(len(y), 7.0)], axis=1)
    model = TableRegressor(**QUICK).fit(frame, y)
    check(model, frame, tmp_path / "numbers.onnx")
    check(model, unlike(frame), tmp_path / "numbers.onnx")


def test_arrays_have_inputs_of_their_own_names(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    x[rng.random(x.shape) < 0.1] = np.nan
    check(TableRegressor(**QUICK).fit(x, np.nan_to_num(x).sum(1)), x, tmp_path / "array.onnx")


@pytest.mark.parametrize("labels", [[3, 5, 9], [1.0, 2.0, 7.0], [False, True], ["b", "a"]], ids=str)
def test_labels_of_every_kind(labels, tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 2))
    place = np.clip(np.floor(x[:, 0] + 1), 0, len(labels) - 1).astype(int)
    for dtype in (None, object) if labels == ["b", "a"] else (None,):
        model = TableClassifier(**QUICK).fit(x, np.array(labels, dtype=dtype)[place])
        check(model, x, tmp_path / "labels.onnx")


def test_a_network_that_takes_the_codes_themselves(tmp_path):
    """As saved before the first layer wrote them itself, of levels that are inputs each."""
    frame = table()[0][["size", "text"]]
    text = frame["text"].astype("category")
    levels = tuple(level.strip() for level in text.cat.categories)
    columns = [
        Column("size", "number", frame["size"].to_numpy()),
        Column("text", "text", text.cat.codes.to_numpy(dtype=np.int32), levels),
    ]
    encoder = TableEncoder().fit(columns)
    raw = encoder.transform(columns)
    codes = NumberCodes(8).fit(raw, numbers=encoder.numbers, names=encoder.names)
    net = FullyConnectedNet([len(codes.names), 9, 2], seed=1, output="identity")
    outputs = net.outputs(codes.transform(raw)).astype(np.float64)
    bounds = np.quantile(2.0 * outputs - 1.0, (0.3, 0.6), axis=0)
    answer = Numbers(np.full(2, 2.0), np.full(2, -1.0), *bounds, single=False)
    path = export_table(tmp_path / "old.onnx", encoder, codes, net, answer)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (prediction,) = session.run(None, inputs(frame))
    expected = np.clip(2.0 * outputs - 1.0, *bounds)
    np.testing.assert_allclose(prediction, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("step", ["7h", "9D", "11000D"])
def test_dates_are_seconds(step, tmp_path):
    rng = np.random.default_rng(0)
    when = pd.Series(pd.date_range("1899-12-31 05:00", periods=200, freq=step, unit="s"))
    when = when.where(rng.random(200) > 0.1)
    frame = pd.DataFrame({"when": when, "x": rng.normal(size=200)})
    y = when.dt.month.fillna(0) + when.dt.day.fillna(0) / 9 + when.dt.hour.fillna(0) / 5
    model = TableRegressor(**QUICK).fit(frame, y)
    assert model._encoder.codes[0].parts
    check(model, frame, tmp_path / "dates.onnx")
    days = ["1600-02-29", "2000-02-29T23:59:59", "2024-03-01", "1970-01-01", "1969-12-31", "NaT"]
    odd = frame[:6].assign(when=np.array(days, dtype="datetime64[s]"))
    check(model, odd, tmp_path / "dates.onnx")


def test_what_the_file_says(tmp_path):
    frame, signal = table()
    model = TableRegressor(**QUICK).fit(frame, signal)
    written = onnx.load(model.export_onnx(tmp_path / "numbers.onnx"))
    assert [node.name for node in written.graph.input] == list(frame.columns)
    assert {it.domain: it.version for it in written.opset_import} == {"": 17, "ai.onnx.ml": 2}
    plain = TableRegressor(**QUICK).fit(frame[["size"]], signal)
    written = onnx.load(plain.export_onnx(tmp_path / "plain.onnx"))
    assert [it.domain for it in written.opset_import] == [""]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["", "a", None] * 20}, "missing values of 'text' to be the empty text"),
        ({"prediction": np.arange(60.0)}, "got 'prediction'; rename the column"),
    ],
)
def test_what_cannot_be_exported_says_so(columns, words, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=60), **columns})
    model = TableRegressor(**QUICK).fit(frame, rng.normal(size=60))
    with pytest.raises(ConfigError, match=words):
        model.export_onnx(tmp_path / "no.onnx")
    assert list(tmp_path.iterdir()) == []


def test_empty_text_may_be_a_level_where_none_is_missing(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=60), "text": ["", "a", "b"] * 20})
    model = TableRegressor(**QUICK).fit(frame, frame["x"] + (frame["text"] == ""))
    check(model, frame, tmp_path / "empty.onnx")
