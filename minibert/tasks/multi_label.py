"""Any number of classes per text: a sigmoid for each class and binary cross-entropy."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.data.classes import class_set
from minibert.data.examples import Examples
from minibert.errors import InputError
from minibert.evaluation.multi_label import (
    MultiLabelScores,
    predict_labels,
    report_multi_label,
    score_multi_label,
    with_intervals,
)
from minibert.evaluation.probabilities import ProbabilityScores, score_probabilities
from minibert.evaluation.thresholds import tune_thresholds
from minibert.model.config import HeadConfig
from minibert.tasks.task import EXPONENTS, LossOptions, Task, check_shape


class MultiLabel(Task):
    """Targets are 1 for each class of a text and 0 for all others, float32 (N, C).

    A class is predicted if its probability reaches its threshold, 0.5 unless the head has others.
    """

    # Average precision needs no threshold; thresholds are tuned after training.
    figures = ("map", "micro-f1", "macro-f1", "loss")
    prior = "the class frequencies"
    keys = ("labels", "probabilities")

    def __init__(self, head: HeadConfig) -> None:
        super().__init__(head)
        self.thresholds = head.thresholds or (0.5,) * len(self.names)

    def targets(self, examples: Examples, *, numbers: bool = False) -> np.ndarray:
        """Return (N, C) of 0 and 1."""
        return class_set(examples, self.names, numbers=numbers)

    def check(self, targets: Tensor) -> None:
        """Raise InputError for targets of another shape."""
        check_shape(targets, len(self.names), f"this model predicts several of {len(self.names)}")

    def weights(self, targets: Tensor, options: LossOptions) -> Tensor:
        """Return the weight of each class's positive rows: 1, or "balanced" negatives/positives.

        For "sqrt" they are the square roots of the balanced ones.
        """
        positive = targets.sum(dim=0).clamp(min=1)
        balanced = ((len(targets) - positive) / positive).clamp(min=1 / len(targets))
        return balanced ** EXPONENTS[options.class_weights]

    def losses(
        self, logits: Tensor, targets: Tensor, weights: Tensor, options: LossOptions
    ) -> Tensor:
        """Return the binary cross-entropy of each row, summed over the classes."""
        smoothing = options.label_smoothing
        smoothed = targets * (1 - smoothing) + smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
        # Not pos_weight, which would weigh the smoothed part of the negative rows too.
        return (losses * torch.where(targets > 0, weights, 1.0)).sum(dim=1)

    def row_weights(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Return C for each row: PyTorch's mean divides by N x C."""
        return torch.full_like(targets[:, 0], targets.shape[1])

    def constant(self, targets: Tensor, weights: Tensor, options: LossOptions) -> Tensor:
        """Return the log-odds of the classes' frequencies, weighted and smoothed as the loss."""
        ratio, smoothing = targets.mean(dim=0), options.label_smoothing
        positive = ratio * weights / (ratio * weights + 1 - ratio)
        return torch.logit(positive * (1 - smoothing) + smoothing / 2, eps=1e-6)

    def score(self, logits: Tensor, targets: Tensor) -> MultiLabelScores:
        """Return F1, average precision and more, at this head's thresholds."""
        thresholds, temperature = self.thresholds, self.head.temperature
        return score_multi_label(logits, targets, thresholds, self.names, temperature=temperature)

    def score_probabilities(self, logits: Tensor, targets: Tensor) -> ProbabilityScores:
        """Return the calibration of all classes together."""
        return score_probabilities(logits, targets, temperature=self.head.temperature)

    def score_with_intervals(self, logits: Tensor, targets: Tensor) -> MultiLabelScores:
        """Return the figures and their intervals."""
        labels = predict_labels(self.probabilities(logits.double()), self.thresholds)
        return with_intervals(self.score(logits, targets), logits, targets, labels)

    def report(self, logits: Tensor, targets: Tensor) -> str:
        """Return the figures of each class."""
        thresholds, temperature = self.thresholds, self.head.temperature
        return report_multi_label(logits, targets, thresholds, self.names, temperature=temperature)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class (N, C); the classes are independent."""
        return torch.sigmoid(logits / self.head.temperature)

    def predict(self, logits: Tensor) -> list[tuple[str, ...]]:
        """Return the classes of each row whose probability reaches the threshold."""
        probabilities = self.probabilities(logits.double())
        return self.labels(predict_labels(probabilities, self.thresholds))

    def labels(self, targets: Tensor) -> list[tuple[str, ...]]:
        """Return the classes of each row."""
        return [tuple(itertools.compress(self.names, row)) for row in targets.tolist()]

    def records(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return the classes, and the probability of each class."""
        records = []
        probabilities = self.probabilities(logits).tolist()
        for labels, row in zip(self.predict(logits), probabilities, strict=True):
            rounded = {name: round(p, 6) for name, p in zip(self.names, row, strict=True)}
            records.append({"labels": list(labels), "probabilities": rounded})
        return records


def with_thresholds(head: HeadConfig, logits: Tensor, targets: Tensor, *, how: str) -> HeadConfig:
    """Return the head with thresholds: "tuned" and "shared" have the best F1 on these logits.

    "tuned" has one threshold for each class, "shared" one for all, and a number is used as it is.
    """
    if how not in ("tuned", "shared"):
        try:
            valid = 0 < float(how) < 1
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise InputError(
                f"the threshold is {how}; give tuned, shared, or a number over 0 and under 1"
            )
        return replace(head, thresholds=(float(how),) * len(head.labels))
    probabilities = MultiLabel(head).probabilities(logits.double())
    tuned = tune_thresholds(probabilities, targets, per_class=how == "tuned")
    return replace(head, thresholds=tuple(tuned))
