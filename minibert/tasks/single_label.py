"""One class per text: softmax and cross-entropy."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.data.classes import class_ids
from minibert.data.examples import Examples
from minibert.errors import InputError
from minibert.evaluation.metrics import (
    Scores,
    mean_class_distance,
    report,
    score,
    with_intervals,
)
from minibert.evaluation.probabilities import (
    ProbabilityScores,
    rarer_class,
    score_probabilities,
    score_rare_class,
)
from minibert.evaluation.rejection import score_accepted
from minibert.evaluation.thresholds import f1_threshold, precision_threshold, recall_threshold
from minibert.model.config import HeadConfig
from minibert.tasks.task import EXPONENTS, LossOptions, Task


class SingleLabel(Task):
    """Targets are class numbers, int64 (N,)."""

    figures = ("accuracy", "macro-f1", "loss")
    prior = "the class frequencies"

    def __init__(self, head: HeadConfig) -> None:
        super().__init__(head)
        rejected = ("rejected",) if head.min_probability else ()
        self.keys = ("label", "probability", *rejected, "probabilities")

    def targets(self, examples: Examples, *, numbers: bool = False) -> np.ndarray:
        """Return class numbers (N,)."""
        return class_ids(examples, self.names, numbers=numbers)

    def check(self, targets: Tensor) -> None:
        """Raise InputError for a class number that is not one of the model's."""
        if targets.ndim != 1 or int(targets.max()) >= len(self.names):
            raise InputError(f"a label is not one of the model's {len(self.names)} classes")

    def weights(self, targets: Tensor, options: LossOptions) -> Tensor:
        """Return 1 for each class, or for "balanced" N / (C x its count) as scikit-learn.

        For "sqrt" they are the square roots of the balanced ones.
        """
        classes = len(self.names)
        counts = torch.bincount(targets, minlength=classes)
        balanced = len(targets) / (classes * counts.clamp(min=1).float())
        return balanced ** EXPONENTS[options.class_weights]

    def losses(
        self, logits: Tensor, targets: Tensor, weights: Tensor, options: LossOptions
    ) -> Tensor:
        """Return the cross-entropy of each row, times the weight of its class.

        PyTorch's `weight` would weigh the smoothed part of a row by the classes that it is not of:
        a rare class would get most of it.
        """
        smoothing = options.label_smoothing
        losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return losses * weights[targets]

    def row_weights(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the weight of each row's class, by whose sum PyTorch's mean divides."""
        return weights[targets]

    def constant(self, targets: Tensor, weights: Tensor, options: LossOptions) -> Tensor:
        """Return the logarithms of the classes' frequencies, weighted and smoothed as the loss."""
        weighted = torch.bincount(targets, minlength=len(weights)) * weights
        smoothing = options.label_smoothing
        smoothed = weighted * (1 - smoothing) + weighted.sum() * smoothing / len(weights)
        return smoothed.clamp(min=1e-6).log()  # a class may have no text

    def score(self, logits: Tensor, targets: Tensor) -> Scores:
        """Return accuracy, F1 and loss."""
        return score(logits, targets, self.names, predicted=self.decide(logits))

    def score_with_intervals(self, logits: Tensor, targets: Tensor) -> Scores:
        """Return accuracy, F1 and loss, and the intervals of the first two."""
        return with_intervals(self.score(logits, targets))

    def score_probabilities(self, logits: Tensor, targets: Tensor) -> ProbabilityScores:
        """Return calibration, the accepted texts, and how well the rarer of two classes ranks."""
        bound = self.head.min_probability
        accepted = score_accepted(*self.confidence(logits, targets), bound) if bound else None
        rare = score_rare_class(logits, targets, self.names) if len(self.names) == 2 else None
        scores = score_probabilities(logits, targets, temperature=self.head.temperature)
        return replace(scores, accepted=accepted, rare_class=rare)

    def confidence(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability of each text's class (N,), and whether it is correct (N,)."""
        predicted = self.decide(logits)
        probabilities = self.probabilities(logits).gather(1, predicted[:, None])[:, 0]
        return probabilities, predicted == targets

    def decide(self, logits: Tensor) -> Tensor:
        """Return the number of each row's class (N,): the most probable one.

        A head of two classes may have a threshold for the second: it is predicted if its
        probability reaches it.
        """
        if not self.head.thresholds:
            return logits.argmax(dim=1)
        # In float64: a threshold between two neighbouring float32 probabilities stays between them.
        second = self.probabilities(logits.double())[:, 1]
        return (second >= self.head.thresholds[1]).long()

    def report(self, logits: Tensor, targets: Tensor) -> str:
        """Return scikit-learn's classification report and the confusion matrix.

        For three or more classes that are numbers, it has the mean distance of predictions too.
        """
        predicted = self.decide(logits)
        text = report(predicted, targets, self.names)
        if len(self.names) > 2 and all(re.fullmatch(r"-?\d{1,9}", name) for name in self.names):
            values = torch.tensor([int(name) for name in self.names])
            distance = mean_class_distance(values[predicted], values[targets])
            text += f"mean distance from the true number: {distance:.3f}\n"
        return text

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities (N, C) that sum to 1."""
        return torch.softmax(logits / self.head.temperature, dim=1)

    def predict(self, logits: Tensor) -> list[str]:
        """Return the class of each row."""
        return self.labels(self.decide(logits))

    def labels(self, targets: Tensor) -> list[str]:
        """Return the class of each row."""
        return [self.names[number] for number in targets.tolist()]

    def records(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return the class, its probability, and the probability of each class.

        With a lowest probability, `rejected` says whether that of the class is below it.
        """
        records, bound = [], self.head.min_probability
        probabilities = self.probabilities(logits).tolist()
        for label, row in zip(self.predict(logits), probabilities, strict=True):
            rounded = {name: round(p, 6) for name, p in zip(self.names, row, strict=True)}
            record: dict[str, Any] = {"label": label, "probability": rounded[label]}
            if bound:
                record["rejected"] = row[self.names.index(label)] < bound
            records.append({**record, "probabilities": rounded})
        return records


def with_rare_class(
    head: HeadConfig, logits: Tensor, targets: Tensor, *, how: str
) -> HeadConfig | None:
    """Return a head of two classes that predicts the rarer one from a threshold on.

    `how` is "f1", the threshold of the highest F1 on these logits, or "precision=0.9" or
    "recall=0.9", the threshold that reaches it with the highest recall or with the fewest texts.
    Returns None if no threshold reaches it.
    """
    rare = rarer_class(targets)
    scores = SingleLabel(head).probabilities(logits.double())[:, rare].numpy()
    truth = (targets == rare).numpy()
    figure, _, number = str(how).partition("=")
    try:
        wanted = float(number)
    except ValueError:
        wanted = math.nan
    threshold: float | None
    if how == "f1":
        threshold = f1_threshold(scores, truth)
    elif figure in ("precision", "recall") and 0 < wanted <= 1:
        find = precision_threshold if figure == "precision" else recall_threshold
        threshold = find(scores, truth, wanted)
    else:
        raise InputError(f"{how!r} is not like f1, precision=0.9 or recall=0.9")
    if threshold is None:
        return None
    threshold = min(max(threshold, 1e-15), 1 - 1e-15)
    pair = (1 - threshold, threshold) if rare else (threshold, 1 - threshold)
    return replace(head, thresholds=pair, min_probability=0.0)  # for the most probable class
