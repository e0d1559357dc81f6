"""Proves which columns, labels and classes a table gives, and that bad rows are named or left out.

Run: pytest tests/test_data.py
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.examples import (
    Columns,
    Examples,
    choose_columns,
    class_ids,
    class_names,
    load_examples,
)
from minibert.errors import InputError


def examples(labels: list[str], names: dict[str, str] | None = None) -> Examples:
    """Examples of which only the labels matter."""
    texts = [f"text {i}" for i in range(len(labels))]
    places = [f"some.csv, line {i + 2}" for i in range(len(labels))]
    return Examples("some.csv", texts, labels=labels, names=names or {}, places=places)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# --- columns


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("sentence label", Columns("sentence", None, "label")),  # GLUE's SST-2
        ("label message", Columns("message", None, "label")),  # SMS spam
        ("label title description", Columns("title", "description", "label")),  # AG News
        ("text category", Columns("text", None, "category")),  # banking77
        ("id text label rating", Columns("text", None, "label")),  # IMDB
        ("text label label_text", Columns("text", None, "label", "label_text")),  # SetFit
        ("idx sentence1 sentence2 label", Columns("sentence1", "sentence2", "label")),  # MRPC
        ("premise hypothesis label", Columns("premise", "hypothesis", "label")),  # MNLI
        ("question sentence label", Columns("question", "sentence", "label")),  # QNLI
        ("Text LABEL", Columns("Text", None, "LABEL")),
        ("Review Sentiment", Columns("Review", None, "Sentiment")),
    ],
)
def test_columns_are_found_by_the_names_of_real_data_sets(header, found):
    assert choose_columns(header.split(), "here") == found


@pytest.mark.parametrize(
    ("header", "flags", "found"),
    [
        ("a b c", {"text_column": "b", "label_column": "a"}, Columns("b", None, "a")),
        (
            "a b c",
            {"text_column": "b", "pair_column": "c", "label_column": "a"},
            Columns("b", "c", "a"),
        ),
        (
            "label title description",
            {"text_column": "description"},
            Columns("description", None, "label"),
        ),
        ("text review label", {"text_column": "review"}, Columns("review", None, "label")),
        ("text label topic", {"label_column": "topic"}, Columns("text", None, "topic")),
        ("text label title", {"pair_column": "title"}, Columns("text", "title", "label")),
        ("text topic label", {"pair_column": "topic"}, Columns("text", "topic", "label")),
        (
            "title description label",
            {"label_column": "title"},
            Columns("description", None, "title"),
        ),
    ],
)
def test_flags_come_before_names(header, flags, found):
    assert choose_columns(header.split(), "here", **flags) == found


@pytest.mark.parametrize(
    ("header", "problem", "flag"),
    [
        ("text review label", "more than one column may be the text", "--text-column"),
        ("words label", "no text column found", "--text-column"),
        ("text label category", "more than one column may be the label", "--label-column"),
        ("text stars", "no label column found", "--label-column"),
    ],
)
def test_what_is_not_clear_is_said_with_the_columns_and_the_flag(header, problem, flag):
    with pytest.raises(InputError) as error:
        choose_columns(header.split(), "some.csv")
    listed = ", ".join(header.split())
    assert str(error.value) == f"some.csv: {problem}; its columns are {listed}; choose with {flag}"


def test_a_flag_that_names_no_column_or_two_roles_at_once_is_refused():
    with pytest.raises(
        InputError, match="no column 'body' for --text-column; its columns are a, b"
    ):
        choose_columns(["a", "b"], "here", text_column="body", label_column="a")
    with pytest.raises(InputError, match="one column is named for two roles"):
        choose_columns(["a", "b"], "here", text_column="a", label_column="a")


def test_a_run_s_own_columns_come_before_names_and_after_flags():
    usual = Columns("review", None, "label")
    header = ["review", "text", "label"]
    assert choose_columns(header, "here", usual=usual).text == "review"
    assert choose_columns(header, "here", usual=usual, text_column="text").text == "text"
    assert choose_columns(["text", "label"], "here", usual=usual).text == "text"


def test_a_run_that_read_one_text_is_not_given_two_nor_the_reverse():
    single, double = Columns("review", None, "label"), Columns("title", "text", "label")
    with pytest.raises(InputError, match="more than one column may be the text"):
        choose_columns(["title", "text", "label"], "here", usual=single)
    with pytest.raises(InputError, match=r"the model reads two texts; .*--pair-column"):
        choose_columns(["text", "label"], "here", usual=double)


def test_a_run_s_label_column_is_found_again():
    usual = Columns("review", None, "stars")
    assert choose_columns(["review", "stars", "label"], "here", usual=usual).label == "stars"


def test_the_first_rows_together_say_which_columns_there_are(tmp_path):
    file = tmp_path / "some.jsonl"
    file.write_text('{"id": 1}\n{"text": "hi", "label": "x"}\n')
    found = load_examples([file], bad_rows="drop")
    assert found.texts == ["hi"] and len(found.dropped) == 1


def test_texts_to_predict_need_no_label_column():
    assert choose_columns(["text", "stars"], "here", labelled=False) == Columns("text")


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
        ({"text": "x", "label": ["a"]}, "column label: holds ['a'], not a label"),
        ({"text": "x", "label": "a\x1b[2J"}, r"column label: holds 'a\x1b[2J', not a label"),
        ({"text": "x", "label": "a\x9b"}, r"column label: holds 'a\x9b', not a label"),
    ],
)
def test_a_bad_row_stops_the_reading_or_is_dropped_with_its_place(tmp_path, row, problem):
    good = '{"text": "fine", "label": "a"}'
    file = write(tmp_path / "rows.jsonl", good, "", json.dumps(row), good)
    with pytest.raises(InputError) as error:
        load_examples([file])
    advice = "mend it, or leave such rows out with --bad-rows drop"
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


def test_a_broken_first_row_does_not_hide_the_columns(tmp_path):
    file = write(tmp_path / "r.csv", "text,label", "short", "fine,a")
    assert load_examples([file], bad_rows="drop").texts == ["fine"]


@pytest.mark.parametrize("lines", [["text,label"], ["text,label", ",a", ",b"]])
def test_a_file_without_a_usable_row_is_an_error(tmp_path, lines):
    file = write(tmp_path / "r.csv", *lines)
    with pytest.raises(InputError, match=r"r.csv: has a header and no rows"):
        load_examples([file], bad_rows="drop")


def test_several_files_are_one_part_with_each_its_own_places(tmp_path):
    files = [write(tmp_path / f"{name}.csv", "text,label", f"{name},x") for name in "ab"]
    part = load_examples(files)
    assert part.texts == ["a", "b"]
    assert part.places == [f"{file}, line 2" for file in files]


# --- labels and classes


def test_labels_of_every_kind_become_strings(tmp_path):
    values = ["pos ", 1, 1.0, 0.5, True, False]
    rows = [json.dumps({"text": "x", "label": value}) for value in values]
    part = load_examples([write(tmp_path / "l.jsonl", *rows)])
    assert part.labels == ["pos", "1", "1", "0.5", "true", "false"]


def test_numbers_are_ordered_by_value_and_names_by_name():
    assert class_names(examples(["10", "9", "-1", "9"])) == ("-1", "9", "10")
    assert class_names(examples(["b", "10", "a", "9", "B"])) == ("9", "10", "B", "a", "b")


def test_label_text_names_the_numbers_and_keeps_their_order(tmp_path):
    lines = ["text,label,label_text", "x,1,good", "y,0,very bad", "z,1,good"]
    part = load_examples([write(tmp_path / "setfit.csv", *lines)])
    assert class_names(part) == ("very bad", "good")
    assert class_ids(part, ("very bad", "good")).tolist() == [1, 0, 1]


def test_label_text_must_say_one_name_for_one_label(tmp_path):
    lines = ["text,label,label_text", "x,1,good", "y,1,fine"]
    with pytest.raises(InputError, match="line 3: the label 1 is named 'fine' here and 'good' bef"):
        load_examples([write(tmp_path / "two.csv", *lines)])
    with pytest.raises(InputError, match="two labels have one name"):
        class_names(examples(["0", "1"], {"0": "same", "1": "same"}))


def test_one_class_is_no_classifier_and_hidden_labels_are_explained():
    with pytest.raises(InputError, match=r"has the one label 'x'; a classifier needs two$"):
        class_names(examples(["x", "x"]))
    with pytest.raises(InputError, match="-1 is how GLUE hides the labels"):
        class_names(examples(["-1", "-1"]))


@pytest.mark.parametrize(
    ("labels", "classes", "ids"),
    [
        (["bad", "good"], ("bad", "good"), [0, 1]),
        (["Good", "BAD"], ("bad", "good"), [1, 0]),
        (["5", "3"], ("3", "5"), [1, 0]),  # but where classes are numbers they are their names
        (["a", "A"], ("A", "a"), [1, 0]),  # names that differ only in case are kept apart
    ],
)
def test_a_label_is_a_class_name_in_any_case(labels, classes, ids):
    found = class_ids(examples(labels), classes)
    assert found.tolist() == ids and found.dtype == np.int64


def test_numbers_count_named_classes_only_where_that_is_asked_for():
    """In training they would be a guess; eval.py asks, and prints how it read them."""
    assert class_ids(examples(["1", "0"]), ("bad", "good"), numbers=True).tolist() == [1, 0]
    with pytest.raises(InputError, match="the label '1' is none of the model's 2 classes"):
        class_ids(examples(["1", "0"]), ("bad", "good"))


def test_labels_that_are_classes_are_classes_whatever_label_text_calls_them():
    """A model trained on GLUE's 0 and 1 scores SetFit's copy of the same data."""
    part = examples(["1", "0"], {"0": "negative", "1": "positive"})
    assert class_ids(part, ("0", "1")).tolist() == [1, 0]


def test_a_name_that_is_no_class_is_not_read_as_its_number():
    """In such a file 0 may mean another class than the model's first."""
    with pytest.raises(InputError, match="the label '0' is none of the model's 2 classes"):
        class_ids(examples(["0", "1"], {"0": "up", "1": "down"}), ("bad", "good"))


