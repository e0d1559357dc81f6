"""Logits and labels to figures. They are sums and counts until the last line.

scikit-learn is imported inside the functions that use it: it adds a second to every start.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from minibert.errors import InputError, printable


@dataclass(frozen=True)
class Scores:
    """The figures of one split; `interval` is accuracy's 95% Wilson interval."""

    texts: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    loss: float
    per_class: dict[str, dict[str, float]]

    def figure(self, name: str) -> float:
        """Return accuracy, macro-f1 or (negated) loss: higher is better."""
        return {"accuracy": self.accuracy, "macro-f1": self.macro_f1, "loss": -self.loss}[name]

    def to_json(self) -> dict:
        """Return the figures under the names that metrics.json gives them."""
        return {
            "texts": self.texts,
            "accuracy": self.accuracy,
            "accuracy_95": list(self.interval),
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            "per_class": self.per_class,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"accuracy {100 * self.accuracy:.1f}% "
            f"(95% interval {100 * low:.1f} to {100 * high:.1f}), "
            f"macro-F1 {100 * self.macro_f1:.1f}%, loss {self.loss:.4f}, {self.texts:,} texts"
        )


def score(logits: Tensor, labels: Tensor, classes: Sequence[str] | None = None) -> Scores:
    """Score logits (N, C) against class numbers (N,); the loss is the mean cross-entropy.

    `classes` are the names (default: the numbers).
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = classes or [str(number) for number in range(logits.shape[1])]
    predicted = logits.argmax(dim=1)
    correct = int((predicted == labels).sum())
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0.0
    )
    per_class = {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(classes)
    }
    present = np.union1d(labels, predicted)  # as in report()
    return Scores(
        texts=len(labels),
        accuracy=correct / len(labels),
        interval=wilson_interval(correct, len(labels)),
        macro_f1=float(np.mean(f1[present])),
        loss=float(F.cross_entropy(logits.float(), labels)),
        per_class=per_class,
    )


def check_finite(scores: Scores) -> None:
    """Raise InputError if the loss is NaN or infinite, as the logits then are."""
    if not math.isfinite(scores.loss):
        raise InputError(f"the loss is {scores.loss}; the model's weights may be too large")


def wilson_interval(correct: int, texts: int) -> tuple[float, float]:
    """Return the 95% interval of a proportion (Wilson 1927), which stays between 0 and 1."""
    z = 1.959964
    p, weight = correct / texts, z * z / texts
    middle = (p + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * np.sqrt(p * (1 - p) / texts + weight / (4 * texts))
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


def report(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    """Return scikit-learn's classification report and the confusion matrix as text."""
    from sklearn.metrics import classification_report

    predicted = logits.argmax(dim=1)
    # A class without labels and without predictions says nothing about the model.
    numbers = np.union1d(labels, predicted)
    names = [printable(classes[number], 60) for number in numbers]
    table = classification_report(
        labels, predicted, labels=numbers, target_names=names, digits=3, zero_division=0.0
    )
    return f"{table}\n{confusion_table(confusion(labels, predicted, classes), classes)}"


def confusion(labels: Tensor, predicted: Tensor, classes: Sequence[str]) -> np.ndarray:
    """Return the (C, C) counts: rows are the true classes, columns the predicted ones."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predicted, labels=range(len(classes)))


def confusion_table(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Return a confusion matrix as text; over 12 classes only the commonest mistakes."""
    classes = [printable(name, 60) for name in classes]
    if len(classes) > 12:
        wrong = counts - np.diag(np.diag(counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:15]
        pairs = [divmod(int(cell), len(classes)) for cell in order if wrong.flat[cell]]
        lines = [f"{wrong[i, j]:6d}  {classes[i]} -> {classes[j]}" for i, j in pairs]
        return "\n".join(["commonest mistakes (true -> predicted):", *lines]) + "\n"
    width = max(9, *(len(name) for name in classes)) + 2
    rows = [f"{'':{width}}" + "".join(f"{name:>{width}}" for name in classes)]
    for name, row in zip(classes, counts, strict=True):
        rows.append(f"{name:>{width}}" + "".join(f"{count:{width}d}" for count in row))
    return "\n".join(["confusion matrix (rows: true, columns: predicted)", *rows]) + "\n"
