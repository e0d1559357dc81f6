"""The cells of a label column become one class, several classes or numbers, and say why.

Run: pytest tests/test_labels.py
"""

import json
from decimal import Decimal
from typing import Any

import pytest

from minibert.data.columns import Columns
from minibert.data.examples import load_examples
from minibert.data.labels import LabelFormat, choose_task, label_cells, read_label
from minibert.data.options import DataOptions
from minibert.data.readers import Row
from minibert.errors import InputError

ONE = Columns("text", label="label")
TWO = Columns("text", labels=("fun", "sad"))


def read(cells: Any, task: str, columns: Columns = ONE, separator: str | None = None) -> Any:
    return read_label(cells, task, columns, separator)


def chosen(*cells: Any, columns: Columns = ONE, **form: Any) -> tuple[str, str]:
    return choose_task(cells, columns, LabelFormat(**form))


# --- one cell to a label


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (" good ", "good"),
        (1, "1"),
        (2.0, "2"),
        ("2.0", "2"),
        ("-3.00", "-3"),
        (0.5, "0.5"),
        ("0.5", "0.5"),
        (True, "true"),
        ("1.0.0", "1.0.0"),
    ],
)
def test_one_class(cell, label):
    assert read(cell, "single-label") == label


@pytest.mark.parametrize(
    ("cells", "label"),
    [
        (["b", "a", "b"], ("b", "a")),
        ([], ()),
        ([1, 2.0], ("1", "2")),
        ("a|b", ("a", "b")),
        (" a | b ", ("a", "b")),
        ("a||b|", ("a", "b")),
        ("", ()),
        ("a,b", ("a,b",)),
        (3, ("3",)),
    ],
)
def test_several_classes(cells, label):
    assert read(cells, "multi-label") == label


def test_the_separator_of_several_classes_can_be_chosen():
    assert read("a, b|c", "multi-label", separator=",") == ("a", "b|c")
    assert read("a; b", "multi-label", separator="; ") == ("a", "b")


@pytest.mark.parametrize(
    ("values", "label"),
    [((1, 0), ("fun",)), (("1", "1.0"), ("fun", "sad")), ((False, "true"), ("sad",)), ((0, 0), ())],
)
def test_columns_of_0_and_1_are_several_classes(values, label):
    row = Row(2, {"text": "x", **dict(zip(("fun", "sad"), values, strict=True))})
    assert read(label_cells(row, TWO), "multi-label", TWO) == label


@pytest.mark.parametrize(
    ("cells", "label"),
    [(4, (4.0,)), ("4.25", (4.25,)), (" -1e3", (-1000.0,)), ([1, 2.5], (1.0, 2.5))],
)
def test_numbers(cells, label):
    assert read(cells, "regression") == label


def test_columns_of_numbers_are_numbers_in_their_order():
    assert read({"fun": "0.5", "sad": 3}, "regression", TWO) == (0.5, 3.0)


@pytest.mark.parametrize(
    ("task", "cells", "problem"),
    [
        ("single-label", ["a"], "column label: holds ['a'], not a label"),
        ("single-label", {"a": 1}, "column label: holds {'a': 1}, not a label"),
        ("single-label", None, "column label: has no label"),
        ("multi-label", None, "column label: has no label; an empty list or cell is a row without"),
        ("multi-label", ["a", ""], "column label: has no label"),
        ("multi-label", ["a", ["b"]], "column label: holds ['b'], not a label"),
        ("multi-label", {"fun": 1, "sad": 2}, "column fun, sad: sad holds 2, not 0 or 1"),
        ("multi-label", {"fun": None, "sad": 1}, "column fun, sad: fun holds None, not 0 or 1"),
        ("regression", "many", "column label: holds 'many', not a number"),
        ("regression", "", "column label: holds '', not a number"),
        ("regression", None, "column label: holds None, not a number"),
        ("regression", True, "column label: holds True, not a number"),
        ("regression", "nan", "column label: holds 'nan', not a number"),
        ("regression", float("inf"), "column label: holds inf, not a number"),
        ("regression", 10**400, "column label: holds 1000"),
        ("regression", 1e39, "column label: holds 1e+39, not a number"),  # not in float32
        ("regression", [], "column label: holds [], not a number"),
        ("regression", [1, "x"], "column label: holds 'x', not a number"),
        ("regression", {"fun": 1, "sad": "-"}, "column fun, sad: sad holds '-', not a number"),
    ],
)
def test_a_bad_cell_is_one_error_with_its_column(task, cells, problem):
    columns = TWO if isinstance(cells, dict) and "fun" in cells else ONE
    with pytest.raises(ValueError) as error:
        read(cells, task, columns)
    assert str(error.value).startswith(problem) and "\n" not in str(error.value)


# --- which task the labels are of


def test_a_requested_task_is_the_task():
    assert chosen("a", task="regression") == ("regression", "as requested")


@pytest.mark.parametrize("cells", [(["a"], []), (["a"], "b"), ([1, 2], [3]), (["0.5"], ["1.5"])])
def test_lists_are_several_classes(cells):
    assert chosen(*cells) == ("multi-label", "the column label has lists")


def test_lists_of_numbers_with_fractions_are_numbers():
    expected = ("regression", "the column label has lists of numbers")
    assert chosen([0.5, 2.0], [1, 0.25]) == expected


def test_a_separator_means_several_classes():
    assert chosen("a", "b", separator=";") == ("multi-label", "--label-separator is given")


