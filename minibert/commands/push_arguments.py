"""The command line of `minibert push`. No torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minibert.commands.parser import Parser
from minibert.errors import InputError, program_name


@dataclass(frozen=True)
class PushArguments:
    """The command line of `minibert push`."""

    run: Path
    repository: str
    private: bool
    revision: str | None
    dry_run: Path | None


def parse_push(argv: Sequence[str]) -> PushArguments:
    """Parse the command line of `minibert push`."""
    parser = Parser(
        prog=program_name("push"),
        description="Publish a finished run on the Hugging Face hub, in one commit: the model's "
        "files, metrics.json, and a model card, README.md, of its settings and figures. Texts, "
        "predictions and paths are not sent; the names of classes, model and data file are. The "
        "token is that of `hf auth login` or HF_TOKEN.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="finished run; a README.md in it replaces the card")
    add("repository", metavar="OWNER/NAME", help="model on the hub; made if it is not there")
    add("--private", action="store_true", help="make it a private one")
    add("--revision", metavar="BRANCH", help="commit to this branch (default: main)")
    add("--dry-run", type=Path, metavar="DIR", help="send nothing; write it to a new folder")
    arguments = PushArguments(**vars(parser.parse_args(argv)))
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", arguments.repository, re.ASCII):
        raise InputError(f"{arguments.repository}: a model on the hub is written owner/name")
    return arguments
