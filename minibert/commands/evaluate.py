"""The story of a scoring: a classifier and labelled texts to figures."""

from pathlib import Path

import numpy as np
import torch

from minibert.commands.arguments import EvaluateArguments
from minibert.commands.predict import load_predictor
from minibert.data.columns import Columns
from minibert.data.examples import Examples, class_ids, load_examples
from minibert.data.options import DataOptions
from minibert.data.readers import read_rows
from minibert.errors import InputError, printable
from minibert.evaluation import metrics
from minibert.files import write_json
from minibert.hub import find_data
from minibert.inference.predictor import Predictor
from minibert.runs import RunFolder


def main(arguments: EvaluateArguments) -> None:
    """Score a classifier on labelled texts and print the figures."""
    folder, predictor = load_predictor(arguments.model)
    json_file = arguments.json
    if json_file and json_file.absolute().parent == folder.absolute():
        raise InputError(f"--json {json_file}: is in the model's folder; give another")
    examples, name = read_examples(arguments, folder)
    labels = torch.from_numpy(class_ids(examples, predictor.classes, numbers=True))
    print(f"model: {printable(str(folder), 1000)}", predictor.compute, sep="\n")
    print(f"data: {printable(name, 1000)}, {len(examples):,} texts; columns: {examples.columns}")
    print_labels(examples, labels, predictor)

    logits = predictor.logits(examples.texts, examples.pairs)
    scores = metrics.score(logits, labels, predictor.classes)
    metrics.check_finite(scores)
    print(f"  {predictor.truncated:,} texts cut at {predictor.max_length} tokens")
    print(metrics.report(logits, labels, predictor.classes))
    print(scores)
    if json_file:
        write_json(json_file, {"model": str(folder), "data": name, **scores.to_json()})
    if arguments.plot:
        counts = metrics.confusion(labels, logits.argmax(1), predictor.classes)
        plot_confusion(arguments.plot, counts, predictor)


def read_examples(arguments: EvaluateArguments, folder: Path) -> tuple[Examples, str]:
    """Return the texts to score and their name: by default the run's test split."""
    run, data = RunFolder(folder), arguments.data
    if data is None:
        file = run.predictions_file
        if not file.is_file():
            raise InputError(f"{folder}: has no test split; give --data")
        pair = "pair" if "pair" in next(iter(read_rows(file))).fields else None
        columns = Columns("text", pair, "label")
        return load_examples([file], default=columns), "the run's test split"
    files = find_data(data)
    split = "test" if files.test else "validation" if files.validation else "train"
    options = DataOptions(data, **arguments.reading)
    examples = load_examples(
        getattr(files, split),
        options.columns(),
        default=run.columns(),
        encoding=options.encoding,
        bad_rows=options.bad_rows,
    )
    return examples, data if Path(data).exists() else f"the {split} split of {data}"


def print_labels(examples: Examples, labels: torch.Tensor, predictor: Predictor) -> None:
    """Print which labels were read as which classes, if the names differ, and the dropped rows."""
    if not set(examples.labels) & set(predictor.classes):
        classes = (predictor.classes[number] for number in labels)
        meaning = dict(zip(examples.labels, classes, strict=True))
        listed = ", ".join(f"{label} = {name}" for label, name in sorted(meaning.items()))
        print(f"labels read as: {printable(listed, 1000)}")
    if examples.dropped:
        listed = "; ".join(map(printable, examples.dropped[:5]))
        print(f"  dropped {len(examples.dropped)} bad rows: {listed}")


def plot_confusion(file: Path, counts: np.ndarray, predictor: Predictor) -> None:
    """Draw the confusion matrix into a picture of the format that the file's name says."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError('--plot needs the extra plots: pip install -e ".[plots]"') from None
    from sklearn.metrics import ConfusionMatrixDisplay

    size = max(4.0, 0.35 * len(predictor.classes) + 2)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    names = [printable(name, 60).replace("$", r"\$") for name in predictor.classes]  # no formulas
    display = ConfusionMatrixDisplay(counts, display_labels=names)
    display.plot(ax=figure.subplots(), cmap="Blues", xticks_rotation="vertical")
    try:
        figure.savefig(file, dpi=150)
    except (ValueError, OSError) as error:
        raise InputError(f"--plot {file}: {str(error).partition(chr(10))[0]}") from None
