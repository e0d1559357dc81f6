"""The labelled texts that eval.py scores, and the count of looks at a run's test split."""

import json
from datetime import datetime, timezone
from pathlib import Path

import torch

from minibert.commands.arguments import EvaluateArguments
from minibert.data.columns import Columns
from minibert.data.examples import Examples, load_examples
from minibert.data.labels import LabelFormat
from minibert.data.options import DataOptions
from minibert.data.readers import read_rows
from minibert.errors import InputError, printable
from minibert.files import open_without_links
from minibert.hub import find_data
from minibert.inference.predictor import Predictor
from minibert.run_folders import check_output
from minibert.runs import RunFolder


def check_outputs(arguments: EvaluateArguments) -> None:
    """Raise InputError for one file as two outputs, and for one that could replace a model's."""
    flags: dict[Path, str] = {}
    for name in ("json", "errors", "plot"):
        file, flag = getattr(arguments, name), f"--{name}"
        if file is None:
            continue
        check_output(flag, file)
        other = flags.setdefault(file.resolve(), flag)
        if other != flag:
            raise InputError(f"{flag} {file}: is the file of {other} too; choose another")


def read_examples(
    arguments: EvaluateArguments, folder: Path, predictor: Predictor
) -> tuple[Examples, str]:
    """Return the texts to score and their name: by default the run's test split."""
    run, data = RunFolder(folder), arguments.data
    task = predictor.task.head.task
    if data is None:
        file = run.predictions_file
        if not file.is_file():
            raise InputError(f"{folder}: has no test split; give --data")
        pair = "pair" if "pair" in next(iter(read_rows(file))).fields else None
        columns = Columns("text", pair, "label")
        examples = load_examples([file], labels=LabelFormat(task), default=columns)
        return examples, "the run's test split"
    files = find_data(data)
    split = "test" if files.test else "validation" if files.validation else "train"
    options = DataOptions(data, **arguments.reading)
    examples = load_examples(
        getattr(files, split),
        options.columns(),
        LabelFormat(task, options.label_separator or run.label_separator()),
        default=run.columns(),
        encoding=options.encoding,
        bad_rows=options.bad_rows,
    )
    return examples, data if Path(data).exists() else f"the {split} split of {data}"


def print_labels(examples: Examples, labels: torch.Tensor, predictor: Predictor) -> None:
    """Print which labels were read as which classes, if the names differ, and the dropped rows."""
    if examples.task == "single-label" and not set(examples.labels) & set(predictor.classes):
        classes = (predictor.classes[number] for number in labels)
        meaning = dict(zip(examples.labels, classes, strict=True))
        listed = ", ".join(f"{label} = {name}" for label, name in sorted(meaning.items()))
        print(f"labels read as: {printable(listed, 1000)}")
    if examples.dropped:
        listed = "; ".join(map(printable, examples.dropped[:5]))
        print(f"  dropped {len(examples.dropped)} bad rows: {listed}")


def count_look(folder: Path, examples: Examples | None = None) -> str:
    """Note that a run's test split is scored again; return a line that says how often it was.

    Without `examples`, the test split itself is scored. Examples that lack one of its texts are
    another split: nothing is noted, and "" is returned. train.py's own look is the first. Two
    processes may call this at once: a look is one line that is appended to a file.
    """
    run = RunFolder(folder)
    if not (run.metrics_file.is_file() and run.predictions_file.is_file()):
        return ""
    if examples is not None:
        pairs = examples.pairs or [""] * len(examples)
        scored = set(zip(examples.texts, pairs, strict=True))
        rows = (row.fields for row in read_rows(run.predictions_file))
        if not all((row.get("text"), row.get("pair", "")) in scored for row in rows):
            return ""
    look = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    noted = ""
    try:
        with open(run.looks_file, "a", opener=open_without_links, encoding="utf-8") as file:
            file.write(json.dumps(look) + "\n")
    except OSError as error:
        noted = f", which cannot be noted ({error.strerror})"
    try:
        looks = 1 + run.looks_file.read_text(encoding="utf-8").count("\n") + bool(noted)
    except (OSError, ValueError):
        looks = 2
    return (
        f"look {looks} at this test split, the first was train.py's{noted}; "
        "a figure that helped to choose something is not a test figure\n"
    )
