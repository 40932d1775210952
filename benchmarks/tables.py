"""``python -m benchmarks.tables``: the tables' estimators beside boosted trees; see docs/tables.md.

Twelve public tables, divided three times: at most 8,000 rows to train on, at most 10,000 to score.
Every fit adds a line of JSON to a file, and ``--page`` makes the tables of the page of it. Peers
are measured where they are installed. Seconds are those of the processor, of one thread if
``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 XPMLP_NUM_THREADS=1`` are set.

The files lie in ``$XPMLP_DATA/tables`` under the names of the tables, as ``.csv.gz``; they are the
German credit, segment, phoneme, Telco churn, credit card default, Adult and bank marketing sets,
and Ames, abalone, bike sharing, California and diamonds, as commonly published.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

CLASSES = ("german", "segment", "phoneme", "telco", "credit", "adult", "bank")
NUMBERS = ("ames", "abalone", "bike", "california", "diamonds")
TRAIN_ROWS, TEST_ROWS, SPLITS = 8000, 10_000, (0, 1, 2)


def _read(name: str, **options: Any) -> pd.DataFrame:
    return pd.read_csv(Path(os.environ["XPMLP_DATA"]) / "tables" / f"{name}.csv.gz", **options)


def _segment() -> pd.DataFrame:
    parts = []
    for name in ("segment-challenge", "segment-test"):
        path = Path(os.environ["XPMLP_DATA"]) / "tables" / f"{name}.arff.gz"
        text = gzip.decompress(path.read_bytes()).decode("latin1").lower().split("@data")[1]
        parts.append(pd.read_csv(io.StringIO(text), header=None, comment="%"))
    return pd.concat(parts, ignore_index=True).dropna(how="all")


def _tidy(x: pd.DataFrame, categories: Sequence[str] = ()) -> pd.DataFrame:
    """Numbers as floats, all else as categories, and names of letters and digits."""
    x = x.copy()
    for name in x.columns:
        if name in categories or not pd.api.types.is_numeric_dtype(x[name]):
            values = x[name].astype("object")
            x[name] = values.where(values.isna(), values.astype(str)).astype("category")
        else:
            x[name] = x[name].astype("float64")
    x.columns = [
        "".join(c if c.isalnum() else "_" for c in f"c{place}_{name}")
        for place, name in enumerate(map(str, x.columns))
    ]
    return x


def load(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Inputs, and class numbers or numbers, of one table."""
    categories: Sequence[str] = ()
    if name == "german":
        d = _read(name, header=None)
        y: Any = d.pop(20).eq(2)
    elif name == "segment":
        d = _segment()
        y = d.pop(d.columns[-1])
    elif name == "phoneme":
        d = _read(name, header=None)
        y = d.pop(5)
    elif name == "telco":
        d = _read(name).drop(columns="customerID")
        d["TotalCharges"] = pd.to_numeric(d["TotalCharges"], errors="coerce")
        y = d.pop("Churn")
    elif name == "credit":
        d = _read(name).drop(columns="ID")
        y, categories = d.pop(d.columns[-1]), ("SEX", "EDUCATION", "MARRIAGE")
    elif name == "adult":
        d = _read(name, header=None, skipinitialspace=True, na_values="?")
        y = d.pop(14)
    elif name == "bank":
        d = _read(name)
        y = d.pop("y")
    elif name == "ames":
        d = _read(name, dtype={"MS SubClass": str}).drop(columns=["Order", "PID"], errors="ignore")
        d = d.drop(columns=[c for c in d.columns if "Order" in c])
        y = np.log(d.pop("SalePrice"))
    elif name == "abalone":
        d = _read(name, header=None)
        y = d.pop(8).astype(float)
    elif name == "bike":
        d = _read(name).drop(columns=["instant", "dteday", "casual", "registered"])
        y, categories = d.pop("demand").astype(float), ("season", "weather", "weekday")
    elif name == "california":
        d = _read("housing")
        y = d.pop("median_house_value") / 1e5
    else:
        d = _read(name).sample(50_000, random_state=0).reset_index(drop=True)
        y = np.log(d.pop("price"))
    y = np.asarray(y)
    return _tidy(d, categories), np.unique(y, return_inverse=True)[1] if name in CLASSES else y


def split(
    name: str, number: int, rows: int = TRAIN_ROWS
) -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """Inputs and targets to train on, and to score."""
    from sklearn.model_selection import train_test_split

    x, y = load(name)
    train, test = train_test_split(
        np.arange(len(y)),
        test_size=0.25,
        random_state=number,
        stratify=y if name in CLASSES else None,
    )
    train, test = train[:rows], test[:TEST_ROWS]
    parts = (x.iloc[part].reset_index(drop=True) for part in (train, test))
    x_train, x_test = parts
    return x_train, y[train], x_test, y[test]


def _ours(classes: bool, seed: int, _: list[str], options: dict[str, Any]) -> Any:
    from xpmlp.sklearn import TableClassifier, TableRegressor

    return (TableClassifier if classes else TableRegressor)(random_state=seed, **options)


def _hist(classes: bool, seed: int, _: list[str], options: dict[str, Any]) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier as Classifier
    from sklearn.ensemble import HistGradientBoostingRegressor as Regressor

    chosen: Any = Classifier if classes else Regressor
    return chosen(random_state=seed, categorical_features="from_dtype", **options)


