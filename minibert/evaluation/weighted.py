"""Figures of weighted texts: the weight of a text is how often a sample has it.

Each function takes the predictions and labels once and returns a statistic, which takes the weights
(B, R) of B samples of R rows and returns K figures for each sample. With weights of 1 they equal
the figures of metrics.py, multi_label.py and regression.py. scipy is imported where it is used.
"""

import itertools
import math

import numpy as np

from minibert.evaluation.intervals import Statistic

ABSENT = 0.005  # 6 texts of each class are enough: exp(-6) of the samples lack one


def macro_f1(true: np.ndarray, predicted: np.ndarray) -> Statistic:
    """Return the macro-F1 (B, 1) of rows with a true and a predicted class number (R,).

    A class without labels and predictions in a sample does not count in its mean.
    """
    from scipy.sparse import csr_array

    classes = int(max(true.max(), predicted.max())) + 1
    rows = np.arange(len(true))
    right = rows[true == predicted]
    shape = (len(rows), classes)
    hits = csr_array((np.ones(len(right)), (right, true[right])), shape)
    both = (np.ones(2 * len(rows)), (np.tile(rows, 2), np.concatenate([true, predicted])))
    totals = csr_array(both, shape)  # support + predicted

    def figures(weights: np.ndarray) -> np.ndarray:
        total = weights @ totals
        f1 = 2 * (weights @ hits) / np.maximum(total, 1)
        return (f1.sum(axis=1) / (total > 0).sum(axis=1))[:, None]

    return figures


def often_absent(counts: np.ndarray, texts: int) -> bool:
    """Return whether samples often lack a class: on average more than ABSENT of the classes.

    `counts` (C,) of the `texts` have each class. A mean over the other classes is another figure:
    of 100 texts, 3 of them of a class that is never right, 5% of the samples would have twice the
    macro-F1. Then the bootstrap says nothing about a mean over classes.
    """
    counts = counts[counts > 0]
    return bool(len(counts)) and float(np.mean((1 - counts / texts) ** texts)) > ABSENT


def label_figures(truth: np.ndarray, predicted: np.ndarray) -> Statistic:
    """Return micro-F1, macro-F1, samples-F1 and Hamming loss (B, 4) of booleans (N, C)."""
    from scipy.sparse import csr_array

    both, either = truth & predicted, truth.astype(float) + predicted
    hits, totals = csr_array(both.astype(float)), csr_array(either)
    of_texts = 2 * both.sum(axis=1) / np.maximum(either.sum(axis=1), 1)
    wrong = (truth != predicted).mean(axis=1)

    def figures(weights: np.ndarray) -> np.ndarray:
        hit, total, texts = weights @ hits, weights @ totals, weights.sum(axis=1)
        micro = 2 * hit.sum(axis=1) / np.maximum(total.sum(axis=1), 1)
        macro = (2 * hit / np.maximum(total, 1)).mean(axis=1)
        return np.stack([micro, macro, weights @ of_texts / texts, weights @ wrong / texts], axis=1)

    return figures


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> Statistic:
    """Return the mean average precision (B, 1) of scores (N, C) for booleans (N, C).

    A class without a positive in a sample does not count in its mean.
    """
    from scipy.sparse import csr_array, hstack

    # Precision counts at the positives alone: the texts between two of them become one step.
    steps, hits, bounds = [], [], [0]
    for column, positive in zip(scores.T, truth.T, strict=True):
        thresholds = -np.unique(column[positive])[::-1]  # rising; equal scores are one step
        if len(thresholds):
            texts = np.flatnonzero(-column <= thresholds[-1])
            step = np.searchsorted(thresholds, -column[texts])
            shape = (len(column), len(thresholds))
            steps.append(csr_array((np.ones(len(texts)), (texts, step)), shape))
            hits.append(csr_array((1.0 * positive[texts], (texts, step)), shape))
            bounds.append(bounds[-1] + len(thresholds))
    if not steps:
        return lambda weights: np.zeros((len(weights), 1))
    all_steps, all_hits = hstack(steps, "csr"), hstack(hits, "csr")
    all_hits.eliminate_zeros()

    def figures(weights: np.ndarray) -> np.ndarray:
        drawn, hit = weights @ all_steps, weights @ all_hits
        total, known = np.zeros(len(weights)), np.zeros(len(weights))
        for start, end in itertools.pairwise(bounds):
            found = np.cumsum(hit[:, start:end], axis=1)
            precision = found / np.maximum(np.cumsum(drawn[:, start:end], axis=1), 1)
            positives = found[:, -1]
            total += (hit[:, start:end] * precision).sum(axis=1) / np.maximum(positives, 1)
            known += positives > 0
        return (total / np.maximum(known, 1))[:, None]

    return figures


def errors(values: np.ndarray, targets: np.ndarray) -> Statistic:
    """Return MAE, RMSE, R2 and Pearson of K numbers (N, K), then their means: (B, 4K + 4).

    R2 is NaN if the targets of a sample are equal, Pearson also if the values are. A number whose
    targets are all equal has neither and does not count in their means.
    """
    x, y = targets - targets.mean(axis=0), values - values.mean(axis=0)  # keeps the digits
    error, outputs = values - targets, targets.shape[1]
    columns = np.hstack([abs(error), error**2, x, x**2, y, y**2, x * y])
    varying = np.ptp(targets, axis=0) > 0
    if not varying.any():
        varying[:] = True  # the means are NaN too

    def figures(weights: np.ndarray) -> np.ndarray:
        means = weights @ columns / weights.sum(axis=1, keepdims=True)
        mae, mse, mean_x, square_x, mean_y, square_y, product = np.split(means, 7, axis=1)
        variance_x, variance_y = _variance(mean_x, square_x), _variance(mean_y, square_y)
        r2 = 1 - mse / variance_x
        pearson = (product - mean_x * mean_y) / np.sqrt(variance_x * variance_y)
        pearson = pearson.round(12)  # all samples of a perfect correlation have the same
        each = np.stack([mae, np.sqrt(mse), r2, pearson], axis=2)  # (B, K, 4)
        all_means = [each[:, :, :2].mean(axis=1), each[:, varying, 2:].mean(axis=1)]
        return np.hstack([each.reshape(len(each), 4 * outputs), *all_means])

    return figures


def _variance(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Return the variance from the means of x and x^2; NaN if it is 0 but for rounding."""
    variance = square - mean**2
    return np.where(variance > 1e-12 * square, variance, math.nan)
