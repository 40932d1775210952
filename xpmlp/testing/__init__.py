"""Help for testing layers and losses: numerical gradients and strict comparison."""

from .compare import assert_close
from .gradcheck import gradcheck, gradcheck_function

__all__ = ["assert_close", "gradcheck", "gradcheck_function"]
