"""Every file format returns the rows that were written; a bad row says where it is and why.

Run: pytest tests/test_readers.py
"""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.examples import text_of
from minibert.data.limits import LINE_LIMIT
from minibert.data.readers import Row, read_rows, read_stream
from minibert.errors import InputError

LINE_BREAK = re.compile("\r\n|\r|\n")


def rows_of(data: bytes, form: str = "csv", encoding: str = "utf-8") -> list[Row]:
    """Read bytes as a file of this format."""
    return list(read_stream(io.BytesIO(data), form, "here", encoding=encoding))


# --- rows that were written

cells = st.text(
    st.sampled_from('ab",;\t\n\r é漢 ') | st.characters(codec="utf-8", exclude_characters="\0")
)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6))
def test_csv_returns_what_the_csv_module_wrote_with_the_line_of_each_row(written):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["a", "b", "c"])
    lines = []
    for row in written:
        lines.append(1 + len(LINE_BREAK.findall(text.getvalue())))
        writer.writerow(row)
    found = rows_of(text.getvalue().encode())
    assert [tuple(row.fields.values()) for row in found] == written
    assert [row.line for row in found] == lines
    assert not any(row.error for row in found)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), min_size=1))
def test_json_lines_return_what_the_json_module_wrote(written):
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written).encode()
    assert rows_of(data, "jsonl") == [Row(i, row) for i, row in enumerate(written, start=1)]


unbroken = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n"), min_size=1)


@settings(deadline=None)
@given(st.lists(st.tuples(unbroken, unbroken), min_size=1))
def test_tsv_keeps_all_characters_but_tabs_and_line_ends(written):
    data = "".join(f"{a}\t{b}\n" for a, b in [("x", "y"), *written]).encode()
    assert [tuple(row.fields.values()) for row in rows_of(data, "tsv")] == written


def test_a_lone_quote_in_tsv_is_text():
    data = b'text\tlabel\n"so bad\t0\nfine\t1\n'
    assert [row.fields["text"] for row in rows_of(data, "tsv")] == ['"so bad', "fine"]


def test_text_files_keep_blank_lines_and_spaces():
    assert [row.fields["text"] for row in rows_of(b"one \r\n\n  three", "lines")] == [
        "one ",
        "",
        "  three",
    ]


def test_parquet_rows_are_numbered_across_batches(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "rows.parquet"
    texts = [f"text {i}" for i in range(1030)]  # a batch is 1,024
    parquet.write_table(pa.table({"text": texts, "label": list(range(1030))}), file)
    rows = list(read_rows(file))
    assert rows[0] == Row(1, {"text": "text 0", "label": 0})
    assert [row.line for row in rows] == list(range(1, 1031))
    assert [row.fields["text"] for row in rows] == texts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'text,label\n"a, b",1\n'),
        ("t.CSV", 'text,label\n"a, b",1\n'),
        ("t.tsv", "text\tlabel\na, b\t1\n"),
        ("t.jsonl", '{"text": "a, b", "label": "1"}\n'),
        ("t.ndjson", '\n{"text": "a, b", "label": "1"}\n'),
        ("t.json", '{"text": "a, b", "label": "1"}\n'),
    ],
)
def test_the_format_is_chosen_by_the_ending(tmp_path: Path, name, content):
    (tmp_path / name).write_text(content)
    assert [row.fields for row in read_rows(tmp_path / name)] == [{"text": "a, b", "label": "1"}]


def test_blank_lines_are_skipped_but_counted():
    assert [row.line for row in rows_of(b"a,b\n\n1,2\n\n\n3,4\n")] == [3, 6]
    assert [row.line for row in rows_of(b"a\tb\n\n1\t2\n\n\n3\t4\n", "tsv")] == [3, 6]
    assert [row.line for row in rows_of(b'\n{"a": 1}\n\n{"a": 2}\n', "jsonl")] == [2, 4]


def test_a_field_can_be_longer_than_the_csv_module_allows_by_default():
    long = "x" * 131_073
    assert rows_of(f"text,label\n{long},1\n".encode())[0].fields["text"] == long


