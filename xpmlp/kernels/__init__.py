"""Kernels that stand in for the ops' references; reached from ``ops/dispatch.py`` only."""

from __future__ import annotations

from collections.abc import Callable

on_compile: Callable[[], None] | None = None
"""Called when a kernel had to be compiled, which was not in the cache: more may follow, and take
seconds."""
