"""Hostile texts and tables cause an error of their row or one InputError, in bounded memory.

Large files are read in a child process whose memory is limited.

Run: pytest -m faults tests/test_faults_readers.py
"""

import io
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import write_checkpoint

from minibert.checkpoint.config_file import read_encoder_config
from minibert.data.examples import load_examples
from minibert.data.limits import LINE_LIMIT
from minibert.data.long_texts import shorten
from minibert.data.readers import Row, read_rows, read_stream
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.model.config import LongTexts

pytestmark = pytest.mark.faults

HEADERS = {"csv": b"text,label\n", "tsv": b"text\tlabel\n", "jsonl": b"", "lines": b""}
GOOD = {
    "csv": b"good,1\n",
    "tsv": b"good\t1\n",
    "jsonl": b'{"text": "good", "label": "1"}\n',
    "lines": b"good\n",
}


class Flood(io.RawIOBase):
    """A stream of `before`, `piece` repeated to `size` bytes, and `after`; never all in memory."""

    def __init__(self, before: bytes, piece: bytes, size: int, after: bytes) -> None:
        self.rest = self.pieces(before, piece * (65536 // len(piece)), size, after)
        self.waiting = b""

    @staticmethod
    def pieces(before: bytes, piece: bytes, size: int, after: bytes) -> Iterator[bytes]:
        yield before
        yield from (piece for _ in range(size // len(piece)))
        yield after

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self.waiting = self.waiting or next(self.rest, b"")
        count = min(len(buffer), len(self.waiting))
        buffer[:count], self.waiting = self.waiting[:count], self.waiting[count:]
        return count


def in_a_child(work: Callable[[], str], *, room: int) -> str:
    """Run `work` in a child process with `room` bytes more than this one; return its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            found = work()
        except BaseException as error:
            found = f"{type(error).__name__} {error}"
        os.write(writer, found[:2000].encode(errors="backslashreplace"))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        found = stream.read().decode()
    os.waitpid(child, 0)
    return found


def rows(flood: Flood, form: str) -> list[Row]:
    return list(read_stream(io.BufferedReader(flood), form, "here"))


@pytest.mark.parametrize("form", HEADERS)
def test_a_line_of_100_mb_is_an_error_of_its_row(form: str) -> None:
    """200 MB: a line at the limit, its copies and the reader's buffer, 4 bytes per character."""

    def read() -> str:
        before = HEADERS[form] + GOOD[form]
        found = rows(Flood(before, b"x", 100_000_000, b"\n" + GOOD[form]), form)
        return f"{[row.line for row in found]} {[bool(row.error) for row in found]}"

    first = 2 if HEADERS[form] else 1
    assert in_a_child(read, room=200 * 2**20) == (
        f"{[first, first + 1, first + 2]} [False, True, False]"
    )


def test_a_quote_that_is_not_closed_reads_at_most_the_limit() -> None:
    def read() -> str:
        before = HEADERS["csv"] + b'"open,1\n'
        found = rows(
            Flood(before, b"swallowed text of some words,1\n", 20_000_000, b"last,0\n"), "csv"
        )
        bad = [row for row in found if row.error]
        return f"{found[-1].fields} {[row.line for row in bad]} {bad[0].error}"

    said = in_a_child(read, room=1500 * 2**20)
    assert said.startswith("{'text': 'last', 'label': '0'} [2] is not CSV (field larger than")
    assert "its open quote extends to line " in said


def test_a_file_without_line_ends_raises() -> None:
    """For example a disk image, or /dev/zero under another name."""
    for form in ("csv", "tsv"):
        with pytest.raises(InputError, match="here, line 1: the header is a line of over"):
            rows(Flood(b"\0", b"\0", 2 * LINE_LIMIT, b""), form)


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_million_columns_raise_and_a_million_fields_are_an_error_of_their_row(form: str) -> None:
    comma = "," if form == "csv" else "\t"
    header = comma.join(["text", "label", *(f"c{i}" for i in range(1_000_000))])
    with pytest.raises(InputError, match="has 1,000,002 columns; keep at most 10,000"):
        list(read_stream(io.BytesIO(f"{header}\n".encode()), form, "here"))
    few, many = HEADERS[form] + GOOD[form], comma.encode() * 1_000_000 + b"\n"
    found = list(read_stream(io.BytesIO(few + many + GOOD[form]), form, "here"))
    assert [row.error for row in found] == [None, "has 1000001 fields, the header 2", None]


def test_a_million_fields_in_one_json_line_are_an_error_of_their_row() -> None:
    line = b"{" + b",".join(b'"%d":1' % i for i in range(1_000_000)) + b"}\n"
    found = list(read_stream(io.BytesIO(GOOD["jsonl"] + line + GOOD["jsonl"]), "jsonl", "here"))
    assert [row.error for row in found] == [None, "has 1,000,000 fields", None]


@pytest.mark.parametrize(
    ("piece", "size"),
    [
        ("good film ", 10_000_000),
        ("x", 10_000_000),
        ("\0", 10_000_000),
        ("\u05d0\u0301 ", 2_000_000),
        ("e\u0301", 2_000_000),
    ],
    ids=["words", "one word", "NUL", "right to left with marks", "letters with marks"],
)
def test_a_text_of_millions_of_characters_is_read_and_encoded(
    tmp_path: Path, piece: str, size: int
) -> None:
    folder = write_checkpoint(tmp_path)
    tokenizer = Tokenizer.from_folder(folder, read_encoder_config(folder))
    text = piece * (size // len(piece))
    data = f"text,label\n{text},1\n".encode()
    (row,) = read_stream(io.BytesIO(data), "csv", "here")
    assert row.error is None and row.fields["text"] == text
    encoded = tokenizer.encode([text])
    cut = shorten(tokenizer, encoded, [text], max_length=40, long_texts=LongTexts())
    assert 2 <= len(cut.rows[0]) <= 40


# --- pipes, and files that change


@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.jsonl"])
def test_a_named_pipe_is_read_to_its_end(tmp_path: Path, name: str) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    form = pipe.suffix.removeprefix(".")
    content = HEADERS[form] + GOOD[form] * 5000 + GOOD[form].replace(b"1", b"0")
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    examples = load_examples([pipe])
    writer.join()
    assert len(examples) == 5001 and examples.labels[-1] == "0"


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("change", ["grows", "is cut", "is emptied", "is removed", "is replaced"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, form: str, change: str) -> None:
    """All rows are correct; only the last one can be cut off."""
    file = tmp_path / f"data.{form}"
    file.write_bytes(HEADERS[form] + GOOD[form] * 20_000)
    size = file.stat().st_size
    found = []
    for row in read_rows(file):
        found.append(row)
        if len(found) == 10 and change == "grows":
            with open(file, "ab") as more:
                more.write(GOOD[form] * 7)
        elif len(found) == 10 and change == "is cut":
            os.truncate(file, size // 2 + 2)
        elif len(found) == 10 and change == "is emptied":
            os.truncate(file, 0)
        elif len(found) == 10 and change == "is removed":
            file.unlink()
        elif len(found) == 10 and change == "is replaced":
            (tmp_path / "new").write_bytes(b"other")
            (tmp_path / "new").replace(file)
    assert all(row.fields["text"] == "good" and not row.error for row in found[:-1])
    whole = {"grows": 20_007, "is removed": 20_000, "is replaced": 20_000}
    assert len(found) == whole.get(change, len(found)) and 10 < len(found) <= 20_007


def test_parquet_through_a_pipe_raises(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pipe = tmp_path / "data.parquet"
    os.mkfifo(pipe)

    def write() -> None:
        with suppress(BrokenPipeError):  # the reader closes the pipe when it cannot seek
            pipe.write_bytes(b"PAR1" * 100)

    threading.Thread(target=write, daemon=True).start()
    with pytest.raises(InputError, match=r"data\.parquet"):
        list(read_rows(pipe))


def test_training_and_scoring_print_no_control_characters(
    tmp_path: Path, checkpoint: Path, reviews: Path, run_script: Callable
) -> None:
    """Not from a file's name, a bad row or a class name, and no right-to-left override either."""
    text = reviews.read_text().replace("negative", "neg\u202eative").replace("text,", "te\u202ext,")
    data = tmp_path / "re\x1b[2J\x9bviews.csv"
    data.write_text(text + "bad,\x1b]0;title\x07\nthe food,\x9b31m\n")
    flags = ["--text-column", "te\u202ext", "--bad-rows", "drop", "--data", data]
    words = ["--model", checkpoint, *flags, "--max-length", "20", "--epochs", "1"]
    trained = run_script("train.py", *words, "--device", "cpu")
    scored = run_script("eval.py", *flags)
    for done in (trained, scored):
        assert done.returncode == 0, done.stderr
        for said in (done.stdout, done.stderr):
            assert said.replace("\n", "").isprintable(), ascii(said)
    assert r"re\x1b[2J\x9bviews" in trained.stdout and r"neg\u202eative" in scored.stdout
    assert r"holds '\x1b]0;title\x07', not a label" in trained.stdout
