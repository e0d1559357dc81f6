"""Several labels per text: the thresholds of highest F1."""

import numpy as np
from torch import Tensor

from minibert.evaluation.multi_label import class_columns, rank


def tune_thresholds(
    probabilities: Tensor, targets: Tensor, *, per_class: bool = True
) -> list[float]:
    """Return C thresholds between 0 and 1 that give the highest F1 on these texts.

    `probabilities` and `targets` are (N, C). Each class gets the threshold of its own highest F1;
    with per_class=False all classes get that of the highest micro-F1. A threshold lies halfway
    between two neighbouring probabilities, so that rounding does not change a label. Of equally
    good ones the nearest to 0.5 is taken. A class without a positive keeps 0.5.
    """
    scores, truth = probabilities.double().numpy(), targets.numpy() > 0.5
    if per_class:
        return [_best_threshold(*column) for column in class_columns(scores, truth)]
    return [_best_threshold(scores.ravel(), truth.ravel())] * scores.shape[1]


def _best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the threshold of the highest F1 for scores (N,) and booleans (N,)."""
    if not truth.any():
        return 0.5
    ranked, hits = rank(scores, truth)
    edges = np.concatenate([[1.0], ranked, [0.0]])
    upper, lower = edges[:-1], edges[1:]
    thresholds = (upper + lower) / 2  # number k predicts the k highest scores
    thresholds = np.where(thresholds > lower, thresholds, upper)  # if no number lies between them
    f1 = 2 * np.append(0, hits) / (np.arange(len(scores) + 1) + hits[-1])
    f1[(lower == upper) | (thresholds == 1)] = -1  # no threshold separates equal scores
    best = thresholds[f1 == f1.max()]
    return float(best[abs(best - 0.5).argmin()])
