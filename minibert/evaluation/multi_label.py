"""Several labels per text: logits and 0/1 targets to figures, and the thresholds of highest F1."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.errors import printable
from minibert.evaluation.metrics import wilson_interval

TABLE_ROWS = 50  # classes that a report lists


@dataclass(frozen=True)
class MultiLabelScores:
    """The figures of one split; `interval` is subset accuracy's 95% Wilson interval.

    `per_class` has precision, recall, f1, average_precision (None without a positive), support and
    threshold of each class.
    """

    texts: int
    micro_f1: float
    macro_f1: float
    samples_f1: float
    mean_average_precision: float
    hamming_loss: float
    subset_accuracy: float
    interval: tuple[float, float]
    loss: float
    per_class: dict[str, dict[str, float | None]]

    predicted_classes: ClassVar[None] = None

    def figure(self, name: str) -> float:
        """Return micro-f1, macro-f1, map or (negated) loss: higher is better."""
        return {
            "micro-f1": self.micro_f1,
            "macro-f1": self.macro_f1,
            "map": self.mean_average_precision,
            "loss": -self.loss,
        }[name]

    def to_json(self) -> dict:
        """Return the figures under the names that metrics.json gives them."""
        return {
            "texts": self.texts,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "samples_f1": self.samples_f1,
            "mean_average_precision": self.mean_average_precision,
            "hamming_loss": self.hamming_loss,
            "subset_accuracy": self.subset_accuracy,
            "subset_accuracy_95": list(self.interval),
            "loss": self.loss,
            "per_class": self.per_class,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"micro-F1 {100 * self.micro_f1:.1f}%, macro-F1 {100 * self.macro_f1:.1f}%, "
            f"mAP {100 * self.mean_average_precision:.1f}%, "
            f"subset accuracy {100 * self.subset_accuracy:.1f}% "
            f"(95% interval {100 * low:.1f} to {100 * high:.1f}), "
            f"loss {self.loss:.4f}, {self.texts:,} texts"
        )


def score_multi_label(
    logits: Tensor,
    targets: Tensor,
    thresholds: Sequence[float],
    classes: Sequence[str] | None = None,
    *,
    temperature: float = 1.0,
) -> MultiLabelScores:
    """Score logits (N, C) against targets (N, C) of 0 and 1; the loss is the mean over N x C.

    `thresholds` are C probabilities of logits / `temperature`, `classes` the names (default: the
    numbers). As in scikit-learn with zero_division=0, a figure without a denominator is 0: a class
    without labels and without predictions lowers macro-F1, and a text without both lowers
    samples-F1, although subset accuracy counts it as right. A class without a positive is left out
    of the mean average precision, which is 0 if no class has one.
    """
    classes = classes or [str(number) for number in range(logits.shape[1])]
    truth = targets.numpy() > 0.5
    probabilities = torch.sigmoid(logits.double() / temperature)
    predicted = predict_labels(probabilities, thresholds).numpy()
    precision, recall, f1 = precision_recall_f1(truth, predicted, axis=0)
    support = truth.sum(axis=0)
    # Ranked by logits, since the sigmoid of every large one is 1. The loss shows NaN.
    columns = _columns(np.nan_to_num(logits.double().numpy()), truth)
    average_precisions = [average_precision(*column) for column in columns]
    per_class: dict[str, dict[str, float | None]] = {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "average_precision": average_precisions[i],
            "support": int(support[i]),
            "threshold": float(thresholds[i]),
        }
        for i, name in enumerate(classes)
    }
    known = [value for value in average_precisions if value is not None]
    correct = int((truth == predicted).all(axis=1).sum())
    return MultiLabelScores(
        texts=len(truth),
        micro_f1=float(precision_recall_f1(truth, predicted, axis=None)[2]),
        macro_f1=float(f1.mean()),
        samples_f1=float(precision_recall_f1(truth, predicted, axis=1)[2].mean()),
        mean_average_precision=float(np.mean(known)) if known else 0.0,
        hamming_loss=float((truth != predicted).mean()),
        subset_accuracy=correct / len(truth),
        interval=wilson_interval(correct, len(truth)),
        loss=float(F.binary_cross_entropy_with_logits(logits.double(), targets.double())),
        per_class=per_class,
    )


def predict_labels(probabilities: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Return (N, C) booleans: a label is predicted if its probability reaches its threshold."""
    # In float64: a threshold between two neighbouring float32 probabilities stays between them.
    return probabilities.double() >= torch.tensor(thresholds, dtype=torch.float64)


