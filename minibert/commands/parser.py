"""Command lines: the types of their values, and flags made from the options of each room."""

import argparse
import dataclasses
import os
import shutil
from collections.abc import Sequence
from typing import Any, NoReturn

from minibert.data.options import column_names, fold_number, ratios
from minibert.errors import InputError
from minibert.options import flag_name, length

WIDEST = 50  # characters of a flag's choices before its help; more are in the help


def threshold(text: str) -> str:
    """Parse --thresholds: tuned, shared or a probability."""
    if text not in ("tuned", "shared"):
        try:
            valid = 0 < float(text) < 1
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither tuned nor shared nor a number between 0 and 1"
            )
    return text


def rare_class(text: str) -> str:
    """Parse --rare-class: f1, precision=P or recall=R."""
    figure, _, wanted = text.partition("=")
    try:
        valid = figure in ("precision", "recall") and 0 < float(wanted) <= 1
    except ValueError:
        valid = False
    if not valid and text != "f1":
        raise argparse.ArgumentTypeError(f"{text!r} is not like f1, precision=0.9 or recall=0.9")
    return text


def probability(text: str) -> float:
    """Parse --min-probability."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a probability from 0 to 1")
    return value


METAVARS: dict[Any, str] = {
    **{int: "N", float: "X", length: "N", ratios: "A:B:C", column_names: "NAME,NAME"},
    fold_number: "N/K",
    threshold: "P",
    rare_class: "FIGURE",
}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are InputErrors: one line, without the usage."""

    def __init__(self, **kwargs: Any) -> None:
        width = min(100, shutil.get_terminal_size().columns)
        super().__init__(
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(
                prog, max_help_position=min(30, width // 3), width=width
            ),
            **kwargs,
        )

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse a command line, or complete it when a shell asks."""
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)  # and exit
        return super().parse_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise InputError(f"{message} (see --help)")


def add_options(group: Any, kind: type, names: Sequence[str] | None = None) -> None:
    """Add flags for the fields of an options dataclass. A flag that is not given has no value."""
    for field in dataclasses.fields(kind):
        if names is not None and field.name not in names:
            continue
        metadata = field.metadata
        flag = flag_name(field.name)
        if isinstance(field.default, bool):
            group.add_argument(
                flag, action="store_true", default=argparse.SUPPRESS, help=metadata["help"]
            )
            continue
        choices = metadata["choices"] or ()
        wide = len(",".join(choices)) > WIDEST
        listed = f": {', '.join(choices)}" if wide else ""
        group.add_argument(
            flag,
            type=metadata["parse"],
            choices=choices or None,
            default=argparse.SUPPRESS,
            metavar=None if choices and not wide else METAVARS.get(metadata["parse"], "NAME"),
            help=f"{metadata['help']}{listed} (default: {metadata['shown']})",
        )
