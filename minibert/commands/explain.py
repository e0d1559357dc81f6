"""The story of one text: tokens, stages, attention, logits, prediction."""

from pathlib import Path

from minibert.commands.explain_arguments import ExplainArguments
from minibert.commands.walk_svg import draw
from minibert.errors import InputError, printable
from minibert.files import json_text, write_text
from minibert.hub import find_model
from minibert.inference.text_classifier import TextClassifier
from minibert.inference.walk import Walk, walk
from minibert.processes import ONE_PROCESS, Processes, check_single
from minibert.run_folders import newest_run
from minibert.runs import RunFolder

SHOWN = 5  # values of a vector


def main(arguments: ExplainArguments, processes: Processes = ONE_PROCESS) -> None:
    """Print a text's walk, and draw it if requested."""
    check_single(processes, "explain")
    name, revision = arguments.model, arguments.revision
    folder = newest_run() if name is None else find_model(name, revision=revision)
    check_texts(folder, arguments.text, arguments.pair)
    classifier = TextClassifier.from_folder(folder)
    steps = walk(classifier, arguments.text, arguments.pair)
    print("\n".join([*token_lines(steps), "", *stage_lines(steps), ""]))
    print("\n".join([*attention_lines(steps), "", *result_lines(steps, classifier)]))
    if arguments.svg:
        write_text(arguments.svg, draw(steps, classifier.classes))


def check_texts(folder: Path, text: str, pair: str | None) -> None:
    """Raise InputError for a blank text, and unless there are as many as the run's rows have."""
    if not text.strip():
        raise InputError("the text is empty; give one with words")
    columns = RunFolder(folder).columns()
    if columns and (columns.pair is None) != (pair is None):
        found, needs = ("one text", "two") if pair is None else ("two texts", "one")
        raise InputError(f"this model reads {needs}, not {found}; put each text into quotes")


def token_lines(steps: Walk) -> list[str]:
    """Return a line for each token: its number, piece, id and segment."""
    rows = zip(steps.pieces, steps.ids[0].tolist(), steps.token_types[0].tolist(), strict=True)
    lines = ["token  piece               id  segment"]
    for number, (piece, token_id, segment) in enumerate(rows):
        lines.append(f"{number:5}  {printable(piece, 14):14} {token_id:7}  {segment:7}")
    return lines


def stage_lines(steps: Walk) -> list[str]:
    """Return a line for each stage: its name, shape, and first values.

    They are those of the first token as long as there are tokens, then those of the text.
    """
    lines = ["stage                     shape         first values"]
    for name, output in steps.stages.items():
        shape = ", ".join(map(str, output.shape))
        first = output[0, 0] if output.ndim == 3 else output[0]
        values = " ".join(f"{value:7.3f}" for value in first[:SHOWN].tolist())
        lines.append(f"{name:24}  {f'({shape})':12}  {values}")
    return lines


def attention_lines(steps: Walk) -> list[str]:
    """Return a line for each token: how much the last layer's first token attends to it."""
    heads = len(steps.attention)
    lines = [f"the last layer's first token attends to (mean and maximum of {heads} heads)"]
    means, most = steps.attention.mean(dim=0).tolist(), steps.attention.amax(dim=0).tolist()
    for number, (piece, mean, highest) in enumerate(zip(steps.pieces, means, most, strict=True)):
        lines.append(f"{number:5}  {printable(piece, 14):14}  {mean:6.3f}  {highest:6.3f}")
    return lines


def result_lines(steps: Walk, classifier: TextClassifier) -> list[str]:
    """Return the logits and the prediction."""
    named = zip(classifier.classes, steps.logits[0].tolist(), strict=True)
    lines = [f"logit of {printable(name, 40)}: {value:.3f}" for name, value in named]
    (record,) = classifier.task.records(steps.logits)
    if classifier.checkpoint.head.temperature != 1:
        scale = f"logits / {classifier.checkpoint.head.temperature:.3f}, the temperature"
        lines.append(f"probabilities are those of {scale}")
    return [*lines, f"prediction: {printable(json_text(record), 1000)}"]
