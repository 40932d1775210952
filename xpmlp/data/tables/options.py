"""What to take a file for, where its content does not have the last word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError


@dataclass(frozen=True)
class ReadOptions:
    """What to take a file for, where its content does not have the last word.

    Parameters
    ----------
    sep : str, optional
        Sign between cells: one sign, or comma, semicolon, tab, bar, blanks.
    encoding : str, optional
        Such as utf-8, latin-1, utf-16.
    decimal : "." or ",", optional
    thousands : str, optional
        Sign between groups of digits.
    header : bool, optional
        Whether the first line names the columns.
    na : sequence of str
        Spellings of missing values beside the usual ones.
    default_na : bool
        Whether the usual ones count.
    """

    sep: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    header: bool | None = None
    na: Sequence[str] = ()
    default_na: bool = True

    def __post_init__(self) -> None:
        if self.decimal not in (None, ".", ","):
            raise ConfigError(f"`decimal`: expected . or , got {self.decimal!r}")
        if self.thousands is not None and (
            len(self.thousands) != 1 or self.thousands in f"{self.decimal or ''}0123456789+-"
        ):
            raise ConfigError(
                f"`thousands`: expected one sign other than that of decimals, got "
                f"{self.thousands!r}"
            )

    def given(self) -> dict[str, Any]:
        """Those that are not as by default, for a run to remember."""
        return {
            name: list(value) if isinstance(value, tuple | list) else value
            for name, value in vars(self).items()
            if value != getattr(ReadOptions, name, None)
        }
