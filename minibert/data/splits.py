"""The training, validation and test split of a data set: read, or split off one file."""

import shlex
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from minibert.data.classes import class_set, output_names
from minibert.data.examples import Examples, load_examples
from minibert.data.options import DataOptions
from minibert.data.stratify import stratified_multi_label
from minibert.data.subsets import take_percent
from minibert.errors import InputError, printable
from minibert.hub import find_data


@dataclass(frozen=True)
class Splits:
    """The splits of a run's data. `test` is None if the data has no labelled test split."""

    train: Examples
    validation: Examples
    test: Examples | None

    def named(self) -> dict[str, Examples]:
        """Return the splits that exist, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    def fingerprints(self) -> dict[str, str]:
        """Return a digest of each split, from which a resumed run notices changed data."""
        return {name: split.fingerprint() for name, split in self.named().items()}


def read_splits(options: DataOptions, *, model_task: str | None = None) -> Splits:
    """Read the splits, and split off those for which there is no file.

    A single file becomes three splits. With a test file, validation is split off the training file;
    with a validation file alone, there is no test split. Of the training split, `train_percent` are
    kept. `model_task` is what the checkpoint was trained for. Raises InputError for files, columns,
    rows or labels that cannot be used.
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
    seed = options.split_seed
    if validation_files:
        validation = load(validation_files, train)
    elif test is not None:
        train, validation = split_examples(train, options.split[:2], seed=seed)
    else:
        train, validation, test = split_examples(train, options.split, seed=seed)
    return Splits(take_percent(train, options.train_percent, seed=seed), validation, test)


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
        return _with_all_classes(stratified_multi_label(targets, ratios, seed=seed), targets)
    if examples.task == "regression":
        return _random_rows(len(examples), ratios, seed=seed)
    return _stratified_rows(examples, ratios, seed=seed)


def _with_all_classes(splits: list[np.ndarray], targets: np.ndarray) -> list[np.ndarray]:
    """Move rows into the first split, the training's, whose classes it would not have."""
    absent = targets[splits[0]].sum(axis=0) == 0
    moved = [rows[targets[rows][:, absent].any(axis=1)] for rows in splits[1:]]
    kept = [np.setdiff1d(rows, gone) for rows, gone in zip(splits[1:], moved, strict=True)]
    return [np.sort(np.concatenate([splits[0], *moved])), *kept]


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
    labels = np.array(examples.labels)
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
    if any(len(set(labels[rows])) < len(set(labels)) for rows in splits):
        raise too_few
    return splits


def repeated_texts(split: Examples, train: Examples) -> int:
    """Count the examples of a split whose text (or pair) is also in the training split."""
    known = set(_texts(train))
    return sum(text in known for text in _texts(split))


def _texts(examples: Examples) -> Iterable[Hashable]:
    if examples.pairs is None:
        return examples.texts
    return zip(examples.texts, examples.pairs, strict=True)


def describe_splits(splits: Splits) -> str:
    """Return what was read and dropped, and what the user should check, one fact per line."""
    lines = [f"columns: {splits.train.columns}"]
    if other := splits.train.possible_pair:
        lines.append(
            f"  one text per row; for {printable(other, 40)!r} as second text give "
            f"--text-column {_quoted(splits.train.columns.text)} --pair-column {_quoted(other)}"
        )
    if splits.train.task_reason:
        lines.append(f"task: {splits.train.task} ({splits.train.task_reason})")
    if similar := _differ_in_case(_classes(splits.train)):
        lines.append(
            f"  labels that differ only in case are separate classes: {', '.join(similar)}; "
            "write them alike if they are one class"
        )
    for name, split in splits.named().items():
        labels, source = _describe_labels(split), printable(split.source)
        lines.append(f"{name}: {len(split):,} texts ({labels}) from {source}")
        if split.dropped:
            listed = "; ".join(map(printable, split.dropped[:5]))
            lines.append(f"  dropped {len(split.dropped)} bad rows: {listed}")
        if name != "train" and (repeated := repeated_texts(split, splits.train)):
            lines.append(
                f"  {repeated:,} of them are also in the training split; scores on them do not "
                "measure generalization"
            )
    if splits.test is None:
        lines.append("test: none; give --test (with a validation file, no test split is split off)")
    return "\n".join(lines)


def _describe_labels(split: Examples) -> str:
    """Return the counts of the commonest classes, or the range of the numbers."""
    if split.task == "regression":
        columns = zip(*split.labels, strict=False)
        return "; ".join(f"{min(x):g} to {max(x):g}, mean {np.mean(x):.4g}" for x in columns)
    counts = Counter(_classes(split)).most_common()
    classes = ", ".join(f"{printable(label, 60)} {count:,}" for label, count in counts[:8])
    without = sum(label == () for label in split.labels)
    more = ", ..." if len(counts) > 8 else ""
    parts = [f"{classes}{more}", f"{without:,} without a class" if without else ""]
    return "; ".join(part for part in parts if part)


def _classes(split: Examples) -> list[str]:
    """Return the classes of all rows, with repetitions."""
    if split.task == "regression":
        return []
    if split.task == "multi-label":
        return [name for label in split.labels for name in label]
    return split.labels


def _differ_in_case(labels: Iterable[str]) -> list[str]:
    """Return the labels that equal another one without case, at most ten, printable."""
    found = sorted(set(labels), key=lambda label: (label.lower(), label))
    counts = Counter(label.lower() for label in found)
    return [printable(label, 40) for label in found if counts[label.lower()] > 1][:10]


def _quoted(name: str) -> str:
    """Return a column's name as a shell reads it."""
    return shlex.quote(printable(name, 40))
