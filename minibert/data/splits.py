"""The training, validation and test split of a data set: read, or split off one file."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from minibert.data.columns import Columns
from minibert.data.examples import Examples, class_names, load_examples
from minibert.data.options import DataOptions
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
        """Return a digest of each split, by which a resumed run notices changed data."""
        return {name: split.fingerprint() for name, split in self.named().items()}


def read_splits(options: DataOptions) -> Splits:
    """Read the splits. A single file is split in three; a missing validation split in two.

    Raises InputError for files, columns, rows or labels that cannot be used.
    """
    files = find_data(options.data)
    validation_files = [Path(options.validation)] if options.validation else files.validation
    test_files = [Path(options.test)] if options.test else files.test

    def load(paths: Sequence[Path], default: Columns | None = None) -> Examples:
        return load_examples(
            paths,
            text_column=options.text_column,
            pair_column=options.pair_column,
            label_column=options.label_column,
            encoding=options.encoding,
            bad_rows=options.bad_rows,
            default=default,
        )

    train = load(files.train)
    class_names(train)  # a single class is reported before a split fails for it
    test = load(test_files, train.columns) if test_files else None
    if validation_files:
        return Splits(train, load(validation_files, train.columns), test)
    if test is not None:
        train, validation = split_examples(train, options.split[:2], seed=options.split_seed)
        return Splits(train, validation, test)
    return Splits(*split_examples(train, options.split, seed=options.split_seed))


def split_examples(examples: Examples, ratios: Sequence[int], *, seed: int) -> list[Examples]:
    """Split in the given ratios (70, 15, 15), stratified by class.

    Raises InputError for a class with too few rows to be in each split.
    """
    label, count = min(Counter(examples.labels).items(), key=lambda item: item[1])
    smallest = count * min(ratios) / sum(ratios)
    too_few = InputError(
        f"{examples.source}: the class {printable(label)!r} has {count} of {len(examples)} "
        f"rows, too few for {len(ratios)} splits of {':'.join(map(str, ratios))} "
        f"({smallest:.1f} in the smallest); add rows, merge classes, or give --validation and "
        "--test"
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
    names = ("train", "validation", "test") if len(splits) == 3 else ("train", "validation")
    result = [
        examples.take(rows.tolist(), f"the {name} split of {examples.source}")
        for rows, name in zip(splits, names, strict=True)
    ]
    result[0].dropped = examples.dropped
    return result


def repeated_texts(split: Examples, train: Examples) -> int:
    """Count the examples of a split whose text (or pair) is also in the training split."""
    known = set(_texts(train))
    return sum(text in known for text in _texts(split))


def _texts(examples: Examples) -> Iterable[Hashable]:
    if examples.pairs is None:
        return examples.texts
    return zip(examples.texts, examples.pairs, strict=True)


def describe_splits(splits: Splits) -> str:
    """Return what was read, dropped, and repeated between training and the other splits."""
    lines = [f"columns: {splits.train.columns}"]
    for name, split in splits.named().items():
        counts = Counter(split.labels).most_common()
        classes = ", ".join(f"{printable(label, 60)} {count:,}" for label, count in counts[:8])
        more = ", ..." if len(counts) > 8 else ""
        lines.append(
            f"{name}: {len(split):,} texts ({classes}{more}) from {printable(split.source)}"
        )
        if split.dropped:
            listed = "; ".join(map(printable, split.dropped[:5]))
            lines.append(f"  dropped {len(split.dropped)} bad rows: {listed}")
        if name != "train" and (repeated := repeated_texts(split, splits.train)):
            lines.append(
                f"  {repeated:,} of them are also in the training split; scores on them do not "
                "measure generalization"
            )
    if splits.test is None:
        lines.append("test: none given, and none split off since a validation file is given")
    return "\n".join(lines)
