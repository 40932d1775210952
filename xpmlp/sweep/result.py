"""What came of a sweep: trials, their figures, and the networks worth keeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..models import FullyConnectedNet
from ..training import PopulationHistory
from ..units.run import FAILED
from .settings import Settings


@dataclass
class Trial:
    """One member of a sweep: a setting and a seed, and what came of it.

    Attributes
    ----------
    setting : int
        Its number in the list of settings.
    settings : Settings
    seed : int
    scores : dict of str to float
        ``train_loss``, ``val_accuracy``, … at its best epoch.
    best_epoch, epochs : int
    ending : str
    """

    setting: int
    settings: Settings
    seed: int
    scores: dict[str, float]
    best_epoch: int
    epochs: int
    ending: str


@dataclass(repr=False)
class SweepResult:
    """All trials of a sweep.

    Attributes
    ----------
    trials : list of Trial
        By setting, then by seed.
    monitor : str
        What settings are compared by: ``"val_accuracy"``, or ``"val_loss"`` without classes.
    models : dict of int to FullyConnectedNet
        The best seed's network of the best setting, and of those asked for with ``keep``.
    seconds : float
        Spent in training, before a stop as well.
    populations : list of int
        How many members were trained together, population by population.
    ending : str
        "finished", or "interrupted" as a population's history says it.
    """

    trials: list[Trial] = field(default_factory=list)
    monitor: str = "val_loss"
    models: dict[int, FullyConnectedNet] = field(default_factory=dict)
    seconds: float = 0.0
    populations: list[int] = field(default_factory=list)
    ending: str = "finished"

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it."""
        return self.ending != "finished"

    def __repr__(self) -> str:
        """In a line: how many networks, how long, and the best setting."""
        text = f"{len(self.trials)} networks in {self.seconds:.1f} s"
        if self.trials:
            best = self.best
            found = next(trial.settings for trial in self.trials if trial.setting == best)
            value = float(np.mean(self.values(best)))
            text += f"; best {self.monitor}={value:.4g} of setting {best}: {found}"
        return f"<{type(self).__name__}: {text}>"

    def values(self, setting: int) -> np.ndarray:
        """The monitored figure of each seed of a setting."""
        return np.array([t.scores[self.monitor] for t in self.trials if t.setting == setting])

    def quality(self, setting: int) -> tuple[float, float]:
        """Means over the seeds, so that more is better: the monitored figure, then the loss.

        −∞ if one of the seeds has none.
        """
        sign = 1.0 if self.monitor.endswith(("accuracy", "r2")) else -1.0
        losses = [t.scores["val_loss"] for t in self.trials if t.setting == setting]
        means = float(np.mean(sign * self.values(setting))), -float(np.mean(losses))
        return means if np.isfinite(means).all() else (-np.inf, -np.inf)

    @property
    def best(self) -> int:
        """The number of the setting with the best :meth:`quality`; ties go to the first."""
        return max(dict.fromkeys(t.setting for t in self.trials), key=self.quality)

    @property
    def failed(self) -> list[Trial]:
        """Trials that no worker could bring to an end."""
        return [trial for trial in self.trials if trial.ending.startswith(FAILED)]

    def add(
        self,
        settings: Sequence[Settings],
        members: Sequence[tuple[int, int]],
        history: PopulationHistory,
    ) -> None:
        """Take over what came of a population with these (setting, seed) members."""
        for row, (setting, seed) in zip(history.table(), members, strict=True):
            scores = {name: row[name] for name in history.curves}
            rest = row["best_epoch"], row["epochs"], row["ending"]
            self.trials.append(Trial(setting, settings[setting], seed, scores, *rest))
        self._sort()
        self.populations.append(len(members))
        self.seconds += history.seconds
        self.ending = history.ending if history.interrupted else "finished"

    def add_failed(
        self, settings: Sequence[Settings], members: Sequence[tuple[int, int]], reason: str
    ) -> None:
        """Members that no worker could bring to an end: their figures are NaN."""
        scores = dict.fromkeys((self.monitor, "val_loss"), float("nan"))
        self.trials += [Trial(m[0], settings[m[0]], m[1], scores, 0, 0, reason) for m in members]
        self._sort()
        self.populations.append(len(members))

    def merge(self, part: SweepResult, keep: Sequence[int] = ()) -> None:
        """Take over what came of other populations, with the networks worth keeping."""
        self.trials += part.trials
        self._sort()
        self.populations += part.populations
        self.seconds += part.seconds
        self.ending = part.ending if part.interrupted else self.ending
        self._keep(self.models | part.models, keep)

    def _sort(self) -> None:
        self.trials.sort(key=lambda trial: trial.setting)  # stable: seeds stay in order

    def _keep(self, models: dict[int, FullyConnectedNet], keep: Sequence[int]) -> None:
        wanted = {self.best, *keep}
        self.models = {own: net for own, net in sorted(models.items()) if own in wanted}

    def keep_models(
        self,
        model: FullyConnectedNet,
        members: Sequence[tuple[int, int]],
        keep: Sequence[int],
    ) -> None:
        """Take the best seed's network of the best setting so far, and of those to keep."""
        found, wanted = dict(self.models), {self.best, *keep}
        sign = 1.0 if self.monitor.endswith(("accuracy", "r2")) else -1.0
        for setting in {own for own, _ in members} & wanted:
            values = sign * self.values(setting)
            best = int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))
            place = [number for number, (own, _) in enumerate(members) if own == setting][best]
            found[setting] = model.member(place)
        self._keep(found, keep)

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """A flat row for each trial, with those of its options that are named."""
        figures = max((t.scores for t in self.trials), key=len, default={})  # some have failed
        return [
            {"setting": t.setting}
            | {name: getattr(t.settings, name) for name in names}
            | {"seed": t.seed, **{name: t.scores.get(name, float("nan")) for name in figures}}
            | {"best_epoch": t.best_epoch, "epochs": t.epochs, "ending": t.ending}
            for t in self.trials
        ]
