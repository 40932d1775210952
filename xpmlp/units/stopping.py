"""How a training in a worker hears that it should end."""

from __future__ import annotations

from typing import Any

from ..training import Callback
from ..training.stopping import INTERRUPTED
from .worker import stop_asked


class EndWhenAsked(Callback):
    """Ends a training in a unit after an epoch, once the sender has been told to stop."""

    def on_epoch(self, trainer: Any, row: dict[str, Any]) -> None:
        if stop_asked():
            trainer.stop(INTERRUPTED)
