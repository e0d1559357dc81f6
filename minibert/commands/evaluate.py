"""The story of a scoring: a classifier and labelled texts to figures."""

from collections.abc import Sequence
from pathlib import Path

import torch

from minibert.commands.arguments import EvaluateArguments
from minibert.commands.predict import load_predictor
from minibert.commands.probabilities import report_probabilities
from minibert.data.columns import Columns
from minibert.data.examples import Examples, load_examples
from minibert.data.labels import LabelFormat
from minibert.data.options import DataOptions
from minibert.data.readers import read_rows
from minibert.errors import InputError, printable
from minibert.evaluation import metrics
from minibert.files import write_json
from minibert.hub import find_data
from minibert.inference.predictor import Predictor
from minibert.runs import RunFolder
from minibert.tasks.single_label import SingleLabel
from minibert.tasks.task import check_finite

PLOTTED = 100  # classes in a picture, which then has 38 inches


def main(arguments: EvaluateArguments) -> None:
    """Score a classifier on labelled texts and print the figures."""
    folder, predictor = load_predictor(arguments.model)
    json_file = arguments.json
    if json_file and json_file.absolute().parent == folder.absolute():
        raise InputError(f"--json {json_file}: is in the model's folder; give another")
    task = predictor.task
    if arguments.plot and not isinstance(task, SingleLabel):
        raise InputError("--plot draws a confusion matrix, which only single labels have; drop it")
    examples, name = read_examples(arguments, folder, predictor)
    labels = torch.from_numpy(task.targets(examples, numbers=True))
    print(f"model: {printable(str(folder), 1000)}", predictor.compute, sep="\n")
    print(f"data: {printable(name, 1000)}, {len(examples):,} texts; columns: {examples.columns}")
    print_labels(examples, labels, predictor)

    logits = predictor.logits(examples.texts, examples.pairs)
    scores = task.score(logits, labels)
    check_finite(scores)
    print(f"  {predictor.truncated:,} texts cut at {predictor.max_length} tokens")
    print(task.report(logits, labels))
    print(scores)
    figures = {**scores.to_json(), **report_probabilities(task, logits, labels)}
    if json_file:
        write_json(json_file, {"model": str(folder), "data": name, **figures})
    if arguments.plot:
        cells = metrics.confusion(labels, logits.argmax(dim=1))
        plot_confusion(arguments.plot, cells, predictor.classes)


def read_examples(
    arguments: EvaluateArguments, folder: Path, predictor: Predictor
) -> tuple[Examples, str]:
    """Return the texts to score and their name: by default the run's test split."""
    run, data = RunFolder(folder), arguments.data
    task = predictor.classifier.checkpoint.head.task
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


def plot_confusion(file: Path, cells: Sequence[metrics.Cell], classes: Sequence[str]) -> None:
    """Draw the confusion matrix into a picture of the format that the file's name says.

    Of over PLOTTED classes it shows those of the largest mistakes.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError('--plot needs the extra plots: pip install -e ".[plots]"') from None
    from sklearn.metrics import ConfusionMatrixDisplay

    numbers: Sequence[int] = range(len(classes))
    if len(classes) > PLOTTED:
        numbers = metrics.most_confused(cells, PLOTTED)
    size = max(4.0, 0.35 * len(numbers) + 2)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    if len(numbers) < len(classes):
        figure.suptitle(f"{len(numbers)} of {len(classes):,} classes, with the largest mistakes")
    names = [printable(classes[n], 60).replace("$", r"\$") for n in numbers]  # no formulas
    counts = metrics.confusion_matrix(cells, numbers)
    display = ConfusionMatrixDisplay(counts, display_labels=names)
    display.plot(ax=figure.subplots(), cmap="Blues", xticks_rotation="vertical")
    for text in display.text_[counts == 0]:
        text.remove()  # of 100 classes there are 10,000, which are slow to draw
    try:
        figure.savefig(file, dpi=150)
    except (ValueError, OSError) as error:
        raise InputError(f"--plot {file}: {str(error).partition(chr(10))[0]}") from None
