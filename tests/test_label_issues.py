"""Rows whose label is probably wrong: confident learning, by hand and beside cleanlab.

Run: pytest tests/test_label_issues.py
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.evaluation.label_issues import label_issues


def drawn(rows: int, classes: int, *, seed: int, wrong: float = 0.2) -> tuple[np.ndarray, ...]:
    """Random probabilities, the labels drawn from them, and these labels with some flipped."""
    random = np.random.default_rng(seed)
    logits = 3 * random.normal(size=(rows, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (probabilities.cumsum(axis=1) > random.random((rows, 1))).argmax(axis=1)
    shift = random.integers(1, classes, size=rows) * (random.random(rows) < wrong)
    return probabilities, true, (true + shift) % classes


def test_a_case_computed_by_hand():
    # The mean probability of a in rows labelled a is 0.6, of b in rows labelled b 0.7.
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.5, 0.5]])
    labels = np.array([0, 0, 0, 1, 1])
    rows, suggested = label_issues(probabilities, labels)
    assert (rows.tolist(), suggested.tolist()) == ([2], [1])


def test_the_least_probable_label_comes_first():
    probabilities = np.array([[0.9, 0.1]] * 5 + [[0.3, 0.7], [0.8, 0.2], [0.95, 0.05]])
    labels = np.array([0] * 5 + [1, 1, 1])
    rows, suggested = label_issues(probabilities, labels)
    assert (rows.tolist(), suggested.tolist()) == ([7], [0])
    rows, _ = label_issues(np.repeat(probabilities, 3, axis=0)[:, ::-1], 1 - np.repeat(labels, 3))
    assert rows.tolist() == [21, 22, 23]


def test_a_class_without_a_row_is_never_suggested():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7], [0.6, 0.2, 0.2]])
    rows, suggested = label_issues(probabilities, np.array([0, 1, 0]))
    assert 2 not in suggested and len(rows) == len(suggested)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 999))
def test_a_listed_row_has_a_more_probable_class_which_is_suggested(rows, classes, seed):
    probabilities, _, labels = drawn(rows, classes, seed=seed)
    found, suggested = label_issues(probabilities, labels)
    given_probability = probabilities[found, labels[found]]
    assert (probabilities[found, suggested] > given_probability).all()
    assert (np.diff(given_probability) >= 0).all() and len(set(found.tolist())) == len(found)


@settings(deadline=None)
@given(st.permutations(range(4)), st.integers(0, 99))
def test_names_and_order_of_the_classes_do_not_matter(order, seed):
    probabilities, _, labels = drawn(50, 4, seed=seed)
    found, suggested = label_issues(probabilities, labels)
    renamed = np.argsort(order)
    again, others = label_issues(probabilities[:, order], renamed[labels])
    assert found.tolist() == again.tolist() and renamed[suggested].tolist() == others.tolist()


def test_most_listed_rows_are_wrong_and_most_wrong_rows_are_listed():
    probabilities, true, labels = drawn(3000, 3, seed=1)
    found, suggested = label_issues(probabilities, labels)
    wrong = np.flatnonzero(true != labels)
    hits = np.intersect1d(found, wrong)
    assert len(hits) > 0.6 * len(found) and len(hits) > 0.6 * len(wrong)
    assert (suggested == true[found]).mean() > 0.6


@settings(deadline=None, max_examples=30)
@given(st.integers(6, 200), st.integers(2, 4), st.integers(0, 999))
def test_the_rows_are_cleanlabs(rows, classes, seed):
    """cleanlab lists a few more: of several confident classes it takes the most probable of all."""
    filters = pytest.importorskip("cleanlab.filter")
    probabilities, _, labels = drawn(rows, classes, seed=seed)
    labels[:classes] = range(classes)  # it needs every class
    expected = filters.find_label_issues(
        labels,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    found, _ = label_issues(probabilities, labels)
    assert set(found.tolist()) <= set(expected.tolist())
    if classes == 2:
        assert sorted(found.tolist()) == sorted(expected.tolist())
