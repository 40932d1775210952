"""Training: the single step, the loop around it, and what may look on."""

from ..metrics import accuracy, confusion_matrix, f1, mae, r2, rmse, roc_auc, top_k_accuracy
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
from .chosen_metrics import Metric
from .history import History
from .loggers import MLflow, TensorBoard, WeightsAndBiases
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
    "MLflow",
    "Metric",
    "OnEpoch",
    "Patience",
    "PopulationHistory",
    "PopulationTrainer",
    "Progress",
    "RateSearch",
    "ReduceOnPlateau",
    "SaveHistory",
    "TensorBoard",
    "TimeLimit",
    "TrainStep",
    "Trainer",
    "WeightsAndBiases",
    "accuracy",
    "confusion_matrix",
    "f1",
    "load_model",
    "mae",
    "r2",
    "rmse",
    "roc_auc",
    "save_model",
    "search_rate",
    "top_k_accuracy",
]
