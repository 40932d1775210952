"""Which training it is: data, settings and version, so that none goes on as another by mistake."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import array_api_compat
import numpy as np

from .. import __version__
from ..backend import to_numpy
from ..errors import CheckpointError
from ..layers.base import Layer

_MOST = 1 << 28  # bytes of an array that are read for its fingerprint, evenly spaced rows of it
_LONG = 64  # numbers of an array from which on only its fingerprint is kept


def identity_of(
    settings: Mapping[str, Any], x: Any, y: Any, validation: Any | None, weights: Any = None
) -> dict[str, Any]:
    """What two trainings have in common if one can go on where the other has stopped."""
    data = {"x": fingerprint(x), "y": fingerprint(y)}
    if weights is not None:
        data["sample_weight"] = fingerprint(weights)
    if validation is not None:
        named = zip(("x", "y", "sample_weight"), validation, strict=False)
        data |= {f"validation {name}": fingerprint(values) for name, values in named}
    return {
        "version": __version__,
        "data": data,
        "settings": {name: described(value) for name, value in settings.items()},
    }


def check_identity(path: Any, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise CheckpointError that names whatever differs."""
    found = [f"{what} was {old}, is {new}" for what, old, new in differences(saved, own)]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise CheckpointError(
            f"expected the training that {path} is of, got another: {'; '.join(found[:5])}{more}; "
            "give what it had, or go on all the same with strict=False (--resume-anyway)"
        )


def differences(saved: Any, own: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What is not the same, by its full name: ``settings.optimizer.lr``."""
    if isinstance(saved, Mapping) and isinstance(own, Mapping):
        for name in dict.fromkeys((*saved, *own)):
            inside = f"{place}.{name}" if place else name
            yield from differences(saved.get(name), own.get(name), inside)
    elif saved != own:
        yield place, _short(saved), _short(own)


def fingerprint(values: Any) -> str:
    """Type, shape and the beginning of a SHA-256 of an array's content.

    Of large arrays only some rows are read, evenly spaced.
    """
    array = to_numpy(values) if array_api_compat.is_array_api_obj(values) else np.asarray(values)
    every = max(1, -(-array.nbytes // _MOST))
    part = array[::every] if array.ndim and every > 1 else array
    content: Any = np.ascontiguousarray(part)
    if part.dtype.hasobject:
        content = repr(part.tolist()).encode()
    shape = "×".join(str(size) for size in array.shape)
    return f"{array.dtype} {shape} {hashlib.sha256(content).hexdigest()[:16]}"


def described(thing: Any) -> Any:
    """Options as JSON holds them: an object by its class and what it was made with."""
    if isinstance(thing, np.generic):
        return thing.item()
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if array_api_compat.is_array_api_obj(thing):
        array = to_numpy(thing)
        return array.tolist() if array.size <= _LONG else fingerprint(array)
    if isinstance(thing, Mapping):
        return {str(name): described(value) for name, value in thing.items()}
    if isinstance(thing, Layer):
        config = getattr(thing, "config", None)
        layers = {prefix: repr(layer) for prefix, layer in thing.named_layers()}
        return described(layers if config is None else config)
    if isinstance(thing, set | frozenset):
        return sorted(described(value) for value in thing)
    if isinstance(thing, Iterable):
        return [described(value) for value in thing]
    kind = thing if isinstance(thing, type) or hasattr(thing, "__qualname__") else type(thing)
    if kind is thing:  # a function or a class
        return f"{kind.__module__}.{kind.__qualname__}"
    return {"kind": kind.__qualname__, **{n: described(v) for n, v in _options_of(thing)}}


def _options_of(thing: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(thing):
        yield from ((field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing))
        return
    for name in getattr(thing, "__dict__", ()):
        public = name.lstrip("_")
        if name == public or hasattr(type(thing), public):  # what a property keeps
            yield public, getattr(thing, public)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
