"""The story of a comparison: two classifiers and the same labelled texts to a paired difference."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from minibert.checkpoint.config_file import read_head_config
from minibert.commands.arguments import EvaluateArguments
from minibert.commands.labelled import (
    count_look,
    print_labels,
    read_examples,
)
from minibert.commands.predict import load_predictor
from minibert.data.examples import Examples
from minibert.data.readers import read_rows
from minibert.errors import InputError, printable
from minibert.evaluation.compare import (
    Comparison,
    compare_classes,
    compare_label_sets,
    compare_numbers,
)
from minibert.files import write_json
from minibert.hub import find_model
from minibert.runs import RunFolder


class Prediction(NamedTuple):
    """A text and what a classifier predicts for it.

    Label and prediction are a class, a sorted tuple of classes, or a tuple of numbers.
    """

    text: str  # the text itself, or its file and line
    pair: str
    label: Any
    prediction: Any


@dataclass(frozen=True)
class Predictions:
    """One classifier's predictions for a run's test split (`examples` is None) or for --data."""

    folder: Path
    examples: Examples | None
    task: str
    outputs: tuple[str, ...]
    rows: list[Prediction]

    @property
    def name(self) -> str:
        """The name of the classifier in messages."""
        return str(self.folder)


def main(arguments: EvaluateArguments) -> None:
    """Compare two classifiers on the same texts and print the difference."""
    assert arguments.compare is not None
    names = arguments.compare
    folders = [find_model(name) for name in names]
    if folders[0].resolve() == folders[1].resolve():
        raise InputError(f"--compare {' '.join(names)}: is one run; give two")
    if arguments.data:
        a, b = (predict(arguments, name) for name in names)
    else:
        a, b = (read_predictions(folder) for folder in folders)
    check_same_task(a, b)
    comparison = compare(a, *align(a, b))
    looks = {"A": count_look(a.folder, a.examples), "B": count_look(b.folder, b.examples)}
    source = arguments.data or "the test split of both runs"
    print(f"A: {printable(a.name, 1000)}", f"B: {printable(b.name, 1000)}", sep="\n")
    print(f"data: {printable(source, 1000)}, {comparison.texts:,} texts")
    print(comparison)
    print(*(f"{letter}: {look}" for letter, look in looks.items() if look), sep="", end="")
    if arguments.json:
        figures = comparison.to_json()
        write_json(arguments.json, {"a": a.name, "b": b.name, "data": source, **figures})


def read_predictions(folder: Path) -> Predictions:
    """Read what a finished run predicted for its test split."""
    file, head = RunFolder(folder).predictions_file, read_head_config(folder)
    if head is None or not file.is_file():
        raise InputError(f"--compare {folder}: has no predictions of a test split; give --data")
    rows = []
    for row in read_rows(file):
        fields = row.fields
        try:
            label, prediction = (
                comparable(fields[name], head.task) for name in ("label", "prediction")
            )
            text, pair = str(fields["text"]), str(fields.get("pair", ""))
            rows.append(Prediction(text, pair, label, prediction))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{file}, line {row.line}: is not a prediction; give --data") from None
    return Predictions(folder, None, head.task, head.labels, rows)


def predict(arguments: EvaluateArguments, name: str) -> Predictions:
    """Return a model's predictions for --data."""
    folder, predictor = load_predictor(replace(arguments.model, model=name))
    examples, _ = read_examples(arguments, folder, predictor)
    targets = torch.from_numpy(predictor.task.targets(examples, numbers=True))
    print_labels(examples, targets, predictor)
    logits = predictor.logits(examples.texts, examples.pairs)
    if not torch.isfinite(logits).all():
        raise InputError(f"--compare {folder}: its logits are not finite; its weights are damaged")
    task, kind = predictor.task, predictor.task.head.task
    columns = (examples.places, task.labels(targets), task.predict(logits))
    rows = [
        Prediction(place, "", comparable(label, kind), comparable(prediction, kind))
        for place, label, prediction in zip(*columns, strict=True)
    ]
    return Predictions(folder, examples, kind, predictor.classes, rows)


def comparable(value: Any, task: str) -> Any:
    """Return a label or a prediction so that equal ones are equal and can be sorted."""
    if task == "multi-label":
        return tuple(sorted(map(str, value)))
    if task == "regression":
        return tuple(map(float, value if isinstance(value, list | tuple) else [value]))
    return str(value)


def check_same_task(a: Predictions, b: Predictions) -> None:
    """Raise InputError for classifiers of different tasks or classes."""
    if a.task != b.task:
        raise InputError(f"--compare: {a.name} is {a.task}, {b.name} {b.task}; give one task")
    if a.task == "regression":
        if len(a.outputs) != len(b.outputs) or (len(a.outputs) > 1 and a.outputs != b.outputs):
            raise InputError(f"--compare: {a.name} and {b.name} predict different numbers")
    elif different := sorted({*a.outputs} ^ {*b.outputs}):
        where = a.name if different[0] in a.outputs else b.name
        raise InputError(
            f"--compare: {len(different)} classes are not in both; {different[0]!r} is in {where} "
            "alone"
        )


def align(a: Predictions, b: Predictions) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the labels and both classifiers' predictions, in one order of the texts.

    Raises InputError if the two have different texts, or labels.
    """
    rows_a, rows_b = sorted(a.rows), sorted(b.rows)
    if [row[:3] for row in rows_a] == [row[:3] for row in rows_b]:
        in_a, in_b = ([row.prediction for row in rows] for rows in (rows_a, rows_b))
        return [row.label for row in rows_a], in_a, in_b
    texts_a, texts_b = (Counter(row[:2] for row in rows) for rows in (rows_a, rows_b))
    for one, other, more in ((a, b, texts_a - texts_b), (b, a, texts_b - texts_a)):
        if more:
            raise InputError(
                f"--compare: {more.total():,} texts of {one.name} are not in {other.name}, the "
                f"first: {' / '.join(filter(None, min(more)))[:100]!r}; give --data"
            )
    first, second = next(x for x in zip(rows_a, rows_b, strict=True) if x[0][:3] != x[1][:3])
    raise InputError(
        f"--compare: the label of {first.text[:100]!r} is {first.label!r} in {a.name} and "
        f"{second.label!r} in {b.name}; give --data"
    )


def compare(
    a: Predictions, labels: Sequence[Any], in_a: Sequence[Any], in_b: Sequence[Any]
) -> Comparison:
    """Compare the predictions for these labels by the figures of their task."""
    columns = (labels, in_a, in_b)
    if a.task == "regression":
        return compare_numbers(*map(np.array, columns))
    numbers = {name: number for number, name in enumerate(a.outputs)}
    try:
        if a.task == "multi-label":
            return compare_label_sets(*(_indicators(sets, numbers) for sets in columns))
        return compare_classes(*(np.array([numbers[x] for x in names]) for names in columns))
    except KeyError as error:
        raise InputError(f"--compare {a.name}: has no class {error}; give --data") from None


def _indicators(sets: Sequence[tuple[str, ...]], numbers: dict[str, int]) -> np.ndarray:
    """Return booleans (N, C) of sets of classes."""
    found = np.zeros((len(sets), len(numbers)), dtype=bool)
    for row, names in enumerate(sets):
        found[row, [numbers[name] for name in names]] = True
    return found
