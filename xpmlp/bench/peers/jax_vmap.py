"""JAX's vmap under jit: the training step of one network, made one for a whole population."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cases import Case
from ..shapes import Net
from ..solver import Arrays, Build, Solver
from .jax_jit import stepper


def _population_step(case: Case, inputs: Arrays) -> Solver:
    import jax
    import jax.numpy as jnp

    net: Net = case.settings["net"]
    inputs = dict(inputs)
    x, targets = (jnp.asarray(inputs.pop(name)) for name in ("x", "targets"))
    one, params, state = stepper(net, inputs)
    # Whatever a step carries along, such as its number, there is once for each member.
    state = jax.tree.map(lambda value: jnp.stack([value] * (net.members or 1)), state)
    step = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None)), donate_argnums=(0, 1))

    def run() -> Any:
        nonlocal params, state
        params, state, losses = step(params, state, x, targets)
        return jax.block_until_ready(losses)

    return Solver(run, lambda losses: (np.asarray(losses),))


SOLVERS: dict[str, Build] = {"population_step": _population_step}
