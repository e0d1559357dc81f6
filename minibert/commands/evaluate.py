"""The story of a scoring: a classifier and labelled texts to figures."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from minibert.commands import compare
from minibert.commands.arguments import EvaluateArguments
from minibert.commands.labelled import (
    check_outputs,
    count_look,
    print_labels,
    read_examples,
)
from minibert.commands.predict import load_predictor
from minibert.commands.probabilities import report_probabilities
from minibert.commands.report import report_run
from minibert.commands.text_figures import length_figures
from minibert.data.examples import Examples
from minibert.data.long_texts import TokenizedTexts
from minibert.errors import InputError, printable
from minibert.evaluation import metrics
from minibert.evaluation.outcomes import (
    Outcome,
    most_confident_errors,
    report_by_length,
    report_mistakes,
)
from minibert.files import json_text, write_json, write_text
from minibert.processes import ONE_PROCESS, Processes, check_single
from minibert.tasks.single_label import SingleLabel
from minibert.tasks.task import check_finite

PLOTTED = 100  # classes in a picture, which then has 38 inches


def main(arguments: EvaluateArguments, processes: Processes = ONE_PROCESS) -> None:
    """Score a classifier on labelled texts, compare two, or write a run's report again.

    Several processes share the predictions; the first one prints and writes.
    """
    check_outputs(arguments)
    if arguments.compare:
        check_single(processes, "--compare")
        compare.main(arguments)
        return
    if arguments.report:
        check_single(processes, "--report")
        report_run(arguments.report)
        return
    folder, predictor = load_predictor(arguments.model, processes)
    task = predictor.task
    if (arguments.plot or arguments.errors) and not isinstance(task, SingleLabel):
        raise InputError("--plot and --errors are for one class per text; drop them")
    if arguments.plot:
        check_picture(arguments.plot)
    examples, name = read_examples(arguments, folder, predictor)
    labels = torch.from_numpy(task.targets(examples, numbers=True))
    print(f"model: {printable(str(folder), 1000)}", predictor.compute, sep="\n")
    print(f"data: {printable(name, 1000)}, {len(examples):,} texts; columns: {examples.columns}")
    print_labels(examples, labels, predictor)

    tokenized = predictor.tokenize(examples.texts, examples.pairs)
    logits = predictor.logits_of(tokenized)
    if not processes.is_first:
        return
    scores = task.score_with_intervals(logits, labels)
    check_finite(scores)
    look = count_look(folder, examples)  # before the figures can be read
    print(f"  {predictor.truncated:,} texts {predictor.how_truncated}")
    print(task.report(logits, labels))
    by_length = length_figures(task, logits, labels, tokenized)
    if isinstance(task, SingleLabel):
        outcomes = outcomes_of(examples, labels, logits, task, tokenized)
        found = report_mistakes(outcomes), report_by_length(by_length["by_length"])
        print("\n".join(filter(None, found)))
        if arguments.errors:
            write_errors(arguments.errors, outcomes)
    print(scores)
    figures = {**scores.to_json(), **report_probabilities(task, logits, labels), **by_length}
    print(look, end="")
    if arguments.json:
        write_json(arguments.json, {"model": str(folder), "data": name, **figures})
    if arguments.plot:
        assert isinstance(task, SingleLabel)
        cells = metrics.confusion(labels, task.decide(logits))
        plot_confusion(arguments.plot, cells, predictor.classes)


def outcomes_of(
    examples: Examples,
    labels: torch.Tensor,
    logits: torch.Tensor,
    task: SingleLabel,
    tokenized: TokenizedTexts,
) -> list[Outcome]:
    """Return what was predicted for each text."""
    names, predicted = task.labels(labels), task.predict(logits)
    probabilities, _ = task.confidence(logits.float(), labels)
    return [
        Outcome(
            text=text,
            pair=examples.pairs[i] if examples.pairs else None,
            label=names[i],
            prediction=predicted[i],
            probability=float(probabilities[i]),
            tokens=int(tokenized.lengths[i]),
            cut=bool(tokenized.lost[i]),
        )
        for i, text in enumerate(examples.texts)
    ]


def write_errors(file: Path, outcomes: Sequence[Outcome]) -> None:
    """Write all wrong predictions as JSON lines, the most confident first."""
    lines = []
    for outcome in most_confident_errors(outcomes):
        row = {name: value for name, value in asdict(outcome).items() if value is not None}
        lines.append(json_text({**row, "probability": round(outcome.probability, 6)}) + "\n")
    write_text(file, "".join(lines))


def check_picture(file: Path) -> None:
    """Raise InputError without matplotlib, and for a file name of no picture format."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise InputError('--plot needs the extra plots: pip install -e ".[plots]"') from None
    if file.suffix.lower()[1:] not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(
            f"--plot {file}: is not a picture format of matplotlib; use .png, .svg or .pdf"
        )


def plot_confusion(file: Path, cells: Sequence[metrics.Cell], classes: Sequence[str]) -> None:
    """Draw the confusion matrix into a picture of the format that the file's name says.

    Of over PLOTTED classes it shows those of the largest mistakes.
    """
    from matplotlib.figure import Figure
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
