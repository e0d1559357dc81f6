"""Records as JSON lines, CSV and TSV: no cell is lost, and no cell of a safe table is a formula.

Run: pytest tests/test_formats.py
"""

import csv
import io
import json
from datetime import date
from pathlib import Path

import pytest
from helpers import read_table

from minibert.data.columns import Columns
from minibert.data.readers import Row
from minibert.errors import InputError
from minibert.inference.formats import (
    TableFormatter,
    json_lines,
    prediction_record,
    terminal_json_lines,
)

CLASSES = ("bad", "good", "so, so")


def record(error: str | None = None, **fields: object) -> dict:
    """The record of a row with these fields, the text among them."""
    probabilities = None if error else [0.25, 0.625, 0.125]
    return prediction_record(
        Row(1, fields), Columns("text"), CLASSES, probabilities=probabilities, error=error
    )


def as_table(file: Path, records: list[dict], *, safe: bool = False) -> list[dict[str, str]]:
    """Write records as a table of the file's format and read it back."""
    text = TableFormatter(file.suffix, CLASSES, safe=safe)(records)
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
    found = prediction_record(
        Row(1, fields), Columns("text"), ("a", "b"), probabilities=[0.75, 0.25]
    )
    assert found["label"] == "a" and found["probabilities"] == {"a": 0.75, "b": 0.25}
    assert found["input_label"] == "old" and found["input_input_label"] == "older"
    assert found["input_probability_a"] == "0.1" and found["id"] == 7


def test_infinity_and_nan_are_null_in_json():
    found = record(text="fun", x=float("inf"), y=float("nan"), z=1.5)
    assert (found["x"], found["y"], found["z"]) == (None, None, 1.5)


# JSON lines


def test_json_lines_are_one_object_per_line():
    records = [record(text="a\nb\u2028", id=date(2020, 1, 2)), record(text="café")]
    first, second, end = json_lines(records).split("\n")
    assert json.loads(first)["text"] == "a\nb\u2028" and json.loads(first)["id"] == "2020-01-02"
    assert '"café"' in second and end == ""


def test_a_terminal_gets_escapes_for_what_it_obeys_or_hides():
    nasty = "good \x1b[31m\x9b2J\x7f\u202e\u2066\u200f\u2028\ufeff\U000e0041 café \U0001f600"
    text = terminal_json_lines([record(text=nasty)])
    assert text[:-1].isprintable() and text.endswith("}\n")
    assert "café \U0001f600" in text
    assert json.loads(text)["text"] == nasty


# Tables


def test_a_table_has_a_column_per_class_and_one_for_the_error(table):
    rows = as_table(table, [record(text="fun", id=7), record(error="line 2: is blank", id=8)])
    names = ["text", "label", "probability", "probability_bad", "probability_good"]
    assert list(rows[0]) == [*names, "probability_so, so", "error", "id"]
    assert list(rows[0].values()) == ["fun", "good", "0.625", "0.25", "0.625", "0.125", "", "7"]
    assert rows[1]["error"] == "line 2: is blank" and rows[1]["label"] == ""


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize(
    "text",
    ["", "a,b", 'a "b"', '"', "a\nb", "a\rb", "\r\n", "a;b", " a ", "a\0b", "\0", "'", "\u2028"],
)
def test_csv_keeps_every_text(tmp_path, text, safe):
    (row,) = as_table(tmp_path / "t.csv", [record(text=f"x{text}")], safe=safe)
    assert row["text"] == f"x{text}"


def test_tsv_has_spaces_for_tabs_and_line_ends(tmp_path):
    (row,) = as_table(tmp_path / "t.tsv", [record(text='good\nfilm\tand\r"food"\0')])
    assert row["text"] == 'good film and "food"\0'


def test_columns_that_differ_by_a_tab_are_both_in_a_tsv():
    fields = {"text": "good", "a\tb": "1", "a b": "2"}
    text = TableFormatter(".tsv", CLASSES, safe=False)([record(**fields)])
    header, row = (line.split("\t") for line in text.splitlines())
    assert header[-2:] == ["a b", "a b"] and row[-2:] == ["1", "2"]


def test_csv_is_what_the_csv_module_writes():
    values = {"a": None, "b": True, "c": -5, "d": 0.1, "e": [1, "x"], "f": 'q"q', "g": "x\r\ny"}
    records = [record(text="fun", **values)]
    stream = io.StringIO()
    writer = csv.writer(stream)
    prediction = ["fun", "good", 0.625, 0.25, 0.625, 0.125, ""]
    writer.writerow([*prediction, *values.values()])
    text = TableFormatter(".csv", CLASSES, safe=False)(records)
    assert text.split("\r\n", 1)[1] == stream.getvalue()


def test_the_header_comes_once_and_a_late_column_is_refused():
    formatter = TableFormatter(".csv", CLASSES, safe=False)
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
    return cell.translate(dict.fromkeys(map(ord, "\t\r\n"), " ")) if file.suffix == ".tsv" else cell


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
    text = TableFormatter(".csv", CLASSES, safe=True)([record(text="a;=1", n=5)])
    assert '"a;=1","good",0.625,0.25,' in text and text.endswith(',"",5\r\n')
