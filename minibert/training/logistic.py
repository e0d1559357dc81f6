"""Logistic regression on a frozen encoder's features: a linear head for few labels, in seconds.

scikit-learn fits it; its weights become those of the head. The encoder stays as it is.
"""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from minibert.data.batches import Dataset, FeatureDataset
from minibert.device import Compute, choose_compute
from minibert.errors import InputError, printable
from minibert.evaluation.figures import show_figure
from minibert.inference.batched import head_for_inference
from minibert.model.classifier import Classifier
from minibert.model.config import HeadConfig
from minibert.options import flag_name
from minibert.tasks.task import figures_of
from minibert.training.callback import Callback
from minibert.training.history import EpochRecord, TrainResult
from minibert.training.options import TrainingOptions
from minibert.training.prepare import Prepared, prepare

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

USED = ("batch_size", "class_weights", "freeze", "seed")  # of TrainingOptions
FEW = 50  # mean of the training texts per class
FOLDS = 5
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # of C, for features with a mean square of 1
FIXED = 1.0  # C where a class has too few texts for two folds
ITERATIONS = 1000


@dataclass(frozen=True)
class LogisticResult(TrainResult):
    """What `fit_logistic` returns. Its history has one record."""

    c: float  # inverse strength of the L2 penalty
    folds: int  # of the cross-validation that chose C; 0: a class has one text, C is fixed

    def __str__(self) -> str:
        how = f"by {self.folds}-fold cross-validation"
        if not self.folds:
            how = "not chosen by cross-validation, as a class has one training text"
        (record,) = self.history
        figures = ", ".join(show_figure(*figure) for figure in record.validation.items())
        return (
            f"logistic regression: C {self.c:g} ({how}) in {self.seconds:.1f} s; "
            f"loss {record.train_loss:.4f}; validation {figures}"
        )


def fit_logistic(
    model: Classifier,
    train: Dataset,
    validation: Dataset,
    options: TrainingOptions | None = None,
    *,
    compute: Compute | None = None,
    callback: Callback | None = None,
) -> LogisticResult:
    """Set a linear head to scikit-learn's logistic regression on the features below it.

    For few labels: the encoder is not trained. C is chosen by the log loss in stratified
    cross-validation on `train`, whose folds depend on `options.seed`. Of the options, `batch_size`
    and `class_weights` apply too; of the callback, `on_encoded`, `on_best` and `close`. The model
    ends in evaluation mode, on the device of `compute`. Raises InputError for a model that has
    another head than a linear one or another task than single-label, for an option that does not
    apply, and for a class without a training text.

    Example:
        >>> from minibert import TextClassifier
        >>> classes, name = ["bad", "good"], "all-MiniLM-L6-v2"
        >>> classifier = TextClassifier.pretrained(name, classes, head="linear", pooling="mean")
        >>> texts, labels = ["great fun", "I love it", "a dull plot", "boring"], [1, 1, 0, 0]
        >>> data = classifier.dataset(texts, labels)
        >>> result = fit_logistic(classifier.model, data, data)
        >>> result.folds, result.history[0].validation["accuracy"]
        (2, 1.0)
    """
    options, callback = options or TrainingOptions(), callback or Callback()
    check_logistic(model.head.config, options)
    compute, options = compute or choose_compute(), replace(options, freeze=True)
    with closing(callback):
        prepared = prepare(model, train, validation, options, compute, callback)
        started = time.perf_counter()
        c, folds = fit_head(model, prepared, options.seed)
        seconds = time.perf_counter() - started
        record = score_head(model, prepared, options, compute, seconds)
        callback.on_best(model.eval())
    return LogisticResult((record,), 1, 0, seconds, prepared.encoding_seconds, c, folds)


def check_logistic(head: HeadConfig, options: TrainingOptions) -> None:
    """Raise InputError for a head or an option that a logistic regression does not have."""
    if head.task != "single-label":
        raise InputError(f"--head logistic is for one class per text, not for {head.task}")
    if head.kind != "linear":
        raise InputError(f'the head is {head.kind}; fit_logistic needs head="linear"')
    unused = [
        flag_name(field.name)
        for field in fields(options)
        if field.name not in USED and getattr(options, field.name) != field.default
    ]
    if unused:
        raise InputError(f"--head logistic has no training steps; drop {', '.join(unused)}")


