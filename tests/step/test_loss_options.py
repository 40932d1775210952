"""Options of losses, with and without weights of rows: as in PyTorch, on every path of a step."""

from __future__ import annotations

import numpy as np
import pytest

from xpmlp import losses
from xpmlp.errors import DataError, ShapeError
from xpmlp.models import FullyConnectedNet
from xpmlp.optim import SGD
from xpmlp.step import Evaluation
from xpmlp.testing import gradcheck
from xpmlp.training import Trainer, TrainStep

torch = pytest.importorskip("torch")
F = torch.nn.functional

N, D, C = 12, 5, 3
CLASS_WEIGHTS, YES = [1.0, 2.0, 0.0], [0.5, 3.0, 0.0]
BY_CLASS = {"ignore_index": 1, "class_weights": CLASS_WEIGHTS}
OPTIONS = {
    "entropy": (losses.SoftmaxCrossEntropy, BY_CLASS | {"label_smoothing": 0.1}),
    "likelihood, ignored": (losses.NLL, {"ignore_index": -100}),
    "likelihood, a class ignored": (losses.NLL, {"ignore_index": 1}),
    "likelihood, weights": (losses.NLL, {"class_weights": CLASS_WEIGHTS}),
    "likelihood, both": (losses.NLL, BY_CLASS),
    "hinge": (losses.MulticlassHinge, BY_CLASS),
    "binary, ignored": (losses.BCEWithLogits, {"ignore_index": -1.0}),
    "binary, yes": (losses.BCEWithLogits, {"pos_weight": 2.5}),
    "binary, both": (losses.BCEWithLogits, {"pos_weight": YES, "ignore_index": -1.0}),
    "poisson": (losses.PoissonNLL, {}),
    "divergence": (losses.KLDivergence, {}),
}


def made(name, reduction="mean"):
    kind, options = OPTIONS[name]
    return kind(reduction=reduction, **options)


def batch(rng, name, dtype="float64", lead=()):
    """Inputs, targets of which some are ignored, and weights of which some are 0."""
    x, weight = rng.normal(size=(*lead, N, D)).astype(dtype), rng.integers(0, 4, N) * 0.5
    kind, options = OPTIONS[name]
    ignored = options.get("ignore_index")
    if kind in (losses.PoissonNLL, losses.KLDivergence):
        return x, rng.dirichlet([1.0] * C, (*lead, N)).astype(dtype), weight
    if kind is losses.BCEWithLogits:
        y = rng.integers(0, 5, (*lead, N, C)) / 4
    else:
        y = rng.integers(0, C, (*lead, N))
    if ignored is not None:
        y[..., ::4] = ignored
        if kind is losses.BCEWithLogits:
            y[..., 5, :] = ignored
    return x, y.astype(dtype) if kind is losses.BCEWithLogits else y, weight


def each_of(loss, z, y):
    """PyTorch's loss of each row or element, and what it counts for in a mean."""
    if isinstance(loss, losses.PoissonNLL):
        return F.poisson_nll_loss(z, y, reduction="none"), torch.ones_like(y)
    if isinstance(loss, losses.KLDivergence):
        return F.kl_div(z, y, reduction="none").sum(-1), torch.ones_like(y[:, 0])
    if isinstance(loss, losses.BCEWithLogits):
        kept = torch.ones_like(y) if loss.ignore_index is None else (y != loss.ignore_index) * 1.0
        p = None if loss.pos_weight is None else torch.tensor(loss.pos_weight, dtype=z.dtype)
        options = {"reduction": "none", "pos_weight": p}
        return F.binary_cross_entropy_with_logits(z, y * kept, weight=kept, **options), kept
    own = [1.0] * C if loss.class_weights is None else loss.class_weights
    own = torch.tensor(own, dtype=z.dtype)
    ignored = -100 if loss.ignore_index is None else loss.ignore_index
    kept = y != ignored
    known = torch.where(kept, y, 0)
    units = own[known] * kept
    if isinstance(loss, losses.MulticlassHinge):
        return C * F.multi_margin_loss(z, known, reduction="none") * units, units
    options = {"weight": own, "ignore_index": ignored, "reduction": "none"}
    if isinstance(loss, losses.NLL):
        return F.nll_loss(z, y, **options), units
    return F.cross_entropy(z, y, label_smoothing=loss.label_smoothing, **options), units


