"""Label texts with a trained classifier: `python predict.py --help`."""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from minibert.errors import InputError, begin, run_command

if __name__ == "__main__":
    begin()

from minibert.answers import WINDOW, answer, open_answers
from minibert.data import Columns, choose_columns, field_names, text_of
from minibert.predictor import Predictor
from minibert.settings import Flags, add_model_options, add_options
from minibert.tables import Row, check_characters, read_rows, read_stream

DESCRIPTION = """Label texts: one answer a text, in input order, as JSON lines
{"text", "label", "probability", "probabilities"} or as CSV or TSV. Input is read as a stream and
may be of any length; answers come 2,048 at a time. A row that cannot be used is answered with
label null and an error. The input's other columns are kept; one that has an answer's name gets
the prefix input_. A file takes its name when it is whole; of a run that stops before, what is
answered is kept beside it, in .FILE.new."""

READING = ("text_column", "pair_column", "encoding")
INPUT_FORMATS = ("lines", "jsonl", "csv", "tsv")


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
    add(
        "--resume-output",
        action="store_true",
        help="go on with what is kept; the same input again, a pipe from its start",
    )
    add(
        "--csv-safe",
        action="store_true",
        help="put ' before cells of a .csv or .tsv that a spreadsheet would run as formulas",
    )
    flags = vars(parser.parse_args(argv))
    texts, source, output = flags.pop("texts"), flags.pop("input"), flags.pop("output")
    form, resume, safe = (flags.pop(x) for x in ("input_format", "resume_output", "csv_safe"))
    reading = {name: flags.pop(name) for name in READING if name in flags}
    check_flags(texts, source, form, output, resume=resume, safe=safe)

    encoding = reading.pop("encoding", "utf-8")
    predictor = Predictor.open(flags.pop("model"), **flags)
    rows = input_rows(texts, source, form or "lines", encoding)
    errors = 0
    with open_answers(output, predictor.classes, safe=safe, resume=resume) as out:
        where = source or "the command line"
        for window, answers in answered(rows, predictor, reading, where, out.wants):
            out.write(window, answers)
            errors += sum("error" in answer for answer in answers)
    if errors:
        print(f"{errors:,} rows could not be used; each says why in error", file=sys.stderr)
    if predictor.truncated:
        length = predictor.max_length
        print(f"{predictor.truncated:,} texts were cut at {length} tokens", file=sys.stderr)


def check_flags(
    texts: list[str],
    source: str | None,
    form: str | None,
    output: str,
    *,
    resume: bool,
    safe: bool,
) -> None:
    """Raise InputError for flags that do not go together."""
    if bool(texts) == bool(source):
        raise InputError("give either TEXT or --input FILE")
    if form and source != "-":
        raise InputError("--input-format goes with --input -; a file's name says its format")
    if resume and output == "-":
        raise InputError("--resume-output goes with --output FILE")
    if safe and Path(output).suffix.lower() not in (".csv", ".tsv"):
        raise InputError("--csv-safe goes with an --output FILE that ends in .csv or .tsv")
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
        if sys.stdin is None:
            raise InputError("standard input is closed; give --input FILE")
        return read_stream(sys.stdin.buffer, form, "standard input", encoding=encoding)
    return read_rows(Path(source), encoding=encoding)


def answered(
    rows: Iterator[Row],
    predictor: Predictor,
    reading: dict[str, Any],
    where: str,
    wants: Callable[[int], bool],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the answers of each wanted window of rows and its number; memory holds one window."""
    columns = None
    for number in itertools.count():
        window = list(itertools.islice(rows, WINDOW))
        if not window:
            return
        names = field_names(window)
        if columns is None and names:
            columns = choose_columns(
                names, where, labelled=False, usual=predictor.columns, **reading
            )
        if wants(number):
            yield number, answer_window(window, columns, predictor)


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


if __name__ == "__main__":
    sys.exit(run_command(main))
