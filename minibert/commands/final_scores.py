"""The last step of a run: the best epoch's figures on validation and test, its predictions."""

from typing import Any

from torch import Tensor

from minibert.commands.probabilities import report_probabilities
from minibert.data.batches import Dataset
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
    task: Task, logits: dict[str, Tensor], datasets: dict[str, Dataset], splits: Splits
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
        probabilities = report_probabilities(task, values, labels, start=f"{name}: ")
        figures[name] = {**scores.to_json(), **probabilities}
    if splits.test is None:
        return figures, []
    return figures, prediction_rows(splits.test, task, datasets["test"].labels, logits["test"])


def prediction_rows(
    test: Examples, task: Task, labels: Tensor, logits: Tensor
) -> list[dict[str, Any]]:
    """Return one row per text: the text, its label, the prediction and a class's probability."""
    rows = []
    results = zip(task.labels(labels), task.records(logits), strict=True)
    for i, (label, record) in enumerate(results):
        row = {"text": test.texts[i], "label": label, "prediction": record[task.keys[0]]}
        if test.pairs is not None:
            row["pair"] = test.pairs[i]
        if "probability" in record:
            row["probability"] = record["probability"]
        rows.append(row)
    return rows
