"""Rows become labelled examples; bad rows raise or are dropped; labels become classes.

Run: pytest tests/test_examples.py
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.classes import class_ids, class_names
from minibert.data.examples import Examples, load_examples
from minibert.errors import InputError


def examples(labels: list[str], names: dict[str, str] | None = None) -> Examples:
    """Examples with these labels; their texts do not matter."""
    texts = [f"text {i}" for i in range(len(labels))]
    places = [f"some.csv, line {i + 2}" for i in range(len(labels))]
    return Examples("some.csv", texts, labels=labels, names=names or {}, places=places)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# --- bad rows


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "", "label": "a"}, "column text: is empty"),
        ({"text": " \t", "label": "a"}, "column text: is blank"),
        ({"text": None, "label": "a"}, "column text: is null"),
        ({"text": 7, "label": "a"}, "column text: holds 7, not a text"),
        ({"text": ["a"], "label": "a"}, "column text: holds ['a'], not a text"),
        ({"label": "a"}, "has no field 'text'"),
        ({"text": "x"}, "column label: has no label"),
        ({"text": "x", "label": None}, "column label: has no label"),
        ({"text": "x", "label": " "}, "column label: has no label"),
        ({"text": "x", "label": float("nan")}, "column label: has no label"),
        ({"text": "x", "label": {"a": 1}}, "column label: holds {'a': 1}, not a label"),
        ({"text": "x", "label": "a\x1b[2J"}, r"column label: holds 'a\x1b[2J', not a label"),
        ({"text": "x", "label": "a\x9b"}, r"column label: holds 'a\x9b', not a label"),
    ],
)
def test_a_bad_row_raises_or_is_dropped_with_its_place(tmp_path, row, problem):
    good = '{"text": "fine", "label": "a"}'
    file = write(tmp_path / "rows.jsonl", good, "", json.dumps(row), good)
    with pytest.raises(InputError) as error:
        load_examples([file])
    advice = "fix it, or drop such rows with --bad-rows drop"
    assert str(error.value) == f"{file}, line 3: {problem}; {advice}"
    kept = load_examples([file], bad_rows="drop")
    assert kept.texts == ["fine", "fine"]
    assert kept.places == [f"{file}, line 1", f"{file}, line 4"]
    assert kept.dropped == [f"{file}, line 3: {problem}"]


def test_a_bad_second_text_drops_the_whole_row(tmp_path):
    file = write(tmp_path / "p.csv", "text_a,text_b,label", "one,,x", "two,three,y")
    kept = load_examples([file], bad_rows="drop")
    assert (kept.texts, kept.pairs, kept.labels) == (["two"], ["three"], ["y"])
    assert kept.dropped == [f"{file}, line 2: column text_b: is empty"]


def test_the_columns_are_found_if_the_first_row_is_bad(tmp_path):
    file = write(tmp_path / "r.csv", "text,label", "short", "fine,a")
    assert load_examples([file], bad_rows="drop").texts == ["fine"]


def test_a_file_without_rows_or_with_bad_rows_only_raises(tmp_path):
    with pytest.raises(InputError, match=r"r.csv: has a header and no rows; it needs labelled"):
        load_examples([write(tmp_path / "r.csv", "text,label")], bad_rows="drop")
    file = write(tmp_path / "r.csv", "text,label", ",a", ",b")
    problem = r"r.csv: all 2 rows are bad \(.*r.csv, line 2: column text: is empty\); it needs"
    with pytest.raises(InputError, match=problem):
        load_examples([file], bad_rows="drop")


@pytest.mark.parametrize(("row", "problem"), [("{}", "has no fields"), ("{", "is not JSON")])
@pytest.mark.parametrize("count", [1, 150])
def test_leading_rows_without_fields_raise_or_are_dropped(tmp_path, row, problem, count):
    """150 is more than the rows that are read to find the columns."""
    file = write(tmp_path / "r.jsonl", *[row] * count, '{"text": "fine", "label": "a"}')
    with pytest.raises(InputError, match=rf"r.jsonl, line 1: {problem}.*; fix it, or drop such"):
        load_examples([file])
    kept = load_examples([file], bad_rows="drop")
    assert kept.texts == ["fine"]
    assert len(kept.dropped) == count and "line 1: " + problem in kept.dropped[0]


def test_the_columns_are_found_in_the_first_rows_together(tmp_path):
    file = write(tmp_path / "some.jsonl", '{"id": 1}', '{"text": "hi", "label": "x"}')
    found = load_examples([file], bad_rows="drop")
    assert found.texts == ["hi"] and len(found.dropped) == 1


def test_several_files_become_one_split_and_places_name_the_file(tmp_path):
    files = [write(tmp_path / f"{name}.csv", "text,label", f"{name},x") for name in "ab"]
    found = load_examples(files)
    assert found.texts == ["a", "b"]
    assert found.places == [f"{file}, line 2" for file in files]


# --- labels and classes


def test_labels_of_every_kind_become_strings(tmp_path):
    values = ["pos ", 1, 1.0, 0.5, True, False]
    rows = [json.dumps({"text": "x", "label": value}) for value in values]
    found = load_examples([write(tmp_path / "l.jsonl", *rows)])
    assert found.labels == ["pos", "1", "1", "0.5", "true", "false"]


def test_numbers_are_ordered_by_value_and_names_alphabetically():
    assert class_names(examples(["10", "9", "-1", "9"])) == ("-1", "9", "10")
    assert class_names(examples(["b", "10", "a", "9", "B"])) == ("9", "10", "B", "a", "b")


def test_label_text_names_the_numbers_and_keeps_their_order(tmp_path):
    lines = ["text,label,label_text", "x,1,good", "y,0,very bad", "z,1,good"]
    found = load_examples([write(tmp_path / "setfit.csv", *lines)])
    assert class_names(found) == ("very bad", "good")
    assert class_ids(found, ("very bad", "good")).tolist() == [1, 0, 1]


def test_label_text_must_give_each_label_one_name(tmp_path):
    lines = ["text,label,label_text", "x,1,good", "y,1,fine"]
    with pytest.raises(InputError, match="line 3: the label 1 is named 'fine' here and 'good' bef"):
        load_examples([write(tmp_path / "two.csv", *lines)])
    with pytest.raises(InputError, match="the column label_text names two labels alike"):
        class_names(examples(["0", "1"], {"0": "same", "1": "same"}))


def test_a_single_class_raises_and_hidden_labels_are_explained():
    with pytest.raises(InputError, match=r"has only the label 'x'; it needs two or more$"):
        class_names(examples(["x", "x"]))
    with pytest.raises(InputError, match="-1 is how GLUE hides the labels"):
        class_names(examples(["-1", "-1"]))


@pytest.mark.parametrize(
    ("labels", "classes", "ids"),
    [
        (["bad", "good"], ("bad", "good"), [0, 1]),
        (["Good", "BAD"], ("bad", "good"), [1, 0]),
        (["5", "3"], ("3", "5"), [1, 0]),  # classes that are numbers match as names
        (["a", "A"], ("A", "a"), [1, 0]),  # classes that differ only in case match exactly
    ],
)
def test_a_label_is_a_class_name_in_any_case(labels, classes, ids):
    found = class_ids(examples(labels), classes)
    assert found.tolist() == ids and found.dtype == np.int64


def test_numbers_match_named_classes_only_if_requested():
    """Training does not guess; eval.py requests it and prints how it read them."""
    assert class_ids(examples(["1", "0"]), ("bad", "good"), numbers=True).tolist() == [1, 0]
    with pytest.raises(InputError, match="the label '1' is none of the model's 2 classes"):
        class_ids(examples(["1", "0"]), ("bad", "good"))


def test_labels_match_if_all_are_classes_and_a_name_is_none():
    """A model trained on GLUE's 0 and 1 scores SetFit's copy of the same data."""
    found = examples(["1", "0"], {"0": "negative", "1": "positive"})
    assert class_ids(found, ("0", "1")).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        ({"0": "1", "1": "2", "2": "3"}, ("1", "2", "3"), [0, 1, 2]),  # stars
        ({"0": "1", "1": "0", "2": "x"}, ("1", "0", "x"), [0, 1, 2]),
        ({"0": "1", "1": "2", "2": "3"}, ("0", "1", "2"), [0, 1, 2]),  # no class is named 3
    ],
)
def test_a_name_wins_over_a_class_that_looks_like_the_label(names, classes, expected):
    found = examples(["0", "1", "2"], names)
    assert class_ids(found, classes).tolist() == expected
    assert class_ids(found, classes, numbers=True).tolist() == expected


def test_a_label_whose_name_is_not_a_class_does_not_match_by_number():
    """Its 0 may mean another class than the model's first."""
    with pytest.raises(InputError, match="the label '0' is none of the model's 2 classes"):
        class_ids(examples(["0", "1"], {"0": "up", "1": "down"}), ("bad", "good"))


