"""Kernels for CuPy arrays: CUDA C, one ``.cu`` file an op, compiled at first use.

``source`` and ``geometry`` are plain Python and need no GPU; everything that imports CuPy is
imported only when dispatch picks a kernel.
"""
