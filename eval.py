"""Score a classifier on labelled texts: `python eval.py --help`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minibert.errors import InputError, begin, printable, run_command

if __name__ == "__main__":
    begin()

import torch

from minibert import metrics
from minibert.data import Examples, class_ids, load_examples
from minibert.files import write_json
from minibert.hub import find_data
from minibert.predictor import Predictor
from minibert.runs import RunFolder
from minibert.settings import Flags, add_model_options, add_options
from minibert.tables import read_rows

DESCRIPTION = """Score a finished run, a folder or a hub model on labelled texts: scikit-learn's
classification report, a confusion matrix, accuracy with its 95% interval."""

DATA_OPTIONS = ("text_column", "pair_column", "label_column", "encoding", "bad_rows")


def main(argv: Sequence[str]) -> None:
    """Run one evaluation from the command line's words."""
    parser = Flags(prog="eval.py", usage="%(prog)s [options]", description=DESCRIPTION)
    add_model_options(parser)
    add_options(parser, DATA_OPTIONS)
    add = parser.add_argument_group("what to score, and where the figures go").add_argument
    add("--data", metavar="NAME", help="file, hub:owner/name, sst2 (default: the run's test part)")
    add("--json", type=Path, metavar="FILE", help="write the figures here too")
    add("--plot", type=Path, metavar="FILE", help="draw the confusion matrix (extra: plots)")
    flags = vars(parser.parse_args(argv))
    data, json_file, plot = flags.pop("data"), flags.pop("json"), flags.pop("plot")
    reading = {name: flags.pop(name) for name in DATA_OPTIONS if name in flags}
    if json_file and data and json_file.resolve() == Path(data).resolve():
        raise InputError(f"--json {json_file}: is the file to score; give another")
    for file in (json_file, plot):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise InputError(f"{file}: is a folder, or its folder does not exist; make it first")

    predictor = Predictor.open(flags.pop("model"), **flags)
    if json_file and json_file.absolute().parent == predictor.folder.absolute():
        raise InputError(f"--json {json_file}: lies in the model's own folder; give another")
    examples, which = read_examples(data, predictor, reading)
    labels = torch.from_numpy(class_ids(examples, predictor.classes, numbers=True))
    print(f"model: {printable(str(predictor.folder), 1000)}", predictor.runtime, sep="\n")
    print(f"data: {printable(which, 1000)}, {len(examples):,} texts; columns: {examples.columns}")
    if not set(examples.labels) & set(predictor.classes):
        meant = dict(zip(examples.labels, (predictor.classes[i] for i in labels), strict=True))
        pairs = ", ".join(f"{k} = {v}" for k, v in sorted(meant.items()))
        print(f"labels read as: {printable(pairs, 1000)}")
    if examples.dropped:
        listed = "; ".join(map(printable, examples.dropped[:5]))
        print(f"  left out {len(examples.dropped)} bad rows: {listed}")
    logits = predictor.logits(examples.texts, examples.pairs)
    scores = metrics.score(logits, labels, predictor.classes)
    print(f"  {predictor.truncated:,} texts cut at {predictor.max_length} tokens")
    print(metrics.report(logits, labels, predictor.classes))
    print(scores)
    if json_file:
        write_json(json_file, {"model": str(predictor.folder), "data": which, **scores.to_json()})
    if plot:
        plot_confusion(
            plot, metrics.confusion(labels, logits.argmax(1), predictor.classes), predictor
        )


def read_examples(
    data: str | None, predictor: Predictor, reading: dict[str, Any]
) -> tuple[Examples, str]:
    """Return the texts to score and what to call them: by default the run's own test part."""
    if data is None:
        file = RunFolder(predictor.folder).predictions_file
        if not file.is_file():
            raise InputError(f"{predictor.folder}: has no test part of its own; give --data")
        if reading:
            raise InputError("the flags of columns and files go with --data; leave them out")
        first = next(iter(read_rows(file)))
        pair = "pair" if "pair" in first.fields else None
        return load_examples(
            [file], text_column="text", pair_column=pair, label_column="label"
        ), "the run's test part"
    files = find_data(data)
    local = Path(data).exists()
    part = "test" if files.test else "validation" if files.validation else "train"
    examples = load_examples(getattr(files, part), usual=predictor.columns, **reading)
    return examples, data if local else f"the {part} part of {data}"


def plot_confusion(file: Path, counts: Any, predictor: Predictor) -> None:
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


if __name__ == "__main__":
    sys.exit(run_command(main))
