"""Several labels per text: logits and 0/1 targets to figures."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.errors import printable
from minibert.evaluation import weighted
from minibert.evaluation.intervals import (
    Interval,
    bootstrap,
    class_intervals,
    in_percent,
    named,
    show_figures,
    sorted_rows,
    wilson_interval,
)

TABLE_ROWS = 50  # classes that a report lists
RANKED = 1_000_000  # texts x classes up to which mAP has an interval, which takes seconds


@dataclass(frozen=True)
class MultiLabelScores:
    """The figures of one split, and their 95% intervals by name.

    `with_intervals` adds all but that of subset accuracy.
    `per_class` has precision, recall, f1, average_precision (None without a positive), support and
    threshold of each class.
    """

    texts: int
    micro_f1: float
    macro_f1: float
    samples_f1: float
    mean_average_precision: float | None
    hamming_loss: float
    subset_accuracy: float
    loss: float
    per_class: dict[str, dict[str, Any]]
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)

    predicted_classes: ClassVar[None] = None

    def figure(self, name: str) -> float:
        """Return micro-f1, macro-f1, map or (negated) loss: higher is better.

        An undefined map is minus infinity.
        """
        average = self.mean_average_precision
        return {
            "micro-f1": self.micro_f1,
            "macro-f1": self.macro_f1,
            "map": -math.inf if average is None else average,
            "loss": -self.loss,
        }[name]

    def to_json(self) -> dict:
        """Return the figures under the names that metrics.json gives them."""
        figures = {
            "texts": self.texts,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "samples_f1": self.samples_f1,
            "mean_average_precision": self.mean_average_precision,
            "hamming_loss": self.hamming_loss,
            "subset_accuracy": self.subset_accuracy,
            "loss": self.loss,
            "per_class": self.per_class,
        }
        return named(figures, self.intervals)

    def __str__(self) -> str:
        known = self.intervals.get
        figures = show_figures(
            in_percent("micro-F1", self.micro_f1, known("micro_f1")),
            in_percent("macro-F1", self.macro_f1, known("macro_f1")),
            in_percent("mAP", self.mean_average_precision, known("mean_average_precision")),
            in_percent("subset accuracy", self.subset_accuracy, known("subset_accuracy")),
        )
        return f"{figures}, loss {self.loss:.4f}, {self.texts:,} texts"


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
    of the mean average precision, which is None if no class has one.
    """
    classes = classes or [str(number) for number in range(logits.shape[1])]
    truth = targets.numpy() > 0.5
    probabilities = torch.sigmoid(logits.double() / temperature)
    predicted = predict_labels(probabilities, thresholds).numpy()
    precision, recall, f1 = precision_recall_f1(truth, predicted, axis=0)
    support = truth.sum(axis=0)
    # Ranked by logits, since the sigmoid of every large one is 1. The loss shows NaN.
    columns = class_columns(np.nan_to_num(logits.double().numpy()), truth)
    average_precisions = [average_precision(*column) for column in columns]
    per_class = {
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
        mean_average_precision=float(np.mean(known)) if known else None,
        hamming_loss=float((truth != predicted).mean()),
        subset_accuracy=correct / len(truth),
        loss=float(F.binary_cross_entropy_with_logits(logits.double(), targets.double())),
        per_class=per_class,
        intervals={"subset_accuracy": wilson_interval(correct, len(truth))},
    )


def with_intervals(
    scores: MultiLabelScores, logits: Tensor, targets: Tensor, labels: Tensor
) -> MultiLabelScores:
    """Return the scores of these logits, targets and predicted labels with their 95% intervals.

    All are (N, C). Mean average precision has an interval up to RANKED logits.
    """
    ranking, truth = np.nan_to_num(logits.double().numpy()), targets.numpy() > 0.5
    predicted = labels.numpy()
    order = sorted_rows(truth, predicted, ranking)
    ranking, truth, predicted = ranking[order], truth[order], predicted[order]
    hits, support, found = (x.sum(axis=0).tolist() for x in (truth & predicted, truth, predicted))
    per_class = {
        name: named(figures, class_intervals(hits[k], support[k], found[k]))
        for k, (name, figures) in enumerate(scores.per_class.items())
    }
    once = np.ones(len(truth), dtype=int)
    names = ("micro_f1", "macro_f1", "samples_f1", "hamming_loss", "mean_average_precision")
    drawn = bootstrap(weighted.label_figures(truth, predicted), once)
    if truth.size <= RANKED:
        drawn += bootstrap(weighted.mean_average_precision(ranking, truth), once)
    intervals = dict(zip(names, [*drawn, None], strict=False))  # None: mAP that was not drawn
    for name, has_class in (("macro_f1", truth | predicted), ("mean_average_precision", truth)):
        if weighted.often_absent(has_class.sum(axis=0), len(truth)):
            intervals[name] = None
    return replace(scores, per_class=per_class, intervals={**intervals, **scores.intervals})


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
    ranked, hits = rank(scores, truth)
    last = np.append(ranked[1:] < ranked[:-1], True)  # of equal scores, which count as one step
    precision = hits[last] / (np.flatnonzero(last) + 1)
    return float(np.diff(hits[last], prepend=0) @ precision / hits[-1])


def rank(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores from high to low, and the positives among the first 1, 2, ..., N."""
    order = np.argsort(-scores)
    return scores[order], np.cumsum(truth[order])


def class_columns(scores: np.ndarray, truth: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each class's column (N,) of both arrays (N, C)."""
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
