"""How far a run's probabilities can be believed: reliability, and accuracy at each coverage."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minibert.errors import printable
from minibert.evaluation.probabilities import RARE
from minibert.report import pictures
from minibert.report.parts import Picture, Section, Table
from minibert.report.run_data import RunData

COVERAGES = (100, 95, 90, 80, 70, 60, 50, 40, 30, 20, 10)  # percent
POINTS = 200  # of a picture


def probabilities(run: RunData) -> Iterator[Section]:
    """Yield the section of probabilities, if the task has them."""
    calibration = run.scores.get("calibration")
    if not calibration:
        return
    shown, tables = _reliability(calibration)
    notes = [
        f"The temperature {calibration['temperature']:.4g} was fitted on the validation split."
    ]
    notes += rare_class(run)
    curve = coverage([row for row in run.predictions if "probability" in row])
    if curve:
        accepted = run.scores.get("accepted")
        marked = accepted["coverage"] if accepted else None
        xs, ys = zip(*curve[:: -(-len(curve) // POINTS)], strict=True)
        line = {"accuracy": (xs, ys)}
        y = "accuracy of these texts"
        draw = pictures.lines(line, x="most confident texts", y=y, marked=marked, percent="xy")
        shown.append(Picture("Coverage against accuracy", draw))
        rows = []
        for percent in COVERAGES:
            texts = max(1, percent * len(curve) // 100)
            rows.append([f"{percent}%", f"{texts:,}", f"{curve[texts - 1][1]:.1%}"])
        heads = ["coverage", "texts", "accuracy"]
        tables.append(Table("The most confident texts", heads, rows, words=0, folded=True))
        if accepted:
            notes.append(
                f"Texts with a probability of at least {accepted['min_probability']:.4g} are "
                f"accepted: {accepted['coverage']:.1%} of the {run.scored} split."
            )
    yield Section("Probabilities", shown, tables, notes)


def rare_class(run: RunData) -> Iterator[str]:
    """Yield how well the probabilities find the rarer of two classes, and its threshold."""
    rare = run.scores.get("rare_class")
    if not rare or rare["average_precision"] is None:
        return
    name = repr(printable(rare["name"], 60))
    if rare["fraction"] <= RARE:
        yield (
            f"{name} is the class of {rare['fraction']:.1%} of the texts. The average precision of "
            f"its probabilities is {rare['average_precision']:.4f}, their ROC AUC "
            f"{rare['roc_auc']:.4f}."
        )
    if run.head.thresholds:
        threshold = run.head.thresholds[run.head.labels.index(rare["name"])]
        yield (
            f"{name} is predicted from a probability of {threshold:.4g} on. Reliability is that of "
            "the more probable class."
        )


def coverage(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return (ratio, accuracy) for each number of accepted texts, the most confident first.

    A threshold accepts all texts of equal probability or none of them, so each counts as their
    mean, whatever their order in the file.
    """
    ordered = sorted(rows, key=lambda row: -row["probability"])
    points, before, right = [], 0, 0.0
    for _, group in itertools.groupby(ordered, key=lambda row: row["probability"]):
        correct = [row["label"] == row["prediction"] for row in group]
        mean = sum(correct) / len(correct)
        for number in range(1, len(correct) + 1):
            accepted = before + number
            points.append((accepted / len(ordered), (right + number * mean) / accepted))
        before, right = before + len(correct), right + sum(correct)
    return points


def _reliability(calibration: Mapping[str, Any]) -> tuple[list[Picture], list[Table]]:
    """Return the reliability diagram and the figures, before and after the temperature."""
    found = {name: calibration[name] for name in ("before", "after")}
    curves = {
        name: (
            [bin["probability"] for bin in x["reliability"]],
            [bin["accuracy"] for bin in x["reliability"]],
        )
        for name, x in found.items()
    }
    draw = pictures.lines(curves, x="probability", y="accuracy", diagonal=True, percent="xy")
    rows = [
        [
            name,
            f"{x['expected_calibration_error']:.1%}",
            f"{x['brier']:.4f}",
            f"{x['log_loss']:.4f}",
        ]
        for name, x in found.items()
    ]
    figures = Table("", ["temperature", "calibration error", "Brier score", "log loss"], rows)
    bins = [
        [
            f"{bin['low']:.2f} to {bin['high']:.2f}",
            f"{bin['decisions']:,}",
            f"{bin['probability']:.1%}",
            f"{bin['accuracy']:.1%}",
        ]
        for bin in found["after"]["reliability"]
    ]
    heads = ["probability", "decisions", "mean probability", "accuracy"]
    table = Table("Reliability after the temperature", heads, bins, folded=True)
    return [Picture("Reliability before and after the temperature", draw)], [figures, table]
