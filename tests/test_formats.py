"""Records as JSON lines, CSV and TSV: no cell is lost, and no cell of a safe table is a formula.

Run: pytest tests/test_formats.py
"""

import os
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from helpers import a_task, read_table, record_of, strict_json

from minibert.data.columns import Columns
from minibert.data.readers import Row
from minibert.errors import InputError
from minibert.inference.formats import (
    TableFormatter,
    json_lines,
    prediction_record,
    terminal_json_lines,
)

TASK = a_task("bad", "good", "so, so")


def record(error: str | None = None, **fields: object) -> dict:
    """The record of a row with these fields, the text among them."""
    prediction = None if error else record_of(TASK, [0.25, 0.625, 0.125])
    return prediction_record(Row(1, fields), Columns("text"), TASK, prediction, error=error)


def as_table(file: Path, records: list[dict], *, safe: bool = False) -> list[dict[str, str]]:
    """Write records as a table of the file's format and read it back."""
    text = TableFormatter(file.suffix, TASK, safe=safe)(records)
    file.write_bytes(text.encode())
    return read_table(file)


@pytest.fixture(params=["csv", "tsv"])
def table(request, tmp_path) -> Path:
    """A file of each format of tables."""
    return tmp_path / f"table.{request.param}"


# Records


def test_a_record_has_the_text_the_prediction_and_the_other_columns():
    expected = {
        "text": "fun",
        "label": "good",
        "probability": 0.625,
        "probabilities": {"bad": 0.25, "good": 0.625, "so, so": 0.125},
        "id": 7,
    }
    assert record(text="fun", id=7) == expected
    assert list(record(text="fun", id=7)) == list(expected)


def test_a_row_that_cannot_be_used_has_its_error_and_no_label():
    found = record(error="line 1: has no field 'text'", id=7)
    assert found["error"] == "line 1: has no field 'text'" and found["id"] == 7
    assert found["label"] is found["probability"] is found["probabilities"] is found["text"] is None


def test_no_column_of_the_input_replaces_a_predictions():
    fields = {"text": "t", "label": "old", "input_label": "older", "probability_a": "0.1", "id": 7}
    task = a_task("a", "b")
    prediction = record_of(task, [0.75, 0.25])
    found = prediction_record(Row(1, fields), Columns("text"), task, prediction)
    assert found["label"] == "a" and found["probabilities"] == {"a": 0.75, "b": 0.25}
    assert found["input_label"] == "old" and found["input_input_label"] == "older"
    assert found["input_probability_a"] == "0.1" and found["id"] == 7


INFINITY, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.5, 1.5),
        (2**70, 2**70),
        (True, True),
        (INFINITY, None),
        ([1, NAN, {"a": [-INFINITY], "b": None}], [1, None, {"a": [None], "b": None}]),
        ([("key", NAN)], [["key", None]]),  # a map of Parquet
        ({1: {None: NAN}}, {"1": {"None": None}}),
        (date(2020, 1, 2), "2020-01-02"),
        (timedelta(days=1, microseconds=1), "1 day, 0:00:00.000001"),
        (Decimal("1.50"), "1.50"),
        (ValueError("cannot be read"), "cannot be read"),
        ({"half\ud800": ["\udce9 of a pair"]}, {"half\ufffd": ["\ufffd of a pair"]}),
    ],
)
def test_a_value_that_json_lacks_is_null_or_a_string(value, written):
    found = record(text="fun", x=value)
    assert found["x"] == written
    assert strict_json(json_lines([found]))["x"] == written


def test_a_text_that_is_no_text_is_json_too():
    found = prediction_record(
        Row(1, {"text": NAN, "pair": [INFINITY]}),
        Columns("text", "pair"),
        TASK,
        None,
        error="column text\udce9: holds nan",
    )
    assert (found["text"], found["pair"]) == (None, [None])
    assert strict_json(json_lines([found]))["error"] == "column text\ufffd: holds nan"


def test_names_that_differ_by_an_undecodable_byte_stay_two_columns():
    names = [f"a{os.fsdecode(byte)}" for byte in (b"\xe9", b"\xea")]
    found = record(text="fun", **dict.fromkeys(names, 1))
    assert list(found)[-2:] == ["a\ufffd", "input_a\ufffd"]
    assert strict_json(json_lines([found])) == found


# JSON lines


def test_json_lines_are_one_object_per_line():
    records = [record(text="a\nb\u2028", id=date(2020, 1, 2)), record(text="café")]
    first, second, end = json_lines(records).split("\n")
    assert strict_json(first)["text"] == "a\nb\u2028" and strict_json(first)["id"] == "2020-01-02"
    assert '"café"' in second and end == ""