def _lightgbm(classes: bool, seed: int, _: list[str], options: dict[str, Any]) -> Any:
    import lightgbm

    chosen: Any = lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor
    return chosen(random_state=seed, n_jobs=1, verbose=-1, **options)


def _xgboost(classes: bool, seed: int, _: list[str], options: dict[str, Any]) -> Any:
    import xgboost

    chosen: Any = xgboost.XGBClassifier if classes else xgboost.XGBRegressor
    return chosen(random_state=seed, n_jobs=1, enable_categorical=True, **options)


def _catboost(classes: bool, seed: int, categories: list[str], options: dict[str, Any]) -> Any:
    import catboost

    chosen: Any = catboost.CatBoostClassifier if classes else catboost.CatBoostRegressor
    return chosen(
        random_seed=seed,
        thread_count=1,
        verbose=0,
        allow_writing_files=False,
        cat_features=categories,
        **options,
    )


METHODS: dict[str, tuple[str, Callable[..., Any]]] = {
    "xpmlp": ("xpmlp", _ours),
    "hist": ("sklearn", _hist),
    "lightgbm": ("lightgbm", _lightgbm),
    "xgboost": ("xgboost", _xgboost),
    "catboost": ("catboost", _catboost),
}
NAMES = {
    "xpmlp": "**xpmlp**",
    "hist": "HistGradientBoosting",
    "lightgbm": "LightGBM",
    "xgboost": "XGBoost",
    "catboost": "CatBoost",
}


def measure(
    method: str, name: str, number: int, rows: int, options: dict[str, Any]
) -> dict[str, Any]:
    """One fit: log loss and accuracy, or the root of the mean squared error, and seconds."""
    classes = name in CLASSES
    x_train, y_train, x_test, y_test = split(name, number, rows)
    categories = list(x_train.select_dtypes("category"))
    if method == "catboost":  # which takes categories as text
        for x in (x_train, x_test):
            for column in categories:
                x[column] = x[column].astype(object).fillna("missing").astype(str)
    model = METHODS[method][1](classes, number, categories, options)
    if method == "xpmlp":  # kernels and imports, so that the clock sees only the fit
        small = pd.DataFrame({"x": np.arange(200.0) % 7, "c": ["a", "b"] * 100})
        _ours(classes, 0, [], {"max_iter": 2}).fit(small, np.arange(200) % 2)
    wall, used = time.perf_counter(), time.process_time()
    model.fit(x_train, y_train)
    wall, used = time.perf_counter() - wall, time.process_time() - used
    found: dict[str, Any] = {"method": method, "table": name, "split": number}
    found |= {"rows": len(y_train), "options": options}
    found |= {"wall": round(wall, 3), "seconds": round(used, 3)}
    start = time.process_time()
    if classes:
        p = np.clip(np.asarray(model.predict_proba(x_test), np.float64), 1e-7, 1.0)
        p /= p.sum(axis=1, keepdims=True)
        found["loss"] = float(-np.mean(np.log(p[np.arange(len(y_test)), y_test])))
        found["accuracy"] = float(np.mean(p.argmax(axis=1) == y_test))
    else:
        predicted = np.asarray(model.predict(x_test), np.float64).reshape(-1)
        found["loss"] = float(np.sqrt(np.mean((predicted - y_test) ** 2)))
    found["predict_seconds"] = round(time.process_time() - start, 3)
    if hasattr(model, "n_iter_") and method == "xpmlp":
        found["epochs"] = model.n_iter_
        found["held_out"] = [round(v, 5) for v in model.history_["ensemble_loss"]]
    return found


def page(results: Sequence[dict[str, Any]], figure: str = "loss") -> str:
    """A table of the means over the splits, the best of each column in bold."""
    tables = [*CLASSES, *NUMBERS]
    means: dict[str, dict[str, float]] = {}
    for method in METHODS:
        own = [r for r in results if r["method"] == method]
        means[method] = {
            name: float(np.mean([r[figure] for r in own if r["table"] == name]))
            for name in tables
            if any(r["table"] == name for r in own)
        }
    lines = [f"| | {' | '.join(tables)} |", f"|---|{'---|' * len(tables)}"]
    for method, own in means.items():
        if own:
            cells = [f"{own[name]:.4g}" if name in own else "" for name in tables]
            lines.append(f"| {NAMES[method]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("methods", nargs="*", default=[], help=f"among {', '.join(METHODS)}")
    parser.add_argument("--tables", default=",".join((*CLASSES, *NUMBERS)))
    parser.add_argument("--splits", default=",".join(map(str, SPLITS)))
    parser.add_argument("--rows", type=int, default=TRAIN_ROWS, help="to train on, at most")
    parser.add_argument("--options", default="{}", help="of the estimator, as JSON")
    parser.add_argument("--out", type=Path, default=Path("tables.jsonl"))
    parser.add_argument("--page", action="store_true", help="print tables of what --out holds")
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    for method in given.methods:
        if importlib.util.find_spec(METHODS[method][0]) is None:
            print(f"{method}: not installed")
            continue
        for name in given.tables.split(","):
            for number in map(int, given.splits.split(",")):
                row = measure(method, name, number, given.rows, json.loads(given.options))
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
    if given.page:
        results = [json.loads(line) for line in given.out.read_text(encoding="utf-8").splitlines()]
        print(page(results), page(results, "seconds"), sep="\n\n")


if __name__ == "__main__":
    main()
