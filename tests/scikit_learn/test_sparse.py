"""Sparse inputs: the same as dense ones, and never dense as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from xpmlp.data import Batches, Normalization
from xpmlp.errors import DataError, DTypeError
from xpmlp.models import FullyConnectedNet
from xpmlp.sklearn import MLPClassifier, MLPRegressor
from xpmlp.sklearn.scaling import Moments
from xpmlp.training import PopulationTrainer, Trainer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ROWS = sparse.random(90, 40, density=0.1, random_state=1, format="csr")
DENSE = ROWS.toarray()
LABELS = (DENSE.sum(axis=1) > np.median(DENSE.sum(axis=1))).astype(int)
FORMATS = [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.coo_array]


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"early_stopping": True}])
def test_equal_to_dense(make, kind, options):
    given = {"hidden_layer_sizes": (6,), "max_iter": 6, "random_state": 0} | options
    dense, thin = kind(**given).fit(DENSE, LABELS), kind(**given).fit(make(ROWS), LABELS)
    np.testing.assert_allclose(thin.predict(make(ROWS)), dense.predict(DENSE), rtol=1e-9)
    np.testing.assert_allclose(thin.predict(DENSE), dense.predict(DENSE), rtol=1e-9)
    assert thin.score(make(ROWS), LABELS) == pytest.approx(dense.score(DENSE, LABELS))
    weight = np.arange(90.0)
    dense, thin = (kind(**given).fit(x, LABELS, weight) for x in (DENSE, make(ROWS)))
    np.testing.assert_allclose(thin.predict(make(ROWS)), dense.predict(DENSE), rtol=1e-8)


def test_partial_fit():
    dense, thin = (MLPClassifier((5,), random_state=0) for _ in range(2))
    for begin in range(0, 90, 30):
        part = slice(begin, begin + 30)
        dense.partial_fit(DENSE[part], LABELS[part], classes=[0, 1])
        thin.partial_fit(ROWS[part], LABELS[part], classes=[0, 1])
    np.testing.assert_allclose(thin.predict_proba(ROWS), dense.predict_proba(DENSE), rtol=1e-9)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_whole_matrix_is_never_dense(monkeypatch, solver):
    x = sparse.random(5000, 300, density=0.01, random_state=0, format="csr")
    y = np.asarray(x.sum(axis=1)).ravel() > 1.5
    largest, toarray = [0], sparse.csr_matrix.toarray

    def watched(self, *arguments, **options):
        largest[0] = max(largest[0], self.shape[0])
        return toarray(self, *arguments, **options)

    monkeypatch.setattr(sparse.csr_matrix, "toarray", watched)
    model = MLPClassifier((4,), solver=solver, max_iter=3, random_state=0).fit(x, y)
    model.predict_proba(x)
    assert 0 < largest[0] <= 1024


def test_moments():
    weight = np.arange(90.0)
    for own in (None, weight):
        dense, thin = Moments.of(DENSE, own), Moments.of(ROWS, own)
        for name in ("count", "mean", "variance", "largest"):
            np.testing.assert_allclose(getattr(thin, name), getattr(dense, name), atol=1e-15)


def test_batches_on_every_library(library):
    norm = Normalization.fit(DENSE)
    options = {"batch_size": 16, "seed": 3, "normalization": norm, "dtype": "float32"}
    thin, dense = Batches(ROWS, LABELS, **options), Batches(DENSE, LABELS, **options)
    for (x, y), (expected, targets) in zip(thin.epoch(2), dense.epoch(2), strict=True):
        np.testing.assert_allclose(library.numpy(x), library.numpy(expected), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(library.numpy(y), library.numpy(targets))


@pytest.mark.parametrize("sampling", ["shared", "own"])
def test_trainers(sampling):
    nets = [FullyConnectedNet([40, 5, 2], population=2, dtype="float64") for _ in range(2)]
    for net, x in zip(nets, (DENSE, ROWS), strict=True):
        trainer = PopulationTrainer(net, epochs=2, sampling=sampling, progress=False)
        trainer.fit(x, LABELS, (x, LABELS))
        trainer.evaluate_members(x, LABELS, [np.arange(20), np.arange(50)])
    for name, array in nets[0].params.items():
        np.testing.assert_allclose(nets[1].params[name], array, rtol=1e-9, atol=1e-12)
    single = Trainer(nets[0].member(0), epochs=1, progress=False)
    assert single.evaluate(ROWS, LABELS) == pytest.approx(single.evaluate(DENSE, LABELS))


def test_what_cannot_be_trained_on_is_refused():
    bad = ROWS.copy()
    bad.data[3] = np.nan
    with pytest.raises(DataError, match="finite"):
        Batches(bad, LABELS, batch_size=8)
    with pytest.raises(ValueError, match="NaN"):
        MLPClassifier().fit(bad, LABELS)
    with pytest.raises(DTypeError, match="real numbers"):
        Batches(ROWS.astype(complex), LABELS, batch_size=8)
