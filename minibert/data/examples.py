"""Rows to labelled examples, and what to do with bad rows."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibert.data.columns import (
    Columns,
    RequestedColumns,
    choose_columns,
    field_names,
    possible_pair,
)
from minibert.data.labels import LabelFormat, choose_task, label_cells, read_class, read_label
from minibert.data.readers import Row, file_format, read_rows
from minibert.errors import InputError, printable

FIRST_ROWS = 100  # rows that say which columns a file has: JSON objects may differ


@dataclass
class Examples:
    """Texts, second texts (None: single texts) and labels of one file or split."""

    source: str
    texts: list[str] = field(default_factory=list)
    pairs: list[str] | None = None
    labels: list[Any] = field(default_factory=list)  # of the type labels.Label
    task: str = "single-label"  # what the labels are, and why they are read so
    task_reason: str = ""
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
            self.task,
            self.task_reason,
            self.names,
            [self.places[i] for i in rows],
            columns=self.columns,
        )

    def classes(self) -> list[str]:
        """Return the classes of all rows, with repetitions; none in a regression."""
        if self.task == "regression":
            return []
        if self.task == "multi-label":
            return [name for label in self.labels for name in label]
        return self.labels

    def class_key(self, label: str) -> str:
        """Return a class's name in lower case: classes of two files match by it."""
        return self.names.get(label, label).lower()

    def fingerprint(self) -> str:
        """Return a digest of texts and labels; it changes when the data changes."""
        digest = hashlib.sha256()
        for column in (self.texts, self.pairs or [], self.labels):
            digest.update(len(column).to_bytes(8, "little"))
            for value in column:
                data = (value if isinstance(value, str) else repr(value)).encode()
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


def load_examples(
    paths: Sequence[Path],
    requested: RequestedColumns = RequestedColumns(),  # noqa: B008 (frozen)
    labels: LabelFormat = LabelFormat(),  # noqa: B008 (frozen)
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

    def note_bad_row(place: str, error: ValueError) -> None:
        examples.dropped.append(f"{place}: {error}")
        if bad_rows == "error":
            advice = "fix it, or drop such rows with --bad-rows drop"
            raise InputError(f"{place}: {error}; {advice}") from None

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
                note_bad_row(place, error)
    _read_labels(examples, labels, note_bad_row)
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
    text = text_of(row, columns.text)
    second = None if columns.pair is None else text_of(row, columns.pair)
    cells = label_cells(row, columns)
    if columns.label_name and not isinstance(cells, list):
        label = read_class(cells, str(columns.label))
        name = read_class(row.fields.get(columns.label_name), columns.label_name)
        if examples.names.setdefault(label, name) != name:
            raise ValueError(
                f"the label {label} is named {printable(name, 40)!r} here and "
                f"{printable(examples.names[label], 40)!r} before; if {columns.label_name} "
                "does not name the labels, rename that column"
            )
    examples.texts.append(text)
    examples.labels.append(cells)
    examples.places.append(place)
    if second is not None:
        examples.pairs = [] if examples.pairs is None else examples.pairs
        examples.pairs.append(second)


def _read_labels(
    examples: Examples, form: LabelFormat, note_bad_row: Callable[[str, ValueError], None]
) -> None:
    """Choose the task from the cells of all rows, and replace the cells by labels."""
    examples.task, examples.task_reason = choose_task(examples.labels, examples.columns, form)
    good, labels = [], []
    for row, cells in enumerate(examples.labels):
        try:
            label = read_label(cells, examples.task, examples.columns, form.separator)
        except ValueError as error:
            note_bad_row(examples.places[row], error)
            continue
        good.append(row)
        labels.append(label)
    if len(good) < len(examples):
        kept = examples.take(good, examples.source)
        examples.texts, examples.pairs, examples.places = kept.texts, kept.pairs, kept.places
    examples.labels = labels
