"""``python -m xpmlp`` is the ``xpmlp`` command."""

from .cli import main

if __name__ == "__main__":  # MPI's workers import it under another name
    main()
