"""A data set's training, validation and test parts: read, or split off one file, and described."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from minibert.data import Columns, Examples, class_names, load_examples
from minibert.errors import InputError, printable
from minibert.hub import find_data
from minibert.settings import RunSettings


@dataclass(frozen=True)
class Parts:
    """The parts of a run's data; `test` is none where the data has no labelled test part."""

    train: Examples
    validation: Examples
    test: Examples | None

    def named(self) -> dict[str, Examples]:
        """Return the parts that are there, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}


def read_parts(settings: RunSettings) -> Parts:
    """Read the parts; one file is split in three, a missing validation part off training."""
    files = find_data(settings.data)
    validation_files = [Path(settings.validation)] if settings.validation else files.validation
    test_files = [Path(settings.test)] if settings.test else files.test

    def load(paths: Sequence[Path], usual: Columns | None = None) -> Examples:
        return load_examples(
            paths,
            text_column=settings.text_column,
            pair_column=settings.pair_column,
            label_column=settings.label_column,
            encoding=settings.encoding,
            bad_rows=settings.bad_rows,
            usual=usual,
        )

    train = load(files.train)
    class_names(train)  # one class only is an error before it is a split that cannot be made
    test = load(test_files, train.columns) if test_files else None
    if validation_files:
        return Parts(train, load(validation_files, train.columns), test)
    if test is not None:
        train, validation = split_examples(train, settings.split[:2], seed=settings.split_seed)
        return Parts(train, validation, test)
    return Parts(*split_examples(train, settings.split, seed=settings.split_seed))


def split_examples(examples: Examples, shares: Sequence[int], *, seed: int) -> list[Examples]:
    """Split into parts of the given shares (70, 15, 15), each with every class in proportion.

    Raises InputError for a class with too few rows to stand in each part.
    """
    label, count = min(Counter(examples.labels).items(), key=lambda item: item[1])
    smallest = count * min(shares) / sum(shares)
    too_few = InputError(
        f"{examples.source}: the class {printable(label)!r} has {count} of {len(examples)} "
        f"rows, too few for {len(shares)} parts of {':'.join(map(str, shares))} "
        f"({smallest:.1f} in the smallest); add rows, merge classes, or give --validation and "
        "--test"
    )
    rest = np.arange(len(examples))
    labels = np.array(examples.labels)
    parts = []
    for number in range(len(shares) - 1):
        share = shares[number] / sum(shares[number:])
        try:
            taken, rest = train_test_split(
                rest, train_size=share, random_state=seed, stratify=labels[rest]
            )
        except ValueError:  # a class with one row left, or fewer rows than classes
            raise too_few from None
        parts.append(taken)
    parts.append(rest)
    if any(len(set(labels[part])) < len(set(labels)) for part in parts):
        raise too_few
    names = ("train", "validation", "test") if len(parts) == 3 else ("train", "validation")
    split = [
        examples.take(part.tolist(), f"the {name} part of {examples.source}")
        for part, name in zip(parts, names, strict=True)
    ]
    split[0].dropped = examples.dropped  # of no part; the first to be described names them
    return split


def repeated_texts(part: Examples, train: Examples) -> int:
    """Count the examples of a part whose very texts also stand in the training part."""
    known = set(_whole(train))
    return sum(text in known for text in _whole(part))


def _whole(examples: Examples) -> Iterable[Hashable]:
    return (
        examples.texts
        if examples.pairs is None
        else zip(examples.texts, examples.pairs, strict=True)
    )


def describe_parts(parts: Parts) -> None:
    """Print what was read, left out, and repeated between training and the other parts."""
    print(f"columns: {parts.train.columns}")
    for name, part in parts.named().items():
        counts = Counter(part.labels).most_common()
        shares = ", ".join(f"{printable(label, 60)} {count:,}" for label, count in counts[:8])
        more = ", ..." if len(counts) > 8 else ""
        print(f"{name}: {len(part):,} texts ({shares}{more}) from {printable(part.source)}")
        if part.dropped:
            listed = "; ".join(map(printable, part.dropped[:5]))
            print(f"  left out {len(part.dropped)} bad rows: {listed}")
        if name != "train" and (repeated := repeated_texts(part, parts.train)):
            print(
                f"  {repeated:,} of them also stand in the training part: their score is no proof"
            )
    if parts.test is None:
        print("test: none given, and none split off since a validation part is given")


def digests(parts: Parts) -> dict[str, str]:
    """Return each part's fingerprint, by which a resumed run tells that its data has changed."""
    return {name: part.fingerprint() for name, part in parts.named().items()}
