"""Populations from single networks: ``stack([a, b, c])`` and ``Population(model, P)``.

``FullyConnectedNet(…, population=P)`` makes one from scratch; ``population.member(i)`` gives a
plain network back, ``population.select([…])`` a smaller population.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .errors import ConfigError
from .models import FullyConnectedNet
from .network_members import take_members

_OWN = ("sizes", "dropout", "seed", "population")
"""Options that the members of one population may have of their own."""


def stack(networks: Sequence[FullyConnectedNet]) -> FullyConnectedNet:
    """One population made of networks and populations, members in the order given.

    Parameters
    ----------
    networks : sequence of FullyConnectedNet
        Alike but for hidden widths, dropout rates, seeds and, of course, weights.

    Returns
    -------
    FullyConnectedNet
        With copies of all their arrays. ``stack(nets).member(i)`` is ``nets[i]`` again.

    Raises
    ------
    ConfigError
        If there are none, or they differ in anything else; the message names it.

    Examples
    --------
    >>> population = stack([FullyConnectedNet([4, width, 3], seed=1) for width in (8, 16)])
    """
    if not isinstance(networks, Iterable) or getattr(networks, "ndim", 1) == 0:
        raise ConfigError(f"`stack`: expected a sequence of networks, got {networks!r:.200}")
    nets = [single for net in networks for single in _members(net)]
    if not nets:
        raise ConfigError("`stack`: expected at least one network, got none")
    first = nets[0].config
    for net in nets[1:]:
        for name, value in net.config.items():
            if name not in _OWN and value != first[name]:
                raise ConfigError(
                    f"`stack`: expected networks of one {name}, got {first[name]!r} and {value!r}; "
                    "only hidden widths, dropout and seeds may differ"
                )
        sizes, wanted = net.config["sizes"], first["sizes"]
        if len(sizes) != len(wanted) or (sizes[0], sizes[-1]) != (wanted[0], wanted[-1]):
            raise ConfigError(
                "`stack`: expected networks of one depth and with the same inputs and outputs, got "
                f"sizes {wanted} and {sizes}"
            )
    depth, inputs, outputs = len(first["sizes"]), first["sizes"][0], first["sizes"][-1]
    hidden = [[net.config["sizes"][place] for net in nets] for place in range(1, depth - 1)]
    population = FullyConnectedNet.blank(
        first
        | {
            "sizes": [inputs, *hidden, outputs],
            "dropout": [net.config["dropout"] for net in nets],
            "seed": [net.config["seed"] for net in nets],
            "population": len(nets),
        }
    )
    take_members(population, nets)
    return population


def Population(
    model: FullyConnectedNet | Callable[[int], FullyConnectedNet], size: int, *, seed: int = 0
) -> FullyConnectedNet:
    """P networks like one, each with a seed, and so with weights and masks, of its own.

    Parameters
    ----------
    model : FullyConnectedNet, or function of a seed that gives one
        A network gives its options only, not its weights. A function is called with every seed and
        may give each member other widths and rates.
    size : int
        P.
    seed : int
        Of the first member; the next ones have seed + 1, seed + 2, …

    Returns
    -------
    FullyConnectedNet
        A population: ``FullyConnectedNet(**model.config | {"population": P, "seed": seed})``, or
        the :func:`stack` of what the function gave.

    Raises
    ------
    ConfigError
        If size is below 1, or the networks cannot be stacked.
    """
    if not isinstance(size, int) or size < 1:
        raise ConfigError(f"`Population`: expected a size that is an integer ≥ 1, got {size!r}")
    if not isinstance(model, FullyConnectedNet):
        return stack([model(seed + member) for member in range(size)])
    if model.population is not None:
        raise ConfigError("`Population`: expected a single network, got a population; use member")
    options: dict[str, Any] = model.config | {"population": size, "seed": seed}
    return FullyConnectedNet(**options)


def _members(net: FullyConnectedNet) -> list[FullyConnectedNet]:
    """The plain networks that a network or population consists of."""
    if not isinstance(net, FullyConnectedNet):
        raise ConfigError(f"expected networks (FullyConnectedNet), got {net!r:.200}")
    return [net] if net.population is None else [net.member(i) for i in range(net.population)]
