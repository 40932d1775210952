"""The loss that all classifiers use: every option, against torch and finite differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from checks import assert_result, layouts, torch_or_skip, unchanged
from tolerances import tolerance

from xpmlp import ops
from xpmlp.errors import BackendError, ConfigError, DTypeError, ShapeError
from xpmlp.testing import gradcheck_function

N, C = 6, 5
INDEX_OPTIONS = list(
    itertools.product((0.0, 0.1), (None, -100, 2), (False, True), ("mean", "sum", "none"))
)
PROBABILITY_OPTIONS = list(
    itertools.product((0.0, 0.1), (None,), (False, True), ("mean", "sum", "none"))
)
# Each pair of values of any two options occurs at least once.
PAIRWISE = [
    ("index", 0.0, None, False, "mean", 0.0),
    ("index", 0.1, -100, True, "mean", 1e-2),
    ("index", 0.0, 2, True, "sum", 0.0),
    ("index", 0.1, None, False, "sum", 1e-2),
    ("index", 0.0, -100, False, "none", 1e-2),
    ("index", 0.1, 2, False, "none", 0.0),
    ("index", 0.1, 2, True, "mean", 1e-2),
    ("index", 0.0, None, True, "none", 0.0),
    ("index", 0.1, -100, False, "sum", 0.0),
    ("probabilities", 0.0, None, True, "mean", 1e-2),
    ("probabilities", 0.1, None, False, "mean", 0.0),
    ("probabilities", 0.1, None, True, "sum", 0.0),
    ("probabilities", 0.0, None, False, "sum", 1e-2),
    ("probabilities", 0.1, None, True, "none", 1e-2),
]


def problem(rng, kind, ignore_index=None, dtype="float64"):
    """Logits, targets and class weights; some rows ignored if an index is."""
    logits = rng.normal(scale=3, size=(N, C)).astype(dtype)
    weights = rng.uniform(0.2, 2, size=C).astype(dtype)
    if kind == "probabilities":
        return logits, rng.dirichlet(np.ones(C), size=N).astype(dtype), weights
    targets = np.array([0, 2, 4, 1, 2, 3])
    if ignore_index == -100:
        targets[[1, 4]] = -100
    return logits, targets, weights


def by_torch(logits, targets, weights, smoothing, ignore_index, reduction):
    """Value and gradient in float64; torch counts a sum's gradient for "none"."""
    torch = torch_or_skip()
    t = torch.tensor(logits.astype(np.float64), requires_grad=True)
    goal = torch.tensor(targets if targets.ndim == 1 else targets.astype(np.float64))
    loss = torch.nn.functional.cross_entropy(
        t,
        goal,
        weight=None if weights is None else torch.tensor(weights.astype(np.float64)),
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    loss.sum().backward()
    return loss.detach().numpy(), t.grad.numpy()


@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_every_combination_equals_torch(rng, kind):
    options = INDEX_OPTIONS if kind == "index" else PROBABILITY_OPTIONS
    for smoothing, ignore_index, weighted, reduction in options:
        logits, targets, weights = problem(rng, kind, ignore_index)
        weights = weights if weighted else None
        actual = ops.softmax_cross_entropy(
            logits,
            targets,
            label_smoothing=smoothing,
            ignore_index=ignore_index,
            class_weights=weights,
            reduction=reduction,
        )
        expected = by_torch(logits, targets, weights, smoothing, ignore_index, reduction)
        for a, e, what in zip(actual, expected, ("loss", "dlogits"), strict=True):
            message = f"{what}: {smoothing=} {ignore_index=} {weighted=} {reduction=}"
            np.testing.assert_allclose(a, e, rtol=1e-13, atol=1e-14, err_msg=message)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", PAIRWISE, ids=range(len(PAIRWISE)))
def test_values_on_every_library(library, rng, case, dtype):
    kind, smoothing, ignore_index, weighted, reduction, z = case
    logits, targets, weights = problem(rng, kind, ignore_index, dtype)
    a, t, w = library.array(logits), library.array(targets), library.array(weights)
    with unchanged(a, t, w):
        loss, dlogits = ops.softmax_cross_entropy(
            a,
            t,
            label_smoothing=smoothing,
            ignore_index=ignore_index,
            class_weights=w if weighted else None,
            z_loss=z,
            reduction=reduction,
        )
    expected, gradient = by_formula(
        logits, targets, weights if weighted else np.ones(C), smoothing, ignore_index, z, reduction
    )
    assert_result(library, loss, expected, "reduction", dtype)
    assert_result(library, dlogits, gradient, "reduction", dtype)


def by_formula(logits, targets, weights, smoothing, ignore_index, z, reduction):
    """The docstring's formula, written out row by row in float64."""
    logits, weights = logits.astype(np.float64), weights.astype(np.float64)
    losses, gradients, row_weights = [], [], []
    for row, target in zip(logits, targets, strict=True):
        q = np.eye(C)[target] if targets.ndim == 1 and 0 <= target < C else target
        if targets.ndim == 1 and target == ignore_index:
            q = None
        if q is None:
            losses.append(0.0), gradients.append(np.zeros(C)), row_weights.append(0.0)
            continue
        lse = math.log(sum(math.exp(v) for v in row))
        p = np.exp(row - lse)
        row_weights.append(float((weights * q).sum()) if targets.ndim == 1 else 1.0)
        q = weights * ((1 - smoothing) * q + smoothing / C)
        losses.append(float((q * (lse - row)).sum()) + z * lse**2)
        gradients.append(p * q.sum() - q + 2 * z * lse * p)
    losses, gradients = np.array(losses), np.array(gradients)
    if reduction == "mean":
        return losses.sum() / sum(row_weights), gradients / sum(row_weights)
    return (losses.sum() if reduction == "sum" else losses), gradients


@pytest.mark.parametrize("case", PAIRWISE, ids=range(len(PAIRWISE)))
def test_gradient_is_the_derivative(library, rng, case):
    kind, smoothing, ignore_index, weighted, reduction, z = case
    logits, targets, weights = problem(rng, kind, ignore_index)
    t, w = library.array(targets), library.array(weights)

    def both(logits):
        return ops.softmax_cross_entropy(
            logits,
            t,
            label_smoothing=smoothing,
            ignore_index=ignore_index,
            class_weights=w if weighted else None,
            z_loss=z,
            reduction=reduction,
        )

    def gradients(dy, logits):
        # Rows do not mix, so for "none" a row's weight in the sum scales its gradient.
        return [both(logits)[1] * (dy[:, None] if reduction == "none" else dy)]

    gradcheck_function(lambda x: both(x)[0], gradients, library.array(logits))


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_population_equals_separate_problems(library, rng, kind, shared):
    P = 3
    logits = rng.normal(scale=3, size=(P, N, C))
    smoothing = np.array([0.0, 0.1, 0.3])
    weights = rng.uniform(0.2, 2, size=C)
    size = (N,) if shared else (P, N)
    targets = (
        rng.integers(0, C, size=size) if kind == "index" else rng.dirichlet(np.ones(C), size=size)
    )
    ignore_index = 2 if kind == "index" else None
    loss, dlogits = ops.softmax_cross_entropy(
        library.array(logits),
        library.array(targets),
        label_smoothing=library.array(smoothing),
        class_weights=library.array(weights),
        ignore_index=ignore_index,
        z_loss=1e-2,
    )
    assert tuple(loss.shape) == (P,)
    for p in range(P):
        expected, gradient = ops.softmax_cross_entropy(
            logits[p],
            targets if shared else targets[p],
            label_smoothing=float(smoothing[p]),
            class_weights=weights,
            ignore_index=ignore_index,
            z_loss=1e-2,
        )
        np.testing.assert_allclose(library.numpy(loss)[p], expected, rtol=1e-13)
        np.testing.assert_allclose(library.numpy(dlogits)[p], gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_extreme_logits_stay_finite(library, dtype):
    inf = math.inf
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, -1e4], [-inf, 2, -inf], [0, 0, 0]], dtype)
    loss, dlogits = ops.softmax_cross_entropy(
        library.array(logits), library.array([1, 1, 1, 1]), reduction="none"
    )
    gradient = [[1, -1, 0], [0, 0, 0], [0, 0, 0], [1 / 3, -2 / 3, 1 / 3]]
    assert_result(library, loss, [2e4, 0, 0, math.log(3)], "reduction", dtype)
    assert_result(library, dlogits, gradient, "reduction", dtype)