def test_a_terminal_gets_escapes_for_what_it_obeys_or_hides():
    nasty = "good \x1b[31m\x9b2J\x7f\u202e\u2066\u200f\u2028\ufeff\U000e0041 café \U0001f600"
    text = terminal_json_lines([record(text=nasty)])
    assert text[:-1].isprintable() and text.endswith("}\n")
    assert "café \U0001f600" in text
    assert strict_json(text)["text"] == nasty


# Tables


def test_a_table_has_a_column_per_class_and_one_for_the_error(table):
    rows = as_table(table, [record(text="fun", id=7), record(error="line 2: is blank", id=8)])
    names = ["text", "label", "probability", "probability_bad", "probability_good"]
    assert list(rows[0]) == [*names, "probability_so, so", "error", "id"]
    assert list(rows[0].values()) == ["fun", "good", "0.625", "0.25", "0.625", "0.125", "", "7"]
    assert rows[1]["error"] == "line 2: is blank" and rows[1]["label"] == ""


def test_a_nested_value_is_json_in_a_table(table):
    (row,) = as_table(table, [record(text="fun", x=[{"a": "caf\u00e9"}, NAN], y=INFINITY)])
    assert strict_json(row["x"]) == [{"a": "caf\u00e9"}, None] and row["y"] == ""


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize(
    "text",
    ["", "a,b", 'a "b"', '"', "a\nb", "a\rb", "\r\n", "a;b", " a ", "a\0b", "\0", "'", "\u2028"],
)
def test_csv_keeps_every_text_except_nul(tmp_path, text, safe):
    (row,) = as_table(tmp_path / "t.csv", [record(text=f"x{text}")], safe=safe)
    assert row["text"] == "x" + text.replace("\0", " ")  # Python 3.10 can write no NUL


def test_tsv_has_spaces_for_tabs_and_line_ends(tmp_path):
    (row,) = as_table(tmp_path / "t.tsv", [record(text='good\nfilm\tand\r"food"\0')])
    assert row["text"] == 'good film and "food"\0'


def test_columns_that_differ_by_a_tab_are_both_in_a_tsv():
    fields = {"text": "good", "a\tb": "1", "a b": "2"}
    text = TableFormatter(".tsv", TASK, safe=False)([record(**fields)])
    header, row = (line.split("\t") for line in text.splitlines())
    assert header[-2:] == ["a b", "a b"] and row[-2:] == ["1", "2"]


def test_the_header_comes_once_and_a_late_column_is_refused():
    formatter = TableFormatter(".csv", TASK, safe=False)
    first, second = formatter([record(text="a", id=1)]), formatter([record(text="b")])
    assert first.startswith("text,label,") and second.startswith("b,good,")
    assert second.endswith(",\r\n")  # the column id is empty
    with pytest.raises(InputError, match=r"'late' appears after the first 2048 rows.*jsonl"):
        formatter([record(text="c", late=1)])


# Spreadsheets

FORMULAS = [
    *("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "=1;=2"),
    *(" =1", '"=1"', "\uff1d1", "\x00=1", "-", "+49 30 12", "-1_0", "-inf", "=" + "1" * 9),
]
HARMLESS = ["good", "", "-1", "+1.5", "-.5e-3", "+4930", "'=1", "1-1", "a=1", "a;b", "5", "café"]


def cell_in(file: Path, cell: str) -> str:
    """What a table of this format keeps of a cell."""
    replaced = "\t\r\n" if file.suffix == ".tsv" else "\0"
    return cell.translate(dict.fromkeys(map(ord, replaced), " "))


def test_no_cell_of_a_safe_table_is_a_formula(table):
    records = [record(text="good", x=cell, n=-5, f=-1.5) for cell in (*FORMULAS, *HARMLESS)]
    records.append(record(text="=good"))
    plain, safe = as_table(table, records), as_table(table, records, safe=True)
    assert [row["x"] for row in plain[:-1]] == [cell_in(table, x) for x in FORMULAS + HARMLESS]
    expected = [f"'{cell}" for cell in FORMULAS] + HARMLESS
    assert [row["x"] for row in safe[:-1]] == [cell_in(table, x) for x in expected]
    assert {(row["n"], row["f"]) for row in safe[:-1]} == {("-5", "-1.5")}
    assert (safe[-1]["text"], plain[-1]["text"]) == ("'=good", "=good")


def test_no_name_of_a_column_is_a_formula(table):
    (row,) = as_table(table, [record(text="good", **{"=x": "1"})], safe=True)
    assert list(row)[-1] == "'=x"


def test_a_semicolon_stays_inside_a_cell_of_a_safe_csv():
    """In some countries spreadsheets separate cells by it."""
    text = TableFormatter(".csv", TASK, safe=True)([record(text="a;=1", n=5)])
    assert '"a;=1","good",0.625,0.25,' in text and text.endswith(',"",5\r\n')
