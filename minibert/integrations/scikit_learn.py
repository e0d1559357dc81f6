"""Estimators of scikit-learn whose `fit` is the one training loop.

X is a column of texts: a list, an array (N,) or a pandas Series. In a table (N, 2), each row is a
pair of texts.
"""

from typing import Any

import numpy as np
from sklearn.base import (
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor

from minibert.errors import InputError
from minibert.integrations.estimator import (
    BertEstimator,
    TrainedEstimator,
    as_weights,
    texts_and_pairs,
)
from minibert.tasks.multi_label import MultiLabel
from minibert.tasks.single_label import SingleLabel


class BertClassifier(ClassifierMixin, TrainedEstimator):
    """A text classifier as an estimator of scikit-learn.

    `y` has one class per text, strings or integers, or is a table (N, C) of 0 and 1, of which any
    number may be 1. After `fit`, `classes_` are the classes, `classifier_` is the TextClassifier,
    whose `save` writes a model folder, and `loss_curve_` is the training loss of each epoch.

    Args:
        model: folder, or hub id, of a pretrained encoder.
        class_weight: None, "balanced", or a weight for each class, as in scikit-learn.
        validation_fraction: part of the rows that selects the best epoch; 0: train on all rows and
            keep the last epoch.
        verbose: show the progress.
        random_state: decides the new head, the batches, dropout and the validation rows.

    The other parameters are those of TrainingOptions, TextClassifier.pretrained and load.

    Example:
        >>> X, y = ["good film", "bad soup", "great fun", "awful plot"], [1, 0, 1, 0]
        >>> classifier = BertClassifier("all-MiniLM-L6-v2", epochs=2, random_state=0).fit(X, y)
        >>> classifier.predict_proba(["a lovely film"]).shape
        (1, 2)
    """

    def __init__(
        self,
        model: str = "distilbert-base-uncased",
        *,
        head: str = "mlp",
        pooling: str = "cls",
        max_length: int = 128,
        long_texts: str = "cut",
        epochs: int = 3,
        batch_size: int = 32,
        encoder_lr: float = 2e-5,
        head_lr: float = 1e-4,
        freeze: bool = False,
        freeze_layers: int = 0,
        validation_fraction: float = 0.0,
        random_state: Any = None,
        device: str = "auto",
        precision: str = "auto",
        verbose: bool = False,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            model,
            head=head,
            pooling=pooling,
            max_length=max_length,
            long_texts=long_texts,
            epochs=epochs,
            batch_size=batch_size,
            encoder_lr=encoder_lr,
            head_lr=head_lr,
            freeze=freeze,
            freeze_layers=freeze_layers,
            validation_fraction=validation_fraction,
            random_state=random_state,
            device=device,
            precision=precision,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "BertClassifier":
        """Train on texts and their classes. Raises ValueError for what cannot be used.

        `sample_weight` (N,) says how much each text counts in the loss; texts of weight 0 are
        left out.
        """
        check_classification_targets(y)
        if type_of_target(y) == "multilabel-indicator":
            y = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
            classes = np.arange(y.shape[1])
            names = [str(number) for number in classes]
            labels = [[names[number] for number in np.flatnonzero(row)] for row in y]
            task = "multi-label"
        else:
            y = column_or_1d(y, warn=True)
            classes, numbers = np.unique(y, return_inverse=True)
            if len(classes) < 2:
                raise InputError("y has 1 class; give texts of 2 or more")
            names = [str(name) for name in classes]
            labels, task = [names[number] for number in numbers], "single-label"
        weights = as_weights(sample_weight, len(labels))
        if self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, y)
        self.train(task, names, X, labels, weights)
        self.classes_ = classes  # a fit that fails leaves the estimator as it was
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class for each text (N, C)."""
        check_is_fitted(self)
        return self.classifier_.task.probabilities(self._logits(X)).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted class of each text (N,), or a table (N, C) of 0 and 1."""
        check_is_fitted(self)
        task = self.classifier_.task
        if isinstance(task, SingleLabel):
            return self.classes_[task.decide(self._logits(X)).numpy()]
        assert isinstance(task, MultiLabel)
        return (self.predict_proba(X) >= np.array(task.thresholds)).astype(int)

    def _logits(self, X: Any) -> Tensor:
        return self.predictor_.logits(*texts_and_pairs(X)).double()


class BertRegressor(RegressorMixin, TrainedEstimator):
    """A text regressor as an estimator of scikit-learn.

    `y` has one number per text (N,), or several (N, K). They are standardized for training;
    `predict` answers in their unit. The parameters and attributes
    are those of BertClassifier, without classes.

    Example:
        >>> X, y = ["good film", "bad soup", "great fun", "awful plot"], [9.0, 2.0, 8.0, 1.0]
        >>> regressor = BertRegressor("all-MiniLM-L6-v2", epochs=2, random_state=0).fit(X, y)
        >>> regressor.predict(["a lovely film"]).shape
        (1,)
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "BertRegressor":
        """Train on texts and their numbers. Raises ValueError for what cannot be used."""
        numbers = np.asarray(y, dtype=float)
        if numbers.ndim not in (1, 2):
            raise InputError(
                f"y should be a 1d array or a table (N, K); it has {numbers.ndim} axes"
            )
        names = [f"value{number}" for number in range(1 if numbers.ndim == 1 else numbers.shape[1])]
        self.train("regression", names, X, numbers.tolist(), sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the numbers of each text, (N,) or (N, K)."""
        check_is_fitted(self)
        return np.array(self.predictor_.predict(*texts_and_pairs(X)), dtype=float)


class BertFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BertEstimator):
    """The features of a pretrained encoder (N, D), float32, for any estimator. Nothing is trained.

    The parameters are those of BertClassifier.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> pipeline = make_pipeline(BertFeatures("all-MiniLM-L6-v2"), LogisticRegression())
        >>> pipeline.fit(["good film", "bad soup"], [1, 0]).predict(["a lovely film"])
        array([1])
    """

    def __init__(
        self,
        model: str = "distilbert-base-uncased",
        *,
        pooling: str = "mean",
        max_length: int = 128,
        long_texts: str = "cut",
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.model = model
        self.pooling = pooling
        self.max_length = max_length
        self.long_texts = long_texts
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    def fit(self, X: Any, y: Any = None) -> "BertFeatures":
        """Load the encoder."""
        self.keep(self.load("regression", ["none"], head="linear"))
        self._n_features_out = self.classifier_.checkpoint.encoder.width
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of each text (N, D)."""
        check_is_fitted(self)
        return self.predictor_.features(*texts_and_pairs(X))
