"""The options of the data: where it is, its columns, the splits, and long texts."""

import argparse
import os
from dataclasses import dataclass
from typing import Any

from minibert.data.columns import RequestedColumns
from minibert.data.labels import LabelFormat
from minibert.model.config import LONG_TEXTS, TASKS, WINDOW_POOLINGS, LongTexts
from minibert.options import check_options, flag_name, length, option

SEPARATORS = {"split": ":", "fold": "/"}  # of options with several values; others have commas


def column_names(text: str) -> tuple[str, ...]:
    """Parse --label-columns: names separated by commas."""
    return tuple(name.strip() for name in text.split(","))


def ratios(text: str) -> tuple[int, int, int]:
    """Parse --split: three whole numbers separated by colons."""
    try:
        train, validation, test = (int(number) for number in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 70:15:15") from None
    return train, validation, test


def fold_number(text: str) -> tuple[int, int]:
    """Parse --fold: a whole number and the number of folds, separated by a slash."""
    try:
        number, folds = (int(part) for part in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2/5") from None
    return number, folds


@dataclass(frozen=True)
class DataOptions:
    """What to read as training, validation and test data.

    Raises one InputError for all values out of range.

    Example:
        >>> DataOptions("reviews.csv", test="reviews.csv", max_length=2)
        Traceback (most recent call last):
        minibert.errors.InputError: --max-length is 2; it must be 3 or more; one file is...
    """

    data: str = option("sst2", "file, hub:owner/name[/folder], sst2 or glue/sst2")
    validation: str | None = option(None, "file that selects the epoch", shown="split off")
    test: str | None = option(
        None, "file that is scored once, at the end", shown="split off a single file"
    )
    text_column: str | None = option(None, "column of the text", shown="found by its name")
    pair_column: str | None = option(None, "column of a second text", shown="found by its name")
    label_column: str | None = option(None, "column of the label", shown="found by its name")
    label_columns: tuple[str, ...] | None = option(
        None, "a column of 0 and 1 for each class, or of numbers", parse=column_names, shown="none"
    )
    label_separator: str | None = option(
        None, "between the classes of a row in one cell", shown="| for several labels"
    )
    task: str = option(
        "auto",
        "what a label is: one class, several classes, or numbers; auto tells its choice",
        choices=("auto", *TASKS),
    )
    encoding: str = option("utf-8", "encoding of CSV, TSV and JSON lines files")
    bad_rows: str = option(
        "error", "stop at a row that cannot be used, or drop it", choices=("error", "drop")
    )
    leaks: str = option(
        "keep",
        "what to do with training texts that are also in validation or test; error: stop",
        choices=("keep", "drop", "error"),
    )
    split: tuple[int, int, int] = option(
        (70, 15, 15), "ratio of training, validation and test", parse=ratios, shown="70:15:15"
    )
    split_seed: int = option(2021, "seed of the split", parse=int, bounds=(0, 2**32 - 1))
    train_percent: int = option(
        100,
        "percent of the training texts to train on, of each class alike",
        parse=int,
        bounds=(1, 100),
    )
    fold: tuple[int, int] | None = option(
        None,
        "take this fold of all rows but the test split's as the test split; 2/5: the second of 5",
        parse=fold_number,
        shown="none",
    )
    max_length: int | None = option(
        128,
        "tokens per text, or per window of it; auto: at most 1%% of the training texts have more",
        parse=length,
        bounds=(3, None),
    )
    long_texts: str = option(
        "cut",
        "what is read of a text over --max-length; cut: its first tokens; head-tail: its first and "
        "last tokens; windows: all of it, in windows",
        choices=LONG_TEXTS,
    )
    stride: int | None = option(
        None,
        "tokens from the start of a window to that of the next (not the overlap)",
        parse=int,
        bounds=(1, None),
        shown="half a window",
    )
    window_pooling: str = option(
        "mean", "how the features of a text's windows become one", choices=WINDOW_POOLINGS
    )
    max_windows: int = option(
        8,
        "most windows of a training text; a text with more keeps this many, evenly spread",
        parse=int,
        bounds=(1, None),
    )

    def __post_init__(self) -> None:
        problems = []
        for name in ("split", "label_columns", "fold"):
            if isinstance(getattr(self, name), list):  # from JSON
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.label_columns and self.label_column:
            problems.append("--label-columns takes the place of --label-column; drop one")
        if self.label_columns is not None and not isinstance(self.label_columns, tuple):
            problems.append(f"--label-columns is {self.label_columns!r}; it needs a tuple of names")
        elif self.label_columns and self.task == "single-label":
            problems.append("--label-columns is for several labels or numbers; drop --task")
        elif self.label_columns and len(set(self.label_columns)) < len(self.label_columns):
            problems.append("--label-columns names a column twice")
        one_label = self.label_columns or self.task in ("single-label", "regression")
        if self.label_separator is not None and one_label:
            problems.append("--label-separator is for several labels in one column; drop it")
        if self.validation and self.test and self.split != DataOptions.split:
            problems.append("--split has no effect beside --validation and --test; drop it")
        if not _is_ratio(self.split):
            problems.append(f"--split is {self.split}; it needs three whole numbers, none below 1")
        if self.fold is not None and not _is_fold(self.fold):
            problems.append(f"--fold is {self.fold}; it needs a fold from 1 on, of 2 or more")
        for name in ("stride", "window_pooling", "max_windows"):
            if self.long_texts != "windows" and getattr(self, name) != getattr(DataOptions, name):
                problems.append(f"{flag_name(name)} is for --long-texts windows")
        files = [self.data, self.validation, self.test]
        paths = [os.path.realpath(name) for name in files if isinstance(name, str)]
        if len(set(paths)) < len(paths):
            problems.append("one file is given for two of --data, --validation and --test")
        check_options(self, *problems)

    def columns(self) -> RequestedColumns:
        """Return the columns that the options name."""
        return RequestedColumns(
            self.text_column, self.pair_column, self.label_column, self.label_columns or ()
        )

    def for_long_texts(self) -> LongTexts:
        """Return what happens to texts over `max_length`."""
        return LongTexts(self.long_texts, self.stride, self.window_pooling)

    def labels(self, model_task: str | None) -> LabelFormat:
        """Return how labels are read, for a model that was trained for a task (None: unknown)."""
        return LabelFormat(self.task, self.label_separator, model_task)


def _is_ratio(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != 3:
        return False
    return all(isinstance(number, int) and number >= 1 for number in value)


def _is_fold(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    number, folds = value
    return type(number) is type(folds) is int and 1 <= number <= folds and folds >= 2
