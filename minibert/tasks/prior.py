"""What a model scores that ignores its texts. A model that learns does better."""

from dataclasses import dataclass

import torch
from torch import Tensor

from minibert.tasks.task import LossOptions, Task, figures_of

ROWS = 4096  # of the logits that are in memory


@dataclass(frozen=True)
class Prior:
    """The figures of always predicting the class frequencies, or the mean, of the training texts.

    `validation` has the task's figures by name; None is undefined.
    """

    train_loss: float
    validation: dict[str, float | None]
    distinct_targets: int  # of the validation texts


def prior_of(task: Task, train: Tensor, validation: Tensor, options: LossOptions) -> Prior:
    """Return the prior of a task, from the targets of both splits."""
    weights = task.weights(train, options)
    constant = task.constant(train, weights, options)
    loss = weight = 0.0
    for targets in train.split(ROWS):
        logits = constant.expand(len(targets), -1)
        loss += float(task.losses(logits, targets, weights, options).sum())
        weight += float(task.row_weights(targets, weights).sum())
    scores = task.score(constant.expand(len(validation), -1), validation)
    distinct = len(torch.unique(validation, dim=0))
    return Prior(loss / weight, figures_of(scores, task.figures), distinct)