def suggest_logistic(head: HeadConfig, targets: Tensor) -> list[str]:
    """Return a line for a user who fine-tunes on few texts per class, else none.

    One rare class among large ones is not meant: the mean counts.
    """
    per_class = len(targets) / len(head.labels)
    if head.task != "single-label" or per_class >= FEW:
        return []
    return [
        f"advice: with {per_class:.0f} training texts per class, try --head logistic, which takes "
        "seconds, or more --epochs (docs/accuracy.md has figures)"
    ]


def fit_head(model: Classifier, prepared: Prepared, seed: int) -> tuple[float, int]:
    """Set the head's weights; return C and the number of folds that chose it."""
    assert isinstance(prepared.train, FeatureDataset)
    x = prepared.train.values.cpu().double().numpy()  # (N, D)
    labels = prepared.train.labels.numpy()
    counts = np.bincount(labels, minlength=len(prepared.weights))
    if not counts.all():
        name = printable(model.head.config.labels[counts.argmin()], 40)
        raise InputError(f"the class {name!r} has no training text; it needs one or more")
    if not np.isfinite(x).all():
        raise InputError("the encoder's features are not finite; use --precision fp32")
    # One scale for all: a scale each would blow up the rounding errors of those that hardly vary.
    mean = x.mean(axis=0)
    scale = max(float(np.sqrt(np.square(x - mean).mean())), 1e-6)
    weights = prepared.weights.double().cpu().numpy()
    regression, folds = fit_regression((x - mean) / scale, labels, weights, seed=seed)
    weight = regression.coef_ / scale
    bias = regression.intercept_ - weight @ mean
    if len(weight) == 1:  # two classes have one logit: that of the first is 0
        weight, bias = np.vstack([0 * weight, weight]), np.append(0.0, bias)
    with torch.no_grad():
        model.head.out.weight.copy_(torch.from_numpy(weight).float())
        model.head.out.bias.copy_(torch.from_numpy(bias).float())
    return regression.C, folds


def fit_regression(
    x: np.ndarray, labels: np.ndarray, weights: np.ndarray, *, seed: int
) -> tuple["LogisticRegression", int]:
    """Return the fitted regression and the number of folds that chose C."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    class_weight = dict(enumerate(weights))
    regression = LogisticRegression(C=FIXED, class_weight=class_weight, max_iter=ITERATIONS)
    folds = min(FOLDS, int(np.bincount(labels).min()))  # each has every class
    if folds < 2:
        return regression.fit(x, labels), 0
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    search = GridSearchCV(
        regression, {"C": STRENGTHS}, cv=split, scoring="neg_log_loss", refit=lowest_good
    )
    return search.fit(x, labels).best_estimator_, folds


def lowest_good(results: Mapping[str, np.ndarray]) -> int:
    """Return the index of the lowest C whose score is within a standard error of the best.

    The one-standard-error rule (Hastie et al. 2009, section 7.10): with few labels the best score
    is often luck.
    """
    scores, deviations = results["mean_test_score"], results["std_test_score"]
    folds = sum(name.startswith("split") for name in results)
    lowest = scores.max() - deviations[scores.argmax()] / np.sqrt(folds)
    return int(np.flatnonzero(scores >= lowest)[0])


def score_head(
    model: Classifier,
    prepared: Prepared,
    options: TrainingOptions,
    compute: Compute,
    seconds: float,
) -> EpochRecord:
    """Return the figures of the fitted head, as those of an epoch."""
    _, task, train, validation, weights, *_ = prepared
    head = head_for_inference(model.head, compute)
    logits = head.logits(train, batch_size=options.batch_size)
    weights = weights.cpu()
    losses = task.losses(logits, train.labels, weights, options)
    scores = task.score(head.logits(validation, batch_size=options.batch_size), validation.labels)
    return EpochRecord(
        epoch=1,
        train_loss=float(losses.sum() / task.row_weights(train.labels, weights).sum()),
        learning_rate=None,
        validation=figures_of(scores, task.figures),
        seconds=round(seconds, 3),
        texts_per_second=round(len(train) / seconds, 1),
        predicted_classes=scores.predicted_classes,
    )
