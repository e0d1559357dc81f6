"""Logits and labels to figures. They are sums and counts until the last line.

scikit-learn is imported inside the functions that use it: it adds a second to every start.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from minibert.errors import printable
from minibert.evaluation.intervals import (
    Interval,
    bootstrap,
    class_intervals,
    in_percent,
    named,
    show_figures,
    wilson_interval,
)
from minibert.evaluation.weighted import macro_f1, often_absent

Cell = tuple[int, int, int]  # of a confusion matrix: true class, predicted class, texts


@dataclass(frozen=True)
class Scores:
    """The figures of one split, and their 95% intervals by name.

    `with_intervals` adds those of macro-F1 and of each class.
    """

    texts: int
    accuracy: float
    macro_f1: float
    loss: float
    per_class: dict[str, dict[str, Any]]
    confusion: dict[str, dict[str, int]]  # true class -> predicted class -> texts, if there are any
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)

    def figure(self, name: str) -> float:
        """Return accuracy, macro-f1 or (negated) loss: higher is better."""
        return {"accuracy": self.accuracy, "macro-f1": self.macro_f1, "loss": -self.loss}[name]

    @property
    def predicted_classes(self) -> int:
        """How many classes are predicted for any text."""
        return len({name for row in self.confusion.values() for name in row})

    def to_json(self) -> dict:
        """Return the figures under the names that metrics.json gives them."""
        figures = {
            "texts": self.texts,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            "per_class": self.per_class,
            "confusion": self.confusion,
        }
        return named(figures, self.intervals)

    def __str__(self) -> str:
        figures = show_figures(
            in_percent("accuracy", self.accuracy, self.intervals.get("accuracy")),
            in_percent("macro-F1", self.macro_f1, self.intervals.get("macro_f1")),
        )
        return f"{figures}, loss {self.loss:.4f}, {self.texts:,} texts"


def score(
    logits: Tensor,
    labels: Tensor,
    classes: Sequence[str] | None = None,
    *,
    predicted: Tensor | None = None,
) -> Scores:
    """Score logits (N, C) against class numbers (N,); the loss is the mean cross-entropy.

    `classes` are the names (default: the numbers), `predicted` the predicted class numbers (N,)
    (default: those of the highest logits).
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = classes or [str(number) for number in range(logits.shape[1])]
    predicted = logits.argmax(dim=1) if predicted is None else predicted
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
    counts: dict[str, dict[str, int]] = {}
    for true, guess, texts in confusion(labels, predicted):
        counts.setdefault(classes[true], {})[classes[guess]] = texts
    present = np.union1d(labels, predicted)  # as in report()
    return Scores(
        texts=len(labels),
        accuracy=correct / len(labels),
        macro_f1=float(np.mean(f1[present])),
        loss=float(F.cross_entropy(logits.float(), labels)),
        per_class=per_class,
        confusion=counts,
        intervals={"accuracy": wilson_interval(correct, len(labels))},
    )


def with_intervals(scores: Scores) -> Scores:
    """Return the scores with their 95% intervals, which depend on the confusion matrix alone."""
    names = {name: number for number, name in enumerate(scores.per_class)}
    cells = np.array(
        [
            (names[true], names[predicted], texts)
            for true, row in scores.confusion.items()
            for predicted, texts in row.items()
        ]
    )
    true, predicted, texts = cells[np.lexsort(cells.T)].T  # not in the order of the file
    right = true == predicted
    hits, support, found = (
        np.bincount(numbers, counts, len(names)).astype(int).tolist()
        for numbers, counts in (
            (true[right], texts[right]),
            (true, texts),
            (predicted, texts),
        )
    )
    per_class = {
        name: named(figures, class_intervals(hits[k], support[k], found[k]))
        for k, (name, figures) in enumerate(scores.per_class.items())
    }
    f1 = None
    if not often_absent(np.array(support) + found - hits, scores.texts):
        (f1,) = bootstrap(macro_f1(true, predicted), texts)
    return replace(scores, per_class=per_class, intervals={**scores.intervals, "macro_f1": f1})


def mean_class_distance(predicted: Tensor, labels: Tensor) -> float:
    """Return the mean absolute difference of classes (N,) that are numbers."""
    return float((predicted - labels).abs().double().mean())


def report(predicted: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    """Return scikit-learn's classification report and the confusion matrix of class numbers (N,).

    It has some 140 lines at most: over 100 classes it shows the 20 with the lowest F1.
    """
    table = class_table(labels, predicted, classes)
    return f"{table}\n{confusion_table(confusion(labels, predicted), classes)}"


def class_table(labels: Tensor, predicted: Tensor, classes: Sequence[str]) -> str:
    """Return scikit-learn's classification report."""
    from sklearn.metrics import classification_report, precision_recall_fscore_support

    # A class without labels and without predictions says nothing about the model.
    numbers = np.union1d(labels, predicted)
    names = [printable(classes[number], 60) for number in numbers]
    table = classification_report(
        labels, predicted, labels=numbers, target_names=names, digits=3, zero_division=0.0
    )
    if len(names) <= 100:
        return str(table)
    _, _, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=numbers, zero_division=0.0
    )
    lines = table.splitlines()  # a header, an empty line, the classes, the averages
    lowest = [lines[2 + place] for place in np.lexsort((-support, f1))[:20]]
    title = f"the 20 of {len(names):,} classes with the lowest F1 (metrics.json, --json: all):"
    return "\n".join([title, *lines[:2], *lowest, *lines[2 + len(names) :]]) + "\n"


def confusion(labels: Tensor, predicted: Tensor) -> list[Cell]:
    """Return the cells of the confusion matrix that are not zero, the largest first."""
    pairs, texts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    order = np.argsort(-texts, kind="stable")
    return list(zip(*pairs[:, order].tolist(), texts[order].tolist(), strict=True))


def confusion_matrix(cells: Iterable[Cell], numbers: Sequence[int]) -> np.ndarray:
    """Return the (C, C) counts of these classes: rows are the true, columns the predicted ones."""
    places = {number: place for place, number in enumerate(numbers)}
    counts = np.zeros((len(numbers), len(numbers)), dtype=int)
    for true, predicted, texts in cells:
        if true in places and predicted in places:
            counts[places[true], places[predicted]] = texts
    return counts


def confusion_table(cells: Sequence[Cell], classes: Sequence[str]) -> str:
    """Return a confusion matrix as text; over 12 classes only the most frequent mistakes."""
    if len(classes) > 12:
        wrong = [cell for cell in cells if cell[0] != cell[1]][:15]
        lines = [
            f"{texts:6d}  {printable(classes[true], 60)} -> {printable(classes[predicted], 60)}"
            for true, predicted, texts in wrong
        ]
        return "\n".join(["most frequent mistakes (true -> predicted):", *lines]) + "\n"
    classes = [printable(name, 60) for name in classes]
    width = max(9, *(len(name) for name in classes)) + 2
    rows = [f"{'':{width}}" + "".join(f"{name:>{width}}" for name in classes)]
    for name, row in zip(classes, confusion_matrix(cells, range(len(classes))), strict=True):
        rows.append(f"{name:>{width}}" + "".join(f"{count:{width}d}" for count in row))
    return "\n".join(["confusion matrix (rows: true, columns: predicted)", *rows]) + "\n"


def most_confused(cells: Sequence[Cell], limit: int) -> list[int]:
    """Return at most `limit` classes in their order: those of the largest mistakes come first."""
    mistakes = [number for cell in cells if cell[0] != cell[1] for number in cell[:2]]
    found = dict.fromkeys([*mistakes, *(cell[0] for cell in cells)])
    return sorted(list(found)[:limit])
