"""Bounds on probabilities: the thresholds of highest F1, or of a wanted precision or recall."""

import numpy as np
from torch import Tensor

from minibert.evaluation.multi_label import class_columns, rank


def tune_thresholds(
    probabilities: Tensor, targets: Tensor, *, per_class: bool = True
) -> list[float]:
    """Return C thresholds between 0 and 1 that give the highest F1 on these texts.

    `probabilities` and `targets` are (N, C). Each class gets the threshold of its own highest F1;
    with per_class=False all classes get that of the highest micro-F1. Of equally good ones the
    nearest to 0.5 is taken. A class without a positive keeps 0.5.
    """
    scores, truth = probabilities.double().numpy(), targets.numpy() > 0.5
    if per_class:
        return [f1_threshold(*column) for column in class_columns(scores, truth)]
    return [f1_threshold(scores.ravel(), truth.ravel())] * scores.shape[1]


def f1_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the threshold of the highest F1 for probabilities (N,) and booleans (N,)."""
    if not truth.any():
        return 0.5
    ranked, hits = rank(scores, truth)
    thresholds = bounds(ranked)
    f1 = 2 * np.append(0, hits) / (np.arange(len(scores) + 1) + hits[-1])
    f1[np.isnan(thresholds) | (thresholds == 1)] = -1
    best = thresholds[f1 == f1.max()]
    return float(best[abs(best - 0.5).argmin()])


def precision_threshold(scores: np.ndarray, truth: np.ndarray, precision: float) -> float | None:
    """Return the lowest threshold for which a fraction `precision` of the texts above it is true.

    `scores` (N,) are probabilities, `truth` (N,) booleans. Returns None if no threshold has it.
    """
    ranked, hits = rank(scores, truth)
    thresholds = bounds(ranked)[1:]
    reached = (hits / np.arange(1, len(scores) + 1) >= precision) & ~np.isnan(thresholds)
    return float(thresholds[reached][-1]) if reached.any() else None


def recall_threshold(scores: np.ndarray, truth: np.ndarray, recall: float) -> float | None:
    """Return the highest threshold that a fraction `recall` of the true texts reaches.

    Returns None if no threshold has it, as without a true text.
    """
    ranked, hits = rank(scores, truth)
    thresholds = bounds(ranked)[1:]
    reached = (hits >= max(1, recall * hits[-1])) & ~np.isnan(thresholds)
    return float(thresholds[reached][0]) if reached.any() else None


def bounds(ranked: np.ndarray) -> np.ndarray:
    """Return the N + 1 bounds that separate N probabilities, given from high to low.

    Number k lies halfway between the k highest and the others, so that rounding moves none to the
    other side. It is NaN if the two are equal.
    """
    edges = np.concatenate([[1.0], ranked, [0.0]])
    upper, lower = edges[:-1], edges[1:]
    middle = (upper + lower) / 2
    middle = np.where(middle > lower, middle, upper)  # if no number lies between them
    return np.where(upper > lower, middle, np.nan)
