"""The options of a run, of its data and of its training together. Imports no torch."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from minibert.commands.parser import rare_class, threshold
from minibert.data.options import DataOptions
from minibert.errors import InputError
from minibert.model.config import HEADS, POOLINGS
from minibert.options import check_options, flag_name, option
from minibert.training.options import TrainingOptions

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


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
        "accuracy of the accepted texts: the lowest probability that reaches it on "
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
    tensorboard: bool = option(
        False, "write loss, rates, gradient norm, speed and validation to tensorboard/ in the run"
    )
    log_json: bool = option(False, "write the same figures to log.jsonl in the run, as JSON lines")

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
        if self.head == "logistic" and (self.tensorboard or self.log_json):
            problems.append("--head logistic has no steps; drop --tensorboard and --log-json")
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
