"""Ensembles: many networks that answer as one, and say how sure they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from . import calibration
from .backend import to_numpy
from .choices import FloatName, Output, Sampling
from .data import Normalization
from .errors import CheckpointError, ConfigError, WorkerError
from .models import FullyConnectedNet
from .population import stack
from .sweep import Settings
from .sweep.plan import plan
from .sweep.run import trainer_for
from .training import Callback, EarlyStopping, load_model, save_model
from .units import EndWhenAsked, Pool, Units

_KEY = "ensemble"
_ROWS = 65_536  # at a time, of all members together


class Ensemble:
    """A population that answers with the mean of its members' probabilities.

    Parameters
    ----------
    networks : FullyConnectedNet or sequence of them
        A population, or networks to :func:`~xpmlp.population.stack`.
    temperature : float
        Of :meth:`calibrate`; 1 leaves the mean as it is.

    Attributes
    ----------
    population : FullyConnectedNet
    temperature : float

    Notes
    -----
    The mean is tempered, not the members: tempered members average to too little confidence again.
    Sources: Lakshminarayanan, Pritzel and Blundell 2017, "Simple and scalable predictive
    uncertainty estimation using deep ensembles"; Rahaman and Thiery 2021, "Uncertainty
    quantification and deep ensembles".

    Examples
    --------
    >>> nets = FullyConnectedNet([64, 32, 10], population=8)
    >>> PopulationTrainer(nets, sampling="own").fit(x, y)
    >>> ensemble = Ensemble(nets)
    >>> ensemble.calibrate(x_val, y_val)
    >>> ensemble.evaluate(x_test, y_test)
    {'accuracy': 0.98, 'log_loss': 0.06, 'calibration_error': 0.01}
    """

    def __init__(
        self,
        networks: FullyConnectedNet | Sequence[FullyConnectedNet],
        *,
        temperature: float = 1.0,
    ):
        if isinstance(networks, FullyConnectedNet) and networks.population is not None:
            self.population = networks
        else:
            single = isinstance(networks, FullyConnectedNet)
            self.population = stack([networks] if single else networks)
        self.temperature = calibration.TEMPERATURE.check("Ensemble", "temperature", temperature)

    def __len__(self) -> int:
        """How many members it has."""
        return self.population.population or 0

    def __repr__(self) -> str:
        return f"Ensemble({len(self)} × {self.population!r}, temperature={self.temperature:.4g})"

    @property
    def output(self) -> str:
        """What the outputs mean: softmax, sigmoid or identity."""
        return self.population.output

    @classmethod
    def train(
        cls,
        x: Any,
        y: Any,
        validation: tuple[Any, Any] | None,
        setting: Settings,
        *,
        members: int,
        outputs: int,
        output: Output = "softmax",
        sampling: Sampling = "own",
        seed: int = 0,
        normalization: Normalization | None = None,
        patience: int | None = None,
        memory: int | None = None,
        dtype: FloatName = "float32",
        executor: Executor | Callable[[], Executor] | None = None,
    ) -> Ensemble:
        """Train networks that differ in their seeds, as populations that fit into memory.

        Parameters
        ----------
        x, y : array_like, shape (N, …) and (N,) or (N, M)
        validation : (x, y) or None
            What tells each member's best epoch.
        setting : Settings
            A network and how to train it.
        members : int
        outputs : int
            M, or the number of classes.
        output : {"softmax", "sigmoid", "identity"}
        sampling : {"own", "bootstrap", "shared"}
            As for :class:`~xpmlp.training.PopulationTrainer`.
        seed : int
            Of the first member; the others have those that follow.
        normalization : Normalization, optional
            Of the inputs in training; predictions then take inputs that it was applied to.
        patience : int, optional
            Stop each member after so many epochs without a better validation loss.
        memory : int, optional
            Bytes that a population may take. Default: most of what is free.
        dtype : str
        executor : concurrent.futures.Executor, or a function that makes one, optional
            Whose workers train the members; see :mod:`xpmlp.units`.

        Returns
        -------
        Ensemble
            Without members that no worker could train, which is a warning. Ctrl-C raises
            KeyboardInterrupt.

        Raises
        ------
        ConfigError
            If there are no members, or not even one fits into memory.
        WorkerError
            If no worker could train any member.
        """
        if members < 1:
            raise ConfigError(f"`Ensemble.train`: expected at least one member, got {members}")
        inputs = int(np.prod(np.shape(x)[1:]))
        data = {
            "data": (x, y, validation),
            "setting": setting,
            "patience": patience,
            "order": seed if sampling == "shared" else None,
            "options": {
                "inputs": inputs,
                "outputs": outputs,
                "output": output,
                "sampling": sampling,
                "normalization": normalization,
                "dtype": dtype,
            },
        }
        found: dict[int, FullyConnectedNet] = {}
        failure = ""
        with Pool(executor) as pool:
            groups = plan(
                [setting] * members,
                1,
                inputs,
                outputs,
                sampling,
                dtype,
                memory,
                workers=pool.workers,
                sharing=pool.sharing,
            )
            units = Units(_train_members, [[seed + n for n in own] for own in groups], data, pool)
            for outcome in units:
                if outcome.failure is not None:
                    failure = outcome.failure
                elif outcome.result is None:
                    raise KeyboardInterrupt
                else:
                    for place, number in enumerate(groups[outcome.number]):
                        found[number] = outcome.result.member(place)
        if units.interrupted:
            raise KeyboardInterrupt
        if not found:
            raise WorkerError(f"`Ensemble.train`: no member could be trained; {failure}")
        if failure:
            warnings.warn(
                f"{members - len(found)} of {members} members could not be trained; {failure}",
                stacklevel=2,
            )
        return cls([found[number] for number in sorted(found)])

    def predict_proba(self, x: Any, batch_size: int = _ROWS) -> np.ndarray:
        """Probabilities of the classes (N, C), or of independent questions (N, M).

        Parameters
        ----------
        x : array_like, shape (N, …)
            As the members were trained on.
        batch_size : int
            Rows at a time, of all members together.

        Raises
        ------
        ConfigError
            For networks whose outputs are plain numbers.
        """
        mean = self._member_probabilities(x, batch_size).mean(axis=0)
        return calibration.temper(mean, self.temperature) if self.output == "softmax" else mean

    def predict(self, x: Any, batch_size: int = _ROWS) -> np.ndarray:
        """Class numbers (N,), 0/1 (N, M), or the mean of the members' numbers (N, M)."""
        if self.output == "identity":
            return to_numpy(self.population.predict(x, batch_size)).mean(axis=0)
        probabilities = self.predict_proba(x, batch_size)
        if self.output == "softmax":
            return probabilities.argmax(axis=-1)
        return (probabilities > 0.5).astype(np.int64)

    def uncertainty(self, x: Any, batch_size: int = _ROWS) -> dict[str, np.ndarray]:
        """How unsure the ensemble is of each row, and why.

        Parameters as in :meth:`predict_proba`.

        Returns
        -------
        dict of str to ndarray
            For classes, each (N,), in nats: ``entropy`` of the mean probabilities;
            ``mutual_information``, the part of it that comes from the members' disagreement, large
            for data unlike what they were trained on; and ``expected_entropy``, the rest, which no
            more members and no more training would take away. For plain numbers: ``std`` (N, M),
            the standard deviation over the members.

        Notes
        -----
        Of the members' own probabilities, before any temperature. Sources: Houlsby et al. 2011;
        Depeweg et al. 2018.
        """
        if self.output == "identity":
            return {"std": to_numpy(self.population.outputs(x, batch_size)).std(axis=0)}
        members = self._member_probabilities(x, batch_size).astype(np.float64)
        if self.output == "sigmoid":  # each output is a question with two answers
            members = np.stack([members, 1.0 - members], axis=-1)
        total = calibration.entropy(members.mean(axis=0))
        expected = calibration.entropy(members).mean(axis=0)
        # Never negative, but for rounding.
        information = np.maximum(total - expected, 0.0)
        return {
            "entropy": total,
            "expected_entropy": expected,
            "mutual_information": information,
        }

    def calibrate(self, x: Any, y: Any) -> float:
        """Fit the temperature on data that was not trained on, such as the validation data.

        Parameters
        ----------
        x : array_like, shape (N, …)
        y : array_like of ints, shape (N,)

        Returns
        -------
        float
            The temperature; classes and their order stay as they were.

        Raises
        ------
        ConfigError
            For networks that do not give class probabilities.
        """
        self._require_classes("calibrate")
        mean = self._member_probabilities(x, _ROWS).mean(axis=0)
        self.temperature = calibration.fit_temperature(mean, y)
        return self.temperature

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        """``accuracy``, ``log_loss`` and ``calibration_error`` on other data.

        Parameters
        ----------
        x : array_like, shape (N, …)
        y : array_like of ints, shape (N,)

        Raises
        ------
        ConfigError
            For networks that do not give class probabilities.
        ShapeError, DataError
            If y is not a class number in 0…C−1 for each row.
        """
        self._require_classes("evaluate")
        probabilities, y = calibration.checked("Ensemble.evaluate", self.predict_proba(x), y)
        true = np.maximum(probabilities[np.arange(y.size), y], 1e-300)
        return {
            "accuracy": float(np.mean(probabilities.argmax(axis=1) == y)),
            "log_loss": float(-np.mean(np.log(true))),
            "calibration_error": calibration.expected_calibration_error(probabilities, y),
        }

    def save(self, path: str | Path, extras: Mapping[str, Any] | None = None) -> None:
        """Write all members and the temperature as one model file, ``.safetensors`` or ``.npz``.

        Parameters
        ----------
        path : path
        extras : mapping, optional
            Anything JSON can hold, given back by :meth:`load`.

        Raises
        ------
        CheckpointError
            If it cannot be written.
        """
        own = {_KEY: {"temperature": self.temperature}}
        save_model(path, self.population, dict(extras or {}) | own)

    @classmethod
    def load(cls, path: str | Path) -> tuple[Ensemble, dict[str, Any]]:
        """Read an ensemble back, and the extras it was saved with.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, or not one that :meth:`save` wrote.
        """
        population, extras = load_model(path)
        try:
            temperature = float(extras.pop(_KEY)["temperature"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(
                f"expected an ensemble in {path}, got a model without a temperature; "
                "open it with load_model"
            ) from None
        return cls(population, temperature=temperature), extras

    def _member_probabilities(self, x: Any, batch_size: int) -> np.ndarray:
        """(P, N, M), on the host."""
        if self.output == "identity":
            raise ConfigError(
                "`Ensemble`: expected networks that give probabilities, got output='identity'; "
                "use predict and uncertainty"
            )
        return to_numpy(self.population.predict_proba(x, batch_size))

    def _require_classes(self, where: str) -> None:
        if self.output != "softmax":
            raise ConfigError(
                f"`Ensemble.{where}`: expected networks of classes, got output={self.output!r}"
            )


def _train_members(shared: dict[str, Any], seeds: list[int]) -> FullyConnectedNet | None:
    """A population with these seeds; None if it was interrupted."""
    callbacks: list[Callback] = [EndWhenAsked()]
    if shared["patience"] is not None:
        callbacks.append(EarlyStopping(shared["patience"]))
    trainer = trainer_for(
        [shared["setting"]] * len(seeds),
        seeds,
        seed=seeds if shared["order"] is None else shared["order"],
        callbacks=callbacks,
        progress=False,
        **shared["options"],
    )
    x, y, validation = shared["data"]
    return None if trainer.fit(x, y, validation).interrupted else trainer.model