def precision_recall_f1(
    truth: np.ndarray, predicted: np.ndarray, *, axis: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 of booleans (N, C), 0 where the denominator is 0.

    `axis` 0 gives one figure per class, 1 one per text, None one for all labels of all texts.
    """
    hits = (truth & predicted).sum(axis=axis)
    actual, found = truth.sum(axis=axis), predicted.sum(axis=axis)
    return (
        _ratio(hits, found),
        _ratio(hits, actual),
        _ratio(2 * hits, actual + found),
    )


def _ratio(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    return counts / np.maximum(totals, 1)  # counts are 0 where the totals are


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return one class's average precision from scores (N,) and booleans (N,).

    Equals scikit-learn's, which spends milliseconds on checks for each class. Returns None for a
    class without a positive.
    """
    if not truth.any():
        return None
    ranked, hits = _rank(scores, truth)
    last = np.append(ranked[1:] < ranked[:-1], True)  # of equal scores, which count as one step
    precision = hits[last] / (np.flatnonzero(last) + 1)
    return float(np.diff(hits[last], prepend=0) @ precision / hits[-1])


def _rank(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores from high to low, and the positives among the first 1, 2, ..., N."""
    order = np.argsort(-scores)
    return scores[order], np.cumsum(truth[order])


def _columns(scores: np.ndarray, truth: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(np.ascontiguousarray(scores.T), np.ascontiguousarray(truth.T), strict=True)


def report_multi_label(
    logits: Tensor,
    targets: Tensor,
    thresholds: Sequence[float],
    classes: Sequence[str],
    *,
    temperature: float = 1.0,
) -> str:
    """Return a table of the classes with the most texts, at most 50, and the averages of all."""
    scores = score_multi_label(logits, targets, thresholds, classes, temperature=temperature)
    truth = targets.numpy() > 0.5
    probabilities = torch.sigmoid(logits.double() / temperature)
    predicted = predict_labels(probabilities, thresholds).numpy()
    support = truth.sum(axis=0)
    order = np.argsort(-support, kind="stable")
    shown, hidden = np.sort(order[:TABLE_ROWS]), order[TABLE_ROWS:]
    names = [printable(classes[i], 60) for i in shown]
    width = max(len("samples average"), *map(len, names)) + 1
    heads = ("support", "precision", "recall", "F1", "avg. precision", "threshold")

    def line(name: str, cells: Sequence[str]) -> str:
        columns = zip(cells, heads, strict=False)
        return f"{name:>{width}}" + "".join(f"{x:>{max(9, len(head)) + 1}}" for x, head in columns)

    columns = ("precision", "recall", "f1", "average_precision", "threshold")
    lines = [line("", heads), ""]
    for name, i in zip(names, shown, strict=True):
        figures = scores.per_class[classes[i]]
        lines.append(line(name, [f"{support[i]:,}", *(_cell(figures[c]) for c in columns)]))
    if len(hidden):
        lines.append(f"... and {len(hidden):,} classes with at most {support[hidden[0]]:,} texts")
    lines.append("")
    for name, axis in (("micro average", None), ("macro average", 0), ("samples average", 1)):
        means = [x.mean() for x in precision_recall_f1(truth, predicted, axis=axis)]
        means += [scores.mean_average_precision] if axis == 0 else []
        lines.append(line(name, [f"{support.sum():,}", *map(_cell, means)]))
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def tune_thresholds(
    probabilities: Tensor, targets: Tensor, *, per_class: bool = True
) -> list[float]:
    """Return C thresholds between 0 and 1 that give the highest F1 on these texts.

    `probabilities` and `targets` are (N, C). Each class gets the threshold of its own highest F1;
    with per_class=False all classes get that of the highest micro-F1. A threshold lies halfway
    between two neighbouring probabilities, so that rounding does not change a label. Of equally
    good ones the nearest to 0.5 is taken. A class without a positive keeps 0.5.
    """
    scores, truth = probabilities.double().numpy(), targets.numpy() > 0.5
    if per_class:
        return [_best_threshold(*column) for column in _columns(scores, truth)]
    return [_best_threshold(scores.ravel(), truth.ravel())] * scores.shape[1]


def _best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the threshold of the highest F1 for scores (N,) and booleans (N,)."""
    if not truth.any():
        return 0.5
    ranked, hits = _rank(scores, truth)
    edges = np.concatenate([[1.0], ranked, [0.0]])
    upper, lower = edges[:-1], edges[1:]
    thresholds = (upper + lower) / 2  # number k predicts the k highest scores
    thresholds = np.where(thresholds > lower, thresholds, upper)  # if no number lies between them
    f1 = 2 * np.append(0, hits) / (np.arange(len(scores) + 1) + hits[-1])
    f1[(lower == upper) | (thresholds == 1)] = -1  # no threshold separates equal scores
    best = thresholds[f1 == f1.max()]
    return float(best[abs(best - 0.5).argmin()])
