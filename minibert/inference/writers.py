"""What predict.py writes: predictions, one window at a time.

The file grows as .NAME.new and gets its name when it is complete. After an interruption
--resume-output continues it.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from minibert.errors import InputError, Interrupted
from minibert.files import check_replaceable, is_same_file, lock, open_without_links
from minibert.inference.formats import (
    WINDOW,
    Formatter,
    Record,
    TableFormatter,
    json_lines,
    terminal_json_lines,
)
from minibert.tasks.task import Task

TABLES = (".csv", ".tsv")


class PredictionWriter:
    """Writes windows of predictions to an open stream.

    Args:
        output: the stream's name in error messages; - is standard output.
        stream: where the bytes go.
        formatter: makes a window's text.
        ends: where each window ends that an interrupted run has written.
    """

    def __init__(
        self, output: str, stream: IO[bytes], formatter: Formatter, *, ends: Sequence[int] = ()
    ) -> None:
        self.output, self.stream, self.formatter, self.ends = output, stream, formatter, ends
        self.windows = 0  # written or compared so far

    def is_empty(self) -> bool:
        """Return whether there is no prediction."""
        return not self.windows and not self.ends

    def needs(self, window: int) -> bool:
        """Return whether to predict a window.

        Of those that an interrupted run has written, the first and the last are predicted again, to
        compare them.
        """
        return window in (0, len(self.ends) - 1) or window >= len(self.ends)

    def write(self, window: int, records: list[Record]) -> None:
        """Write a window, or compare it with the one in the file.

        Raises InputError if the file has other predictions, or cannot be written.
        """
        block = self.formatter(records).encode()
        if window >= len(self.ends):
            with _write_errors(self.output):
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
                f"--resume-output: {self.stream.name} has other predictions for the rows {rows}; "
                "give the same input, model and options as before, or remove it"
            )
        if end == self.ends[-1]:
            self.stream.truncate()  # an incomplete window is predicted again

    def finish(self) -> None:
        """Sync the file to disk. Raises InputError if it has more predictions than the input."""
        if self.windows < len(self.ends):
            raise InputError(
                f"--resume-output: {self.stream.name} has more predictions than the input has "
                "rows; give the same input as before, or remove it"
            )
        with _write_errors(self.output):
            os.fsync(self.stream.fileno())


@contextmanager
def open_writer(output: str, task: Task, *, safe: bool, resume: bool) -> Iterator[PredictionWriter]:
    """Open a file, or standard output for -, for predictions.

    Args:
        output: a name that ends in .csv or .tsv, any other for JSON lines, or -.
        task: names the columns of a table.
        safe: make no cell of a table a formula.
        resume: continue an interrupted file.
    """
    if output == "-":
        if sys.stdout is None:
            raise InputError("standard output is closed; give --output FILE")
        with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
            formatter = terminal_json_lines if stream.isatty() else json_lines
            yield PredictionWriter(output, stream, formatter)
        return
    path = Path(os.path.realpath(output))
    check_replaceable(path)
    suffix = path.suffix.lower()
    table = TableFormatter(suffix, task, safe=safe) if suffix in TABLES else json_lines
    temporary = path.with_name(f".{path.name}.new")
    with _locked(output, temporary) as file:
        ends = _windows_to_keep(output, file, suffix, resume=resume)
        writer = PredictionWriter(output, file, table, ends=ends)
        with _kept_on_error(writer, temporary):
            yield writer
            writer.finish()
            if os.name == "posix":  # while it is locked, so that no other run opens it before
                with _write_errors(output):
                    os.replace(temporary, path)
    if os.name != "posix":  # Windows cannot rename an open file
        os.replace(temporary, path)


@contextmanager
def _locked(output: str, temporary: Path) -> Iterator[IO[bytes]]:
    """Open and lock the file that grows."""
    with _write_errors(output):
        file = open(temporary, "r+b", opener=open_without_links)  # noqa: SIM115
    try:
        if not lock(file) or not is_same_file(file, temporary):
            raise InputError(
                f"--output {output}: another run is writing it; wait for it or stop it"
            )
        yield file
    finally:
        with suppress(OSError):  # a full disk was reported when the window was written
            file.close()


def _windows_to_keep(output: str, file: IO[bytes], suffix: str, *, resume: bool) -> list[int]:
    """Return the ends of an interrupted run's windows; empty the file if it has none."""
    ends = whole_windows(file, suffix)
    if ends and not resume:
        raise InputError(
            f"--output {output}: {file.name} has {len(ends) * WINDOW:,} predictions of a run that "
            "did not finish; continue it with --resume-output, or remove it"
        )
    if not ends:
        file.seek(0)
        file.truncate()
    return ends


@contextmanager
def _kept_on_error(writer: PredictionWriter, temporary: Path) -> Iterator[None]:
    """Say where the predictions are if the run stops; remove a file that has none."""
    kept = f"the predictions so far are in {temporary}: continue with --resume-output, or remove it"
    try:
        yield
    except InputError as error:
        if writer.windows > len(writer.ends):
            raise InputError(f"{error}; {kept}") from None
        raise
    except Interrupted as interrupted:
        if not writer.is_empty():
            interrupted.hint = kept
        raise
    finally:
        if writer.is_empty() and is_same_file(writer.stream, temporary):
            temporary.unlink()


@contextmanager
def _write_errors(output: str) -> Iterator[None]:
    """Name the file that cannot be written; errors of standard output pass."""
    try:
        yield
    except OSError as error:
        if output == "-":
            raise
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from None


def whole_windows(file: IO[bytes], suffix: str) -> list[int]:
    """Return where each complete window in a file ends, in bytes."""
    ends, position, quoted = [], 0, False
    rows = -1 if suffix in TABLES else 0  # the header is not a prediction
    for line in file:
        position += len(line)
        if suffix == ".csv":
            quoted ^= line.count(b'"') % 2 == 1  # a cell may have line ends; its quotes are doubled
        if quoted or not line.endswith(b"\n"):
            continue
        rows += 1
        if rows and rows % WINDOW == 0:
            ends.append(position)
    return ends