def torchs(loss, net, x, y, weight, lr):
    """The value of a step, and the parameters behind it."""
    arrays = [torch.tensor(net.state_dict()[name], requires_grad=True) for name in net.params]
    W, b = arrays
    each, units = each_of(loss, torch.tensor(x) @ W + b, torch.tensor(y))
    rows = torch.ones(N) if weight is None else torch.tensor(weight)
    rows = rows.to(W.dtype) if each.ndim == 1 else rows.to(W.dtype)[:, None]
    value = (rows * each).sum()
    if loss.reduction == "mean":
        value = value / (rows * units).sum()
    value.backward()
    return float(value.detach()), [(a - lr * a.grad).detach().numpy() for a in arrays]


def net(dtype="float64", population=None):
    options = {"seed": 1, "dtype": dtype, "population": population}
    return FullyConnectedNet([D, C], output="identity", **options)


cases = pytest.mark.parametrize("name", OPTIONS)
weighted = pytest.mark.parametrize("weighs", [False, True], ids=["alike", "weighted"])
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


@cases
@weighted
@reductions
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_is_pytorchs(rng, name, weighs, reduction, dtype):
    x, y, weight = batch(rng, name, dtype)
    data, loss = (x, y, weight) if weighs else (x, y), made(name, reduction)
    wanted, arrays = torchs(loss, net(dtype), x, y, weight if weighs else None, 0.1)
    rtol = 1e-5 if dtype == "float32" else 1e-12
    for by_layers in (False, True):
        step = TrainStep(net(dtype), made(name, reduction), SGD(0.1))
        assert step.explain(*data) == "compiled"
        value = (step.by_layers if by_layers else step)(*data)
        assert float(value) == pytest.approx(wanted, rel=rtol)
        for found, array in zip(step.model.params.values(), arrays, strict=True):
            np.testing.assert_allclose(found, array, rtol=10 * rtol, atol=rtol)


@cases
@weighted
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("each", [False, True], ids=["one weight", "own weights"])
def test_members_are_networks(rng, name, weighs, shared, each):
    x, y, weight = batch(rng, name, lead=() if shared else (2,))
    if each:
        weight = np.stack([weight, weight[::-1]])
    step = TrainStep(net(population=2), made(name), SGD(0.1))
    data = (x, y, weight) if weighs else (x, y)
    assert step.explain(*data) == "compiled"
    alone = [TrainStep(step.model.member(p), made(name), SGD(0.1)) for p in range(2)]
    values = step(*data)
    for p, one in enumerate(alone):
        own = [a if shared else a[p] for a in (x, y)]
        own += [weight[p] if each else weight] if weighs else []
        assert float(one.by_layers(*own)) == pytest.approx(float(values[p]), rel=1e-12)
        for key, array in one.model.params.items():
            np.testing.assert_allclose(step.model.params[key][p], array, rtol=1e-11, atol=1e-13)


@cases
@weighted
def test_every_library(library, rng, name, weighs):
    x, y, weight = batch(rng, name)
    wanted, arrays = torchs(made(name), net(), x, y, weight if weighs else None, 0.1)
    step = TrainStep(net(), made(name), SGD(0.1))
    data = [library.array(a) for a in ((x, y, weight) if weighs else (x, y))]
    assert float(step(*data)) == pytest.approx(wanted, rel=1e-11)
    for found, array in zip(step.model.state_dict().values(), arrays, strict=True):
        np.testing.assert_allclose(found, array, rtol=1e-10, atol=1e-12)


@cases
@reductions
def test_gradients(rng, name, reduction):
    _, y, weight = batch(rng, name)
    outputs, loss = rng.normal(size=(N, C)), made(name, reduction)
    assert gradcheck(loss, outputs, y) < 1e-7
    loss.weighted(outputs, y, weight)
    gradient, small = loss.backward().copy(), 1e-6
    for at in np.ndindex(N, C):
        sides = []
        for sign in (-1.0, 1.0):
            moved = outputs.copy()
            moved[at] += sign * small
            sides.append(float(loss.weighted(moved, y, weight)))
        assert gradient[at] == pytest.approx((sides[1] - sides[0]) / (2 * small), abs=1e-7)


@cases
@weighted
def test_evaluation(rng, name, weighs):
    x, y, weight = batch(rng, name)
    data, loss, model = (x, y, weight) if weighs else (x, y), made(name), net()
    assert Evaluation(model, loss).explain(x, y) == "compiled"
    wanted, _ = torchs(loss, model, x, y, weight if weighs else None, 0.0)
    assert float(Evaluation(model, loss).score(*data).value) == pytest.approx(wanted, rel=1e-12)


IGNORING = [name for name, (_, options) in OPTIONS.items() if "ignore_index" in options]


