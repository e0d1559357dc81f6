"""Splits of texts with several labels, each label in proportion in every split."""

from collections.abc import Sequence

import numpy as np


def stratified_multi_label(
    targets: np.ndarray, ratios: Sequence[float], *, seed: int
) -> list[np.ndarray]:
    """Split the rows of targets (N, C) of 0 and 1 in ratios such as (70, 15, 15).

    Returns the row numbers of each split, ascending. The same seed gives the same splits. Each row
    is in one split. Sizes differ by less than one row from the ratios; with few rows a split may be
    empty. Labels are distributed from the rarest to the most frequent. The proportions of a label
    are close to the ratios, but not guaranteed.

    This is iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, algorithm 1) with two
    changes. A split that is full gets no more rows; in the paper, sizes may differ. Rows without a
    label count as one more label; in the paper, they are distributed last.
    """
    random = np.random.default_rng(seed)
    labels = np.column_stack([targets, ~targets.any(axis=1)]).astype(bool)
    fractions = np.array(ratios) / sum(ratios)
    room = split_sizes(len(labels), fractions)
    counts = labels.sum(axis=0)  # of each label, in the rows that are left
    needed = np.outer(fractions, counts)  # rows of each label that a split still wants
    left = np.ones(len(labels), dtype=bool)
    splits: list[list[np.ndarray]] = [[] for _ in ratios]
    while left.any():
        rarest = random.choice(np.flatnonzero(counts == counts[counts > 0].min()))
        rows = random.permutation(np.flatnonzero(left & labels[:, rarest]))
        dealt = _deal(len(rows), needed[:, rarest], room, random)
        for number, split in enumerate(splits):
            chosen = rows[dealt == number]
            split.append(chosen)
            room[number] -= len(chosen)
            sums = labels[chosen].sum(axis=0)
            needed[number] -= sums
            counts -= sums
        left[rows] = False
    return [np.sort(np.concatenate(split)) for split in splits]


def with_all_classes(splits: Sequence[np.ndarray], targets: np.ndarray) -> list[np.ndarray]:
    """Move rows into the first split, the training's, whose classes it would not have."""
    absent = targets[splits[0]].sum(axis=0) == 0
    moved = [rows[targets[rows][:, absent].any(axis=1)] for rows in splits[1:]]
    kept = [np.setdiff1d(rows, gone) for rows, gone in zip(splits[1:], moved, strict=True)]
    return [np.sort(np.concatenate([splits[0], *moved])), *kept]


def split_sizes(rows: int, fractions: np.ndarray) -> np.ndarray:
    """Return whole sizes that sum to `rows`, each less than one from its fraction of them."""
    exact = rows * fractions
    sizes = np.floor(exact).astype(int)
    largest = np.argsort(sizes - exact, kind="stable")
    sizes[largest[: rows - sizes.sum()]] += 1
    return sizes


def _deal(
    rows: int, needed: np.ndarray, room: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Return the split of each of `rows` rows of one label.

    A row goes to the split that wants the most rows of the label. Ties are broken by the room that
    is left, then at random. The rows' other labels do not matter here: they are counted after all
    rows of the label have a split.
    """
    needed_left, room_left = needed.tolist(), room.tolist()
    ties = random.random((rows, len(room_left))).tolist()
    dealt = []
    for tie in ties:
        _, _, _, best = max(
            (needed_left[k], room_left[k], tie[k], k) for k in range(len(tie)) if room_left[k]
        )
        needed_left[best] -= 1
        room_left[best] -= 1
        dealt.append(best)
    return np.array(dealt)
