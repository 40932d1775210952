"""Kernels for NumPy arrays, compiled by numba at first use and cached on disk.

Nothing here is imported before dispatch picks a kernel, so importing xpmlp loads no compiler.
"""
