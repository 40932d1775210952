"""The arrays of a population's members: into networks of some of them, and from single networks."""

from __future__ import annotations

from collections.abc import Sequence

from .layers import Dropout, Sequential


def copy_members(source: Sequential, target: Sequential, members: int | list[int]) -> None:
    """Give target the arrays of some of source's members, cut to target's shapes.

    By order, not by name: where no member drops units there are no Dropout layers to count.
    """
    arrays = zip(target.state_dict().items(), source.state_dict().values(), strict=True)
    shared, cut = set(target.shared_params), {}
    for (name, own), theirs in arrays:
        lead = theirs if name in shared else theirs[members]
        cut[name] = lead[tuple(slice(size) for size in own.shape)]
    target.load_state_dict(cut)
    for mine, theirs in zip(_dropouts(target), _dropouts(source), strict=False):
        mine.step = theirs.step


def take_members(target: Sequential, members: Sequence[Sequential]) -> None:
    """Replace all parameters and state by those of P plain networks, padded with zeros."""
    own = target.state_dict()
    for name in own:
        if name.endswith((".W", ".b")):
            own[name][...] = 0.0
    for number, member in enumerate(members):
        arrays = member.state_dict().values()
        for padded, array in zip(own.values(), arrays, strict=True):
            padded[(number, *(slice(size) for size in array.shape))] = array
    target.load_state_dict(own)
    for mine, theirs in zip(_dropouts(target), _dropouts(members[0]), strict=False):
        mine.step = theirs.step


def _dropouts(model: Sequential) -> list[Dropout]:
    return [layer for _, layer in model.named_layers() if isinstance(layer, Dropout)]
