"""What the commands do with probabilities: fit the temperature, and report calibration."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from minibert.commands.options import RunOptions
from minibert.errors import printable
from minibert.evaluation.probabilities import rarer_class
from minibert.model.config import HeadConfig
from minibert.tasks.calibrated import calibrated, with_target_accuracy
from minibert.tasks.multi_label import with_thresholds
from minibert.tasks.single_label import with_rare_class
from minibert.tasks.task import Task


def fit_probabilities(
    head: HeadConfig, logits: Tensor, targets: Tensor, options: RunOptions
) -> HeadConfig:
    """Return the head with what is fitted on the validation split: the temperature first.

    The thresholds and the lowest probability for --target-accuracy are fitted to the probabilities
    with that temperature. Prints what is fitted.
    """
    if head.task == "regression":
        return head
    head = calibrated(head, logits, targets)
    print(f"temperature {head.temperature:.4g}, fitted on the validation split")
    if head.task == "multi-label":
        head = with_thresholds(head, logits, targets, how=options.thresholds)
    if options.rare_class:
        head = fit_rare_class(head, logits, targets, options.rare_class)
    if options.target_accuracy is not None:
        head = with_target_accuracy(head, logits, targets, options.target_accuracy)
        if not head.min_probability:
            print(
                f"--target-accuracy {options.target_accuracy:g}: the validation split does not "
                "reach it, however few texts are accepted; no text will be rejected"
            )
    return head


def fit_rare_class(head: HeadConfig, logits: Tensor, targets: Tensor, how: str) -> HeadConfig:
    """Return the head with the threshold of the rarer class; the same head if there is none."""
    fitted = with_rare_class(head, logits, targets, how=how)
    if fitted is None:
        print(
            f"--rare-class {how}: the validation split does not reach it with any threshold; the "
            "more probable class is predicted"
        )
        return head
    rare = rarer_class(targets)
    name = printable(head.labels[rare], 60)
    print(f"{name} is predicted from {fitted.thresholds[rare]:.4g} on ({how}, validation split)")
    return fitted


def report_probabilities(
    task: Task,
    logits: Tensor,
    targets: Tensor,
    *,
    start: str = "",
    accepted_interval: bool = True,
) -> dict[str, Any]:
    """Print the figures of a split's probabilities; return them for metrics.json.

    The accuracy of accepted texts has no interval on the split that chose the lowest probability.
    """
    scores = task.score_probabilities(logits, targets)
    if scores is None:
        return {}
    if scores.accepted and not accepted_interval:
        scores = replace(scores, accepted=replace(scores.accepted, interval=None))
    print(*(f"{start}{line}" for line in scores.lines()), sep="\n")
    return scores.to_json()
