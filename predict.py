"""Label texts with a trained classifier: `python predict.py --help`."""

import csv
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from minibert.data import Columns, choose_columns, field_names, text_of
from minibert.errors import InputError, run_command
from minibert.files import check_replaceable
from minibert.predictor import Predictor
from minibert.settings import Flags, add_model_options, add_options
from minibert.tables import Row, check_characters, read_rows, read_stream

DESCRIPTION = """Label texts: one answer a text, in input order, as JSON lines
{"text", "label", "probability", "probabilities"} or as CSV or TSV. Input is read as a stream and
may be of any length; answers come 2,048 at a time. A row that cannot be used is answered with
label null and an error. The input's other columns are kept; one that has an answer's name gets
the prefix input_."""

READING = ("text_column", "pair_column", "encoding")
INPUT_FORMATS = ("lines", "jsonl", "csv", "tsv")
ANSWER_KEYS = ("text", "pair", "label", "probability", "probabilities", "error")
WINDOW = 2048  # rows that are read, sorted by length and answered together


def main(argv: Sequence[str]) -> None:
    """Answer the texts that the command line's words give."""
    usage = "%(prog)s [options] [TEXT ...]"
    parser = Flags(prog="predict.py", usage=usage, description=DESCRIPTION)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to label")
    add_model_options(parser)
    add_options(parser, READING)
    add = parser.add_argument_group("input and output").add_argument
    add(
        "--input",
        metavar="FILE",
        help=".jsonl .csv .tsv .parquet, .txt (a text a line), or - (stdin)",
    )
    add("--input-format", choices=INPUT_FORMATS, help="of - (default: lines, a text a line)")
    add(
        "--output",
        default="-",
        metavar="FILE",
        help=".jsonl .csv .tsv, or - (default: -, JSON lines)",
    )
    flags = vars(parser.parse_args(argv))
    texts, source, output = flags.pop("texts"), flags.pop("input"), flags.pop("output")
    form = flags.pop("input_format")
    reading = {name: flags.pop(name) for name in READING if name in flags}
    check_flags(texts, source, form, output)

    encoding = reading.pop("encoding", "utf-8")
    predictor = Predictor.open(flags.pop("model"), **flags)
    rows = input_rows(texts, source, form or "lines", encoding)
    with output_stream(output) as stream:
        write = writer(stream, Path(output).suffix.lower(), predictor.classes)
        errors = 0
        for answers in answered(rows, predictor, reading, source or "the command line"):
            write(answers)
            errors += sum("error" in answer for answer in answers)
            stream.flush()
    if errors:
        print(f"{errors:,} rows could not be used; each says why in error", file=sys.stderr)
    if predictor.truncated:
        length = predictor.max_length
        print(f"{predictor.truncated:,} texts were cut at {length} tokens", file=sys.stderr)


def check_flags(texts: list[str], source: str | None, form: str | None, output: str) -> None:
    """Raise InputError for flags that do not go together."""
    if bool(texts) == bool(source):
        raise InputError("give either TEXT or --input FILE")
    if form and source != "-":
        raise InputError("--input-format goes with --input -; a file's name says its format")
    if output == "-":
        return
    path = Path(output)
    if path.suffix.lower() not in (".jsonl", ".ndjson", ".json", ".csv", ".tsv"):
        raise InputError(f"--output {output}: has none of the endings .jsonl, .csv, .tsv")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--output {output}: is a folder, or its folder does not exist")
    if source and path.exists() and Path(source).exists() and path.samefile(source):
        raise InputError(f"--output {output}: is the input file; give another")


def input_rows(texts: list[str], source: str | None, form: str, encoding: str) -> Iterator[Row]:
    """Yield the rows of the words, of standard input, or of a file."""
    if source is None:
        words = (Row(number, {"text": text}) for number, text in enumerate(texts, start=1))
        return (check_characters(row, sys.getfilesystemencoding()) for row in words)
    if source == "-":
        return read_stream(sys.stdin.buffer, form, "standard input", encoding=encoding)
    return read_rows(Path(source), encoding=encoding)


