"""Splits become datasets: the length report, the cut, token ids joined with class numbers.

Run: pytest tests/test_datasets.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import WORDS, a_task, tiny_config, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.datasets import (
    AUTO_LONG,
    build_datasets,
    length_histogram,
    shortest_length,
    tokenize_splits,
)
from minibert.data.examples import Examples
from minibert.data.options import DataOptions
from minibert.data.splits import Splits
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError

token_lengths = st.lists(st.integers(2, 300), min_size=1, max_size=400).map(np.array)


@settings(deadline=None)
@given(token_lengths)
def test_auto_is_the_shortest_length_that_cuts_at_most_1_percent_of_the_texts(lengths):
    chosen = shortest_length(lengths)
    assert np.mean(lengths > chosen) <= AUTO_LONG == 0.01
    assert chosen == 3 or np.mean(lengths > chosen - 1) > AUTO_LONG


@settings(deadline=None)
@given(token_lengths, st.integers(3, 300))
def test_the_histogram_adds_up_and_marks_the_bars_with_texts_that_are_cut(lengths, longest):
    title, *bars = length_histogram(lengths, longest).splitlines()
    assert f"(median {int(np.median(lengths))})" in title
    assert 1 <= len(bars) <= 10
    total, next_first = 0, 1
    for bar in bars:
        columns = bar.replace("#", "").split()
        (first, last), count = map(int, columns[0].split("-")), int(columns[1])
        inside = lengths[(lengths >= first) & (lengths <= last)]
        assert first == next_first and len(inside) == count
        assert bar.endswith("over") == bool((inside > longest).any())
        assert ("#" in bar) == bool(count)
        total, next_first = total + count, last + 1
    assert total == len(lengths)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.from_folder(write_checkpoint(tmp_path / "model"), tiny_config("distilbert"))


def long_and_short() -> Splits:
    """150 texts of 2 words, one of 5 and one of 9; a word is a token, and two are special."""
    texts = ["good film"] * 150 + [" ".join(WORDS[:5]), " ".join(WORDS[:9])]
    split = Examples("here", texts, labels=["a", "b"] * 76, places=texts)
    return Splits(split, split.take(range(149, 152), "there"), None)


def test_texts_are_cut_at_the_requested_length(tokenizer):
    found = tokenize_splits(long_and_short(), tokenizer, DataOptions(max_length=8))
    assert found.max_length == 8
    assert [len(row) for row in found.texts["validation"].rows] == [4, 7, 8]
    assert "  train: 1 of 152 texts cut at 8 tokens (0.7%)" in found.report
    assert "  validation: 1 of 3 texts cut at 8 tokens (33.3%)" in found.report


def test_auto_uses_the_training_texts_and_at_most_the_model_s_positions(tokenizer):
    found = tokenize_splits(long_and_short(), tokenizer, DataOptions(max_length=None))
    assert found.max_length == 7 and max(len(row) for row in found.texts["train"].rows) == 7
    tokenizer.config = replace(tokenizer.config, positions=6)
    found = tokenize_splits(long_and_short(), tokenizer, DataOptions(max_length=None))
    assert found.max_length == 6


def test_a_length_over_the_model_s_positions_raises(tokenizer):
    with pytest.raises(InputError, match="is 41; this model has 40 positions: give 40 or less"):
        tokenize_splits(long_and_short(), tokenizer, DataOptions(max_length=41))


def test_datasets_have_the_ids_labels_and_places_of_their_split(tokenizer):
    splits = long_and_short()
    tokenized = tokenize_splits(splits, tokenizer, DataOptions(max_length=8))
    found = build_datasets(tokenized, splits, a_task("a", "b").targets, tiny_config("distilbert"))
    assert set(found) == {"train", "validation"}
    assert found["validation"].labels.tolist() == [1, 0, 1]
    assert found["validation"].lengths.tolist() == [4, 7, 8]
    assert found["validation"].places == splits.validation.places
    with pytest.raises(InputError, match="the label 'b' is none of the model's 2 classes"):
        build_datasets(tokenized, splits, a_task("a", "c").targets, tiny_config("distilbert"))
