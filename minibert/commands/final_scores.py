"""The last step of a run: the best epoch's figures on validation and test, its predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from minibert.commands.probabilities import report_probabilities
from minibert.commands.text_figures import length_figures
from minibert.data.batches import Dataset
from minibert.data.datasets import TokenizedSplits
from minibert.data.examples import Examples
from minibert.data.splits import Splits
from minibert.inference.batched import InferenceModel
from minibert.tasks.task import Task, check_finite
from minibert.training.options import TrainingOptions


def scored_logits(
    model: InferenceModel, datasets: dict[str, Dataset], options: TrainingOptions
) -> dict[str, Tensor]:
    """Return the logits of the validation split and of the test split, if there is one."""
    names = [name for name in ("validation", "test") if name in datasets]
    return {name: model.logits(datasets[name], batch_size=options.batch_size) for name in names}


def evaluate(
    task: Task,
    logits: dict[str, Tensor],
    datasets: dict[str, Dataset],
    splits: Splits,
    tokenized: TokenizedSplits,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score validation and, for the only time, test; return figures and the test's predictions."""
    figures: dict[str, Any] = {}
    for name, values in logits.items():
        labels = datasets[name].labels
        scores = task.score_with_intervals(values, labels)
        check_finite(scores)
        if name == "test":
            print(task.report(values, labels))
        print(f"{name}: {scores}")
        chosen = name == "validation"  # by which the lowest probability is chosen
        probabilities = report_probabilities(
            task, values, labels, start=f"{name}: ", accepted_interval=not chosen
        )
        by_length = length_figures(task, values, labels, tokenized.texts[name])
        figures[name] = {**scores.to_json(), **probabilities, **by_length}
    if splits.test is None:
        return figures, []
    rows = prediction_rows(splits.test, task, datasets["test"].labels, logits["test"])
    if splits.rows:
        add_places(rows, task, logits["test"], splits.test, splits.rows)
    return figures, rows


def prediction_rows(
    test: Examples, task: Task, labels: Tensor, logits: Tensor
) -> list[dict[str, Any]]:
    """Return one row per text: the text, its label, the prediction and a class's probability."""
    rows = []
    results = zip(task.labels(labels), task.predict(logits), task.records(logits), strict=True)
    for i, (label, prediction, record) in enumerate(results):
        row = {"text": test.texts[i], "label": label, "prediction": prediction}
        if test.pairs is not None:
            row["pair"] = test.pairs[i]
        if "probability" in record:
            row["probability"] = record["probability"]
        rows.append(row)
    return rows


def add_places(
    rows: Sequence[dict[str, Any]], task: Task, logits: Tensor, fold: Examples, of_all: Examples
) -> None:
    """Add to a fold's rows what the cross-validation needs: their places, and all probabilities."""
    numbers = {place: number for number, place in enumerate(of_all.places)}
    for row, record, place in zip(rows, task.records(logits), fold.places, strict=True):
        file, _, line = place.rpartition(", ")
        if "probabilities" in record:
            row["probabilities"] = record["probabilities"]
        row |= {"row": numbers[place], "file": Path(file).name, "line": int(line.split()[1])}
