"""The words that options may be stand once: those of the types are those that there is code for."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from xpmlp import choices, initializers, schedules
from xpmlp.layers import BatchNorm, Linear
from xpmlp.layers.activations import ACTIVATIONS
from xpmlp.layers.normalization import CONVENTIONS
from xpmlp.losses import SoftmaxCrossEntropy
from xpmlp.models.fully_connected import NORMALIZATIONS
from xpmlp.ops.activations import FUSABLE
from xpmlp.optim import OPTIMIZERS


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (choices.ActivationName, ACTIVATIONS),
        (choices.FusableName, FUSABLE),
        (choices.NormalizationName, NORMALIZATIONS),
        (choices.Convention, CONVENTIONS),
        (choices.OptimizerName, OPTIMIZERS),
        (choices.ScheduleName, schedules.BY_NAME),
        (choices.InitializerName, initializers._BY_NAME),
        (choices.BiasInitializerName, initializers._BIASES_BY_NAME),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(get_args(value)[1]),
)
def test_words_of_types_are_those_of_the_tables(words, known):
    assert get_args(words) == tuple(known)


def test_types_of_options_can_be_read():
    assert get_args(get_type_hints(SoftmaxCrossEntropy.__init__)["reduction"])[0] == "mean"
    assert "torch" in get_args(get_type_hints(BatchNorm.__init__)["convention"])
    assert "float64" in get_args(get_type_hints(Linear.__init__)["dtype"])
