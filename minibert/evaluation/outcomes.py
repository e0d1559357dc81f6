"""Errors of single labels: the most confident ones, confused classes, text lengths."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibert.errors import printable
from minibert.evaluation.intervals import in_percent, named, show_figures, wilson_interval

SUREST, PAIRS = 5, 5  # errors, and pairs of classes, that a report shows
LENGTHS = (16, 32, 64, 128, 256, 512)  # tokens, the longest of each group


@dataclass(frozen=True)
class Outcome:
    """A text, its label, and what was predicted."""

    text: str
    pair: str | None
    label: str
    prediction: str
    probability: float  # of the prediction
    tokens: int  # before a cut, special tokens included
    cut: bool  # whether the model did not read all of them

    @property
    def right(self) -> bool:
        """Whether the prediction is the label."""
        return self.label == self.prediction

    def __str__(self) -> str:
        text = self.text if self.pair is None else f"{self.text} / {self.pair}"
        classes = f"{printable(self.label, 30)} -> {printable(self.prediction, 30)}"
        return f"{100 * self.probability:5.1f}%  {classes}: {printable(text, 100)}"


def most_confident_errors(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the wrong predictions, the most probable first."""
    wrong = [outcome for outcome in outcomes if not outcome.right]
    return sorted(wrong, key=lambda outcome: (-outcome.probability, outcome.text))


def report_mistakes(outcomes: Sequence[Outcome]) -> str:
    """Return at most 14 lines: the most confident errors, and examples of common ones."""
    lines = []
    if errors := most_confident_errors(outcomes):
        lines += ["most confident errors (probability, true -> predicted, text):"]
        lines += map(str, errors[:SUREST])
        pairs = Counter((error.label, error.prediction) for error in errors)
        examples = {(error.label, error.prediction): error for error in reversed(errors[SUREST:])}
        common = [(examples[pair], n) for pair, n in pairs.most_common(PAIRS) if pair in examples]
        if common:
            lines += [
                "",
                "examples of frequent mistakes (texts, probability, true -> predicted, text):",
            ]
            lines += [f"{count:6,d}  {example}" for example, count in common]
        lines += [""]
    return "\n".join(lines)


def accuracy_by_length(
    lengths: np.ndarray, cut: np.ndarray, right: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Return the accuracy of texts by their number of tokens; those that were cut are one group.

    `lengths` (N,) are tokens before a cut, `cut` (N,) says which texts lost some, and `right` (N,)
    which predictions are right.
    """
    groups = {"cut": cut}
    for low, high in zip(reversed((0, *LENGTHS)), (None, *reversed(LENGTHS)), strict=True):
        name = f"over {low} tokens" if high is None else f"{low + 1} to {high} tokens"
        inside = (low < lengths) & (True if high is None else lengths <= high)
        groups[name] = inside & ~cut
    found = {}
    for name, group in reversed(groups.items()):
        if texts := int(np.count_nonzero(group)):
            hits = int(np.count_nonzero(right[group]))
            figures = {"texts": texts, "accuracy": hits / texts}
            found[name] = named(figures, {"accuracy": wilson_interval(hits, texts)})
    return found


def report_by_length(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line for each group of `accuracy_by_length`; nothing for one group."""
    if len(groups) < 2:
        return ""
    lines = ["accuracy by length:"]
    for name, group in groups.items():
        figure = show_figures(in_percent("accuracy", group["accuracy"], group["accuracy_95"]))
        lines.append(f"{name:>20}: {figure}, {group['texts']:,} texts")
    return "\n".join([*lines, ""])
