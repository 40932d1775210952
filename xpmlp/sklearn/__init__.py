"""Networks as scikit-learn estimators, for pipelines, grid searches and cross-validation.

Parameters are named as in ``sklearn.neural_network`` where they mean the same.
"""

from ..errors import MissingDependencyError

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        '`xpmlp.sklearn`: expected scikit-learn, got none installed; pip install "xpmlp[sklearn]"'
    ) from error

from .classifier import MLPClassifier
from .regressor import MLPRegressor
from .search import PopulationSearchCV
from .table_classifier import TableClassifier
from .table_regressor import TableRegressor

__all__ = [
    "MLPClassifier",
    "MLPRegressor",
    "PopulationSearchCV",
    "TableClassifier",
    "TableRegressor",
]