def test_confident_rows_keep_their_digits(library):
    loss, _ = ops.softmax_cross_entropy(library.array([[30.0, 0.0]]), library.array([0]))
    assert float(library.numpy(loss)) == pytest.approx(math.log1p(math.exp(-30)), rel=1e-2)


def test_an_impossible_target_costs_infinity_not_nan(library):
    logits = library.array([[-math.inf, 0.0]])
    loss, dlogits = ops.softmax_cross_entropy(logits, library.array([0]))
    assert library.numpy(loss) == math.inf
    assert library.numpy(dlogits).tolist() == [[-1, 1]]


def test_one_class_costs_nothing(library):
    loss, dlogits = ops.softmax_cross_entropy(library.array([[3.0], [-7.0]]), library.array([0, 0]))
    assert library.numpy(loss) == 0
    np.testing.assert_array_equal(library.numpy(dlogits), 0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_all_labels_ignored_gives_zero(library, rng, reduction):
    loss, dlogits = ops.softmax_cross_entropy(
        library.array(rng.normal(size=(N, C))),
        library.array(np.full(N, -1)),
        ignore_index=-1,
        class_weights=library.array(np.ones(C)),
        label_smoothing=0.1,
        z_loss=0.1,
        reduction=reduction,
    )
    np.testing.assert_array_equal(library.numpy(loss), 0)
    np.testing.assert_array_equal(library.numpy(dlogits), 0)


def test_nan_logits_are_not_hidden(library):
    loss, _ = ops.softmax_cross_entropy(library.array([[math.nan, 1.0]]), library.array([1]))
    assert np.isnan(library.numpy(loss))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
def test_targets_of_any_integer_dtype(library, dtype):
    """More classes than a byte can count, and an ignored number that a byte cannot hold."""
    logits = np.zeros((2, 300))
    logits[:, 259] = 5.0  # 259 = 3 + 256, which a byte would take for 3
    targets = np.array([3, 100], dtype)
    loss, dlogits = ops.softmax_cross_entropy(
        library.array(logits), library.array(targets), ignore_index=-1000, reduction="none"
    )
    lse = math.log(299 + math.exp(5))
    np.testing.assert_allclose(library.numpy(loss), lse, rtol=1e-13)
    np.testing.assert_allclose(library.numpy(dlogits)[0, 259], math.exp(5 - lse), rtol=1e-13)


def test_any_layout(library, rng):
    logits, targets, _ = problem(rng, "index")
    expected, gradient = ops.softmax_cross_entropy(logits, targets)
    for x in layouts(library, logits).values():
        loss, dlogits = ops.softmax_cross_entropy(x, library.array(targets))
        assert_result(library, loss, expected, "reduction", "float64")
        assert_result(library, dlogits, gradient, "reduction", "float64")


def test_half_precision_accumulates_wider(rng):
    logits = np.zeros((1, 100_000), np.float16)  # whose sum of ones is beyond float16
    loss, dlogits = ops.softmax_cross_entropy(logits, np.array([7]))
    assert loss.dtype == dlogits.dtype == np.float16
    np.testing.assert_allclose(loss, math.log(100_000), **tolerance("reduction", "float16"))
    assert dlogits[0, 7] == -1


def test_numpy_scalars_do_not_widen(rng):
    logits, targets, _ = problem(rng, "index", dtype="float32")
    small = np.float64(0.1)
    loss, dlogits = ops.softmax_cross_entropy(logits, targets, label_smoothing=small, z_loss=small)
    assert loss.dtype == dlogits.dtype == np.float32


BAD = {
    "ints": (np.zeros((2, 3), int), [0, 1], {}, DTypeError, "floating"),
    "1-d": (np.zeros(3), [0], {}, ShapeError, r"x\[None, :\]"),
    "rows": (np.zeros((2, 3)), [0], {}, ShapeError, r"\(2,\) \(class numbers\)"),
    "a column": (np.zeros((2, 3)), [[0], [1]], {}, ShapeError, "flatten them"),
    "floats": (np.zeros((2, 3)), [0.0, 1.0], {}, ShapeError, "must be integers"),
    "bools": (np.zeros((2, 3)), [True, False], {}, DTypeError, "bool"),
    "onehot": (np.zeros((2, 3)), np.eye(3)[:2, :2], {}, ShapeError, "probabilities"),
    "empty": (np.zeros((0, 3)), np.zeros(0, int), {}, ShapeError, "at least one row"),
    "classless": (np.zeros((2, 0)), [0, 1], {}, ShapeError, "one class"),
    "weights": (np.zeros((2, 3)), [0, 1], {"class_weights": np.ones(2)}, ShapeError, r"\(3,\)"),
    "reduction": (np.zeros((2, 3)), [0, 1], {"reduction": "avg"}, ConfigError, "mean, sum, none"),
    "ignore": (np.zeros((2, 2)), np.eye(2), {"ignore_index": 1}, DTypeError, "ignore_index"),
    "smoothing": (np.zeros((2, 3)), [0, 1], {"label_smoothing": 1.5}, ConfigError, r"\[0, 1\]"),
    "nan": (np.zeros((2, 3)), [0, 1], {"label_smoothing": math.nan}, ConfigError, r"\[0, 1\]"),
    "list": (np.zeros((2, 3)), [0, 1], {"label_smoothing": [0.1]}, ConfigError, "array"),
    "members": (
        np.zeros((2, 2, 3)),
        [0, 1],
        {"label_smoothing": np.zeros(3)},
        ShapeError,
        "one number for each problem",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_clear_error(case):
    logits, targets, options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        ops.softmax_cross_entropy(logits, np.asarray(targets), **options)


def test_mixed_libraries_are_refused():
    torch = torch_or_skip()
    logits, targets = np.zeros((2, 3)), np.array([0, 1])
    for bad in (
        {"targets": torch.tensor([0, 1])},
        {"class_weights": torch.ones(3)},
        {"label_smoothing": torch.tensor(0.1)},
    ):
        with pytest.raises(BackendError, match=r"numpy.*torch"):
            ops.softmax_cross_entropy(logits, **{"targets": targets, **bad})
