"""A step that is cut into shares gives the bits of the whole."""

from __future__ import annotations

import numpy as np
import pytest


def assert_shares_give_the_same_bits(new_step, x, y, monkeypatch):
    """``new_step()`` makes equal steps; their gradients of the batch, whole and in parts."""
    pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')
    from xpmlp.kernels.numba import tape

    whole = new_step()
    whole(x, y)
    monkeypatch.setattr(tape, "_WORTH_A_THREAD", 0)
    for parts in (2, 3, 40):  # more parts than threads are as good
        monkeypatch.setattr(tape, "parallel_threads", lambda parts=parts: parts)
        cut = new_step()
        cut(x, y)
        for name, gradient in whole.model.grads.items():
            np.testing.assert_array_equal(cut.model.grads[name], gradient, err_msg=name)
