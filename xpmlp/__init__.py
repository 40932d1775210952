"""xpmlp: neural-network layers with explicit forward and backward, on any array library.

Importing this loads NumPy and nothing heavier; submodules are loaded when they are first used.
"""

import importlib

from .backend import (
    Backend,
    asarray,
    available_backends,
    get_backend,
    set_backend,
    synchronize,
    to_numpy,
    use_backend,
)

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "__version__",
    "asarray",
    "available_backends",
    "get_backend",
    "set_backend",
    "synchronize",
    "to_numpy",
    "use_backend",
]

_SUBMODULES = (
    "calibration",
    "communication",
    "cross_validation",
    "data",
    "ensemble",
    "errors",
    "initializers",
    "layers",
    "losses",
    "models",
    "onnx",
    "ops",
    "optim",
    "penalties",
    "plots",
    "population",
    "random",
    "report",
    "schedules",
    "sklearn",
    "sweep",
    "testing",
    "torch_modules",
    "training",
)


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, *_SUBMODULES])
