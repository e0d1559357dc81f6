"""Every option of a run: its default, unit and range, in one place; the flags come from it."""

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from minibert.config import HEADS, POOLINGS
from minibert.errors import InputError

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ANSWERING_PRECISIONS = (*PRECISIONS, "int8")


class Flags(argparse.ArgumentParser):
    """argparse with a user's mistakes as InputError: one line, no usage dump."""

    def __init__(self, **kwargs: Any) -> None:
        wide = lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100)  # noqa: E731
        super().__init__(allow_abbrev=False, formatter_class=wide, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise InputError(f"{message} (see --help)")


def length(text: str) -> int | None:
    """Read --max-length: a number of tokens, or auto (none)."""
    try:
        return None if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def shares(text: str) -> tuple[int, int, int]:
    """Read --split: three whole numbers with colons between."""
    try:
        train, validation, test = (int(part) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 70:15:15") from None
    return train, validation, test


METAVARS: dict[Any, str] = {int: "N", float: "X", length: "N", shares: "A:B:C"}


def option(
    group: str,
    default: Any,
    text: str,
    *,
    kind: Callable[[str], Any] = str,
    choices: Sequence[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    shown: str | None = None,
) -> Any:
    """Describe a field of RunSettings; `low`, `high` bound it, `shown` is its default in --help."""
    metadata = {
        "group": group,
        "help": text,
        "kind": kind,
        "choices": choices,
        "low": low,
        "high": high,
        "shown": shown,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RunSettings:
    """The options of one run of train.py."""

    model: str = option(
        "model", "distilbert-base-uncased", "folder, finished run, hub id, or all-MiniLM-L6-v2"
    )
    revision: str | None = option(
        "model", None, "branch, tag or commit of a hub id", shown="the newest"
    )
    head: str = option("model", "mlp", "what turns features into classes", choices=HEADS)
    pooling: str | None = option(
        "model",
        None,
        "how a text's vectors become one",
        choices=POOLINGS,
        shown="cls; a native head's own",
    )
    max_length: int | None = option(
        "model",
        128,
        "tokens a text, longer ones are cut; auto: cuts at most 1%% of the training texts",
        kind=length,
        low=3,
    )

    data: str = option("data", "sst2", "file, hub:owner/name[/folder], sst2 or glue/sst2")
    validation: str | None = option("data", None, "file to choose the epoch by", shown="split off")
    test: str | None = option(
        "data", None, "file to test on, once, at the end", shown="split off a single file"
    )
    text_column: str | None = option("data", None, "column of the text", shown="found by its name")
    pair_column: str | None = option(
        "data", None, "column of a second text", shown="found by its name"
    )
    label_column: str | None = option(
        "data", None, "column of the label", shown="found by its name"
    )
    encoding: str = option("data", "utf-8", "of CSV, TSV and JSON lines files")
    bad_rows: str = option(
        "data",
        "error",
        "stop at a row that cannot be used, or leave it out",
        choices=("error", "drop"),
    )
    split: tuple[int, int, int] = option(
        "data", (70, 15, 15), "train:validation:test shares", kind=shares, shown="70:15:15"
    )
    split_seed: int = option("data", 2021, "of the split", kind=int, low=0, high=2**32 - 1)

    epochs: int = option("training", 3, "passes over the training texts", kind=int, low=1)
    batch_size: int = option("training", 32, "texts a forward pass", kind=int, low=1)
    accumulate: int = option("training", 1, "batches a step of the optimizer", kind=int, low=1)
    encoder_lr: float = option(
        "training", 2e-5, "highest learning rate of the encoder", kind=float, low=0
    )
    head_lr: float = option(
        "training", 1e-4, "highest learning rate of the head", kind=float, low=0
    )
    weight_decay: float = option(
        "training", 0.01, "AdamW's, of matrices only", kind=float, low=0, high=1
    )
    schedule: str = option(
        "training", "linear", "learning rates after the warm-up", choices=SCHEDULES
    )
    warmup: float = option(
        "training", 0.1, "share of the steps with rising rates", kind=float, low=0, high=1
    )
    clip: float = option(
        "training", 1.0, "largest norm of the gradient; 0: no clipping", kind=float, low=0
    )
    label_smoothing: float = option(
        "training", 0.0, "share of a label spread over all classes", kind=float, low=0, high=0.99
    )
    class_weights: str = option(
        "training", "none", "balanced: rare classes weigh more", choices=("none", "balanced")
    )
    freeze: bool = option("training", False, "train the head alone, on features computed once")
    freeze_layers: int = option(
        "training", 0, "lowest encoder layers that do not train", kind=int, low=0
    )
    freeze_embeddings: bool = option("training", False, "the embeddings do not train")
    select: str = option(
        "training",
        "accuracy",
        "validation figure that chooses the saved epoch",
        choices=("accuracy", "macro-f1", "loss"),
    )
    patience: int | None = option(
        "training",
        None,
        "epochs without a better figure before stopping",
        kind=int,
        low=1,
        shown="no early stopping",
    )
    seed: int = option(
        "training", 0, "of the new head, the batches and dropout", kind=int, low=0, high=2**32 - 1
    )
    save_every: int | None = option(
        "training",
        None,
        "steps between states to go on from, beside each epoch's end",
        kind=int,
        low=1,
        shown="none",
    )
    keep_states: int = option(
        "training", 1, "newest of these states that are kept", kind=int, low=1
    )

    device: str = option(
        "machine", "auto", "cpu, cuda, cuda:1, mps; auto: a GPU where there is one"
    )
    precision: str = option(
        "machine", "auto", "of matrix products; auto says what it chose and why", choices=PRECISIONS
    )

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InputError("; ".join(problems))

    def _problems(self) -> Sequence[str]:
        found = []
        for option_field in dataclasses.fields(self):
            value, meta = getattr(self, option_field.name), option_field.metadata
            flag = "--" + option_field.name.replace("_", "-")
            low, high, choices = meta["low"], meta["high"], meta["choices"]
            if choices and value is not None and value not in choices:
                found.append(f"{flag} is {value!r}, not one of {', '.join(choices)}")
            may_be_none = option_field.default is None or meta["kind"] is length
            if value == "" or (value is None and not may_be_none):
                found.append(f"{flag} is empty")
            if value is None or low is None or isinstance(value, bool):
                continue
            # Written so that NaN fails too; without a `high`, infinity does.
            beyond = high is not None and not value <= high
            if not value >= low or beyond or value == float("inf"):
                reach = f"{low} or more" if high is None else f"from {low} to {high}"
                found.append(f"{flag} is {value}; it must be {reach}")
        if len(self.split) != 3 or min(self.split) < 1:
            found.append(f"--split is {self.split}; it needs three whole numbers, none below 1")
        if self.freeze and (self.freeze_layers or self.freeze_embeddings):
            found.append("--freeze freezes all; leave out --freeze-layers and --freeze-embeddings")
        files = [self.data, self.validation, self.test]
        given = [os.path.realpath(name) for name in files if name is not None]
        if len(set(given)) < len(given):
            found.append("one file is given for two of --data, --validation and --test")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the settings as settings.json keeps them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], *, where: str) -> "RunSettings":
        """Read what `to_json` wrote; raises InputError for anything else."""
        try:
            return cls(**{**data, "split": tuple(data["split"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{where}: is not the settings of a run ({error})") from None


def add_options(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Add the flags of RunSettings, all or the named; flags that are not given leave no value."""
    groups: dict[str, Any] = {}
    for option_field in dataclasses.fields(RunSettings):
        meta = option_field.metadata
        if names is not None and option_field.name not in names:
            continue
        title = meta["group"]
        group = groups.setdefault(title, None) or parser.add_argument_group(title)
        groups[title] = group
        flag = "--" + option_field.name.replace("_", "-")
        if isinstance(option_field.default, bool):
            group.add_argument(
                flag, action="store_true", default=argparse.SUPPRESS, help=meta["help"]
            )
            continue
        shown = meta["shown"] or str(option_field.default)
        group.add_argument(
            flag,
            type=meta["kind"],
            choices=meta["choices"],
            default=argparse.SUPPRESS,
            metavar=None if meta["choices"] else METAVARS.get(meta["kind"], "NAME"),
            help=f"{meta['help']} (default: {shown})",
        )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which eval.py and predict.py open a model."""
    add = parser.add_argument_group("which model").add_argument
    add("--model", metavar="NAME", help="run, folder or hub id (default: the newest finished run)")
    add(
        "--max-length",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="tokens a text, longer ones are cut (default: the model's)",
    )
    add(
        "--precision",
        choices=ANSWERING_PRECISIONS,
        default=argparse.SUPPRESS,
        help="of matrix products; int8: on a CPU, fast and rounded most (default: auto)",
    )
    add_options(parser, ("revision", "batch_size", "device"))
