"""The other contestants: one file a library, which imports it inside functions only.

This folder is the one place outside of ``backend.py`` and ``kernels/`` where array libraries are
named: they are not used here to compute for xpmlp, but measured beside it.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from ...errors import ConfigError
from ..solver import Build


@dataclass(frozen=True)
class Peer:
    """A library to be measured beside xpmlp.

    Attributes
    ----------
    title : str
        What the table calls it.
    requires : str
        The package that must be installed.
    module : str
        The file here that knows it.
    slow_start : bool
        Whether it compiles for many seconds a case; ``--quick`` leaves it out.
    """

    title: str
    requires: str
    module: str
    slow_start: bool = False

    def installed(self) -> bool:
        """Whether its package can be found; nothing is imported."""
        return importlib.util.find_spec(self.requires) is not None

    def solvers(self) -> dict[str, Build]:
        """What it can solve, by kind of case. Imports the library."""
        module = importlib.import_module(f".{self.module}", __name__)
        if hasattr(module, "start"):
            module.start()
        return module.SOLVERS


PEERS = {
    "numpy": Peer("NumPy alone", "numpy", "numpy_alone"),
    "torch": Peer("torch", "torch", "torch_eager"),
    "torch.compile": Peer("torch.compile", "torch", "torch_compiled", slow_start=True),
    "jax": Peer("jax.jit", "jax", "jax_jit"),
    "sklearn": Peer("scikit-learn", "sklearn", "sklearn_mlp"),
    "thinc": Peer("thinc", "thinc", "thinc_model"),
    "torch.vmap": Peer("torch.vmap", "torch", "torch_vmap"),
    "jax.vmap": Peer("jax.vmap", "jax", "jax_vmap"),
}
"""All peers by the names that ``--peers`` takes."""


def choose_peers(names: str | None) -> dict[str, Peer]:
    """The peers of a list such as ``"numpy,torch"``; all for None, none for ``""`` or ``"none"``.

    Raises
    ------
    ConfigError
        For an unknown name; the message lists the known ones.
    """
    if names is None:
        return dict(PEERS)
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    if wanted in ([], ["none"]):
        return {}
    for name in wanted:
        if name not in PEERS:
            raise ConfigError(
                f"`xpmlp bench --peers`: expected some of {', '.join(PEERS)} (or none), "
                f"got {name!r}"
            )
    return {name: PEERS[name] for name in wanted}
