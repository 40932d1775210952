"""Every option of layers, losses, optimizers, schedules and penalties says what it may be."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from xpmlp import layers, losses, ops, optim, penalties, schedules
from xpmlp.errors import ConfigError, XpmlpError
from xpmlp.layers.masked import Mask, MaskedLayerNorm, MaskedRMSNorm
from xpmlp.models import FullyConnectedNet
from xpmlp.options import Number

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = ("abc", "", "0.5", [None], {}, 1j, True, NAN, INF, np.datetime64("2020-01-01"))

OPTIONS = [  # owner, option, one value that is right, those that are out of range
    *((make, "lr", 0.1, (-1.0,)) for make in optim.OPTIMIZERS.values()),
    *((make, "weight_decay", 0.1, (-1.0,)) for make in optim.OPTIMIZERS.values()),
    (optim.SGD, "momentum", 0.5, (1.0, -0.1)),
    (optim.RMSProp, "decay", 0.0, (1.0, -0.1)),
    (optim.RMSProp, "eps", 1e-8, (-1.0, 0.0, 1e-50)),
    (optim.AdaGrad, "eps", 1e-8, (-1.0, 0.0, 1e-50)),
    *((make, "eps", 1e-8, (-1.0, 0.0, 1e-50)) for make in (optim.Adam, optim.AdamW, optim.Muon)),
    *((make, "beta1", 0.0, (1.0, -0.1)) for make in (optim.Adam, optim.AdamW, optim.Muon)),
    *((make, "beta2", 0.0, (1.0, -0.1)) for make in (optim.Adam, optim.AdamW, optim.Muon)),
    (optim.Muon, "momentum", 0.5, (1.0, -0.1)),
    (optim.Muon, "newton_schulz_steps", 3, (0, 2.5)),
    (optim.Muon, "adam_lr", 0.1, (-1.0, [0.1, 0.2])),
    (losses.SoftmaxCrossEntropy, "label_smoothing", 0.1, (-0.1, 1.1)),
    (losses.SoftmaxCrossEntropy, "z_loss", 0.1, (-0.1, [0.1])),
    (losses.SoftmaxCrossEntropy, "ignore_index", -100, (2.5,)),
    (losses.SoftmaxCrossEntropy, "class_weights", [1, 0, 2], ([1.0, -1.0], [0.0, 0.0], 2.0, [])),
    (losses.Huber, "delta", 2.0, (0.0, -1.0)),
    (losses.MulticlassHinge, "margin", 2.0, ([1.0],)),
    *((make, "strength", 0.1, (-1.0,)) for make in (penalties.L1, penalties.L2, penalties.L2Norm)),
    (layers.LeakyReLU, "slope", 0.1, ([0.1],)),
    (layers.ELU, "alpha", 0.1, ([0.1],)),
    (layers.Log, "eps", 0.1, (-0.1,)),
    (layers.Softmax, "axis", -2, (0.5,)),
    (layers.LogSoftmax, "axis", -2, (0.5,)),
    (layers.Flatten, "axes", 2, (0, 1.5)),
    (layers.Dropout, "p", 0.0, (1.0, -0.1)),
    *(
        (lambda make=make, **options: make(3, **options), "eps", 0.0, (-1.0, [0.1]))
        for make in (layers.BatchNorm, layers.LayerNorm, layers.RMSNorm)
    ),
    (lambda **options: layers.BatchNorm(3, **options), "keep", 0.0, (1.5, -0.1, 5)),
    *((layers.BatchNorm, "features", 3, (0, -1, 2.5)), (layers.RMSNorm, "features", 3, (0, 2.5))),
    (schedules.Step, "every", 3, (0, 2.5)),
    (schedules.Step, "factor", 0.5, (-1.0,)),
    (schedules.Exponential, "final", 0.5, (-1.0,)),
    (schedules.Cosine, "final", 0.5, (-1.0,)),
    (schedules.WarmUp, "steps", 5, (-1, 2.5)),
    *((schedules.OneCycle, name, 0.5, (-1.0,)) for name in ("rise", "initial", "final")),
    *((make, "total", 5, (0, 2.5)) for make in (schedules.Constant, schedules.Cosine)),
]
IDS = [f"{getattr(make, '__name__', 'layer')}-{name}" for make, name, *_ in OPTIONS]


@pytest.mark.parametrize(("make", "name", "right", "wrong"), OPTIONS, ids=IDS)
def test_what_is_out_of_range_or_no_number_is_refused(make, name, right, wrong):
    made = make(**{name: right})
    for value in (*wrong, *NO_NUMBERS):
        with pytest.raises(ConfigError, match=name):
            make(**{name: value})
        if not isinstance(made, schedules.Schedule):  # frozen
            with pytest.raises(ConfigError, match=name):
                setattr(made, name, value)
    kept = getattr(made, name)
    assert np.all(kept == np.asarray(right)), "a refused value has changed nothing"


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.WarmUp(then="abc"),
        lambda: optim.SGD(schedule="abc"),
        lambda: setattr(optim.SGD(), "schedule", 0.5),
        lambda: FullyConnectedNet([3, 4, 2], dropout=""),
        lambda: FullyConnectedNet([3, 4, 2], dropout=[None]),
        lambda: FullyConnectedNet([3, 4, 2], batchnorm="abc"),
        lambda: FullyConnectedNet([3, 4, 2], init=NAN),
        lambda: FullyConnectedNet([3, 4, 2], dtype="int32"),
        lambda: layers.Linear(3, 2, dtype="complex64"),
        lambda: layers.LayerNorm(3, dtype="int64"),
        lambda: layers.BatchNorm(3, population=0),
        lambda: Mask(3, [1.5, 2]),
        lambda: optim.clip_by_global_norm({"W": np.ones(3)}, "1"),
    ],
)
def test_other_impossible_options_are_refused(make):
    with pytest.raises(XpmlpError, match="expected"):
        make()


def test_momentum_needs_room_from_the_start():
    optimizer = optim.SGD(0.1)
    optimizer.momentum = 0.9
    with pytest.raises(ConfigError, match="expected momentum to stay 0"):
        optimizer.update({"W": np.ones((2, 2))}, {"W": np.ones((2, 2))})


def test_what_is_kept_is_a_copy_and_can_be_copied_and_pickled():
    rates = np.array([0.1, 0.2])
    optimizer = optim.Adam(rates)
    rates[:] = 9.0
    for one in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert one.lr.tolist() == [0.1, 0.2] and one.beta1 == 0.9
    weights = losses.SoftmaxCrossEntropy(class_weights=(1, 2)).class_weights
    assert weights is not None and weights.dtype == np.float64
    assert MaskedLayerNorm(4, [2, 3]).eps == 1e-5 and MaskedRMSNorm(4, [2, 3]).eps == 1e-6


def test_a_message_says_where_what_came_and_what_is_wanted():
    with pytest.raises(ConfigError) as caught:
        optim.Adam(beta2=[0.9, 1.5])
    assert str(caught.value) == (
        "`Adam`: expected beta2 in [0, 1), one number or one for each member, got [0.9, 1.5]"
    )
    with pytest.raises(ConfigError, match="`x`: expected size to be an integer ≥ 1, got 0"):
        Number("[1, inf)", whole=True).check("x", "size", 0)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_is_no_number_of_the_members():
    """Its products are those of matrices, whatever it is multiplied by."""
    rate, w = np.matrix([[0.1]]), np.ones((4, 4))
    with pytest.raises(ConfigError, match=r"`x`: expected rate .* got matrix"):
        Number(each_member=True).check("x", "rate", rate)
    with pytest.raises(ConfigError, match=r"`sgd_update`: expected lr .* got matrix"):
        ops.sgd_update(w, w, lr=rate)
