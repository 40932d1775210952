"""The ``xpmlp`` command: train, evaluate, predict, bench, info."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; what the ``xpmlp`` script calls."""
    try:
        from .running import run
    except ImportError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        print(
            f"xpmlp: the command needs the {error.name} library; "
            'install it with: pip install "xpmlp[cli]"',
            file=sys.stderr,
        )
        sys.exit(1)
    run()
