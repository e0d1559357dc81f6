"""The command line of `minibert explain`, and predict.py's --explain. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minibert.commands.options import RunOptions
from minibert.commands.parser import Parser, add_options
from minibert.errors import InputError, program_name

EXPLAIN_HELP = (
    "write what each word adds to the prediction, by integrated gradients: .html, or .jsonl; a "
    "second or more per text"
)


@dataclass(frozen=True)
class ExplainArguments:
    """The command line of `minibert explain`."""

    text: str
    pair: str | None
    model: str | None
    svg: Path | None
    revision: str | None = None


def parse_explain(argv: Sequence[str]) -> ExplainArguments:
    """Parse the command line of `minibert explain`."""
    parser = Parser(
        prog=program_name("explain"),
        description="Print what happens to one text in a trained model: pieces, ids, segments, "
        "shapes, first values after each stage, the attention of the last layer's first token, "
        "logits and prediction; in fp32 on the CPU. docs/walk.md shows one.",
    )
    add = parser.add_argument
    add("text", metavar="TEXT")
    add("pair", nargs="?", metavar="PAIR", help="second text, for a model of pairs")
    add("--model", metavar="NAME", help="run, folder or hub id (default: the newest finished run)")
    add_options(parser.add_argument_group("model"), RunOptions, ("revision",))
    add("--svg", type=Path, metavar="FILE", help="draw the walk")
    arguments = ExplainArguments(**vars(parser.parse_args(argv)))
    if arguments.svg and arguments.svg.suffix.lower() != ".svg":
        raise InputError(f"--svg {arguments.svg}: does not end in .svg")
    if arguments.model is None and arguments.revision:
        raise InputError("--revision goes with a hub id; give --model")
    return arguments


def check_explain(file: Path, others: Sequence[str | None], *, resume: bool) -> None:
    """Raise InputError for a file of predict.py's --explain that cannot be used."""
    if file.suffix.lower() not in (".html", ".jsonl"):
        raise InputError(f"--explain {file}: has none of the endings .html, .jsonl")
    if resume:
        raise InputError("--explain does not go with --resume-output; drop one")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise InputError(f"--explain {file}: is a folder, or its folder does not exist")
    if any(other and file.resolve() == Path(other).resolve() for other in others):
        raise InputError(f"--explain {file}: is the input or the output; give another")