@pytest.mark.parametrize(
    ("label", "classes"),
    [("2", ("a", "b")), ("0", ("1", "2")), ("c", ("a", "b")), ("x", ("X", "y", "Y"))],
)
def test_an_unknown_label_is_named_with_its_place_and_the_classes(label, classes):
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

words = st.text("ab", max_size=3)
parts = st.lists(st.tuples(words, words, words), min_size=1, max_size=4).flatmap(
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
@given(parts, parts)
def test_a_fingerprint_is_equal_exactly_where_texts_pairs_and_labels_are(a, b):
    same = (a.texts, a.pairs, a.labels) == (b.texts, b.pairs, b.labels)
    assert (a.fingerprint() == b.fingerprint()) == same


def test_where_one_text_ends_and_the_next_begins_is_part_of_the_fingerprint():
    one = Examples("here", ["ab", "c"], labels=["x", "y"])
    two = Examples("there", ["a", "bc"], labels=["x", "y"])
    assert one.fingerprint() != two.fingerprint()
    assert one.fingerprint() == Examples("there", ["ab", "c"], labels=["x", "y"]).fingerprint()


def test_pairs_and_more_rows_are_not_taken_for_each_other():
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
        ("ag_news/test.csv", 7_600, ("title", "description"), 4),
        ("banking77/train.csv", 10_003, ("text", None), 77),
        ("banking77/test.csv", 3_080, ("text", None), 77),
        ("imdb/train.jsonl", 5_000, ("text", None), {"0": 2_526, "1": 2_474}),
        ("sst5/test.csv", 2_210, ("text", None), 5),
    ],
)
def test_real_files_are_read_whole_without_a_flag(name, count, columns, classes):
    file = SHARED / "data" / name
    if not file.exists():
        pytest.skip(f"{name} is not on this machine")
    part = load_examples([file])
    assert len(part) == len(part.labels) == len(part.places) == count
    assert part.columns is not None and (part.columns.text, part.columns.pair) == columns
    assert (part.pairs is not None) == (columns[1] is not None)
    counts = Counter(part.labels)
    assert (counts if isinstance(classes, dict) else len(counts)) == classes


def test_whole_numbers_that_pandas_wrote_with_a_point_are_whole_numbers(tmp_path):
    file = write(tmp_path / "floats.csv", "text,label", "x,1.0", "y,2.0", "z,2.5")
    assert load_examples([file]).labels == ["1", "2", "2.5"]


def test_numbers_do_not_count_classes_whose_names_have_digits():
    with pytest.raises(InputError, match="the label '1' is none of the model's 2 classes"):
        class_ids(examples(["1"]), ("1 star", "2 stars"), numbers=True)
