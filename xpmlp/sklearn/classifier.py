"""MLPClassifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from ..errors import ConfigError, DataError
from ..losses import BCEWithLogits, Loss, SoftmaxCrossEntropy
from .class_weights import with_class_weights
from .estimator import BaseMLP
from .host import as_given
from .job import once
from .parameters import Activation, with_more
from .rates import goes_by_batches


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A fully connected network as a scikit-learn classifier.

    It minimises the softmax cross-entropy, for two classes as well (two outputs, where
    scikit-learn's has one); for several yes/no labels a row, the binary cross-entropy of each.
    Labels may be numbers or strings.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Widths of the hidden layers; ``()`` for none.
    activation : str
        ``"identity"``, ``"logistic"``, ``"tanh"``, ``"relu"`` as in scikit-learn, or any that
        :class:`xpmlp.models.FullyConnectedNet` knows.
    solver : {"sgd", "adagrad", "rmsprop", "adam", "adamw", "muon", "lbfgs"}
        "lbfgs" is SciPy's, on all rows at once: for some hundreds of rows. It takes no
        ``partial_fit``, dropout, batches or early stopping.
    alpha : float
        Strength of the squared L2 penalty on weights: ``alpha / (2 B) Σ W²`` is added to the mean
        loss of a batch of B rows, as in scikit-learn. For adamw and muon, the weight decay λ of
        ``w (1 − lr λ)``.
    batch_size : int or "auto"
        "auto" is min(200, rows) as in scikit-learn, but of fewer than 600 rows a third, down to
        batches of 32: one or two steps an epoch learn too little.
    learning_rate : {"constant", "cosine", "exponential", "onecycle", "polynomial", "invscaling",
        "adaptive"}
        How the learning rate changes over ``max_iter`` epochs. The last two are scikit-learn's, for
        sgd only, as there: ``learning_rate_init / (t + 1)^power_t`` after t rows; or a fifth of
        what it was whenever the loss (or the validation score) has not improved for
        ``n_iter_no_change`` epochs, which ends the training only at 10⁻⁶.
    learning_rate_init : float
    power_t : float
        For "invscaling".
    max_iter : int
        Epochs at most.
    shuffle : bool
        Whether rows come in another order in every epoch.
    random_state : int, RandomState or None
        Decides initial weights, dropout, the order of rows and the held-out part.
    tol : float
        What counts as an improvement of the loss (or of the validation score). Epochs that end
        with ``max_iter`` before ``n_iter_no_change`` of them went without one give a
        ``ConvergenceWarning``.
    verbose : bool
        Whether to show progress on standard error.
    warm_start : bool
        Whether ``fit`` goes on from the weights of the last one.
    momentum : float
        For sgd and muon.
    nesterovs_momentum : bool
        For sgd and muon.
    early_stopping : bool
        Whether to hold out ``validation_fraction`` of the rows, stop when their score no longer
        improves, and end with the best weights.
    validation_fraction : float
    beta_1, beta_2, epsilon : float
        For adam, adamw and muon; epsilon also for adagrad and rmsprop.
    n_iter_no_change : int, or inf
        Epochs without improvement to wait for before stopping.
    max_fun : int
        Evaluations of the loss at most, for lbfgs.
    dropout : float
        Probability to drop a hidden unit in training.
    normalization : {None, "batchnorm", "layernorm", "rmsnorm"}
        Between each hidden layer and its activation.
    scale_inputs : bool
        Whether columns of unusual size are standardized inside: those whose largest magnitude is
        above 10 or below ½, or whose standard deviation is less than a tenth of their mean. The
        others are taken as they are. ``partial_fit`` goes by all rows that have come so far.
        Without it, as in scikit-learn, such inputs are for a ``StandardScaler``.
    class_weight : {None, "balanced"} or dict
        What rows of each class count for, times their ``sample_weight``: by label, 1 for those that
        are left out; or ``n / (C n_c)`` of n rows of which ``n_c`` are of the class. Not for
        several labels a row; "balanced" not for ``partial_fit``.
    dtype : {None, "float32", "float64"}
        What to compute in. None: the dtype of X if that is float32 or float64, else float64 (or
        float32 where the backend has no float64). float32 is about twice as fast.
    backend : str, optional
        The array library: numpy, cupy, torch, jax or auto. Default: the current one.
    device : str, optional
        That library's device, such as ``"cuda:0"``.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
        The labels, sorted; columns of ``predict_proba`` follow them.
    model_ : FullyConnectedNet
        The network, for example for :func:`xpmlp.onnx.export_onnx`: a copy that takes inputs as
        they are, with their scaling as a part of its first layer.
    coefs_, intercepts_ : list of ndarray
        Weights (D, M) and biases (M,) of each of its fully connected layers.
    loss_curve_ : list of float
        The mean training loss of every epoch, penalty included.
    loss_, best_loss_ : float
        The last and the smallest of them; ``best_loss_`` is None with early stopping.
    validation_scores_, best_validation_score_
        With early stopping: accuracy (for multilabel targets minus the loss) of every epoch, and
        the best of them; else None.
    n_iter_, t_ : int
        Epochs of the last ``fit`` and of ``partial_fit`` since then, and rows seen in all.
    n_features_in_, n_outputs_, n_layers_ : int
    feature_names_in_ : ndarray
        If X was a data frame.
    out_activation_ : str
        ``"softmax"`` or ``"logistic"``.

    Notes
    -----
    Rows with weights give the weighted mean of their losses over each batch (:meth:`Loss.weighted
    <xpmlp.losses.Loss.weighted>`), in training, early stopping and ``loss_curve_``, and ``alpha``
    is divided by what a batch's rows weigh together, as in scikit-learn. Rows of weight 0 are as if
    they were not there, but for the labels in ``classes_``. A sparse X stays sparse: a batch's
    rows are made dense when it is their turn.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> model = make_pipeline(StandardScaler(), MLPClassifier((64, 32), dropout=0.1))
    >>> model.fit(X_train, y_train).score(X_test, y_test)
    """

    _output = "softmax"

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: Activation = "relu",
        *,
        class_weight: Literal["balanced"] | dict | None = None,
        **others: Any,
    ):
        super().__init__(hidden_layer_sizes, activation, **others)
        self.class_weight = class_weight

    # Which scikit-learn reads parameters from.
    __init__.__signature__ = with_more(BaseMLP.__init__, last={"class_weight": None})  # type: ignore

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Train on X (N, D), dense or sparse, and labels y (N,), or 0/1 labels (N, M).

        Parameters
        ----------
        X, y : array_like
        sample_weight : array_like, shape (N,), optional
            What each row counts for, at least 0.

        Raises
        ------
        ConfigError
            For a parameter out of range (a ValueError).
        DataError
            If the loss does not stay finite (a ValueError).
        """
        return self._fit(X, y, sample_weight)

    @available_if(goes_by_batches)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> MLPClassifier:
        """One epoch over X (N, D) and y (N,), going on from where the last call ended.

        ``sample_weight`` (N,) is as in :meth:`fit`. ``classes`` are all labels that will ever
        come; needed in the first call.
        """
        if classes is None and not self.__sklearn_is_fitted__():
            raise ConfigError(
                f"`{type(self).__name__}.partial_fit`: expected classes=, all labels that will "
                "ever come, in the first call; got None"
            )
        return self._fit(X, y, sample_weight, classes, incremental=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label (N,) of every row; 0/1 (N, M) for multilabel targets.

        With scikit-learn's ``array_api_dispatch``, of the library and on the device of X, as
        probabilities are; labels that are text are NumPy's.
        """
        probabilities = self._outputs(X)
        if self._output == "sigmoid":
            return as_given(X, (probabilities > 0.5).astype(np.int64))
        return as_given(X, self.classes_[probabilities.argmax(axis=1)])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, C) of the classes in ``classes_``."""
        return as_given(X, self._outputs(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):  # a probability may round to 0
            return as_given(X, np.log(self._outputs(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @property
    def _out_activation(self) -> str:
        return "logistic" if self._output == "sigmoid" else "softmax"

    def _loss(self) -> Loss:
        return BCEWithLogits() if self._output == "sigmoid" else SoftmaxCrossEntropy()

    def _monitor(self, targets: np.ndarray) -> str:
        return "val_loss" if self._output == "sigmoid" else "val_accuracy"

    def _weights(
        self, targets: np.ndarray, sample_weight: np.ndarray | None, incremental: bool
    ) -> np.ndarray | None:
        if self.class_weight is None:
            return sample_weight
        if targets.ndim == 2 or (incremental and isinstance(self.class_weight, str)):
            what = "several labels a row" if targets.ndim == 2 else "partial_fit"
            raise ConfigError(
                f"`{type(self).__name__}`: expected class_weight to be None"
                f"{'' if targets.ndim == 2 else ' or a dict'} for {what}, got "
                f"{self.class_weight!r}; give sample_weight"
            )
        return with_class_weights(self, targets, sample_weight)

    def _encode(self, y: Any, classes: Any, first: bool, incremental: bool) -> np.ndarray:
        multilabel, labels, targets = once(_labels_of, y)
        if first:
            self._output = "sigmoid" if multilabel else "softmax"
            self.classes_ = labels if classes is None else unique_labels(classes)
        elif multilabel != (self._output == "sigmoid"):
            raise DataError(
                f"`{type(self).__name__}`: expected labels of the kind seen before, got shape "
                f"{y.shape}; make a new estimator for other labels"
            )
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise DataError(
                f"`{type(self).__name__}.partial_fit`: expected the classes of the first call, "
                f"{self.classes_.tolist()}, got {list(classes)}"
            )
        if multilabel:
            if y.shape[1] != len(self.classes_):
                raise DataError(
                    f"`{type(self).__name__}`: expected {len(self.classes_)} labels a row, got "
                    f"{y.shape[1]}"
                )
            return targets
        if not incremental and classes is None and not np.array_equal(labels, self.classes_):
            raise DataError(
                f"`{type(self).__name__}`: expected the classes of the last fit for warm_start, "
                f"{self.classes_.tolist()}, got {labels.tolist()}; call fit with "
                "warm_start=False, or partial_fit, which takes rows of some of the classes"
            )
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise DataError(
                f"`{type(self).__name__}`: expected labels among {self.classes_.tolist()}, got "
                f"{unknown[:5].tolist()} as well; name all of them in the first classes="
            )
        return np.searchsorted(self.classes_, labels)[targets]


def _labels_of(y: Any) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether rows have several labels; all labels, sorted; and which each row has.

    The last are places in them (N,), or 0 and 1 (N, M).
    """
    y = y.toarray() if hasattr(y, "toarray") else y
    check_classification_targets(y)
    if type_of_target(y) == "multilabel-indicator":
        return True, np.arange(y.shape[1]), y.astype(np.float64)
    y = column_or_1d(y, warn=True)
    labels = unique_labels(y)
    return False, labels, np.searchsorted(labels, y)
