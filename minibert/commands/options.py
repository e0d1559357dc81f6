"""Flags from the options of each room, and the options of a run. Imports no torch."""

import argparse
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from minibert.data.options import DataOptions, column_names, fold_number, ratios
from minibert.errors import InputError
from minibert.model.config import HEADS, POOLINGS
from minibert.options import check_options, flag_name, length, option
from minibert.training.options import TrainingOptions

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
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


@dataclass(frozen=True)
class RunOptions:
    """The options of a run that belong neither to its data nor to its training."""

    model: str = option(
        "distilbert-base-uncased", "folder, finished run, hub id, or all-MiniLM-L6-v2"
    )
    revision: str | None = option(None, "branch, tag or commit of a hub id", shown="the newest")
    head: str = option(
        "mlp",
        "layers between features and classes; logistic: a logistic regression on the features of "
        "the frozen encoder, for few labels",
        choices=(*HEADS, "logistic"),
    )
    pooling: str | None = option(
        None,
        "how a text's vectors become one",
        choices=POOLINGS,
        shown="cls; mean for logistic; for a native head its own",
    )
    thresholds: str = option(
        "tuned",
        "probability from which a class is predicted, for several labels: tuned (for each class, "
        "on validation), shared (tuned, one for all) or a number",
        parse=threshold,
    )
    rare_class: str | None = option(
        None,
        "of two classes, predict the rarer one from the probability on that has the best F1 on "
        "validation (f1), or that reaches a precision or recall there (precision=0.9, recall=0.9)",
        parse=rare_class,
        shown="0.5",
    )
    target_accuracy: float | None = option(
        None,
        "accuracy of the texts that predict.py accepts: the lowest probability that reaches it on "
        "validation is stored, and texts below it are marked as rejected; on new texts the "
        "accuracy may be lower",
        parse=float,
        bounds=(0, 1),
        shown="no text is rejected",
    )
    seeds: int = option(
        1,
        "train N runs, with the seeds --seed, --seed + 1, ...; keep the best on validation",
        parse=int,
        bounds=(1, 1000),
    )
    learning_curve: bool = option(
        False,
        "train on 10, 20, 50 and 100%% of the training texts, which tells whether more would help",
    )
    folds: int | None = option(
        None,
        "cross-validation with N runs: every row that is not a test row is predicted by a run that "
        "was not trained on it; rows whose label may be wrong are listed",
        parse=int,
        bounds=(2, 1000),
        shown="no cross-validation",
    )
    no_baseline: bool = option(False, "leave out the scores of guessing and of TF-IDF")
    device: str = option("auto", "cpu, cuda, cuda:1 or mps; auto: a GPU if there is one")
    precision: str = option(
        "auto", "of matrix products; auto prints its choice and the reason", choices=PRECISIONS
    )
    save_every: int | None = option(
        None,
        "steps between saved states, beside each epoch's end",
        parse=int,
        bounds=(1, None),
        shown="none",
    )
    keep_states: int = option(1, "newest saved states that are kept", parse=int, bounds=(1, None))

    def __post_init__(self) -> None:
        problems = []
        for name, parse in (("thresholds", threshold), ("rare_class", rare_class)):
            try:
                if getattr(self, name) is not None:
                    parse(getattr(self, name))
            except argparse.ArgumentTypeError as error:
                problems.append(f"{flag_name(name)}: {error}")
        series = {
            "--learning-curve": self.learning_curve,
            "--seeds": self.seeds != 1,
            "--folds": self.folds is not None,
        }
        if sum(series.values()) > 1:
            names = " and ".join(name for name, given in series.items() if given)
            problems.append(f"{names} are different series of runs; give one")
        if self.rare_class is not None and self.target_accuracy is not None:
            problems.append("--rare-class and --target-accuracy exclude each other; give one")
        if self.head == "logistic" and (self.save_every or self.keep_states != 1):
            problems.append(
                "--head logistic has no steps to save; drop --save-every and --keep-states"
            )
        check_options(self, *problems)


@dataclass(frozen=True)
class Settings:
    """All options of one run of train.py."""

    run: RunOptions
    data: DataOptions
    training: TrainingOptions

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Build the options from flat names. Raises one InputError for all that is wrong."""
        groups, problems = {}, []
        for group in fields(cls):
            kind: Any = group.type
            names = {field.name for field in fields(kind)} & values.keys()
            try:
                groups[group.name] = kind(**{name: values[name] for name in names})
            except InputError as error:
                problems.append(str(error))
        if problems:
            raise InputError("; ".join(problems))
        return cls(**groups)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], file: Path) -> "Settings":
        """Build the options from what `to_dict` returned, read from a JSON file.

        Raises InputError if an option is missing, unknown, of another type or out of range.
        """
        groups: list[Any] = [group.type for group in fields(cls)]
        kinds = {field.name: field.type for group in groups for field in fields(group)}
        values = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
        wrong = [name for name, x in values.items() if name in kinds and not _fits(x, kinds[name])]
        wrong += sorted(kinds.keys() ^ values.keys())
        if wrong:
            raise InputError(
                f"{file}: is not the settings of a run of this version of minibert "
                f"({', '.join(wrong)}); undo the change, or start a new run"
            )
        try:
            return cls.from_dict(values)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the options by their flat names, as settings.json has them."""
        return {**asdict(self.run), **asdict(self.data), **asdict(self.training)}


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of an option's type; a whole number is a float too."""
    if get_origin(kind) is tuple:
        types = {x for x in get_args(kind) if x is not ...}
        return isinstance(value, tuple) and all(type(x) in types for x in value)
    if isinstance(value, tuple):
        return any(get_origin(x) is tuple and _fits(value, x) for x in get_args(kind))
    allowed = get_args(kind) or (kind,)
    return type(value) in allowed or (float in allowed and type(value) is int)


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