@pytest.mark.parametrize(
    ("label", "classes"),
    [("2", ("a", "b")), ("0", ("1", "2")), ("c", ("a", "b")), ("x", ("X", "y", "Y"))],
)
def test_an_unknown_label_raises_with_its_place_and_the_classes(label, classes):
    with pytest.raises(InputError) as error:
        class_ids(examples([classes[0], label]), classes)
    assert str(error.value) == (
        f"some.csv, line 3: the label {label!r} is none of the model's {len(classes)} classes "
        f"({', '.join(classes)})"
    )


def test_hidden_test_labels_are_explained():
    with pytest.raises(InputError, match="-1 is how GLUE hides the labels of its test files"):
        class_ids(examples(["-1"]), ("0", "1"))


# --- fingerprint

short = st.text("ab", max_size=3)
splits = st.lists(st.tuples(short, short, short), min_size=1, max_size=4).flatmap(
    lambda rows: st.booleans().map(
        lambda paired: Examples(
            "here",
            [row[0] for row in rows],
            [row[1] for row in rows] if paired else None,
            [row[2] for row in rows],
        )
    )
)


@settings(deadline=None)
@given(splits, splits)
def test_fingerprints_are_equal_if_and_only_if_texts_pairs_and_labels_are(a, b):
    same = (a.texts, a.pairs, a.labels) == (b.texts, b.pairs, b.labels)
    assert (a.fingerprint() == b.fingerprint()) == same


