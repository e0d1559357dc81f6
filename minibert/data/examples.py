"""Rows to labelled examples: texts, labels, classes, and what to do with bad rows."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minibert.data.columns import (
    Columns,
    RequestedColumns,
    choose_columns,
    field_names,
    possible_pair,
)
from minibert.data.readers import Row, file_format, read_rows
from minibert.errors import CONTROL_CHARACTERS, InputError, printable

FIRST_ROWS = 100  # rows that say which columns a file has: JSON objects may differ


@dataclass
class Examples:
    """Texts, second texts (None: single texts) and labels of one file or split."""

    source: str
    texts: list[str] = field(default_factory=list)
    pairs: list[str] | None = None
    labels: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # label -> its name, from `label_text`
    places: list[str] = field(default_factory=list)  # file and line of each text
    dropped: list[str] = field(default_factory=list)  # place and problem of each dropped row
    columns: Columns = Columns("")  # noqa: RUF009 (frozen)
    possible_pair: str | None = None  # an unused column that may be a second text

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
        """Return a digest of texts and labels; it changes when the data changes."""
        digest = hashlib.sha256()
        for column in (self.texts, self.pairs or [], self.labels):
            digest.update(len(column).to_bytes(8, "little"))
            for value in column:
                data = value.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def text_of(row: Row, column: str) -> str:
    """Return a row's text. Raises ValueError with what is wrong with it."""
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
    """Return a row's label as a string. Raises ValueError with what is wrong with it."""
    value = row.fields.get(column)
    if isinstance(value, float):
        value = int(value) if value.is_integer() else (None if value != value else value)
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"column {column}: has no label")
    if not isinstance(value, str) or CONTROL_CHARACTERS.search(value.strip()):
        raise ValueError(f"column {column}: holds {printable(repr(value), 40)}, not a label")
    # pandas writes 1.0 for 1 if a column of whole numbers has a gap.
    return re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip())


def load_examples(
    paths: Sequence[Path],
    requested: RequestedColumns = RequestedColumns(),  # noqa: B008 (frozen)
    *,
    default: Columns | None = None,
    encoding: str = "utf-8",
    bad_rows: str = "error",
) -> Examples:
    """Read labelled files as one split.

    `requested` and `default` choose the columns, see choose_columns. Raises InputError for a bad
    row; with bad_rows="drop", drops it and notes its place instead.
    """
    examples = Examples(source=", ".join(str(path) for path in paths))

    def choose(names: list[str], path: Path) -> Columns:
        examples.columns = choose_columns(names, str(path), requested, default=default)
        examples.possible_pair = possible_pair(names, examples.columns, requested)
        return examples.columns

    for path in paths:
        unit = "row" if file_format(path) == "parquet" else "line"
        for row, columns in _rows_with_columns(path, encoding, choose):
            place = f"{path}, {unit} {row.line}"
            try:
                _append(examples, row, columns, place)
            except ValueError as error:
                examples.dropped.append(f"{place}: {error}")
                if bad_rows == "error":
                    advice = "fix it, or drop such rows with --bad-rows drop"
                    raise InputError(f"{place}: {error}; {advice}") from None
    if not len(examples):
        bad = examples.dropped
        problem = f"all {len(bad):,} rows are bad ({bad[0]})" if bad else "has a header and no rows"
        raise InputError(f"{examples.source}: {problem}; it needs labelled texts")
    return examples


def _rows_with_columns(
    path: Path, encoding: str, choose: Callable[[list[str], Path], Columns]
) -> Iterator[tuple[Row, Columns | None]]:
    """Yield a file's rows with its columns, chosen once there are readable rows (None before)."""
    rows = read_rows(path, encoding=encoding)
    columns = None
    while window := list(itertools.islice(rows, FIRST_ROWS)):
        if columns is None and (names := field_names(window)):
            columns = choose(names, path)
        for row in window:
            yield row, columns


def _append(examples: Examples, row: Row, columns: Columns | None, place: str) -> None:
    """Add a row. Raises ValueError with what is wrong with it."""
    if row.error or columns is None or not row.fields:
        raise ValueError(row.error or "has no fields")
    assert columns.label is not None
    text = text_of(row, columns.text)
    second = None if columns.pair is None else text_of(row, columns.pair)
    label = label_of(row, columns.label)
    if columns.label_name:
        name = label_of(row, columns.label_name)
        if examples.names.setdefault(label, name) != name:
            raise ValueError(
                f"the label {label} is named {printable(name, 40)!r} here and "
                f"{printable(examples.names[label], 40)!r} before; if {columns.label_name} "
                "does not name the labels, rename that column"
            )
    examples.texts.append(text)
    examples.labels.append(label)
    examples.places.append(place)
    if second is not None:
        examples.pairs = [] if examples.pairs is None else examples.pairs
        examples.pairs.append(second)


def class_names(examples: Examples) -> tuple[str, ...]:
    """Return the classes, numbers by value before names. `label_text` names the numbers.

    Raises InputError if there are fewer than two labels.
    """
    labels = sorted(set(examples.labels), key=_natural)
    if len(labels) < 2:
        raise InputError(
            f"{examples.source}: has only the label {printable(labels[0])!r}; it needs two or more"
            + (HIDDEN_HINT if labels == ["-1"] else "")
        )
    names = tuple(examples.names.get(label, label) for label in labels)
    if len(set(names)) < len(names):
        raise InputError(f"{examples.source}: the column label_text names two labels alike")
    return names


HIDDEN_HINT = "; -1 is how GLUE hides the labels of its test files"


def class_ids(examples: Examples, classes: Sequence[str], *, numbers: bool = False) -> np.ndarray:
    """Return each example's class number, int64.

    A label matches a class's name, in any case if no two classes differ only in case. With
    `numbers`, it may also be a class's number, unless a class name has a digit. Raises InputError
    for a label that matches no class.
    """
    ids = {name.lower(): number for number, name in enumerate(classes)}
    if len(ids) < len(classes):
        ids = {}
    if numbers and not any(re.search(r"\d", name) for name in classes):
        ids |= {str(number): number for number in range(len(classes))}
    exact = {name: number for number, name in enumerate(classes)}
    ids |= exact

    def find(label: str) -> int | None:
        name = label if label in exact else examples.names.get(label, label)
        return ids.get(name, ids.get(name.lower()))

    found = {label: find(label) for label in set(examples.labels)}
    unknown = next((label for label in examples.labels if found[label] is None), None)
    if unknown is not None:
        place = examples.places[examples.labels.index(unknown)]
        known = ", ".join(printable(name, 40) for name in classes[:10])
        raise InputError(
            f"{place}: the label {printable(unknown, 80)!r} is none of the model's "
            f"{len(classes)} classes ({known}{', ...' if len(classes) > 10 else ''})"
            + (HIDDEN_HINT if unknown == "-1" else "")
        )
    return np.array([found[label] for label in examples.labels], dtype=np.int64)


def _natural(label: str) -> tuple[int, float, str]:
    """Return a sort key that puts numbers, by value, before names."""
    return (0, float(label), label) if re.fullmatch(r"-?\d{1,300}", label) else (1, 0.0, label)
