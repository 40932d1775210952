"""Every library on the code that it chooses for this processor: what a variable forces is undone.

A matrix product that ``OPENBLAS_CORETYPE`` keeps from AVX-512 takes up to twice its time, and a
library beside it looks twice as good.
"""

from __future__ import annotations

import os
import subprocess
import sys

_NUMPYS = ("numpy", "sklearn")
FORCING = {
    "OPENBLAS_CORETYPE": _NUMPYS,
    "OPENBLAS_L2_SIZE": _NUMPYS,
    "OPENBLAS_BLOCK_FACTOR": _NUMPYS,
    "NPY_DISABLE_CPU_FEATURES": _NUMPYS,
    "NPY_ENABLE_CPU_FEATURES": _NUMPYS,
    "MKL_ENABLE_INSTRUCTIONS": (*_NUMPYS, "torch"),
    "MKL_CBWR": (*_NUMPYS, "torch"),
    "ATEN_CPU_CAPABILITY": ("torch",),
    "ONEDNN_MAX_CPU_ISA": ("torch",),
    "DNNL_MAX_CPU_ISA": ("torch",),
    "BLIS_ARCH_TYPE": ("thinc",),
}
"""Variables that take the choice of code away, and the packages that obey them."""

_TRY = """
import numpy as np
for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-12)):
    a, b = np.random.default_rng(0).standard_normal((2, 200, 200)).astype(dtype)
    np.testing.assert_allclose(a @ b, np.einsum("ij,jk", a, b), rtol=tolerance, atol=tolerance * 20)
"""


def forced(package: str | None = None) -> dict[str, str]:
    """The variables that are set, of those that a package (or any) obeys."""
    return {
        name: os.environ[name]
        for name, packages in FORCING.items()
        if os.environ.get(name) and package in (None, *packages)
    }


def as_text(variables: dict[str, str]) -> str:
    """As they would be typed."""
    return " ".join(f"{name}={value}" for name, value in variables.items())


def environment() -> dict[str, str]:
    """The environment of a process in which nothing is forced."""
    return {name: value for name, value in os.environ.items() if name not in FORCING}


def problem_without() -> str | None:
    """What goes wrong where NumPy chooses for itself; None, if its products are right there.

    Somebody may have set the variable for a reason: a virtual machine can name a processor whose
    instructions it does not have.
    """
    tried = subprocess.run(
        [sys.executable, "-c", _TRY], env=environment(), capture_output=True, text=True
    )
    if tried.returncode == 0:
        return None
    if tried.returncode < 0:
        return f"NumPy's product ends with signal {-tried.returncode}"
    lines = tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"]
    return f"NumPy's product fails: {lines[-1]:.120}"
