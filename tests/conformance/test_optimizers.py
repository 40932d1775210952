"""Every optimizer against PyTorch's over a run of steps, with all options both have, on every path.

Gradients fall by ten powers of ten from one step to the next, and are 0 at last: a running mean
that loses its digits there divides by nothing.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conformance.paths import PATHS, on  # noqa: E402

import xpmlp  # noqa: E402
from xpmlp import optim  # noqa: E402

SCALES = (1.0, 0.5, 1e3, 1e-7, 1e-7, 2.0, 0.1, 1e3, 0.0)


ADAMS = (
    (optim.Adam, "Adam", {}),
    (optim.AdamW, "AdamW", {}),
    (optim.AMSGrad, "Adam", {"amsgrad": True}),
    (optim.NAdam, "NAdam", {}),
    (optim.RAdam, "RAdam", {}),
    (optim.Adamax, "Adamax", {}),
)


def cases():
    """Names, our optimizer and torch's for the same options."""
    for decay in (0.0, 0.3):
        for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
            yield (
                optim.SGD(0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay),
                lambda p, m=momentum, n=nesterov, d=decay: torch.optim.SGD(
                    p, 0.1, momentum=m, nesterov=n, weight_decay=d
                ),
            )
        yield (
            optim.AdaGrad(0.1, eps=1e-6, weight_decay=decay),
            lambda p, d=decay: torch.optim.Adagrad(p, 0.1, eps=1e-6, weight_decay=d),
        )
        for kept in (0.0, 0.5, 0.99):
            yield (
                optim.RMSProp(0.1, decay=kept, weight_decay=decay),
                lambda p, a=kept, d=decay: torch.optim.RMSprop(p, 0.1, alpha=a, weight_decay=d),
            )
        for betas in ((0.9, 0.999), (0.0, 0.9), (0.9, 0.0), (0.0, 0.0)):
            options = {"beta1": betas[0], "beta2": betas[1], "weight_decay": decay}
            for ours, theirs, own in ADAMS:
                yield (
                    ours(0.1, **options),
                    lambda p, b=betas, d=decay, name=theirs, own=own: getattr(torch.optim, name)(
                        p, 0.1, betas=b, weight_decay=d, **own
                    ),
                )
        for kept in (0.0, 0.5, 0.99):
            yield (
                optim.Adadelta(0.1, decay=kept, weight_decay=decay),
                lambda p, a=kept, d=decay: torch.optim.Adadelta(p, 0.1, rho=a, weight_decay=d),
            )


CASES = list(cases())
# torch's Muon has another scale and precision; it has no Lion. Both have tests of their own.
WITHOUT_COUNTERPART = {"Muon", "Lion"}


def test_every_optimizer_has_a_counterpart_or_is_known_to_have_none():
    public = {
        name
        for name, found in vars(optim).items()
        if isinstance(found, type) and optim.Optimizer in found.__mro__[1:]
    }
    assert public - {type(ours).__name__ for ours, _ in CASES} == WITHOUT_COUNTERPART


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("number", range(len(CASES)))
def test_parameters_after_every_step(number, path):
    ours, theirs = CASES[number]
    ours = type(ours)(**options_of(ours))  # each run its own state
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4))
    parameter = torch.nn.Parameter(torch.tensor(start))
    reference = theirs([parameter])
    with on(path):
        params = {"W": xpmlp.asarray(start, "float64")}
        for scale in SCALES:
            gradient = scale * rng.normal(size=start.shape)
            parameter.grad = torch.tensor(gradient)
            reference.step()
            params = ours.update(params, {"W": xpmlp.asarray(gradient, "float64")})
            # torch keeps NAdam's product of momenta in float32, and 1 − it is what it divides by.
            rough = 1e-6 if isinstance(ours, optim.NAdam) else 1e-9
            np.testing.assert_allclose(
                xpmlp.to_numpy(params["W"]), parameter.detach().numpy(), rtol=rough, atol=rough
            )


def options_of(optimizer: optim.Optimizer) -> dict[str, object]:
    names = ("lr", "weight_decay", "momentum", "nesterov", "eps", "decay", "beta1", "beta2")
    return {name: getattr(optimizer, name) for name in names if hasattr(optimizer, name)}
