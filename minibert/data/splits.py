"""The training, validation and test split of a data set: read, or split off one file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from minibert.data.classes import class_set, output_names
from minibert.data.duplicates import first_rows, text_keys
from minibert.data.examples import Examples, load_examples
from minibert.data.folds import fold_rows
from minibert.data.options import DataOptions
from minibert.data.stratify import stratified_multi_label, with_all_classes
from minibert.data.subsets import take_percent
from minibert.errors import InputError, printable
from minibert.hub import find_data


@dataclass(frozen=True)
class Splits:
    """The splits of a run's data. `test` is None if the data has no labelled test split."""

    train: Examples
    validation: Examples
    test: Examples | None
    leaks_dropped: int = 0  # training texts that another split has, see --leaks
    rows: Examples | None = None  # of all folds, if the test split is one of them

    def named(self) -> dict[str, Examples]:
        """Return the splits that exist, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    def fingerprints(self) -> dict[str, str]:
        """Return a digest of each split, from which a resumed run notices changed data.

        In a cross-validation, the rows of all folds have one in place of the splits made of them.
        """
        splits = self.named()
        if self.rows is not None:
            made_of = set(self.rows.places)
            apart = {name: x for name, x in splits.items() if x.places[0] not in made_of}
            splits = {"rows": self.rows, **apart}
        return {name: split.fingerprint() for name, split in splits.items()}


def read_splits(options: DataOptions, *, model_task: str | None = None) -> Splits:
    """Read the splits, and split off those for which there is no file.

    A single file becomes three splits. With a test file, validation is split off the training file;
    with a validation file alone, there is no test split. With `fold`, the test split is put aside,
    and a fold of all other rows takes its place. Of the training split, `train_percent` are kept.
    `model_task` is what the checkpoint was trained for. Raises InputError for files, columns, rows
    or labels that cannot be used.
    """
    files = find_data(options.data)
    validation_files = [Path(options.validation)] if options.validation else files.validation
    test_files = [Path(options.test)] if options.test else files.test

    def load(paths: Sequence[Path], train: Examples | None = None) -> Examples:
        form = options.labels(model_task)
        examples = load_examples(
            paths,
            options.columns(),
            replace(form, task=train.task) if train else form,
            default=train.columns if train else None,
            encoding=options.encoding,
            bad_rows=options.bad_rows,
        )
        if train and not examples.names:  # its numbers mean what they mean in the training file
            examples.names = train.names
        return examples

    train = load(files.train)
    output_names(train)  # a single class is reported before a split fails for it
    test = load(test_files, train) if test_files else None
    validation = load(validation_files, train) if validation_files else None
    if options.fold:
        splits = hold_out_fold(train, validation, options, has_test=test is not None)
    elif validation is not None:
        splits = Splits(train, validation, test)
    elif test is not None:
        train, validation = split_examples(train, options.split[:2], seed=options.split_seed)
        splits = Splits(train, validation, test)
    else:
        train, validation, test = split_examples(train, options.split, seed=options.split_seed)
        splits = Splits(train, validation, test)
    if options.leaks != "keep":
        splits = without_leaks(splits, options.leaks)
    part = take_percent(splits.train, options.train_percent, seed=options.split_seed)
    return replace(splits, train=part)


def hold_out_fold(
    train: Examples, validation: Examples | None, options: DataOptions, *, has_test: bool
) -> Splits:
    """Hold out a fold of the training rows, and of the validation rows if they have no file.

    Without files for validation and test, the rows that are the test split of an ordinary run are
    in no fold.
    """
    assert options.fold is not None
    number, folds = options.fold
    rows = train
    if validation is None and not has_test:
        *kept, _ = _rows_of_splits(train, options.split, seed=options.split_seed)
        rows = train.take(np.sort(np.concatenate(kept)).tolist(), train.source)
    of_train, of_validation, held_out = fold_rows(
        rows, number, folds, None if validation else options.split[:2], seed=options.split_seed
    )
    splits = Splits(
        rows.take(of_train.tolist(), f"the rows of {train.source} outside fold {number}"),
        validation or rows.take(of_validation.tolist(), f"the validation split of {train.source}"),
        rows.take(held_out.tolist(), f"fold {number} of {folds} of {train.source}"),
        rows=rows,
    )
    splits.train.dropped, splits.train.possible_pair = train.dropped, train.possible_pair
    return splits


def without_leaks(splits: Splits, leaks: str) -> Splits:
    """Drop the training texts that another split has, up to case, spaces and punctuation.

    Raises InputError if `leaks` is "error" and there is one, or if a class loses all its texts.
    """
    train, keys = splits.train, text_keys(splits.train)
    leaked = np.zeros(len(train), dtype=bool)
    for name, split in splits.named().items():
        if name == "train":
            continue
        known = text_keys(split)
        leaked |= np.isin(keys, known)
        if leaks == "error" and leaked.any():
            row = int(leaked.argmax())
            raise InputError(
                f"--leaks error: {leaked.sum():,} training texts are also in the {name} split, the "
                f"first at {train.places[row]} and {split.places[first_rows(keys, known)[row]]}; "
                "drop them with --leaks drop"
            )
    kept = train.take(np.flatnonzero(~leaked).tolist(), train.source)
    if not len(kept) or set(kept.classes()) != set(train.classes()):
        raise InputError(
            f"--leaks drop: the {leaked.sum():,} training texts that are also in validation or "
            "test are all texts of a class; give other files"
        )
    kept.dropped, kept.possible_pair = train.dropped, train.possible_pair
    return replace(splits, train=kept, leaks_dropped=int(leaked.sum()))


def split_examples(examples: Examples, ratios: Sequence[int], *, seed: int) -> list[Examples]:
    """Split in ratios such as (70, 15, 15), stratified by class.

    Raises InputError if a split would have no row, or not every class of rows with one class each.
    """
    rows_of_splits = _rows_of_splits(examples, ratios, seed=seed)
    if not all(map(len, rows_of_splits)):
        raise InputError(
            f"{examples.source}: has {len(examples)} rows, too few for {len(ratios)} splits of "
            f"{':'.join(map(str, ratios))}; add rows, or give --validation and --test"
        )
    names = ("train", "validation", "test") if len(ratios) == 3 else ("train", "validation")
    result = [
        examples.take(rows.tolist(), f"the {name} split of {examples.source}")
        for rows, name in zip(rows_of_splits, names, strict=True)
    ]
    result[0].dropped, result[0].possible_pair = examples.dropped, examples.possible_pair
    return result


def _rows_of_splits(examples: Examples, ratios: Sequence[int], *, seed: int) -> list[np.ndarray]:
    """Return the row numbers of each split."""
    if examples.task == "multi-label":
        targets = class_set(examples, output_names(examples))
        return with_all_classes(stratified_multi_label(targets, ratios, seed=seed), targets)
    if examples.task == "regression":
        return _random_rows(len(examples), ratios, seed=seed)
    return _stratified_rows(examples, ratios, seed=seed)


def _random_rows(count: int, ratios: Sequence[int], *, seed: int) -> list[np.ndarray]:
    rows = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum(ratios)[:-1] * count // sum(ratios)
    return [np.sort(part) for part in np.split(rows, ends)]


def _stratified_rows(examples: Examples, ratios: Sequence[int], *, seed: int) -> list[np.ndarray]:
    """Return the row numbers of splits that have all classes in the same ratios."""
    label, count = min(Counter(examples.labels).items(), key=lambda item: item[1])
    smallest = count * min(ratios) / sum(ratios)
    too_few = InputError(
        f"{examples.source}: the class {printable(label)!r} has {count} of {len(examples)} "
        f"rows, too few for {len(ratios)} splits of {':'.join(map(str, ratios))} "
        f"({smallest:.1f} in the smallest); add rows, merge classes, or give --validation and "
        "--test" + (f" ({examples.task_reason})" if examples.task_reason else "")
    )
    rest = np.arange(len(examples))
    # Numbers: an array of strings has the length of the longest one for each.
    numbers = {label: number for number, label in enumerate(sorted(set(examples.labels)))}
    labels = np.array([numbers[label] for label in examples.labels])
    splits = []
    for number in range(len(ratios) - 1):
        fraction = ratios[number] / sum(ratios[number:])
        try:
            chosen, rest = train_test_split(
                rest, train_size=fraction, random_state=seed, stratify=labels[rest]
            )
        except ValueError:  # a class with one row left, or fewer rows than classes
            raise too_few from None
        splits.append(chosen)
    splits.append(rest)
    if any(len(set(labels[rows])) < len(numbers) for rows in splits):
        raise too_few
    return splits
