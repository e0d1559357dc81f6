"""Calibration: how far probabilities are from frequencies, and the temperature that reduces it.

Targets are class numbers (N,), whose logits (N, C) have a softmax, or 0 and 1 (N, C), whose logits
have a sigmoid each. scipy, which scikit-learn needs and brings, is imported where it is used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.model.config import TEMPERATURES

BINS = 15  # as Guo et al. 2017


@dataclass(frozen=True)
class Bin:
    """The decisions with a probability above `low` and up to `high`."""

    low: float
    high: float
    decisions: int
    probability: float  # their mean
    accuracy: float  # how many of them are true


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from the frequencies of what they predict.

    `expected_calibration_error` is the mean distance of probability and accuracy in the bins of
    `reliability`, weighted by their decisions (Guo et al. 2017, equation 3). `brier` is the mean
    squared distance from 0 and 1, summed over the classes of a softmax if they are three or more,
    as in scikit-learn: from 0 to 1 for two classes, to 2 for more (Brier 1950).
    """

    expected_calibration_error: float
    brier: float
    log_loss: float
    reliability: tuple[Bin, ...]  # without bins that have no decision


def score_calibration(logits: Tensor, targets: Tensor) -> Calibration:
    """Return the calibration of logits (N, C), in float64.

    A decision is a text with its highest probability; of several labels, it is a text and a class.
    """
    logits = logits.double()
    if targets.ndim == 1:
        probabilities = torch.softmax(logits, dim=1)
        highest, correct = probabilities.amax(dim=1), logits.argmax(dim=1) == targets
        bins = reliability(highest.numpy(), correct.numpy())
        classes = logits.shape[1]
        squares = (probabilities - F.one_hot(targets, classes)).square().sum(dim=1)
        brier = float(squares.mean()) / (2 if classes == 2 else 1)
    else:
        probabilities = torch.sigmoid(logits)
        bins = reliability(probabilities.numpy().ravel(), targets.numpy().ravel() > 0.5)
        brier = float((probabilities - targets).square().mean())
    return Calibration(expected_calibration_error(bins), brier, log_loss(logits, targets), bins)


def reliability(
    probabilities: np.ndarray, correct: np.ndarray, *, bins: int = BINS
) -> tuple[Bin, ...]:
    """Return the decisions in bins of equal width from 0 to 1: a reliability diagram as data.

    `probabilities` (N,) are those of the decisions, `correct` (N,) says which are true.
    """
    places = np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    means = np.bincount(places, probabilities, bins) / np.maximum(counts, 1)
    accuracies = np.bincount(places, correct, bins) / np.maximum(counts, 1)
    return tuple(
        Bin(k / bins, (k + 1) / bins, int(counts[k]), float(means[k]), float(accuracies[k]))
        for k in np.flatnonzero(counts).tolist()
    )


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of probability and accuracy, weighted by the bins' decisions."""
    total = sum(bin.decisions for bin in bins)
    return sum(bin.decisions * abs(bin.accuracy - bin.probability) for bin in bins) / total


def log_loss(logits: Tensor, targets: Tensor) -> float:
    """Return the mean negative log-likelihood: over the texts, or over texts and classes."""
    if targets.ndim == 1:
        return float(F.cross_entropy(logits, targets))
    return float(F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype)))


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """Return the T with which logits / T have the lowest log loss (Guo et al. 2017, section 4.2).

    A few texts say little about T, and where every prediction is right, the log loss falls as T
    goes to 0. So log T has a normal prior of deviation 1: it adds (log T)^2 / 2 to the sum of the
    losses, which keeps T near 1 for a few texts and hardly changes it for hundreds.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.double()

    def objective(log_temperature: float) -> float:
        prior = log_temperature**2 / 2 / targets.numel()
        return log_loss(logits / math.exp(log_temperature), targets) + prior

    bounds = [math.log(x) for x in TEMPERATURES]
    return round(math.exp(minimize_scalar(objective, bounds=bounds, method="bounded").x), 4)