def answered(
    rows: Iterator[Row], predictor: Predictor, reading: dict[str, Any], where: str
) -> Iterator[list[dict[str, Any]]]:
    """Yield the answers of a window of rows at a time; one window is all that is in memory."""
    columns = None
    while window := list(itertools.islice(rows, WINDOW)):
        names = field_names(window)
        if columns is None and names:
            columns = choose_columns(
                names, where, labelled=False, usual=predictor.columns, **reading
            )
        yield answer_window(window, columns, predictor)


def answer_window(
    window: Sequence[Row], columns: Columns | None, predictor: Predictor
) -> list[dict[str, Any]]:
    """Answer one window of rows, in their order."""
    texts: list[str] = []
    pairs: list[str] = []
    problems: list[str | None] = []
    for row in window:
        try:
            if row.error or columns is None:
                raise ValueError(row.error)
            text = text_of(row, columns.text)
            pair = text_of(row, columns.pair) if columns.pair else ""
        except ValueError as error:
            problems.append(f"line {row.line}: {error}")
            continue
        problems.append(None)
        texts.append(text)
        pairs.append(pair)
    paired = columns is not None and columns.pair is not None
    shares = iter(predictor.probabilities(texts, pairs if paired else None).tolist())
    return [
        answer(row, columns, problem, next(shares) if problem is None else None, predictor.classes)
        for row, problem in zip(window, problems, strict=True)
    ]


def answer(
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
    taken = {*ANSWER_KEYS, *(f"probability_{name}" for name in classes)}
    for name, value in fields.items():
        while name in taken or name in record:
            name = f"input_{name}"
        # JSON has no word for infinity or "not a number".
        record[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return record


def writer(
    stream: IO[str], suffix: str, classes: Sequence[str]
) -> Callable[[list[dict[str, Any]]], None]:
    """Return the function that writes a window of answers in the output's format."""
    if suffix not in (".csv", ".tsv"):
        return lambda answers: stream.writelines(
            json.dumps(answer, ensure_ascii=False, default=str) + "\n" for answer in answers
        )
    table: csv.DictWriter | None = None

    def write(answers: list[dict[str, Any]]) -> None:
        nonlocal table
        flat = [flatten(answer, classes, tabs=suffix == ".csv") for answer in answers]
        if table is None:
            names = list(dict.fromkeys(name for record in flat for name in record))
            style = CSV_STYLE if suffix == ".csv" else TSV_STYLE
            table = csv.DictWriter(stream, names, **style)
            table.writeheader()
        new = sorted({name for record in flat for name in record} - set(table.fieldnames))
        if new:
            raise InputError(
                f"the column {new[0]!r} appears after the first {WINDOW} rows, when the header "
                "of a table is written already; write .jsonl instead"
            )
        table.writerows(flat)

    return write


CSV_STYLE: dict[str, Any] = {"lineterminator": "\r\n"}
TSV_STYLE: dict[str, Any] = {
    "delimiter": "\t",
    "quoting": csv.QUOTE_NONE,
    "quotechar": None,
    "lineterminator": "\n",
}


def flatten(answer: dict[str, Any], classes: Sequence[str], *, tabs: bool) -> dict[str, Any]:
    """Make a table's row of an answer; without `tabs`, tabs and line ends become spaces."""
    shares = answer["probabilities"] or {}
    record: dict[str, Any] = {
        k: answer.get(k) for k in ("text", "pair", "label", "probability") if k in answer
    }
    record |= {f"probability_{name}": shares.get(name) for name in classes}
    record["error"] = answer.get("error")
    record |= {k: value for k, value in answer.items() if k not in ANSWER_KEYS}
    if tabs:
        return record
    return {untabbed(k): untabbed(v) if isinstance(v, str) else v for k, v in record.items()}


def untabbed(text: str) -> str:
    """Make each tab and line end a space."""
    return re.sub(r"[\t\r\n]", " ", text)


@contextmanager
def output_stream(output: str) -> Iterator[IO[str]]:
    """Open the output: standard output, or a file that is there only when it is whole."""
    # What UTF-8 cannot hold (a bad row's undecodable bytes) is written as an escape, valid in JSON.
    style: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    if output == "-":
        with open(sys.stdout.fileno(), "w", closefd=False, **style) as stream:
            yield stream
        return
    path = Path(os.path.realpath(output))
    check_replaceable(path)
    beside = path.with_name(f".{path.name}.new")
    try:
        with open(beside, "w", **style) as stream:
            yield stream
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from None
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
