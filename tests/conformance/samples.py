"""What PyTorch tests its own modules with, and how each module is written here.

``torch.testing``'s ``module_db`` lists for each module constructor arguments, inputs and targets.
:data:`LAYERS` and :data:`LOSSES` turn a module into ours; ``None`` is for what we do not have, such
as a layer norm over several axes. Names are sorted and drawn with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="torch's samples need it: pip install expecttest")

from torch import nn  # noqa: E402
from torch.testing._internal.common_modules import module_db  # noqa: E402

from xpmlp import layers, losses  # noqa: E402
from xpmlp.errors import ConfigError  # noqa: E402
from xpmlp.torch_modules import from_torch  # noqa: E402
from xpmlp.torch_modules.twins import twins  # noqa: E402


@dataclass
class Sample:
    """One module of torch's, its arguments, and what makes ours of it.

    Attributes
    ----------
    name : str
    make : callable
        A new module of torch's in double precision.
    inputs : tuple of tensors
    ours : callable
        Of the module: our layer or loss, or None.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    ours: Callable[[nn.Module], Any]


def _layer(module: nn.Module) -> layers.Layer | None:
    """None for options that we do not have."""
    try:
        return from_torch(module)
    except ConfigError:
        return None


LAYERS: dict[type, Callable[[Any], layers.Layer | None]] = {
    twin.module: _layer for twin in twins(nn)
}


def _cross_entropy(module: nn.CrossEntropyLoss) -> losses.Loss:
    if module.weight is not None:
        module.weight = module.weight.abs()  # torch draws negative ones too, which we refuse
    return losses.SoftmaxCrossEntropy(
        label_smoothing=module.label_smoothing,
        ignore_index=None if module.ignore_index == -100 else module.ignore_index,
        class_weights=None if module.weight is None else module.weight.tolist(),
        reduction=module.reduction,
    )


def _plain(loss: Callable[..., losses.Loss], *unsupported: str) -> Callable:
    def ours(module: nn.Module) -> losses.Loss | None:
        if any(getattr(module, name) is not None for name in unsupported):
            return None
        return loss(reduction=module.reduction)

    return ours


def _hinge(module: nn.MultiMarginLoss) -> losses.Loss | None:
    # torch divides by the number of classes; the test does too.
    if module.p != 1 or module.weight is not None:
        return None
    return losses.MulticlassHinge(module.margin, reduction=module.reduction)


def _nll(module: nn.NLLLoss) -> losses.Loss | None:
    if module.weight is not None:
        module.weight = module.weight.abs()  # torch draws negative ones too, which we refuse
    return losses.NLL(
        module.reduction,
        ignore_index=None if module.ignore_index == -100 else module.ignore_index,
        class_weights=None if module.weight is None else module.weight.tolist(),
    )


def _bce(module: nn.BCEWithLogitsLoss) -> losses.Loss | None:
    if module.weight is not None:
        return None
    own = module.pos_weight
    return losses.BCEWithLogits(module.reduction, pos_weight=None if own is None else own.tolist())


def _divergence(module: nn.KLDivLoss) -> losses.Loss | None:
    # A mean over rows is "batchmean" there; its "mean" is over elements.
    if module.log_target or module.reduction not in ("batchmean", "sum"):
        return None
    return losses.KLDivergence("mean" if module.reduction == "batchmean" else "sum")


def _poisson(module: nn.PoissonNLLLoss) -> losses.Loss | None:
    if not module.log_input or module.full:
        return None
    return losses.PoissonNLL(reduction=module.reduction)


LOSSES: dict[type, Callable[[Any], losses.Loss | None]] = {
    nn.CrossEntropyLoss: _cross_entropy,
    nn.NLLLoss: _nll,
    nn.MSELoss: _plain(losses.MSE),
    nn.L1Loss: _plain(losses.MAE),
    nn.HuberLoss: lambda m: losses.Huber(m.delta, reduction=m.reduction),
    nn.PoissonNLLLoss: _poisson,
    nn.BCEWithLogitsLoss: _bce,
    nn.KLDivLoss: _divergence,
    nn.MultiMarginLoss: _hinge,
}

# Ours without a module of torch's that does the same; each has tests of its own.
WITHOUT_COUNTERPART = {
    "layers": {
        *("Matmul", "Log", "Flatten", "Unflatten", "Dropout", "Residual", "Sequential"),
        "EmbedColumns",  # Embedding beside numbers that stay
        "PiecewiseLinear",
        "Periodic",
        "SwiGLU",  # whose formula tests/layers/test_gated.py compares
        "SharedLinear",
        "PReLU2D",  # with convolutions before it in tests/test_torch_modules.py
    },
    "losses": {"HalfSSE"},
}


def samples(table: dict[type, Callable[[Any], Any]]) -> Iterator[Sample]:
    """All that torch has for the modules of a table."""
    for info in sorted(module_db, key=lambda info: info.name):
        ours = table.get(info.module_cls)
        if ours is None:
            continue
        torch.manual_seed(0)
        inputs = info.module_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=False, training=True
        )
        for number, given in enumerate(inputs):
            if given.forward_input is None:
                continue
            args, options = given.constructor_input.args, given.constructor_input.kwargs

            def make(cls=info.module_cls, args=args, options=options) -> nn.Module:
                torch.manual_seed(1)
                return cls(*args, **options).double()

            name = f"{info.name.removeprefix('nn.')}-{number} {given.desc}".strip()
            forward = given.forward_input
            tensors = (*forward.args, *forward.kwargs.values())
            if info.module_cls is nn.KLDivLoss:  # torch's are logarithms of negative numbers too
                tensors = tuple(torch.softmax(torch.nan_to_num(one), -1) for one in tensors)
            yield Sample(name, make, tensors, ours)
