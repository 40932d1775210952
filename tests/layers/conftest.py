"""What the layer tests share."""

import pytest

import xpmlp


@pytest.fixture
def torch():
    """torch as an independent reference."""
    return pytest.importorskip("torch", reason="torch is the reference here; pip install torch")


@pytest.fixture
def freeze(library):
    """Give a layer's parameters and state to the library under test, read-only where it can be."""

    def apply(layer):
        for _, inner in layer.named_layers():
            for group in (inner.params, inner.state):
                group.update({name: library.array(library.numpy(a)) for name, a in group.items()})
        return layer

    return apply


@pytest.fixture
def elsewhere(library):
    """Make another library the current backend: layers must follow the arrays they are given."""
    with xpmlp.use_backend("numpy" if "numpy" not in library.name else "array_api_strict"):
        yield