def test_an_unnamed_column_gets_its_number_as_name():
    assert rows_of(b",text\n0,fine\n")[0].fields == {"column 1": "0", "text": "fine"}


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "latin-1"])
def test_files_are_read_in_the_requested_encoding(encoding):
    data = "text,label\ncrème brûlée,bon\n".encode(encoding)
    assert [row.fields for row in rows_of(data, encoding=encoding)] == [
        {"text": "crème brûlée", "label": "bon"}
    ]


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf_8"])
@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_byte_order_mark_is_not_part_of_the_first_column_name(name, form):
    data = b"\xef\xbb\xbf" + (b"text,label\na,b\n" if form == "csv" else b"text\tlabel\na\tb\n")
    assert rows_of(data, form, encoding=name)[0].fields == {"text": "a", "label": "b"}


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "lines"])
def test_an_undecodable_byte_is_an_error_of_its_row_only(form):
    rows = {
        "csv": b"text,label\nfine,0\ncr\xe8me,1\nlast,0\n",
        "tsv": b"text\tlabel\nfine\t0\ncr\xe8me\t1\nlast\t0\n",
        "jsonl": b'\n{"text": "fine"}\n{"text": "cr\xe8me"}\n{"text": "last"}\n',
        "lines": b"\nfine\ncr\xe8me\nlast\n",
    }
    found = rows_of(rows[form], form)
    bad = [row for row in found if row.error]
    assert [row.line for row in bad] == [3]
    assert bad[0].error == (
        "column text, character 3: holds the byte 0xe8, which is not utf-8; name another --encoding"
    )
    assert found[-1].fields["text"] == "last"


def test_a_byte_that_cp1252_does_not_define_is_an_error_of_its_row():
    (row,) = rows_of(b"text,label\na\x81,1\n", encoding="cp1252")
    assert row.error is not None and "0x81" in row.error and "cp1252" in row.error


def test_half_of_a_surrogate_pair_in_json_is_an_error_of_its_row():
    (row,) = rows_of(b'{"text": "a\\ud83d"}\n', "jsonl")
    assert row.error == "column text, character 2: holds half of a surrogate pair"
    (whole,) = rows_of(b'{"text": "a\\ud83d\\ude00"}\n', "jsonl")
    assert whole == Row(1, {"text": "a😀"})


def test_a_file_that_is_not_utf_16_raises():
    with pytest.raises(InputError, match=r"here: is not utf-16 .*name another --encoding"):
        rows_of(b"text,label\nabc,1\n\n", encoding="utf-16")


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "lines"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_for_a_utf_16_file_the_error_names_the_encoding(form, encoding):
    data = "\ufefftext,label\ngood,1\n".encode(encoding)
    with pytest.raises(InputError, match="here: begins as UTF-16 does; give --encoding utf-16"):
        rows_of(data, form)


@pytest.mark.parametrize("encoding", ["utf-88", "rot13", "hex"])
def test_an_unknown_encoding_raises(encoding):
    with pytest.raises(InputError, match=f"--encoding {encoding}"):
        rows_of(b"text,label\na,1\n", encoding=encoding)


# --- rows that cannot be read


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_too_few_or_too_many_fields_are_an_error_of_their_row(form):
    data = b"text,label\na\nb,1,2\nc,1\n"
    found = rows_of(data if form == "csv" else data.replace(b",", b"\t"), form)
    assert [(row.line, row.error) for row in found] == [
        (2, "has 1 fields, the header 2"),
        (3, "has 3 fields, the header 2"),
        (4, None),
    ]


def test_text_after_a_closing_quote_is_an_error_of_its_row():
    found = rows_of(b'text,label\n"he said "no" twice",0\nfine,1\n')
    assert [(row.line, bool(row.error)) for row in found] == [(2, True), (3, False)]
    assert "write a quote inside quotes twice" in str(found[0].error)


def test_a_quote_that_is_never_closed_is_an_error_of_the_row_that_opens_it():
    found = rows_of(b'text,label\nfine,1\n"open,0\nswallowed,1\n')
    assert [(row.line, bool(row.error)) for row in found] == [(2, False), (3, True)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{'text': 1}", "is not JSON"),
        ('["a"]', "is a JSON list, not an object"),
        ('"a"', "is a JSON str, not an object"),
        ("NaN", "is a JSON float, not an object"),
        ("[" * 100_000, "is nested over 100 levels deep"),
        ("9" * 5_000, "is not JSON"),
    ],
)
def test_a_line_that_is_not_a_json_object_is_an_error_of_its_row(line, problem):
    found = rows_of(f'{{"text": "a"}}\n{line}\n{{"text": "b"}}\n'.encode(), "jsonl")
    assert [row.line for row in found if row.error] == [2]
    assert problem in str(found[1].error)


@pytest.mark.parametrize(
    ("form", "before", "long", "after"),
    [
        ("csv", b"text,label\nfine,0\n", b"%s,1\n", b"last,0\n"),
        ("tsv", b"text\tlabel\nfine\t0\n", b"%s\t1\n", b"last\t0\n"),
        ("jsonl", b'\n{"text": "fine"}\n', b'{"text": "%s"}\n', b'{"text": "last"}\n'),
        ("lines", b"\nfine\n", b"%s\n", b"last\n"),
    ],
)
def test_a_line_over_the_limit_is_an_error_of_its_row(form, before, long, after):
    found = rows_of(before + long % (b"x" * LINE_LIMIT) + after, form)
    assert [(row.line, row.error) for row in found[-3:]] == [
        (2, None),
        (3, "is a line of over 16,777,216 characters"),
        (4, None),
    ]
    assert found[-1].fields["text"] == "last"


