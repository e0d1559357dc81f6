"""Heads whose probabilities are calibrated, and heads that reject texts."""

from dataclasses import replace

import torch
from torch import Tensor

from minibert.errors import InputError
from minibert.evaluation.calibration import fit_temperature
from minibert.evaluation.rejection import lowest_probability
from minibert.model.config import HeadConfig
from minibert.tasks.single_label import SingleLabel


def calibrated(head: HeadConfig, logits: Tensor, targets: Tensor) -> HeadConfig:
    """Return the head with the temperature that fits these logits. It predicts the same labels.

    Raises InputError for a regression, and for logits that are not finite.
    """
    _check_probabilities(head)
    if not logits.isfinite().all():
        raise InputError("the logits are not finite, so that no temperature fits; train again")
    return with_temperature(head, fit_temperature(logits, targets))


def with_temperature(head: HeadConfig, temperature: float) -> HeadConfig:
    """Return the head with another temperature, 1 for none. It predicts the same labels.

    So thresholds change with the probabilities; a lowest probability is dropped, since it was
    chosen for others. Raises InputError for a regression.
    """
    _check_probabilities(head)
    if temperature == head.temperature:
        return head
    logits = torch.logit(torch.tensor(head.thresholds, dtype=torch.float64))
    moved = torch.sigmoid(logits * head.temperature / temperature)
    thresholds = tuple(moved.clamp(1e-15, 1 - 1e-15).tolist())
    return replace(head, temperature=temperature, thresholds=thresholds, min_probability=0.0)


def with_min_probability(head: HeadConfig, probability: float) -> HeadConfig:
    """Return the head with the lowest probability that it accepts, 0 for none.

    Raises InputError unless the head predicts one class per text, the most probable one.
    """
    if head.task != "single-label":
        raise InputError("--min-probability is for one class per text; drop it")
    if probability and head.thresholds:
        raise InputError(
            "--min-probability is for the most probable class; this model predicts its rarer class "
            "from a threshold (--rare-class); drop it"
        )
    return replace(head, min_probability=probability)


def with_target_accuracy(
    head: HeadConfig, logits: Tensor, targets: Tensor, accuracy: float
) -> HeadConfig:
    """Return the head with the lowest probability from which texts reach an accuracy.

    If none does, the head is returned as it is.
    """
    highest, correct = SingleLabel(head).confidence(logits, targets)
    return replace(head, min_probability=lowest_probability(highest, correct, accuracy) or 0.0)


def _check_probabilities(head: HeadConfig) -> None:
    if head.task == "regression":
        raise InputError("this model predicts numbers, which have no probabilities to calibrate")
