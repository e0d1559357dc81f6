"""An epoch's batches contain every row once and little padding, in a reproducible order.

Run: pytest tests/test_batches.py
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.batches import (
    FeatureDataset,
    TextDataset,
    TokenIds,
    length_order,
    training_order,
)

sizes = {
    "lengths": st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array),
    "batch_size": st.integers(1, 9),
    "seed": st.integers(0, 2**32 - 1),
    "epoch": st.integers(0, 50),
}


def row(*ids: int, segment_b_start: int | None = None) -> TokenIds:
    """A tokenized text; by default it has no second segment."""
    start = len(ids) if segment_b_start is None else segment_b_start
    return TokenIds(np.array(ids, dtype=np.int32), start)


# --- order


@settings(deadline=None)
@given(**sizes)
def test_training_order_has_every_row_once_and_at_most_one_smaller_batch(
    lengths, batch_size, seed, epoch
):
    batches = training_order(lengths, batch_size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert sum(len(batch) != batch_size for batch in batches) <= 1
    assert max(len(batch) for batch in batches) <= batch_size


@settings(deadline=None)
@given(**sizes)
def test_training_order_depends_only_on_seed_and_epoch(lengths, batch_size, seed, epoch):
    def order() -> list[list[int]]:
        found = training_order(lengths, batch_size, seed=seed, epoch=epoch)
        return [batch.tolist() for batch in found]

    first = order()
    np.random.seed(1)
    torch.manual_seed(1)
    assert order() == first


def test_each_seed_and_epoch_has_its_own_order():
    lengths = np.arange(1, 41)
    orders = {
        tuple(np.concatenate(training_order(lengths, 4, seed=seed, epoch=epoch)))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def padding(batches: list[np.ndarray], lengths: np.ndarray) -> int:
    return sum(int((lengths[batch].max() - lengths[batch]).sum()) for batch in batches)


def test_training_order_pads_far_less_than_a_random_order():
    random = np.random.default_rng(3)
    lengths = random.integers(3, 60, size=700)
    rows = random.permutation(700)
    plain = [rows[start : start + 8] for start in range(0, 700, 8)]
    assert (
        padding(training_order(lengths, 8, seed=0, epoch=0), lengths) < padding(plain, lengths) / 5
    )


def test_a_large_dataset_is_hardly_padded():
    lengths = 3 + np.random.default_rng(5).geometric(0.1, size=20_000)
    order = training_order(lengths, 32, seed=0, epoch=0)
    assert padding(order, lengths) < 0.02 * lengths.sum()


def test_the_smaller_batch_has_short_and_long_texts():
    lengths = np.arange(1, 42)
    smaller = [
        lengths[rows].item()
        for epoch in range(100)
        for rows in training_order(lengths, 4, seed=0, epoch=epoch)
        if len(rows) == 1
    ]
    assert len(smaller) == 100 and len(set(smaller)) > 25
    assert min(smaller) < 6 and max(smaller) > 36


def test_batches_are_not_ordered_by_length():
    lengths = np.arange(1, 401)
    longest = [lengths[batch].max() for batch in training_order(lengths, 8, seed=0, epoch=0)]
    rises = sum(a < b for a, b in pairwise(longest))
    assert 10 < rises < 40  # of 49 neighbours


@settings(deadline=None)
@given(sizes["lengths"], sizes["batch_size"])
def test_length_order_has_every_row_once_from_the_longest_to_the_shortest(lengths, batch_size):
    for equal in (False, True):
        batches = length_order(lengths, batch_size, equal_lengths=equal)
        rows = np.concatenate(batches)
        assert sorted(rows) == list(range(len(lengths)))
        assert lengths[rows].tolist() == sorted(lengths, reverse=True)
        assert max(map(len, batches)) <= batch_size
    # Each length fills its batches before it starts another.
    assert all(len(set(lengths[batch])) == 1 for batch in batches)
    counts = np.unique(lengths, return_counts=True)[1]
    assert len(batches) == sum(-(-count // batch_size) for count in counts)


@settings(deadline=None)
@given(lengths=sizes["lengths"], batch_size=sizes["batch_size"], max_tokens=st.integers(1, 200))
def test_no_batch_exceeds_the_limit_of_tokens(lengths, batch_size, max_tokens):
    batches = length_order(lengths, batch_size, max_tokens=max_tokens)
    assert np.array_equal(np.concatenate(batches), np.argsort(-lengths, kind="stable"))
    for batch in batches:
        longest = lengths[batch].max()  # to which the others are padded
        assert len(batch) == 1 or len(batch) * longest <= max_tokens
        assert len(batch) <= batch_size


@settings(deadline=None)
@given(
    length=st.integers(1, 60),
    texts=st.integers(1, 300),
    batch_size=sizes["batch_size"],
    max_tokens=st.integers(1, 200),
)
def test_texts_of_one_length_make_even_batches(length, texts, batch_size, max_tokens):
    batches = length_order(np.full(texts, length), batch_size, max_tokens=max_tokens)
    counts = [len(batch) for batch in batches]
    assert max(counts) - min(counts) <= 1
    assert len(counts) == math.ceil(texts / min(batch_size, max(1, max_tokens // length)))


# --- padding


def test_texts_are_padded_to_the_longest_in_their_batch_and_masked():
    texts = TextDataset(
        [row(5, 6, 7), row(8), row(9, 10), row(1, 2, 3, 4)],
        np.array([2, 0, 1, 1]),
        pad_token_id=99,
        token_types=True,
    )
    batch = texts.batch([2, 0, 1])
    ids, mask, types = batch.inputs
    assert ids.tolist() == [[9, 10, 99], [5, 6, 7], [8, 99, 99]]
    assert mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert types is None  # no text has a second segment
    assert batch.labels.tolist() == [1, 2, 0]


def test_a_batch_of_equal_lengths_has_no_mask():
    texts = TextDataset(
        [row(5, 6), row(7, 8), row(1)], np.zeros(3, int), pad_token_id=0, token_types=False
    )
    assert texts.batch([0, 1]).inputs[1] is None
    assert texts.batch([0, 2]).inputs[1] is not None


def test_a_padding_token_inside_a_text_is_not_masked():
    texts = TextDataset([row(5, 0, 0), row(7)], np.zeros(2, int), pad_token_id=0, token_types=False)
    assert texts.batch([0, 1]).inputs[1].tolist() == [[True, True, True], [True, False, False]]


def test_token_types_are_one_on_the_second_segment_and_zero_on_padding():
    rows = [row(1, 2, 3, 4, segment_b_start=2), row(1, 2, 3, segment_b_start=1), row(1)]
    texts = TextDataset(rows, np.zeros(3, int), pad_token_id=0, token_types=True)
    assert texts.batch([0, 1, 2]).inputs[2].tolist() == [[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_used_ids_are_all_ids_of_the_batches_sorted():
    texts = TextDataset([row(7, 9, 7), row(3)], None, pad_token_id=5, token_types=False)
    assert texts.used_ids().tolist() == [3, 5, 7, 9]  # 5 is the padding
    assert set(texts.batch([0, 1]).inputs[0].flatten().tolist()) == set(texts.used_ids().tolist())


def test_a_model_without_token_types_gets_no_token_types():
    texts = TextDataset(
        [row(1, 2, segment_b_start=1)], np.zeros(1, int), pad_token_id=0, token_types=False
    )
    assert texts.batch([0]).inputs[2] is None


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=6))
def test_the_unmasked_tokens_of_a_batch_are_the_texts(rows):
    texts = TextDataset([row(*ids) for ids in rows], None, pad_token_id=0, token_types=False)
    ids, mask, _ = texts.batch(range(len(rows))).inputs
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    assert [line[real].tolist() for line, real in zip(ids, mask, strict=True)] == rows
    assert int(ids[~mask].sum()) == 0


@pytest.mark.parametrize("rows", [[2, 0], np.array([2, 0])])
def test_a_batch_of_features_has_the_requested_rows(rows):
    features = FeatureDataset(torch.arange(15.0).view(3, 5), torch.tensor([4, 5, 6]))
    batch = features.batch(rows)
    assert batch.inputs[0].tolist() == [[10, 11, 12, 13, 14], [0, 1, 2, 3, 4]]
    assert batch.labels.tolist() == [6, 4]
    assert features.lengths.tolist() == [1, 1, 1]


def test_batches_of_a_small_dataset_differ_between_epochs():
    """Sorting alone repeats three quarters of the pairs of texts that share a batch."""
    lengths = np.random.default_rng(0).integers(5, 60, size=665)

    def neighbours(epoch: int) -> set[tuple[int, int]]:
        order = training_order(lengths, 32, seed=0, epoch=epoch)
        return {(a, b) for rows in order for a in rows.tolist() for b in rows.tolist() if a < b}

    first, second = neighbours(0), neighbours(1)
    assert len(first & second) / len(first) < 0.4
