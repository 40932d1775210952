"""Which column is what: target, dropped, id, group, time."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigError, DataError
from .columns import DATE, Table, listed, shown


class Roles:
    """Which column is what, with names that are in the table."""

    def __init__(
        self,
        table: Table,
        where: str,
        target: str | int | None,
        drop: Any,
        group: str | int | None,
        time: str | int | None,
        ids: Any,
        keep: Any,
        category: Any,
    ):
        self.drop = table.find_all(where, "drop", drop)
        self.ids = table.find_all(where, "id", ids)
        self.keep = table.find_all(where, "keep", keep)
        self.category = table.find_all(where, "category", category)
        self.group = None if group is None else table.find(where, "group", group)
        self.time = None if time is None else table.find(where, "time", time)
        left = [
            name
            for name in table.names
            if name not in self.drop and name not in self.ids and name != self.group
        ]
        if len(left) < 2:
            raise DataError(
                f"`{where}`: expected a target column and at least one other, got only "
                f"{listed(left) or 'none'}; check the separator (--sep) and what is dropped"
            )
        self.default = target is None
        if target is None:
            self.target = table.default_target if table.default_target in left else left[-1]
        else:
            self.target = table.find(where, "target", target)
        if self.target in self.drop:
            raise ConfigError(
                f"`{where}`: expected target and drop to name different columns, got "
                f"target={target!r}, drop={drop!r}"
            )
        if self.target in (self.group, self.time, *self.ids):
            raise ConfigError(
                f"`{where}`: expected a target that is neither group, time nor id, got "
                f"{shown(self.target)}"
            )
        self.no_inputs = {self.target, *self.drop, *self.ids}
        if self.group:
            self.no_inputs.add(self.group)
        if self.time and table.column(self.time).kind != DATE:
            self.no_inputs.add(self.time)  # a number that only grows is no use in the time to come
