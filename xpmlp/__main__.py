"""``python -m xpmlp`` is the ``xpmlp`` command."""

from .cli import main

main()
