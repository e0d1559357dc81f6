"""Files of rows, read one at a time: CSV (RFC 4180), TSV (unquoted), JSON lines, Parquet, lines.

A row that cannot be read has an `error`; the caller decides whether to stop or to drop it.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from minibert.data.limits import (
    LINE_LIMIT,
    LimitedLines,
    character_problem,
    check_column_count,
    field_count_problem,
)
from minibert.data.parquet import read_parquet
from minibert.errors import InputError, printable
from minibert.files import NESTING_LIMIT, is_deeply_nested

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "lines",
}
TOO_DEEP = f"is nested over {NESTING_LIMIT} levels deep"
UTF8 = ("utf-8", "utf8", "utf-8-sig")


@dataclass(frozen=True)
class Row:
    """One row: the line where it begins (Parquet: the row's number), its fields, its error."""

    line: int
    fields: dict[str, Any]
    error: str | None = None


def file_format(path: Path) -> str:
    """Return the format that a file's name says."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise InputError(f"{path}: has none of the endings {', '.join(FORMATS)}")
    return found


def read_rows(path: Path, *, encoding: str = "utf-8") -> Iterator[Row]:
    """Yield a file's rows. Raises InputError if the file or its header cannot be read."""
    form = file_format(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file")
    try:
        if form == "parquet":
            yield from _read_parquet(path)
            return
        with open(path, "rb") as file:
            yield from read_stream(file, form, str(path), encoding=encoding)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_stream(
    binary: IO[bytes], form: str, where: str, *, encoding: str = "utf-8"
) -> Iterator[Row]:
    """Yield the rows of an open byte stream, which stays open. A byte order mark is dropped."""
    # Bytes that do not decode become lone surrogates, for which check_characters sets an error.
    try:
        text = io.TextIOWrapper(
            binary,
            encoding="utf-8-sig" if encoding.lower().replace("_", "-") in UTF8 else encoding,
            errors="surrogateescape",
            newline="",
        )
    except LookupError:
        raise InputError(f"--encoding {encoding}: Python knows no such encoding") from None
    rows = {"csv": _read_csv, "tsv": _read_tsv, "jsonl": _read_json_lines, "lines": _read_lines}
    try:
        for row in rows[form](LimitedLines(text, where), where):
            yield row if row.error else check_characters(row, encoding)
    except UnicodeError as error:
        raise InputError(f"{where}: is not {encoding} ({error}); name another --encoding") from None
    finally:
        text.detach()  # the stream is the caller's to close


def check_characters(row: Row, encoding: str) -> Row:
    """Return the row, with an error if a text has bytes or characters that do not decode."""
    problem = character_problem(row.fields, encoding)
    return row if problem is None else replace(row, error=problem)


def _read_csv(lines: LimitedLines, where: str) -> Iterator[Row]:
    csv.field_size_limit(LINE_LIMIT)  # the default refuses texts over 131,072 characters
    reader = csv.reader(lines, strict=True)
    start = 1
    header: list[str] | None = None
    while True:
        error, cells = None, []
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as problem:
            error = f"is not CSV ({problem}); write a quote inside quotes twice"
            if lines.number > start:
                error += f"; its open quote extends to line {lines.number}"
        error = lines.take_error() or error
        line, start = start, lines.number + 1
        if header is None and error:
            raise InputError(f"{where}, line {line}: the header {error}")
        if header is None and cells:
            header = _header(cells, where)
        elif header is not None and (cells or error):
            yield _row(line, header, cells, error)
    if header is None:
        raise InputError(f"{where}: is empty; it needs a header line and rows")


def _read_tsv(lines: LimitedLines, where: str) -> Iterator[Row]:
    header: list[str] | None = None
    for line in lines:
        cells, error = line.rstrip("\r\n").split("\t"), lines.take_error()
        if header is None and error:
            raise InputError(f"{where}, line {lines.number}: the header {error}")
        if cells == [""] and not error:
            continue
        if header is None:
            header = _header(cells, where)
        else:
            yield _row(lines.number, header, cells, error)
    if header is None:
        raise InputError(f"{where}: is empty; it needs a header line and rows")


def _read_json_lines(lines: LimitedLines, where: str) -> Iterator[Row]:
    empty = True
    for line in lines:
        number, too_long = lines.number, lines.take_error()
        if too_long:
            yield Row(number, {}, too_long)
            continue
        if not line.strip():
            continue
        if empty and line.lstrip().startswith("["):
            raise InputError(f"{where}: is a JSON array; write JSON lines, one object a line")
        empty = False
        yield _json_row(number, line)
    if empty:
        raise InputError(f"{where}: is empty; it needs one JSON object a line")


def _json_row(number: int, line: str) -> Row:
    """Return the row of a line; fields that are nested too deep are left out."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        return Row(number, {}, f"is not JSON ({error})")
    except RecursionError:
        return Row(number, {}, TOO_DEEP)
    if not isinstance(fields, dict):
        return Row(number, {}, f"is a JSON {type(fields).__name__}, not an object")
    problem = field_count_problem(fields)
    for name in [name for name, value in fields.items() if is_deeply_nested(value)]:
        del fields[name]
        problem = f"column {printable(name)}: {TOO_DEEP}"
    return Row(number, fields, problem)


def _read_lines(lines: LimitedLines, where: str) -> Iterator[Row]:
    for line in lines:
        yield Row(lines.number, {"text": line.rstrip("\r\n")}, lines.take_error())


def _read_parquet(path: Path) -> Iterator[Row]:
    rows = read_parquet(path)
    names = next(rows)
    _header(names, str(path))
    for number, values in enumerate(rows, start=1):
        yield Row(number, dict(zip(names, values, strict=True)))


def _header(cells: list[str], where: str) -> list[str]:
    """Return the column names; one that is empty gets its number."""
    check_column_count(len(cells), where)
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(
            f"{where}, line 1: the header has the column {twice[0]!r} twice; rename one"
        )
    return names


def _row(line: int, header: list[str], cells: list[str], error: str | None) -> Row:
    if error is None and len(cells) != len(header):
        error = f"has {len(cells)} fields, the header {len(header)}"
    return Row(line, dict(zip(header, cells, strict=False)), error)
