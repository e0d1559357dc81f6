"""A part of the training texts: each class in proportion, smaller parts inside larger ones.

Run: pytest tests/test_subsets.py
"""

import math
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from minibert.data.examples import Examples
from minibert.data.subsets import take_percent


def examples(labels: list, task: str = "single-label") -> Examples:
    texts = [f"text {row}" for row in range(len(labels))]
    return Examples("data.csv", texts, None, labels, task, places=texts)


@given(
    st.lists(st.sampled_from("aabc"), min_size=1, max_size=60),
    st.integers(1, 100),
    st.integers(1, 100),
    st.integers(0, 9),
)
def test_a_smaller_part_is_in_a_larger_one_with_each_class_in_proportion(labels, one, other, seed):
    small, large = sorted((one, other))
    data = examples(labels)
    parts = [take_percent(data, percent, seed=seed) for percent in (small, large)]
    assert set(parts[0].texts) <= set(parts[1].texts)
    counts = Counter(labels)
    for percent, part in zip((small, large), parts, strict=True):
        expected = {x: math.ceil(count * percent / 100) for x, count in counts.items()}
        assert Counter(part.labels) == expected
        assert part.texts == [text for text in data.texts if text in set(part.texts)]  # their order


@given(st.lists(st.sets(st.sampled_from("abcd"), max_size=3).map(tuple), min_size=1, max_size=40))
def test_parts_of_several_labels_are_inside_each_other_and_have_every_class(labels):
    data = examples(labels, "multi-label")
    parts = [take_percent(data, percent, seed=3) for percent in (10, 20, 50, 100)]
    for small, large in pairwise(parts):
        assert set(small.texts) <= set(large.texts)
    every = {name for label in labels for name in label}
    assert {name for label in parts[0].labels for name in label} == every


def test_numbers_are_drawn_at_random():
    data = examples([(float(row),) for row in range(50)], "regression")
    part = take_percent(data, 20, seed=0)
    assert len(part) == 10 and part.texts != data.texts[:10]
    assert part.texts == take_percent(data, 20, seed=0).texts
    assert part.texts != take_percent(data, 20, seed=1).texts


def test_a_part_names_its_source_and_keeps_what_was_dropped():
    data = examples(list("ab"))
    data.dropped, data.possible_pair = ["line 3: empty"], "title"
    part = take_percent(data, 50, seed=0)
    assert part.source == "50% of data.csv"
    assert (part.dropped, part.possible_pair) == (["line 3: empty"], "title")


def test_all_of_it_is_unchanged():
    data = examples(list("ab"))
    assert take_percent(data, 100, seed=0) is data
