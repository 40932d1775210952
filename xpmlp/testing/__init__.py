"""Help for testing layers and losses: numerical gradients, comparison, and a check of it all.

:func:`~xpmlp.testing.selfcheck.selfcheck` is what ``xpmlp selfcheck`` runs.
"""

from .compare import assert_close
from .gradcheck import gradcheck, gradcheck_function

__all__ = ["assert_close", "gradcheck", "gradcheck_function"]
