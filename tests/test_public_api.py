"""Every public name exists, can be imported as the design says, and is documented."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import xpmlp
from xpmlp import ops
from xpmlp.errors import MissingDependencyError

ROOT = Path(xpmlp.__file__).parent
# Not the command's modules: its public face is the command itself.
MODULES = sorted(
    ".".join(("xpmlp", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] not in ("cli", "bench", "__main__.py")
)

PROMISED = {
    "xpmlp": "get_backend set_backend use_backend available_backends asarray to_numpy synchronize",
    "xpmlp.ops": "linear linear_backward matmul softmax_cross_entropy batch_norm layer_norm "
    "rms_norm dropout explain",
    "xpmlp.layers": "Linear Matmul ReLU LeakyReLU ELU GELU SiLU Tanh Sigmoid Softplus Softmax "
    "LogSoftmax Log BatchNorm LayerNorm RMSNorm Dropout Flatten Residual Sequential",
    "xpmlp.models": "FullyConnectedNet",
    "xpmlp.losses": "SoftmaxCrossEntropy NLL BCEWithLogits MSE HalfSSE MAE Huber PoissonNLL "
    "KLDivergence "
    "MulticlassHinge",
    "xpmlp.penalties": "L1 L2 L2Norm",
    "xpmlp.optim": "SGD AdaGrad RMSProp Adam AdamW Muon clip_by_global_norm",
    "xpmlp.testing": "gradcheck gradcheck_function assert_close",
    "xpmlp.errors": "ShapeError DTypeError BackendError DataError CheckpointError OutOfMemoryError",
}


def load(name):
    """The module; one that needs a library which is absent is skipped and says which."""
    try:
        return importlib.import_module(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def public(module):
    """Names of classes and functions that the module defines or exports."""
    exported = getattr(module, "__all__", None)
    if exported is not None:
        return list(exported)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names_are_there(name):
    module = importlib.import_module(name)
    missing = [n for n in PROMISED[name].split() if not hasattr(module, n)]
    assert not missing


@pytest.mark.parametrize("name", MODULES)
def test_exports_exist_and_are_unique(name):
    module = load(name)
    exported = getattr(module, "__all__", [])
    assert all(hasattr(module, n) for n in exported)
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name):
    module = load(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    undocumented = []
    for own in public(module):
        thing = getattr(module, own)
        if inspect.isclass(thing):
            undocumented += [
                f"{own}.{attribute}"
                for attribute, value in vars(thing).items()
                if not attribute.startswith("_")
                and (inspect.isfunction(value) or isinstance(value, property | classmethod))
                and not documented(thing, attribute)
            ]
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and not has_docstring(thing):
            undocumented.append(own)
    assert not undocumented


def has_docstring(thing) -> bool:
    """A text of its own: a dataclass without one gets its signature instead."""
    text = (thing.__doc__ or "").strip()
    return bool(text) and not text.startswith(f"{thing.__name__}(")


def documented(owner, attribute) -> bool:
    """An override may leave the documentation to the method that it overrides."""
    if attribute in GENERATED:
        return True
    return any(
        (getattr(vars(base)[attribute], "__doc__", None) or "").strip()
        for base in owner.__mro__
        if attribute in vars(base)
    )


# Made by the Parameter descriptor (layer.dW); Parameter's docstring describes them.
GENERATED = {"da", "dW", "db", "dgamma", "dbeta", "dc", "dr", "ds"}


def test_submodules_are_reached_from_the_package():
    for name in xpmlp._SUBMODULES:
        assert getattr(xpmlp, name).__name__ == f"xpmlp.{name}"
    assert set(xpmlp._SUBMODULES) <= set(dir(xpmlp))


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="'xpmlp' has no attribute 'layer'"):
        _ = xpmlp.layer


def test_every_backward_has_its_forward():
    backwards = [name for name in ops.__all__ if name.endswith("_backward")]
    assert len(backwards) > 10
    assert {name.removesuffix("_backward") for name in backwards} <= set(ops.__all__)


def test_every_op_function_is_exported():
    """A new file in ops/ whose function is forgotten in __init__ would be unreachable."""
    for file in ("activations", "linear", "matmul", "normalization", "softmax", "update"):
        module = importlib.import_module(f"xpmlp.ops.{file}")
        own = {name for name in public(module) if "reference" not in name}
        assert own <= set(ops.__all__), own - set(ops.__all__)


def test_errors_can_be_caught_as_the_builtin_one_would_guess():
    from xpmlp import errors

    pairs = {
        errors.ShapeError: ValueError,
        errors.DTypeError: TypeError,
        errors.BackendError: RuntimeError,
        errors.OutOfMemoryError: MemoryError,
        errors.ConfigError: ValueError,
        errors.DataError: ValueError,
        errors.CheckpointError: ValueError,
        errors.MissingDependencyError: ImportError,
        errors.StateError: RuntimeError,
        errors.WorkerError: RuntimeError,
    }
    for error, builtin in pairs.items():
        assert issubclass(error, builtin)
        assert issubclass(error, errors.XpmlpError)
    assert set(pairs) == set(errors.XpmlpError.__subclasses__())
