"""Columns are chosen by flags, by a run's columns or by their names; unclear choices raise.

Run: pytest tests/test_columns.py
"""

import pytest

from minibert.data.columns import (
    LABEL_NAMES,
    TEXT_NAMES,
    Columns,
    RequestedColumns,
    choose_columns,
    possible_pair,
)
from minibert.errors import InputError


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("sentence label", Columns("sentence", None, "label")),  # GLUE's SST-2
        ("label message", Columns("message", None, "label")),  # SMS spam
        ("label title description", Columns("description", None, "label")),  # AG News
        ("text category", Columns("text", None, "category")),  # banking77
        ("id text label rating", Columns("text", None, "label")),  # IMDB
        ("text label label_text", Columns("text", None, "label", "label_text")),  # SetFit
        ("idx sentence1 sentence2 label", Columns("sentence1", "sentence2", "label")),  # MRPC
        ("premise hypothesis label", Columns("premise", "hypothesis", "label")),  # MNLI
        ("question sentence label", Columns("question", "sentence", "label")),  # QNLI
        ("sentence_A sentence_B label", Columns("sentence_A", "sentence_B", "label")),  # SICK
        ("title text label", Columns("text", None, "label")),
        ("title label", Columns("title", None, "label")),
        ("Text LABEL", Columns("Text", None, "LABEL")),
        ("Review Sentiment", Columns("Review", None, "Sentiment")),
    ],
)
def test_columns_are_found_by_the_names_in_real_data_sets(header, found):
    assert choose_columns(header.split(), "here") == found


@pytest.mark.parametrize(
    ("header", "flags", "found"),
    [
        ("a b c", {"text": "b", "label": "a"}, Columns("b", None, "a")),
        (
            "a b c",
            {"text": "b", "pair": "c", "label": "a"},
            Columns("b", "c", "a"),
        ),
        (
            "label title description",
            {"text": "description"},
            Columns("description", None, "label"),
        ),
        ("text review label", {"text": "review"}, Columns("review", None, "label")),
        ("text label topic", {"label": "topic"}, Columns("text", None, "topic")),
        ("text label title", {"pair": "title"}, Columns("text", "title", "label")),
        ("text topic label", {"pair": "topic"}, Columns("text", "topic", "label")),
        (
            "title description label",
            {"label": "title"},
            Columns("description", None, "title"),
        ),
    ],
)
def test_requested_columns_take_precedence_over_names(header, flags, found):
    assert choose_columns(header.split(), "here", RequestedColumns(**flags)) == found


@pytest.mark.parametrize(
    ("header", "problem", "flag"),
    [
        ("text review label", "more than one column may be the text", "--text-column"),
        ("writing label", "no text column found", "--text-column"),
        ("text label category", "more than one column may be the label", "--label-column"),
        ("text marks", "no label column found", "--label-column"),
    ],
)
def test_an_ambiguous_choice_raises_with_the_columns_and_the_flag(header, problem, flag):
    with pytest.raises(InputError) as error:
        choose_columns(header.split(), "some.csv")
    listed = ", ".join(header.split())
    assert str(error.value) == f"some.csv: {problem}; its columns are {listed}; choose with {flag}"


def test_a_requested_column_that_is_missing_or_has_two_roles_raises():
    with pytest.raises(
        InputError, match="no column 'body' for --text-column; its columns are a, b"
    ):
        choose_columns(["a", "b"], "here", RequestedColumns("body", None, "a"))
    with pytest.raises(InputError, match="one column is named for two roles"):
        choose_columns(["a", "b"], "here", RequestedColumns("a", None, "a"))


# --- the columns of a run, for new data


def test_a_run_s_columns_take_precedence_over_names_but_not_over_flags():
    default = Columns("review", None, "label")
    header = ["review", "text", "label"]
    assert choose_columns(header, "here", default=default).text == "review"
    requested = RequestedColumns(text="text")
    assert choose_columns(header, "here", requested, default=default).text == "text"
    assert choose_columns(["text", "label"], "here", default=default).text == "text"


def test_a_run_trained_on_single_texts_reads_no_pairs_and_the_reverse():
    single, double = Columns("review", None, "label"), Columns("title", "text", "label")
    header = ["question1", "question2", "label"]
    assert choose_columns(header, "here").pair == "question2"
    with pytest.raises(InputError, match=r"no text column found; .*--text-column"):
        choose_columns(header, "here", default=single)
    with pytest.raises(InputError, match=r"the model reads two texts; .*--pair-column"):
        choose_columns(["text", "label"], "here", default=double)
    assert choose_columns(["text", "title", "label"], "here", default=double) == double


def test_a_run_s_label_column_is_found_again():
    default = Columns("review", None, "stars")
    assert choose_columns(["review", "stars", "label"], "here", default=default).label == "stars"


def test_texts_to_predict_need_no_label_column():
    assert choose_columns(["text", "stars"], "here", labelled=False) == Columns("text")


# --- a second text that was not asked for


@pytest.mark.parametrize(
    ("header", "other"),
    [
        ("title text label", "title"),
        ("label title description", "title"),
        ("text label", None),
        ("id text label label_text", None),
        ("sentence1 sentence2 label", None),  # already a pair
    ],
)
def test_an_unused_column_that_may_be_a_second_text_is_named(header, other):
    names, requested = header.split(), RequestedColumns()
    columns = choose_columns(names, "here", requested)
    assert possible_pair(names, columns, requested) == other


def test_nothing_is_suggested_if_the_text_column_was_requested():
    names, requested = ["title", "text", "label"], RequestedColumns(text="text")
    assert possible_pair(names, choose_columns(names, "here", requested), requested) is None


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_every_known_name_of_a_text_column_is_enough(name):
    assert choose_columns(["id", name.upper(), "label"], "here").text == name.upper()


@pytest.mark.parametrize("name", LABEL_NAMES)
def test_every_known_name_of_a_label_column_is_enough(name):
    assert choose_columns(["id", "text", name], "here").label == name


@pytest.mark.parametrize(
    ("header", "labels", "found"),
    [
        ("text email phone", ("email", "phone"), ("text", None)),
        ("sentence question command", ("question", "command"), ("sentence", None)),
    ],
)
def test_a_label_column_is_no_text_and_no_part_of_a_pair(header, labels, found):
    columns = choose_columns(header.split(), "here", RequestedColumns(labels=labels))
    assert (columns.text, columns.pair) == found and columns.labels == labels


def test_without_the_label_columns_there_may_be_no_text():
    with pytest.raises(InputError, match=r"no text column found; .*; choose with --text-column"):
        labels = ("question", "other")
        choose_columns(["said", "question", "other"], "here", RequestedColumns(labels=labels))
