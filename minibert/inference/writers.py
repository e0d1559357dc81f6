"""What predict.py writes: JSON lines, CSV or TSV, a window of answers at a time.

A file grows temporary its place, as .NAME.new, and takes its place when it is whole. What a run that
did not finish has answered stays there until --resume-output goes on with it.
"""

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from minibert.data.columns import Columns
from minibert.data.readers import Row
from minibert.errors import InputError, Interrupted
from minibert.files import check_replaceable, is_same_file, lock, open_without_links

WINDOW = 2048  # rows that are read, sorted by length, answered and written together
Formatter = Callable[[list[dict[str, Any]]], str]  # what a window of answers is as text
KEYS = ("text", "pair", "label", "probability", "probabilities", "error")


def prediction_record(
    row: Row,
    columns: Columns | None,
    problem: str | None,
    shares: list[float] | None,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Put together one row's answer and the input's other columns."""
    fields = dict(row.fields)
    record: dict[str, Any] = {"text": fields.pop(columns.text, None) if columns else None}
    if columns and columns.pair:
        record["pair"] = fields.pop(columns.pair, None)
    if shares is None:
        record |= {"label": None, "probability": None, "probabilities": None, "error": problem}
    else:
        best = max(range(len(classes)), key=shares.__getitem__)
        rounded = {name: round(share, 6) for name, share in zip(classes, shares, strict=True)}
        label = classes[best]
        record |= {"label": label, "probability": rounded[label], "probabilities": rounded}
    taken = {*KEYS, *(f"probability_{name}" for name in classes)}
    for name, value in fields.items():
        while name in taken or name in record:
            name = f"input_{name}"
        # JSON has no word for infinity or "not a number".
        record[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return record


class PredictionWriter:
    """Where the answers go; of an interrupted run's file, `ends` are the ends of whole windows."""

    def __init__(
        self, output: str, stream: IO[bytes], form: Formatter, ends: Sequence[int]
    ) -> None:
        self.output, self.stream, self.form, self.ends = output, stream, form, ends
        self.windows = 0  # up to the last one that was written, or found to be there

    def any(self) -> bool:
        """Say whether there is an answer."""
        return bool(self.windows or self.ends)

    def needs(self, window: int) -> bool:
        """Say whether to answer a window: of those that are there, only the first and the last."""
        return window in (0, len(self.ends) - 1) or window >= len(self.ends)

    def write(self, window: int, answers: list[dict[str, Any]]) -> None:
        """Write a window of answers; where one is there already, InputError if it is another."""
        # What UTF-8 cannot hold (a bad row's undecodable bytes) becomes an escape, valid in JSON.
        block = self.form(answers).encode("utf-8", "backslashreplace")
        if window >= len(self.ends):
            with _written(self.output):
                self.stream.write(block)
                self.stream.flush()
        else:
            self._compare(window, block)
        self.windows = window + 1

    def _compare(self, window: int, block: bytes) -> None:
        start, end = [0, *self.ends][window : window + 2]
        self.stream.seek(start)
        if self.stream.read(end - start) != block:
            rows = f"{window * WINDOW + 1:,} to {(window + 1) * WINDOW:,}"
            raise InputError(
                f"--resume-output: {self.stream.name} has other answers to the rows {rows}; give "
                "the same input, model and options as before, or remove it"
            )
        if end == self.ends[-1]:
            self.stream.truncate()  # a window that is not whole is answered again

    def finish(self) -> None:
        """Bring a file to the disk; InputError where it has more answers than the input rows."""
        if self.windows < len(self.ends):
            raise InputError(
                f"--resume-output: {self.stream.name} has more answers than the input has rows; "
                "give the same input as before, or remove it"
            )
        with _written(self.output):
            os.fsync(self.stream.fileno())


@contextmanager
def open_writer(
    output: str, classes: Sequence[str], *, safe: bool, resume: bool
) -> Iterator[PredictionWriter]:
    """Open standard output (-), or a file that is there only when it is whole.

    `safe` keeps a table's cells from being formulas, `resume` goes on with an interrupted file.
    """
    if output == "-":
        if sys.stdout is None:
            raise InputError("standard output is closed; give --output FILE")
        with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
            yield PredictionWriter(output, stream, json_lines(terminal=stream.isatty()), ())
        return
    path = Path(os.path.realpath(output))
    check_replaceable(path)
    temporary = path.with_name(f".{path.name}.new")
    suffix = path.suffix.lower()
    table = suffix in (".csv", ".tsv")
    form = table_rows(suffix, classes, safe=safe) if table else json_lines(terminal=False)
    kept = f"the answers so far are kept in {temporary}: go on with --resume-output, or remove it"
    with _growing(output, temporary) as file:
        ends = whole_windows(file, suffix)
        if ends and not resume:
            raise InputError(
                f"--output {output}: {temporary} has {len(ends) * WINDOW:,} answers of a run that "
                "did not finish; go on with --resume-output, or remove it"
            )
        if not ends:
            file.seek(0)
            file.truncate()
        answers = PredictionWriter(output, file, form, ends)
        try:
            yield answers
            answers.finish()
            if os.name == "posix":  # while it is locked, or another run would take it for its own
                with _written(output):
                    os.replace(temporary, path)
        except InputError as error:
            if answers.windows > len(answers.ends):
                raise InputError(f"{error}; {kept}") from None
            raise
        except Interrupted as stopped:
            if answers.any():
                stopped.hint = kept
            raise
        finally:
            if not answers.any() and is_same_file(file, temporary):
                temporary.unlink()
    if os.name != "posix":  # Windows renames no open file
        os.replace(temporary, path)


@contextmanager
def _growing(output: str, temporary: Path) -> Iterator[IO[bytes]]:
    with _written(output):
        file = open(temporary, "r+b", opener=open_without_links)  # noqa: SIM115
    try:
        if not lock(file) or not is_same_file(file, temporary):
            raise InputError(
                f"--output {output}: another run is writing it; wait for it or stop it"
            )
        yield file
    finally:
        with suppress(OSError):  # what a full disk does not take has been said already
            file.close()


@contextmanager
def _written(output: str) -> Iterator[None]:
    """Say which file cannot be written; standard output is known by itself."""
    try:
        yield
    except OSError as error:
        if output == "-":
            raise
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from None


def whole_windows(file: IO[bytes], suffix: str) -> list[int]:
    """Return where each whole window of the answers in a file ends."""
    ends, position, quoted = [], 0, False
    rows = -1 if suffix in (".csv", ".tsv") else 0  # a header is no answer
    for line in file:
        position += len(line)
        if suffix == ".csv":
            quoted ^= line.count(b'"') % 2 == 1  # a cell may hold line ends; its quotes are doubled
        if quoted or not line.endswith(b"\n"):
            continue
        rows += 1
        if rows and rows % WINDOW == 0:
            ends.append(position)
    return ends


def json_lines(*, terminal: bool) -> Formatter:
    """Return what makes lines of answers; on a terminal what is not printable is escaped."""

    def form(answers: list[dict[str, Any]]) -> str:
        text = "".join(json.dumps(x, ensure_ascii=False, default=str) + "\n" for x in answers)
        return escaped(text) if terminal else text

    return form


def escaped(text: str) -> str:
    """Return JSON lines with what a terminal might obey, or would not show, as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def table_rows(suffix: str, classes: Sequence[str], *, safe: bool) -> Formatter:
    """Return what makes a table's rows of answers; the header comes with the first window."""
    style: dict[str, Any] = {"lineterminator": "\r\n"}
    if suffix == ".tsv":
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
        style["lineterminator"] = "\n"
    elif safe:
        # Where a semicolon parts cells, as in Europe, one must not begin a cell within another.
        style["quoting"] = csv.QUOTE_NONNUMERIC
    names: list[str] = []

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if safe and FORMULA.match(value) and not NUMBER.fullmatch(value):
            value = f"'{value}"
        return re.sub(r"[\t\r\n]", " ", value) if suffix == ".tsv" else value

    def form(answers: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        table = csv.writer(text, **style)
        rows = [flatten(answer, classes) for answer in answers]
        found = dict.fromkeys(name for row in rows for name in row)
        if not names:
            names.extend(found)
            table.writerow(map(cell, names))
        if late := sorted(found.keys() - set(names)):
            raise InputError(
                f"the column {late[0]!r} appears after the first {WINDOW} rows, when the header "
                "of a table is written already; write .jsonl instead"
            )
        table.writerows([cell(row.get(name)) for name in names] for row in rows)
        return text.getvalue()

    return form


# OWASP's advice on CSV injection, and what leads to the same: a spreadsheet may drop white space,
# and takes the quotes off a TSV's cell, where they are of the text.
FORMULA = re.compile(r"""["\s\0]*[=+\-@＝＋－＠\t\r\n\0]""")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def flatten(answer: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Make a table's row of an answer: a column a class, and one for the error."""
    shares = answer["probabilities"] or {}
    record: dict[str, Any] = {
        k: answer[k] for k in ("text", "pair", "label", "probability") if k in answer
    }
    record |= {f"probability_{name}": shares.get(name) for name in classes}
    record["error"] = answer.get("error")
    return record | {k: value for k, value in answer.items() if k not in KEYS}