def test_label_columns_are_classes_if_they_hold_0_and_1_and_else_numbers():
    task, why = chosen({"fun": "0", "sad": 1}, {"fun": "1.0", "sad": False}, columns=TWO)
    assert task == "multi-label" and "--label-columns" in why
    task, why = chosen({"fun": 0, "sad": 1}, {"fun": 0.5, "sad": 1}, columns=TWO)
    assert task == "regression" and "--label-columns" in why


@pytest.mark.parametrize("empty", [None, "", "yes"])
def test_a_bad_cell_does_not_make_classes_numbers(empty):
    """Its error then says that it is neither 0 nor 1."""
    assert chosen({"fun": 0, "sad": 1}, {"fun": 1, "sad": empty}, columns=TWO)[0] == "multi-label"


def test_numbers_with_fractions_are_numbers_also_if_a_cell_is_bad():
    expected = ("regression", "the column label has numbers with fractions")
    assert chosen("1", "2.5", "4") == chosen("1", "2.5", "four") == expected
    assert chosen("good", "bad", "2.5") == ("single-label", "")


def test_whole_numbers_are_classes_unless_the_model_predicts_numbers():
    reason = "whole numbers are classes; --task regression predicts them"
    assert chosen("1.0", 2, "3.0") == ("single-label", reason)
    assert chosen(0, 1) == ("single-label", "")
    assert chosen(0, 1, model_task="multi-label")[0] == "single-label"
    expected = ("regression", "the model predicts numbers")
    assert chosen(0, 1, model_task="regression") == expected
    assert chosen("a", "b", model_task="regression")[0] == "single-label"


def test_combined_classes_in_one_cell_get_a_hint():
    assert chosen("a", "a|b", "b") == (
        "single-label",
        "'a|b' is one class; --label-separator '|' makes several of it",
    )
    assert chosen("a|b", "c") == ("single-label", "")


def test_flags_in_a_list_are_refused():
    with pytest.raises(ValueError, match=r"holds .* which repeats a class; for a column of 0"):
        read([0, 1, 0], "multi-label")


def test_decimals_of_a_database_are_numbers():
    row = Row(2, {"label": Decimal("0.91"), "fun": Decimal(1), "sad": [Decimal("2.5")]})
    assert label_cells(row, ONE) == 0.91
    assert label_cells(row, TWO) == {"fun": 1, "sad": [2.5]}
    ids = [Decimal(f"123456789012345678{last}") for last in (1, 2)]  # float has 16 digits
    assert label_cells(Row(2, {"label": ids}), ONE) == [1234567890123456781, 1234567890123456782]


@pytest.mark.parametrize("form", [{}, {"task": "multi-label"}])
def test_lists_of_0_and_1_for_two_classes_are_refused(form):
    """As names of classes, each text has both, which every model predicts."""
    with pytest.raises(InputError, match=r"the column label has lists of 0 and 1.*--label-columns"):
        chosen([0, 1], None, [1, 0], **form)
    assert chosen([0, 1], [0], **form)[0] == "multi-label"
    assert chosen([0, 1], [0, 1], **form)[0] == "multi-label"
    assert chosen([0], [1], **form)[0] == "multi-label"
    assert chosen([0, 1], [1, 0], task="regression")[0] == "regression"


# --- in a file


def test_a_bad_label_names_its_line_or_is_dropped_with_its_whole_row(tmp_path):
    rows = [
        *({"text_a": f"a{n}", "text_b": f"b{n}", "label": n + 0.5} for n in range(3)),
        {"text_a": "a3", "text_b": "b3", "label": "four"},
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    with pytest.raises(InputError, match="line 1: column label: holds 'four', not a number; fix"):
        load_examples([file])
    kept = load_examples([file], bad_rows="drop")
    assert kept.task == "regression" and kept.labels == [(2.5,), (1.5,), (0.5,)]
    assert (kept.texts, kept.pairs) == (["a2", "a1", "a0"], ["b2", "b1", "b0"])
    assert kept.places[0] == f"{file}, line 2" and len(kept.dropped) == 1


def test_lists_beside_label_text_need_no_names(tmp_path):
    rows = [
        {"text": "x", "label": [0, 1], "label_text": "fun, sad"},
        {"text": "y", "label": [1], "label_text": "sad"},
    ]
    file = tmp_path / "setfit.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_examples([file]).labels == [("0", "1"), ("1",)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"label_columns": ("a", "b"), "label_column": "c"}, "--label-columns takes the place of"),
        ({"label_columns": ("a", "a")}, "--label-columns names a column twice"),
        ({"label_columns": ("a", "b"), "task": "single-label"}, "--label-columns is for several l"),
        ({"label_separator": ";", "task": "single-label"}, "--label-separator is for several l"),
        ({"label_separator": ";", "task": "regression"}, "--label-separator is for several label"),
        ({"label_separator": ";", "label_columns": ("a", "b")}, "--label-separator is for several"),
        ({"task": "ranking"}, "--task is 'ranking', not one of auto, single-label, multi-label"),
        ({"label_separator": ""}, "--label-separator is empty"),
    ],
)
def test_options_of_labels_that_cannot_be_are_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        DataOptions("reviews.csv", **options)


def test_a_split_beside_files_for_all_splits_is_refused():
    with pytest.raises(InputError, match="--split has no effect beside --validation and --test"):
        DataOptions("a.csv", validation="b.csv", test="c.csv", split=(6, 2, 2))
