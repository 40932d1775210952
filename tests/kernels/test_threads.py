"""How long OpenMP's threads look out for work before they sleep."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another OpenMP")
@pytest.mark.parametrize(("own", "expected"), [({}, "20000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_waiting_threads_sleep_soon_unless_told_otherwise(own, expected):
    pytest.importorskip("numba.np.ufunc.omppool")
    code = (
        "import os, xpmlp.kernels.numba.threads, numba.np.ufunc.omppool\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = clean | {"OMP_DISPLAY_ENV": "verbose"} | own
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr
    assert done.stdout.split() == [str(own.get("GOMP_SPINCOUNT"))]  # nothing is left behind
