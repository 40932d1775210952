"""The name of :mod:`xpmlp.memory_budget` before; kept for code that imports from here."""

from .memory_budget import bytes_per_member, free_bytes, members_that_fit, readable

__all__ = ["bytes_per_member", "free_bytes", "members_that_fit", "readable"]
