"""Predictions as records, and windows of records as JSON lines, CSV or TSV."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from minibert.data.columns import Columns
from minibert.data.labels import SEPARATOR
from minibert.data.limits import SURROGATE
from minibert.data.readers import Row
from minibert.errors import InputError
from minibert.files import json_text
from minibert.tasks.task import Task

WINDOW = 2048  # rows that are read, sorted by length, predicted and written together

Record = dict[str, Any]  # one row's prediction, as predict.py --help describes it
Formatter = Callable[[list[Record]], str]  # a window of records to the text that is written

KEYS = ("text", "pair", "error")  # of every record; the prediction's are `Task.keys`

LINE_ENDS = re.compile(r"[\t\r\n]")  # what a cell of a TSV cannot have

# Cells that a spreadsheet may run (OWASP, "CSV Injection"), also after white space or quotes, which
# it may drop, and with full-width signs.
FORMULA = re.compile(r"""["\s\0]*[=+\-@＝＋－＠\t\r\n\0]""")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def prediction_record(
    row: Row,
    columns: Columns | None,
    task: Task,
    prediction: Record | None,
    *,
    error: str | None = None,
) -> Record:
    """Return one row's record: its texts, the prediction or the error, its other columns."""
    fields = dict(row.fields)
    record: Record = {"text": as_json(fields.pop(columns.text, None)) if columns else None}
    if columns and columns.pair:
        record["pair"] = as_json(fields.pop(columns.pair, None))
    record |= dict.fromkeys(task.keys) if prediction is None else prediction
    if prediction is None:
        record["error"] = as_json(error)
    for name, value in zip(kept_names(fields, task), fields.values(), strict=True):
        record[name] = as_json(value)
    return record


def kept_names(columns: Iterable[str], task: Task) -> list[str]:
    """Return the names of the other columns in a record; one that is taken gets a prefix."""
    taken = {*KEYS, *task.fields}
    names = []
    for column in columns:
        name = as_json(column)
        while name in taken:
            name = f"input_{name}"
        taken.add(name)
        names.append(name)
    return names


def as_json(value: Any) -> Any:
    """Return a value as every reader of JSON takes it (RFC 7493).

    NaN and infinity become null, halves of surrogate pairs U+FFFD, and what JSON has no type for,
    such as dates and bytes, becomes a string.
    """
    if isinstance(value, str):
        return SURROGATE.sub("\ufffd", value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {as_json(str(name)): as_json(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(x) for x in value]
    return as_json(str(value))


def json_lines(records: list[Record]) -> str:
    """Return one JSON object per line."""
    return "".join(json_text(record) + "\n" for record in records)


def terminal_json_lines(records: list[Record]) -> str:
    """Return JSON lines in which every character that a terminal obeys or hides is escaped."""
    text = json_lines(records)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


class TableFormatter:
    """Rows of CSV (RFC 4180) or TSV (unquoted); the header comes with the first window.

    Args:
        suffix: .csv or .tsv.
        task: names the columns of a prediction.
        safe: put ' before every cell that a spreadsheet would run as a formula.
    """

    def __init__(self, suffix: str, task: Task, *, safe: bool) -> None:
        self.tabs, self.task, self.safe = suffix == ".tsv", task, safe
        self.names: list[str] = []  # the columns, known after the first window

    def __call__(self, records: list[Record]) -> str:
        """Return the rows of a window. Raises InputError for a column that the header lacks."""
        rows = [flatten(record, self.task) for record in records]
        found = dict.fromkeys(name for row in rows for name in row)
        lines = []
        if not self.names:
            self.names = list(found)
            lines.append(self._line(self.names))
        if late := sorted(found.keys() - set(self.names)):
            raise InputError(
                f"the column {late[0]!r} appears after the first {WINDOW} rows, when the header "
                "of a table is written already; write .jsonl instead"
            )
        lines += [self._line([row.get(name) for name in self.names]) for row in rows]
        return "".join(lines)

    def _line(self, values: Sequence[Any]) -> str:
        cells = [self._cell(value) for value in values]
        if self.tabs:
            return "\t".join(LINE_ENDS.sub(" ", str(cell)) for cell in cells) + "\n"
        line = io.StringIO()
        # Some spreadsheets separate cells by semicolons. In a safe table, a text that has one must
        # not become a new cell, so every text is quoted.
        writer = csv.writer(line, quoting=csv.QUOTE_NONNUMERIC if self.safe else csv.QUOTE_MINIMAL)
        writer.writerow(cells)
        return line.getvalue()

    def _cell(self, value: Any) -> Any:
        if value is None:
            return ""
        if isinstance(value, dict | list):
            value = json_text(value)
        if not isinstance(value, str):
            return value
        text = f"'{value}" if self.safe and is_formula(value) else value
        # Python 3.10's csv module can neither write nor read a NUL.
        return text if self.tabs else text.replace("\0", " ")


def is_formula(cell: str) -> bool:
    """Return whether a spreadsheet may run a cell; a number with a sign is harmless."""
    return bool(FORMULA.match(cell)) and not NUMBER.fullmatch(cell)


def flatten(record: Record, task: Task) -> Record:
    """Return a record as a table's row: a column per class, and always one for the error.

    Several classes are one cell, as the readers take it; a JSON list if a name has the separator.
    """
    row: Record = {key: record[key] for key in ("text", "pair") if key in record}
    for key, value in prediction_columns(record, task).items():
        joined = isinstance(value, list) and not any(SEPARATOR in name for name in value)
        row[key] = SEPARATOR.join(value) if joined else value
    row["error"] = record.get("error")
    taken = (*KEYS, *task.keys)
    return row | {name: value for name, value in record.items() if name not in taken}


def prediction_columns(prediction: Record, task: Task) -> Record:
    """Return a record's prediction as columns: one per class in place of its last key."""
    row = {key: prediction[key] for key in task.keys}
    if task.columns:
        values = row.pop(task.keys[-1]) or {}
        row |= {x: values.get(y) for x, y in zip(task.columns, task.names, strict=True)}
    return row