def test_the_fingerprint_depends_on_where_texts_end():
    one = Examples("here", ["ab", "c"], labels=["x", "y"])
    two = Examples("there", ["a", "bc"], labels=["x", "y"])
    assert one.fingerprint() != two.fingerprint()
    assert one.fingerprint() == Examples("there", ["ab", "c"], labels=["x", "y"]).fingerprint()


def test_pairs_and_more_rows_have_different_fingerprints():
    paired = Examples("here", ["a", "b"], pairs=["c", "d"], labels=["e", "f"])
    longer = Examples("here", ["a", "b", "c"], labels=["d", "e", "f"])
    assert paired.fingerprint() != longer.fingerprint()


# --- real files


@pytest.mark.parametrize(
    ("name", "count", "columns", "classes"),
    [
        ("sst2/train.tsv", 67_349, ("sentence", None), {"0": 29_780, "1": 37_569}),
        ("sst2/dev.tsv", 872, ("sentence", None), {"0": 428, "1": 444}),
        ("sst2/test.tsv", 1_821, ("sentence", None), {"0": 912, "1": 909}),
        ("sms_spam/sms.tsv", 5_574, ("message", None), {"ham": 4_827, "spam": 747}),
        ("ag_news/test.csv", 7_600, ("description", None), 4),
        ("banking77/train.csv", 10_003, ("text", None), 77),
        ("banking77/test.csv", 3_080, ("text", None), 77),
        ("imdb/train.jsonl", 5_000, ("text", None), {"0": 2_526, "1": 2_474}),
        ("sst5/test.csv", 2_210, ("text", None), 5),
    ],
)
def test_real_files_are_read_completely_without_flags(name, count, columns, classes):
    file = SHARED / "data" / name
    if not file.exists():
        pytest.skip(f"{name} is not on this machine")
    found = load_examples([file])
    assert len(found) == len(found.labels) == len(found.places) == count
    assert found.columns is not None and (found.columns.text, found.columns.pair) == columns
    assert (found.pairs is not None) == (columns[1] is not None)
    counts = Counter(found.labels)
    assert (counts if isinstance(classes, dict) else len(counts)) == classes


def test_whole_numbers_that_pandas_wrote_as_floats_become_whole_numbers(tmp_path):
    file = write(tmp_path / "floats.csv", "text,label", "x,1.0", "y,2.0", "z,10.00")
    assert load_examples([file]).labels == ["1", "2", "10"]
    rows = [json.dumps({"text": "x", "label": value}) for value in (2.0, 1, 10.0)]
    assert load_examples([write(tmp_path / "floats.jsonl", *rows)]).labels == ["2", "1", "10"]
    file = write(tmp_path / "gap.csv", "text,label", "x,1.0", "y,", "z,2.0")
    assert load_examples([file], bad_rows="drop").labels == ["1", "2"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [("y,,good", "column label: has no label"), ("y,1,", "column label_text: has no label")],
)
def test_a_missing_label_or_name_beside_label_text_says_its_column(tmp_path, row, problem):
    file = write(tmp_path / "setfit.csv", "text,label,label_text", "x,0,bad", row)
    with pytest.raises(InputError, match=f"setfit.csv, line 3: {problem}; fix it"):
        load_examples([file])


def test_numbers_do_not_match_classes_whose_names_have_digits():
    with pytest.raises(InputError, match="the label '1' is none of the model's 2 classes"):
        class_ids(examples(["1"]), ("1 star", "2 stars"), numbers=True)
