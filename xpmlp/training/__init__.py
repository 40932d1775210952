"""Training: the single step, the loop around it, and what may look on."""

from ..metrics import accuracy, confusion_matrix, r2
from ..step import Evaluation, TrainStep
from .callbacks import (
    Callback,
    EarlyStopping,
    OnEpoch,
    Patience,
    ReduceOnPlateau,
    SaveHistory,
    TimeLimit,
)
from .checkpoint import load_model, save_model
from .checkpoint_callback import Checkpoint
from .history import History
from .population_history import PopulationHistory
from .population_trainer import PopulationTrainer
from .progress import Progress
from .rate_search import RateSearch, search_rate
from .trainer import Trainer

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "Evaluation",
    "History",
    "OnEpoch",
    "Patience",
    "PopulationHistory",
    "PopulationTrainer",
    "Progress",
    "RateSearch",
    "ReduceOnPlateau",
    "SaveHistory",
    "TimeLimit",
    "TrainStep",
    "Trainer",
    "accuracy",
    "confusion_matrix",
    "load_model",
    "r2",
    "save_model",
    "search_rate",
]
