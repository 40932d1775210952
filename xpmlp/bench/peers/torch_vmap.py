"""PyTorch's torch.func: the gradients of a whole population in one vectorized call."""

from __future__ import annotations

from typing import Any

from ..cases import Case
from ..shapes import Net
from ..solver import Arrays, Build, Solver


def _population_step(case: Case, inputs: Arrays) -> Solver:
    import torch
    from torch.func import grad_and_value, vmap

    net: Net = case.settings["net"]
    f, last = torch.nn.functional, len(net.sizes) - 2
    criterion = f.mse_loss if net.loss == "mse" else f.cross_entropy
    params = {name: torch.tensor(array) for name, array in inputs.items()}
    x, targets = params.pop("x"), params.pop("targets")

    def loss_of(p: dict[str, Any]) -> Any:
        h = x
        for i in range(last):
            h = torch.relu(h @ p[f"W{i}"] + p[f"b{i}"])
        return criterion(h @ p[f"W{last}"] + p[f"b{last}"], targets)

    gradients_of = vmap(grad_and_value(loss_of))

    def run() -> Any:
        gradients, losses = gradients_of(params)
        for name, gradient in gradients.items():
            params[name].sub_(gradient, alpha=net.lr)
        return losses

    return Solver(run, lambda losses: (losses.numpy(),))


SOLVERS: dict[str, Build] = {"population_step": _population_step}
