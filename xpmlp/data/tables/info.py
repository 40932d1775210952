"""What is known of a table that became a data set: how it was understood, and which it was."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .encoder import TableEncoder


@dataclass(eq=False)
class TableInfo:
    """Beside the arrays of a data set, where it came from a table.

    Attributes
    ----------
    encoder : TableEncoder
        Fitted on the training rows.
    target : str
    names : list of str
        All columns of the file.
    has_header : bool
    read : dict
        Options of reading that were given.
    ids : list of str
        Columns that only tell the rows apart.
    summary : list of (str, str)
        What was understood, in the order to be shown: a heading and a text.
    doubts : list of str
        What could be meant otherwise, with the option that says so.
    digest : str
        SHA-256 of the file's content.
    test_digest : str
        The same of the file with the test part, where there is one.
    rows : int
        Rows with a target.
    test_rows : ndarray of int or None
        Which of them are the test part; None where it is a file of its own.
    groups : ndarray or None
        Of the training rows, which belong together.
    ordered : bool
        Whether the training rows are in order of time.
    """

    encoder: TableEncoder
    target: str
    names: list[str]
    has_header: bool
    read: dict[str, Any]
    ids: list[str] = field(default_factory=list)
    summary: list[tuple[str, str]] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    digest: str = ""
    test_digest: str = ""
    rows: int = 0
    test_rows: np.ndarray | None = None
    groups: np.ndarray | None = None
    ordered: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What a model needs to read another file in the same way."""
        return {
            "encoder": self.encoder.to_dict(),
            "target": self.target,
            "names": self.names,
            "has_header": self.has_header,
            "read": self.read,
            "ids": self.ids,
        }

    def identity(self) -> dict[str, Any]:
        """Which data it was, for later to be told from changed data."""
        test = None if self.test_rows is None else np.sort(self.test_rows).astype("<i8").tobytes()
        return {
            "sha256": self.digest,
            "rows": self.rows,
            "test_sha256": self.test_digest,
            "test_rows": None if test is None else hashlib.sha256(test).hexdigest(),
        }
