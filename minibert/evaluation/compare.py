"""Two classifiers' predictions for the same texts: the paired difference, and chance."""

import math
from dataclasses import dataclass, replace

import numpy as np

from minibert.evaluation.figures import LOWER_IS_BETTER, is_fraction, title
from minibert.evaluation.intervals import Interval, Statistic, bootstrap, show_interval, sorted_rows
from minibert.evaluation.weighted import errors, label_figures, macro_f1, often_absent

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A figure of A and B, and the 95% interval of B - A."""

    a: float
    b: float
    interval: Interval | None

    @property
    def excludes_0(self) -> bool:
        """Whether the interval is on one side of 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class McNemar:
    """An exact McNemar test: how many texts A alone and B alone have right, and p (two-sided)."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """The figures by name, of which the first decides; a test for single labels."""

    texts: int
    figures: dict[str, Difference]
    mcnemar: McNemar | None = None

    @property
    def significant(self) -> bool:
        """Whether A and B differ at the 5% level: by the test, or as the interval has no 0."""
        if self.mcnemar:
            return self.mcnemar.p < LEVEL
        return next(iter(self.figures.values())).excludes_0

    def to_json(self) -> dict:
        """Return the figures, differences and the test for a JSON file."""
        data: dict = {"texts": self.texts}
        for name, figure in self.figures.items():
            interval = None if figure.interval is None else list(figure.interval)
            values = {"a": figure.a, "b": figure.b, "difference": figure.b - figure.a}
            data[name] = {**values, "difference_95": interval}
        if test := self.mcnemar:
            data["mcnemar"] = {"only_a": test.only_a, "only_b": test.only_b, "p": test.p}
        return {**data, "significant": self.significant}

    def __str__(self) -> str:
        lines = [_difference(name, figure) for name, figure in self.figures.items()]
        name, figure = next(iter(self.figures.items()))
        reason = "its interval does not contain 0" if self.significant else "it may be 0"
        if test := self.mcnemar:
            lines.append(
                f"right in A alone: {test.only_a:,} texts, in B alone: {test.only_b:,}; "
                f"exact McNemar test: p = {test.p:.2g}"
            )
            reason = f"p is {'below' if self.significant else 'not below'} {LEVEL}"
            if figure.excludes_0 and not self.significant:
                reason += "; the test is exact, the interval is not"
        if self.significant:
            better = "B" if (figure.b > figure.a) != (name in LOWER_IS_BETTER) else "A"
            verdict = f"The difference in {title(name)} is significant ({reason}): "
            lines.append(f"{verdict}{better} is better on texts like these.")
        else:
            lines.append(f"The difference in {title(name)} is not significant ({reason}).")
        return "\n".join(lines)


def _difference(name: str, figure: Difference) -> str:
    """Return a line with a figure of A and B and the difference."""
    factor, style, unit = (100, ".1f", "%") if is_fraction(name) else (1, ".4g", "")
    a, b = (format(factor * value, style) + unit for value in (figure.a, figure.b))
    interval = show_interval(figure.interval, style, factor)
    shown = f" (95% interval {interval})" if interval else ""
    difference = format(factor * (figure.b - figure.a), "+" + style)
    return f"{title(name)}: A {a}, B {b}; B - A: {difference}{' points' if unit else ''}{shown}"


def compare_classes(true: np.ndarray, a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compare predicted class numbers (N,) by accuracy and macro-F1."""
    cells, counts = np.unique(np.stack([true, a, b]), axis=1, return_counts=True)
    label, in_a, in_b = cells

    def figures(predicted: np.ndarray) -> Statistic:
        right, f1 = predicted == label, macro_f1(label, predicted)
        return lambda weights: np.hstack(
            [(weights @ right / weights.sum(axis=1))[:, None], f1(weights)]
        )

    found = _differences(("accuracy", "macro_f1"), figures(in_a), figures(in_b), counts)
    for predicted in (in_a, in_b):
        wrong = label != predicted  # these texts have two classes
        classes = np.append(label, predicted[wrong])
        if often_absent(np.bincount(classes, np.append(counts, counts[wrong])), len(true)):
            found["macro_f1"] = replace(found["macro_f1"], interval=None)
    only_a, only_b = int(((a == true) & (b != true)).sum()), int(((a != true) & (b == true)).sum())
    return Comparison(len(true), found, McNemar(only_a, only_b, mcnemar(only_a, only_b)))


def compare_label_sets(truth: np.ndarray, a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compare predicted sets of labels, booleans (N, C), by F1."""
    order = sorted_rows(truth, a, b)
    first, second = (label_figures(truth[order], labels[order]) for labels in (a, b))
    names, once = ("micro_f1", "macro_f1", "samples_f1"), np.ones(len(truth), dtype=int)
    found = _differences(names, first, second, once)
    if any(often_absent((truth | labels).sum(axis=0), len(truth)) for labels in (a, b)):
        found["macro_f1"] = replace(found["macro_f1"], interval=None)
    return Comparison(len(truth), found)


def compare_numbers(targets: np.ndarray, a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compare predicted numbers (N, K) by RMSE, MAE and R2, their means over the K numbers."""
    order = sorted_rows(targets, a, b)

    def figures(values: np.ndarray) -> Statistic:
        every = errors(values[order], targets[order])
        return lambda weights: every(weights)[:, [-3, -4, -2]]

    once = np.ones(len(targets), dtype=int)
    found = _differences(("rmse", "mae", "r2"), figures(a), figures(b), once)
    defined = {name: figure for name, figure in found.items() if math.isfinite(figure.a)}
    return Comparison(len(targets), defined)


def _differences(
    names: tuple[str, ...], a: Statistic, b: Statistic, counts: np.ndarray
) -> dict[str, Difference]:
    """Return the first figures of two statistics, with bootstrap intervals of the differences."""
    every = counts[None].astype(float)
    intervals = bootstrap(lambda weights: b(weights) - a(weights), counts)
    pairs = zip(a(every)[0].tolist(), b(every)[0].tolist(), intervals, strict=True)
    return {name: Difference(*pair) for name, pair in zip(names, pairs, strict=False)}


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p of the exact McNemar test (McNemar 1947; binomial).

    If A and B are equally good, each text that one alone has right is as likely to be A's as B's.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