def test_a_quoted_field_over_the_limit_ends_there_and_the_next_line_is_a_row():
    line = b"x" * (LINE_LIMIT // 4) + b",1\n"  # the fourth line exceeds the limit
    found = rows_of(b'text,label\n"open,0\n' + 4 * line + b"last,0\n")
    assert [(row.line, bool(row.error)) for row in found] == [(2, True), (7, False)]
    assert "its open quote extends to line 6" in str(found[0].error)


# --- files that cannot be read


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf"])
def test_an_empty_file_raises(form, data):
    with pytest.raises(InputError, match="here: is empty; it needs"):
        rows_of(data, form)


@pytest.mark.parametrize(("form", "header"), [("csv", b"text,label"), ("tsv", b"text\tlabel\n")])
def test_a_file_with_only_a_header_has_no_rows(form, header):
    assert rows_of(header, form) == []


def test_a_header_that_is_not_csv_or_has_a_name_twice_raises():
    with pytest.raises(InputError, match="here, line 1: the header is not CSV"):
        rows_of(b'"te"xt,label\na,1\n')
    with pytest.raises(InputError, match="column 'text' twice"):
        rows_of(b"text, text\na,b\n")


@pytest.mark.parametrize("text", ['[{"text": "a"}]', '[\n  {"text": "a"}\n]\n'])
def test_a_json_array_raises_and_the_error_asks_for_json_lines(text):
    with pytest.raises(InputError, match="is a JSON array; write JSON lines"):
        rows_of(text.encode(), "jsonl")


def test_a_missing_file_a_folder_and_an_unknown_ending_raise(tmp_path: Path):
    with pytest.raises(InputError, match=r"missing.csv: cannot be read \(No such file"):
        list(read_rows(tmp_path / "missing.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder.csv: is a folder, not a file"):
        list(read_rows(tmp_path / "folder.csv"))
    with pytest.raises(InputError, match=r"data.xlsx: has none of the endings .csv, .tsv, .jsonl"):
        list(read_rows(tmp_path / "data.xlsx"))


def test_a_damaged_parquet_file_and_one_without_rows_raise(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "not.parquet").write_text("text,label\na,1\n")
    with pytest.raises(InputError, match=r"not.parquet: is not a complete Parquet file"):
        list(read_rows(tmp_path / "not.parquet"))
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "no.parquet")
    with pytest.raises(InputError, match=r"no.parquet: has no rows"):
        list(read_rows(tmp_path / "no.parquet"))


def test_a_parquet_value_that_python_cannot_hold_is_text_or_an_error(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    days = pa.array([0, 2**31 - 1, 1], pa.int32()).view(pa.date32())  # the second: after 9999
    texts = pa.array([b"a", b"b\xff", b"c"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": texts, "day": days}), tmp_path / "a.parquet")
    found = list(read_rows(tmp_path / "a.parquet"))
    assert [row.line for row in found] == [1, 2, 3]
    assert (found[0].fields["text"], found[2].fields["text"]) == ("a", "c")
    assert found[1].fields["day"] == "<value out of range: 2147483647>"
    with pytest.raises(ValueError, match=r"column text: holds UnicodeDecodeError.*, not a text"):
        text_of(found[1], "text")


# --- one row at a time


class Endless(io.RawIOBase):
    """A header and then the same row without end; fails if a megabyte is read."""

    def __init__(self, header: bytes, row: bytes) -> None:
        self.waiting, self.row, self.read_so_far = header, row, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if self.read_so_far > 1_000_000:
            raise AssertionError("a megabyte was read for one row")
        while len(self.waiting) < len(buffer):
            self.waiting += self.row
        buffer[:], self.waiting = self.waiting[: len(buffer)], self.waiting[len(buffer) :]
        self.read_so_far += len(buffer)
        return len(buffer)


@pytest.mark.parametrize(
    ("form", "header", "row"),
    [
        ("csv", b"text\n", b"hello\n"),
        ("tsv", b"text\n", b"hello\n"),
        ("jsonl", b"", b'{"text": "hello"}\n'),
        ("lines", b"", b"hello\n"),
    ],
)
def test_rows_are_read_one_at_a_time_from_an_endless_stream(form, header, row):
    stream = io.BufferedReader(Endless(header, row))
    first = next(read_stream(stream, form, "here"))
    assert first.fields == {"text": "hello"}
    assert not stream.closed  # the caller closes it
