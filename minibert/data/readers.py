"""Files of rows, read one at a time: CSV (RFC 4180), TSV (unquoted), JSON lines, Parquet, lines.

A row that cannot be read comes out with an `error`, so that the caller decides what it costs.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minibert.errors import InputError, printable

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "lines",
}
SURROGATE = re.compile("[\ud800-\udfff]")
UTF8 = ("utf-8", "utf8", "utf-8-sig")
UTF16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")  # the bytes FF FE and FE FF, which are not UTF-8
# Characters of a line or field: some 20 books. A lost quote or a file without line ends stops here.
LINE_LIMIT = 2**24
FIELDS_LIMIT = 10_000


@dataclass(frozen=True)
class Row:
    """One row: the line it begins at (Parquet: its number), its fields, and what is wrong."""

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
    """Yield a file's rows; raises InputError for a file that is not there or has no header."""
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
    """Yield the rows of an open byte stream; a byte order mark is dropped."""
    # Bytes that do not decode become lone surrogates here, and an error of their own row below.
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
        for row in rows[form](_Lines(text, where), where):
            yield row if row.error else check_characters(row, encoding)
    except UnicodeError as error:
        raise InputError(f"{where}: is not {encoding} ({error}); name another --encoding") from None
    finally:
        text.detach()  # the stream is the caller's to close


class _Lines:
    """A text's lines, their `number` so far, and what is wrong with the last one or more."""

    def __init__(self, text: IO[str], where: str) -> None:
        self.text, self.where = text, where
        self.number = 0
        self.error: str | None = None

    def __iter__(self) -> Iterator[str]:
        readline = self.text.readline
        while line := readline(LINE_LIMIT):
            if not self.number and line.startswith(UTF16_MARKS):
                raise InputError(f"{self.where}: begins as UTF-16 does; give --encoding utf-16")
            self.number += 1
            if len(line) == LINE_LIMIT:
                while line and not line.endswith(("\r", "\n")):
                    line = readline(LINE_LIMIT)
                self.error = f"is a line of over {LINE_LIMIT:,} characters"
                line = ""
            yield line

    def take_error(self) -> str | None:
        """Return what is wrong since the last call, once."""
        error, self.error = self.error, None
        return error


def _read_csv(lines: _Lines, where: str) -> Iterator[Row]:
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
            error = f"is not CSV ({problem}); a quote inside quotes is written twice"
            if lines.number > start:
                error += f"; its open quote takes in the lines to {lines.number}"
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


def _read_tsv(lines: _Lines, where: str) -> Iterator[Row]:
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


def _read_json_lines(lines: _Lines, where: str) -> Iterator[Row]:
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
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(number, {}, f"is not JSON ({error})")
            continue
        if isinstance(fields, dict):
            many = len(fields) > FIELDS_LIMIT
            yield Row(number, fields, f"has {len(fields):,} fields" if many else None)
        else:
            yield Row(number, {}, f"is a JSON {type(fields).__name__}, not an object")
    if empty:
        raise InputError(f"{where}: is empty; it needs one JSON object a line")


def _read_lines(lines: _Lines, where: str) -> Iterator[Row]:
    for line in lines:
        yield Row(lines.number, {"text": line.rstrip("\r\n")}, lines.take_error())


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(
            f'{path}: Parquet needs the extra parquet: pip install -e ".[parquet]"'
        ) from None
    number = 0
    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            _header(names, str(path))
            for batch in file.iter_batches(batch_size=1024):
                for values in zip(*map(_values, batch.columns), strict=True):
                    number += 1
                    yield Row(number, dict(zip(names, values, strict=True)))
    except ArrowException as error:
        raise InputError(f"{path}: is not a whole Parquet file ({error})") from None
    if not number:
        raise InputError(f"{path}: has no rows")


def _values(column: Any) -> list[Any]:
    """Return a column's values; in the place of one that Python cannot hold, the reason."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # a date after 9999 and the like, of whatever column
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return error


def _header(cells: list[str], where: str) -> list[str]:
    if len(cells) > FIELDS_LIMIT:
        raise InputError(
            f"{where}, line 1: has {len(cells):,} columns; keep at most {FIELDS_LIMIT:,} of them"
        )
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


def check_characters(row: Row, encoding: str) -> Row:
    """Return the row, with an error where a text holds half a character or undecodable bytes."""
    for name, value in row.fields.items():
        bad = SURROGATE.search(value) if isinstance(value, str) else None
        if bad:
            byte = ord(bad[0]) - 0xDC00
            problem = (
                f"the byte 0x{byte:02x}, which is not {encoding}; name another --encoding"
                if 0x80 <= byte <= 0xFF
                else "half of a surrogate pair"
            )
            where = f"column {printable(name)}, character {bad.start() + 1}"
            return Row(row.line, row.fields, f"{where}: holds {problem}")
    return row