@pytest.mark.parametrize("name", IGNORING)
@weighted
@pytest.mark.parametrize("by_layers", [False, True])
def test_a_batch_without_answers_changes_nothing(rng, name, weighs, by_layers):
    x, y, weight = batch(rng, name)
    y[...] = OPTIONS[name][1]["ignore_index"]
    step = TrainStep(net(), made(name), SGD(0.1))
    before = step.model.state_dict()
    value = (step.by_layers if by_layers else step)(*((x, y, weight) if weighs else (x, y)))
    assert float(value) == 0.0
    for key, array in step.model.params.items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize("name", IGNORING)
@pytest.mark.parametrize("by_layers", [False, True])
@pytest.mark.parametrize("wrong", [7, -2, -101])
def test_a_wrong_target_beside_ignored_ones_is_refused(rng, name, by_layers, wrong):
    x, y, weight = batch(rng, name)
    step = TrainStep(net(), made(name), SGD(0.1))
    run = step.by_layers if by_layers else step
    for data in ((x, y), (x, y, weight)):
        run(*data)
        before, spoilt = step.model.state_dict(), y.copy()
        spoilt[2] = wrong
        with pytest.raises(DataError, match=r"row .*2"):
            run(x, spoilt, *data[2:])
        for key, array in step.model.params.items():
            np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize("by_layers", [False, True])
@pytest.mark.parametrize("name", ["likelihood, both", "hinge", "binary, both"])
@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
def test_weights_that_do_not_fit_are_refused(rng, name, by_layers, weights):
    x, y, _ = batch(rng, name)
    loss = made(name)
    setattr(loss, "pos_weight" if "binary" in name else "class_weights", weights)
    step = TrainStep(net(), loss, SGD(0.1))
    with pytest.raises(ShapeError, match=r"weights? of shape \(3,\)"):
        (step.by_layers if by_layers else step)(x, y)


@cases
@pytest.mark.parametrize("by_layers", [False, True])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_weights_of_rows_that_are_none_are_refused(rng, name, by_layers, wrong):
    x, y, weight = batch(rng, name)
    step = TrainStep(net(), made(name), SGD(0.1))
    run = step.by_layers if by_layers else step
    run(x, y, weight)
    before, weight[0] = step.model.state_dict(), wrong
    with pytest.raises(DataError, match="weights"):
        run(x, y, weight)
    run(x, y, 0.0 * np.ones(N))
    for key, array in step.model.params.items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize("name", IGNORING)
@pytest.mark.parametrize("by_layers", [False, True])
def test_an_ignored_answer_may_have_any_output(rng, name, by_layers):
    x, y, _ = batch(rng, name)
    if y.ndim == 2:
        y[4] = OPTIONS[name][1]["ignore_index"]
    x[4] = np.inf
    model, loss = net(), made(name)
    assert not np.isfinite(model.forward(x)[4]).any()
    if by_layers:
        value = loss.forward(model.forward(x), y)
        assert np.isfinite(loss.backward()).all()
    else:
        value = Evaluation(model, loss).score(x, y).value
    assert np.isfinite(value)


@pytest.mark.parametrize("name", ["likelihood, both", "hinge", "binary, both"])
def test_options_may_change_between_steps(rng, name):
    x, y, _ = batch(rng, name)
    y = abs(y)  # answers without options too
    step, other = (TrainStep(net(), OPTIONS[name][0](), SGD(0.1)) for _ in range(2))
    option = "pos_weight" if "binary" in name else "class_weights"
    for ignored, weights in (
        (None, None),
        (None, [1.0, 1.0, 4.0]),
        (1, None),
        (2, [1.0, 3.0, 0.5]),
    ):
        for each in (step, other):
            setattr(each.loss, option, weights)
            each.loss.ignore_index = ignored
        assert float(step(x, y)) == pytest.approx(float(other.by_layers(x, y)), rel=1e-12)


@pytest.mark.parametrize("name", ["likelihood, both", "hinge", "binary, both"])
def test_a_trainer_with_weights_runs_compiled(rng, name, monkeypatch):
    x, y, weight = batch(rng, name)
    monkeypatch.setattr(TrainStep, "by_layers", lambda *_: pytest.fail("ran layer by layer"))
    options = {"epochs": 2, "batch_size": 5, "progress": False, "seed": 0}
    history = Trainer(net(), made(name), SGD(0.1), **options).fit(x, y, sample_weight=weight)
    assert np.isfinite(history["train_loss"]).all()
