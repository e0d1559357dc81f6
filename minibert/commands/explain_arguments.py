"""The command line of `python -m minibert explain`. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minibert.commands.options import Parser, RunOptions, add_options
from minibert.errors import InputError


@dataclass(frozen=True)
class ExplainArguments:
    """The command line of `python -m minibert explain`."""

    text: str
    pair: str | None
    model: str | None
    svg: Path | None
    revision: str | None = None


def parse_explain(argv: Sequence[str]) -> ExplainArguments:
    """Parse the command line of `python -m minibert explain`."""
    parser = Parser(
        prog="python -m minibert explain",
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
    if arguments.model is None and arguments.revision:
        raise InputError("--revision goes with a hub id; give --model")
    return arguments
