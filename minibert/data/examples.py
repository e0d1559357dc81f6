"""Rows to labelled examples: texts, labels, classes, and what to do with bad rows."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minibert.data.columns import Columns, choose_columns, field_names
from minibert.data.readers import Row, file_format, read_rows
from minibert.errors import CONTROL_CHARACTERS, InputError, printable

FIRST_ROWS = 100  # rows whose fields say which columns a file has: JSON objects need not be alike


@dataclass
class Examples:
    """TextDataset, second texts or none, and labels as strings, of one part of a data set."""

    source: str
    texts: list[str] = field(default_factory=list)
    pairs: list[str] | None = None
    labels: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # label -> its name, where a column says it
    places: list[str] = field(default_factory=list)  # file and line of each
    dropped: list[str] = field(default_factory=list)  # what --bad-rows drop left out, and where
    columns: Columns = Columns("")  # noqa: RUF009 (frozen)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int], source: str) -> "Examples":
        """Return some of the examples, in the given order."""
        return Examples(
            source,
            [self.texts[i] for i in rows],
            None if self.pairs is None else [self.pairs[i] for i in rows],
            [self.labels[i] for i in rows],
            self.names,
            [self.places[i] for i in rows],
            columns=self.columns,
        )

    def fingerprint(self) -> str:
        """Return a digest of all that training sees, to tell whether a file has changed."""
        digest = hashlib.sha256()
        for column in (self.texts, self.pairs or [], self.labels):
            digest.update(len(column).to_bytes(8, "little"))
            for value in column:
                data = value.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def text_of(row: Row, column: str) -> str:
    """Return a row's text; raises ValueError saying what is wrong with it."""
    if column not in row.fields:
        raise ValueError(f"has no field {column!r}")
    value = row.fields[column]
    if value is None:
        raise ValueError(f"column {column}: is null")
    if not isinstance(value, str):
        raise ValueError(f"column {column}: holds {printable(repr(value), 40)}, not a text")
    if not value.strip():
        raise ValueError(f"column {column}: is {'blank' if value else 'empty'}")
    return value


def label_of(row: Row, column: str) -> str:
    """Return a row's label as a string; raises ValueError saying what is wrong with it."""
    value = row.fields.get(column)
    if isinstance(value, float):
        value = int(value) if value.is_integer() else (None if value != value else value)
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"column {column}: has no label")
    if not isinstance(value, str) or CONTROL_CHARACTERS.search(value.strip()):
        raise ValueError(f"column {column}: holds {printable(repr(value), 40)}, not a label")
    # pandas writes 1.0 where a column of whole numbers has a gap.
    return re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip())


def load_examples(
    paths: Sequence[Path],
    *,
    encoding: str = "utf-8",
    bad_rows: str = "error",
    **columns_wanted: Any,
) -> Examples:
    """Read labelled files; a bad row is an InputError, or with "drop" left out and noted.

    `columns_wanted` are the options of choose_columns.
    """
    examples = Examples(source=", ".join(str(path) for path in paths))
    for path in paths:
        unit = "row" if file_format(path) == "parquet" else "line"
        rows = read_rows(path, encoding=encoding)
        first = list(itertools.islice(rows, FIRST_ROWS))
        names = field_names(first)
        if not names and first:
            raise InputError(f"{path}, {unit} {first[0].line}: {first[0].error}; mend it")
        columns = choose_columns(names, str(path), **columns_wanted) if names else Columns("")
        examples.columns = columns
        for row in itertools.chain(first, rows):
            place = f"{path}, {unit} {row.line}"
            try:
                if row.error:
                    raise ValueError(row.error)
                _append(examples, row, columns, place)
            except ValueError as error:
                if bad_rows == "error":
                    raise InputError(
                        f"{place}: {error}; mend it, or leave such rows out with --bad-rows drop"
                    ) from None
                examples.dropped.append(f"{place}: {error}")
    if not len(examples):
        left = f" but {len(examples.dropped)} bad ones" if examples.dropped else ""
        raise InputError(
            f"{examples.source}: has a header and no rows{left}; it needs labelled texts"
        )
    return examples


def _append(examples: Examples, row: Row, columns: Columns, place: str) -> None:
    assert columns.label is not None
    text = text_of(row, columns.text)
    second = None if columns.pair is None else text_of(row, columns.pair)
    label = label_of(row, columns.label)
    if columns.label_name:
        name = label_of(row, columns.label_name)
        if examples.names.setdefault(label, name) != name:
            raise ValueError(
                f"the label {label} is named {printable(name, 40)!r} here and "
                f"{printable(examples.names[label], 40)!r} before; where {columns.label_name} "
                "holds no names of labels, rename that column"
            )
    examples.texts.append(text)
    examples.labels.append(label)
    examples.places.append(place)
    if second is not None:
        examples.pairs = [] if examples.pairs is None else examples.pairs
        examples.pairs.append(second)


def class_names(examples: Examples) -> tuple[str, ...]:
    """Return the classes: numbers by value, then names; `label_text` names the numbers."""
    labels = sorted(set(examples.labels), key=_natural)
    if len(labels) < 2:
        raise InputError(
            f"{examples.source}: has the one label {printable(labels[0])!r}; a classifier needs two"
            + (HIDDEN_HINT if labels == ["-1"] else "")
        )
    names = tuple(examples.names.get(label, label) for label in labels)
    if len(set(names)) < len(names):
        raise InputError(f"{examples.source}: two labels have one name in the column label_text")
    return names


HIDDEN_HINT = "; -1 is how GLUE hides the labels of its test files"


def class_ids(examples: Examples, classes: Sequence[str], *, numbers: bool = False) -> np.ndarray:
    """Return each example's class number, int64.

    A label is a class's name, its name in another case, or with `numbers` (and where no name has a
    digit) its number. Raises InputError for a label that is none of these.
    """
    ids = {name.lower(): number for number, name in enumerate(classes)}
    if len(ids) < len(classes):
        ids = {}
    if numbers and not any(re.search(r"\d", name) for name in classes):
        ids |= {str(number): number for number in range(len(classes))}
    ids |= {name: number for number, name in enumerate(classes)}

    def find(label: str) -> int | None:
        name = label if label in classes else examples.names.get(label, label)
        return ids.get(name, ids.get(name.lower()))

    found = {label: find(label) for label in set(examples.labels)}
    strange = [label for label in examples.labels if found[label] is None]
    if strange:
        place = examples.places[examples.labels.index(strange[0])]
        known = ", ".join(printable(name, 40) for name in classes[:10])
        raise InputError(
            f"{place}: the label {printable(strange[0], 80)!r} is none of the model's "
            f"{len(classes)} classes ({known}{', ...' if len(classes) > 10 else ''})"
            + (HIDDEN_HINT if strange[0] == "-1" else "")
        )
    return np.array([found[label] for label in examples.labels], dtype=np.int64)


def _natural(label: str) -> tuple[int, float, str]:
    """Sort numbers by value and before names."""
    return (0, float(label), label) if re.fullmatch(r"-?\d{1,300}", label) else (1, 0.0, label)
