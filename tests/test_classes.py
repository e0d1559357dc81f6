"""Labels of each task become the names of the outputs, and the targets of the loss.

Single labels are in test_examples.py. Run: pytest tests/test_classes.py
"""

from typing import Any

import numpy as np
import pytest

from minibert.data.classes import class_ids, class_set, number_rows, output_names
from minibert.data.columns import Columns
from minibert.data.examples import Examples
from minibert.errors import InputError


def examples(labels: list[Any], task: str = "multi-label", **values: Any) -> Examples:
    """Examples with these labels; their texts do not matter."""
    texts = [f"text {i}" for i in range(len(labels))]
    places = [f"some.csv, line {i + 2}" for i in range(len(labels))]
    values.setdefault("columns", Columns("text", label="stars"))
    return Examples("some.csv", texts, labels=labels, task=task, places=places, **values)


def test_label_columns_of_numbers_are_matched_by_name():
    columns = Columns("text", labels=("b", "a"))
    numbers = examples([(1.0, 2.0), (3.0, 4.0)], "regression", columns=columns)
    assert number_rows(numbers, ("a", "b")).tolist() == [[2, 1], [4, 3]]
    with pytest.raises(InputError, match=r"the columns b, a are not the model's numbers \(a, c\)"):
        number_rows(numbers, ("a", "c"))


def test_label_columns_match_the_models_names_in_any_case():
    """As `choose_head` keeps the names of the model then."""
    columns = Columns("text", labels=("Sad", "FUN"))
    sets = examples([("FUN",), ("Sad",)], columns=columns)
    assert class_set(sets, ("fun", "sad")).tolist() == [[1, 0], [0, 1]]
    numbers = examples([(1.0, 2.0)], "regression", columns=columns)
    assert number_rows(numbers, ("fun", "sad")).tolist() == [[2, 1]]


def test_names_that_differ_only_in_case_need_columns_of_their_own():
    columns = Columns("text", labels=("fun", "sad"))
    with pytest.raises(InputError, match="--label-columns has no column for Fun"):
        class_set(examples([("fun",)], columns=columns), ("fun", "Fun"))
    with pytest.raises(InputError, match="are not the model's numbers"):
        number_rows(examples([(1.0, 2.0)], "regression", columns=columns), ("fun", "Fun"))


def test_numbers_that_float32_cannot_tell_apart_are_refused():
    labels = [(1.7e9 + 0.5 * i,) for i in range(9)]
    with pytest.raises(InputError, match=r"float32 has too few digits .* subtract a constant"):
        number_rows(examples(labels, "regression"), ("stars",))
    for constant in (2.5, 0.1):  # float32 rounds 0.1, but there is nothing to tell apart
        found = number_rows(examples([(constant,)] * 3, "regression"), ("stars",))
        assert found.tolist() == pytest.approx(np.full((3, 1), constant))


def test_a_class_without_a_label_column_is_refused():
    columns = Columns("text", labels=("fun",))
    with pytest.raises(InputError, match="--label-columns has no column for sad"):
        class_set(examples([("fun",)], columns=columns), ("fun", "sad"))


# --- the names of the outputs


def test_the_classes_of_several_labels_are_sorted_as_those_of_one():
    assert output_names(examples([("b", "10"), (), ("9", "a")])) == ("9", "10", "a", "b")


def test_label_columns_are_the_classes_in_their_order():
    columns = Columns("text", labels=("sad", "fun"))
    assert output_names(examples([("fun",), ("sad",)], columns=columns)) == ("sad", "fun")


def test_a_label_column_without_a_positive_row_is_refused():
    """Its class cannot be learned, and its figures are undefined."""
    columns = Columns("text", labels=("sad", "fun"))
    with pytest.raises(InputError, match=r"some.csv: no row has the class 'sad'; drop it from"):
        output_names(examples([("fun",), ()], columns=columns))


def test_several_labels_may_have_one_class_but_not_none():
    assert output_names(examples([("spam",), ()])) == ("spam",)
    with pytest.raises(InputError, match=r"some.csv: no row has a class"):
        output_names(examples([(), ()]))


def test_a_number_has_the_name_of_its_column_and_several_of_a_list_are_numbered():
    assert output_names(examples([(1.0,), (2.5,)], "regression")) == ("stars",)
    assert output_names(examples([(1.0, 2.0)], "regression")) == ("stars_0", "stars_1")
    columns = Columns("text", labels=("fun", "sad"))
    assert output_names(examples([(1.0, 2.0)], "regression", columns=columns)) == ("fun", "sad")


@pytest.mark.parametrize(
    ("labels", "task", "columns"),
    [
        ([(1.0,)], "regression", Columns("text", label="score\n(1-5)")),
        ([(1.0, 2.0)], "regression", Columns("text", label="score\n(1-5)")),
        ([("fun",), ("a\tb",)], "multi-label", Columns("text", labels=("fun", "a\tb"))),
    ],
)
def test_a_column_with_control_characters_names_no_output(labels, task, columns):
    """A model with such a name could not be loaded."""
    with pytest.raises(InputError, match=r"the column '.*\\[nt].*' has control characters"):
        output_names(examples(labels, task, columns=columns))


# --- the targets


def test_the_targets_of_several_labels_are_0_and_1():
    targets = class_set(examples([("b",), (), ("A", "c", "a")]), ("a", "b", "c"))
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]


def test_a_column_1_0_is_the_class_1_of_a_cell():
    """A run's own predictions are read as cells."""
    assert class_set(examples([("1",), ("2", "1")]), ("1.0", "2.0")).tolist() == [[1, 0], [1, 1]]
    assert class_ids(examples(["1"]), ("1.0", "1", "")).tolist() == [1]


def test_numbers_match_named_classes_only_if_requested():
    labels = examples([("1",), ("0", "1")])
    assert class_set(labels, ("fun", "sad"), numbers=True).tolist() == [[0, 1], [1, 1]]
    with pytest.raises(InputError, match="line 2: the label '1' is none of the model's 2 classes"):
        class_set(labels, ("fun", "sad"))


def test_an_unknown_class_in_a_list_names_the_row_and_the_classes():
    with pytest.raises(InputError) as error:
        class_set(examples([("a",), ("b", "c")]), ("a", "b"))
    assert str(error.value) == (
        "some.csv, line 3: the label 'c' is none of the model's 2 classes (a, b)"
    )


def test_numbers_are_rows_of_float32():
    rows = number_rows(examples([(0.5, 2.0), (-1.0, 3.0)], "regression"), ("fun", "sad"))
    assert rows.dtype == np.float32 and rows.tolist() == [[0.5, 2.0], [-1.0, 3.0]]


@pytest.mark.parametrize("labels", [[(1.0, 2.0), (3.0,)], [(1.0, 2.0), (1.0, 2.0, 3.0)]])
def test_another_count_of_numbers_names_the_row(labels):
    problem = r"some.csv, line 3: \d numbers?; the model predicts 2 \(fun, sad\)"
    with pytest.raises(InputError, match=problem):
        number_rows(examples(labels, "regression"), ("fun", "sad"))
