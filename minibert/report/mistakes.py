"""Where a run is wrong: the confusion matrix and the worst errors on the test split."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minibert.errors import printable
from minibert.report import pictures
from minibert.report.parts import SHOWN, TEXT, Cell, Picture, Row, Section, Table
from minibert.report.run_data import RunData

MATRIX = 12  # classes; of more, the most frequent mistakes are listed
ERRORS, EXAMPLES = 20, 3  # worst errors; further ones of each of the most frequent mistakes
POINTS = 500  # of a picture


def mistakes(run: RunData) -> Iterator[Section]:
    """Yield the section of errors, if there are any figures for it."""
    confusion = run.scores.get("confusion")
    tables: list[Table] = []
    shown: list[Picture] = []
    if confusion:
        tables.append(_matrix(confusion, run.head.labels))
    if run.head.task == "regression" and run.predictions:
        shown += _numbers(run)
    wrong = _worst(run)
    if wrong:
        tables.append(_errors("Worst errors", wrong[:ERRORS]))
        tables += _examples(wrong[ERRORS:])
    yield Section(f"Errors on the {run.scored} split", shown, tables)


def _matrix(confusion: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> Table:
    """Return the confusion matrix, or of many classes the most frequent mistakes."""
    if len(labels) <= MATRIX:
        rows: list[Row] = []
        for true in labels:
            row = confusion.get(true, {})
            total = max(1, sum(row.values()))
            cells = [Cell(f"{row.get(x, 0):,}", shade=row.get(x, 0) / total) for x in labels]
            rows.append([printable(true, 40), *cells])
        heads = ["true, predicted:", *(printable(name, 40) for name in labels)]
        return Table("Confusion matrix", heads, rows)
    pairs = [
        (texts, true, predicted)
        for true, row in confusion.items()
        for predicted, texts in row.items()
        if true != predicted
    ]
    pairs.sort(key=lambda pair: -pair[0])
    listed: list[Row] = [
        [printable(true, 60), printable(predicted, 60), Cell(f"{n:,}", bar=n / pairs[0][0])]
        for n, true, predicted in pairs[:SHOWN]
    ]
    return Table("Commonest mistakes", ["true", "predicted", "texts"], listed, words=2)


def _worst(run: RunData) -> list[Mapping[str, Any]]:
    """Return wrong predictions: the most confident, the farthest, or with most wrong classes."""
    wrong = [row for row in run.predictions if row["label"] != row["prediction"]]
    return sorted(wrong, key=lambda row: (-_badness(row), row["text"]))


def _badness(row: Mapping[str, Any]) -> float:
    if "probability" in row:
        return float(row["probability"])
    label, prediction = _as_list(row["label"]), _as_list(row["prediction"])
    if all(isinstance(x, int | float) for x in (*label, *prediction)):
        return math.dist(label, prediction)
    return len({*label} ^ {*prediction})


def _errors(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of predictions, each with its text."""
    sure = "probability" in rows[0]
    cells = []
    for row in rows:
        texts = [row["text"], *([row["pair"]] if "pair" in row else [])]
        classes = [printable(_show(row[name]), 60) for name in ("label", "prediction")]
        text = printable(" / ".join(texts), TEXT)
        cells.append([text, *classes, *([f"{row['probability']:.1%}"] if sure else [])])
    heads = ["text", "true", "predicted", *(["probability"] if sure else [])]
    return Table(title, heads, cells, words=3)


def _examples(wrong: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield further examples of the most frequent mistakes, of single labels."""
    if not wrong or "probability" not in wrong[0]:
        return
    pairs = Counter((row["label"], row["prediction"]) for row in wrong)
    rows = []
    for pair, _ in pairs.most_common(SHOWN // EXAMPLES):
        rows += [row for row in wrong if (row["label"], row["prediction"]) == pair][:EXAMPLES]
    yield _errors("Examples of the most frequent other mistakes", rows)


def _numbers(run: RunData) -> Iterator[Picture]:
    """Yield a picture of the first numbers and their predictions."""
    step = -(-len(run.predictions) // POINTS)
    rows = run.predictions[::step]
    true, found = ([_as_list(row[x])[0] for row in rows] for x in ("label", "prediction"))
    name = printable(run.head.labels[0], 40)
    yield Picture(
        f"{name}: predictions and true numbers",
        pictures.scatter(true, found, x="true", y="predicted"),
    )


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _show(value: Any) -> str:
    return (
        ", ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in _as_list(value)) or "none"
    )
