"""Stratified splits of several labels per text: every row once, every label in proportion.

Run: pytest tests/test_stratify.py
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.stratify import stratified_multi_label

RATIOS = (70, 15, 15)


def skewed(seed: int, rows: int, labels: int = 6) -> np.ndarray:
    """Labels from rare to frequent; the last two go together; some rows have none."""
    random = np.random.default_rng(seed)
    targets = random.random((rows, labels)) < np.geomspace(0.02, 0.4, labels)
    targets[:, -1] |= targets[:, -2]
    return targets.astype(int)


def random_split(rows: int, splits: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """A random split of the same sizes."""
    order = np.random.default_rng(seed).permutation(rows)
    return np.split(order, np.cumsum([len(split) for split in splits])[:-1])


def misplaced(targets: np.ndarray, splits: list[np.ndarray]) -> float:
    """How many rows of a label a split has too many or too few, on average."""
    fractions = np.array(RATIOS) / sum(RATIOS)
    found = np.array([targets[split].sum(axis=0) for split in splits])
    return float(abs(found - np.outer(fractions, targets.sum(axis=0))).mean())


tables = st.builds(skewed, st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(2, 8))


@settings(deadline=None, max_examples=60)
@given(tables, st.sampled_from([RATIOS, (70, 15), (8.5, 1, 0.5), (1, 1, 1, 1)]))
def test_every_row_is_in_one_split_and_sizes_differ_by_less_than_one_from_the_ratios(
    targets, ratios
):
    splits = stratified_multi_label(targets, ratios, seed=0)
    assert np.sort(np.concatenate(splits)).tolist() == list(range(len(targets)))
    for split, ratio in zip(splits, ratios, strict=True):
        assert abs(len(split) - len(targets) * ratio / sum(ratios)) < 1
        assert split.tolist() == sorted(split)


@settings(deadline=None, max_examples=60)
@given(st.builds(skewed, st.integers(0, 2**32 - 1), st.integers(60, 300)))
def test_labels_are_closer_to_the_ratios_than_in_random_splits(targets):
    splits = stratified_multi_label(targets, RATIOS, seed=0)
    others = [misplaced(targets, random_split(len(targets), splits, seed)) for seed in range(20)]
    assert misplaced(targets, splits) < np.mean(others)


def test_each_label_of_skewed_data_is_closer_to_the_ratios_than_in_random_splits():
    targets = skewed(1, 4000)
    splits = stratified_multi_label(targets, RATIOS, seed=0)
    others = [random_split(len(targets), splits, seed) for seed in range(20)]
    for label in range(targets.shape[1]):
        column = targets[:, [label]]
        assert misplaced(column, splits) < np.mean([misplaced(column, other) for other in others])


def test_the_rarest_label_and_rows_without_a_label_are_in_proportion():
    targets = np.zeros((200, 3), dtype=int)
    targets[:20, 0] = targets[10:130, 1] = 1  # 20 rows, 120 rows, none; 70 rows have no label
    for split, ratio in zip(stratified_multi_label(targets, RATIOS, seed=3), RATIOS, strict=True):
        assert targets[split, 0].sum() == 20 * ratio / 100
        assert abs((~targets[split].any(axis=1)).sum() - 70 * ratio / 100) < 1
        assert abs(targets[split, 1].sum() - 120 * ratio / 100) <= 1


def test_one_label_per_row_is_ordinary_stratification():
    targets = np.eye(3, dtype=int)[np.repeat([0, 1, 2], [20, 40, 140])]
    for split, ratio in zip(stratified_multi_label(targets, RATIOS, seed=0), RATIOS, strict=True):
        assert targets[split].sum(axis=0).tolist() == [
            20 * ratio // 100,
            40 * ratio // 100,
            140 * ratio // 100,
        ]


def test_one_label_that_all_rows_have_or_none_is_split_in_the_ratios():
    for value in (0, 1):
        splits = stratified_multi_label(np.full((20, 1), value), RATIOS, seed=0)
        assert [len(split) for split in splits] == [14, 3, 3]


def test_many_labels_of_one_row_do_not_leave_a_split_empty():
    """Each single row is wanted most by the largest split, which is full after 70 of them."""
    splits = stratified_multi_label(np.eye(100, dtype=int), RATIOS, seed=0)
    assert [len(split) for split in splits] == [70, 15, 15]


def test_the_split_depends_on_the_seed_only():
    targets = skewed(2, 90)
    splits = [stratified_multi_label(targets, RATIOS, seed=seed)[1].tolist() for seed in (5, 5, 6)]
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_targets_can_be_any_type_of_0_and_1(kind):
    targets = skewed(3, 50)
    expected = [split.tolist() for split in stratified_multi_label(targets, RATIOS, seed=0)]
    splits = stratified_multi_label(targets.astype(kind), RATIOS, seed=0)
    assert [split.tolist() for split in splits] == expected
