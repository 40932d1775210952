"""Kernels that stand in for the ops' references; reached from ``ops/dispatch.py`` only."""
