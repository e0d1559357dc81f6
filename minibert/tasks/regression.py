"""One or several numbers per text, learned standardized and predicted in the data's unit."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.data.classes import number_rows
from minibert.data.examples import Examples
from minibert.errors import InputError
from minibert.evaluation.regression import (
    RegressionScores,
    report_regression,
    score_regression,
    with_intervals,
)
from minibert.model.classifier import Head
from minibert.model.config import HeadConfig
from minibert.tasks.task import LossOptions, Task, check_shape


class Regression(Task):
    """Targets are numbers in the data's unit, float32 (N, K)."""

    figures = ("rmse", "mae", "pearson", "spearman", "r2")
    prior = "the mean"

    def __init__(self, head: HeadConfig) -> None:
        super().__init__(head)
        self.keys = ("value",) if len(self.names) == 1 else ("values",)

    def targets(self, examples: Examples, *, numbers: bool = False) -> np.ndarray:
        """Return the numbers (N, K)."""
        return number_rows(examples, self.names)

    def check(self, targets: Tensor) -> None:
        """Raise InputError for targets of another shape."""
        check_shape(targets, len(self.names), f"this model predicts {len(self.names)} numbers")

    def check_options(self, options: LossOptions) -> None:
        """Raise InputError for options of classes."""
        if options.label_smoothing or options.class_weights != "none":
            raise InputError("--label-smoothing and --class-weights are for classes; drop them")

    def prepare_head(self, head: Head, targets: Tensor) -> None:
        """Let the head's output layer work on numbers of mean 0 and deviation 1."""
        head.set_unit(targets.double().mean(dim=0).float(), _deviations(targets))

    def weights(self, targets: Tensor, options: LossOptions) -> Tensor:
        """Return 1 / deviation of each number: the loss does not depend on the unit."""
        return 1 / _deviations(targets)

    def losses(
        self, logits: Tensor, targets: Tensor, weights: Tensor, options: LossOptions
    ) -> Tensor:
        """Return the squared or Huber error of each row's standardized numbers, summed."""
        predicted, expected = logits * weights, targets * weights
        error = F.huber_loss if options.regression_loss == "huber" else F.mse_loss
        return error(predicted, expected, reduction="none").sum(dim=1)

    def row_weights(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Return K for each row: PyTorch's mean divides by N x K."""
        return torch.full_like(targets[:, 0], targets.shape[1])

    def constant(self, targets: Tensor, weights: Tensor, options: LossOptions) -> Tensor:
        """Return the means; of squared errors their loss is 1."""
        return targets.mean(dim=0)

    def score(self, logits: Tensor, targets: Tensor) -> RegressionScores:
        """Return errors and correlations; the loss is the mean squared error."""
        loss = float(F.mse_loss(logits.double(), targets.double()))
        return score_regression(logits, targets, self.names, loss=loss)

    def score_with_intervals(self, logits: Tensor, targets: Tensor) -> RegressionScores:
        """Return errors and correlations and their intervals."""
        return with_intervals(self.score(logits, targets), logits, targets)

    def report(self, logits: Tensor, targets: Tensor) -> str:
        """Return the figures of each number."""
        return report_regression(logits, targets, self.names)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Raise InputError: numbers have no probabilities."""
        raise InputError("this model predicts numbers, which have no probabilities; use predict()")

    def predict(self, logits: Tensor) -> list[Any]:
        """Return the number of each row, or a tuple if the model predicts several."""
        return self.labels(logits)

    def labels(self, targets: Tensor) -> list[Any]:
        """Return the number or numbers of each row, with as many digits as float32 needs."""
        rows = [tuple(float(str(x)) for x in row) for row in targets.float().numpy()]
        return [row[0] for row in rows] if len(self.names) == 1 else rows

    def records(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return the number, or one number for each name."""
        if len(self.names) == 1:
            return [{"value": value} for value in self.predict(logits)]
        rows = self.predict(logits)
        return [{"values": dict(zip(self.names, row, strict=True))} for row in rows]


def _deviations(targets: Tensor) -> Tensor:
    """Return the standard deviation of each column; 1 for a constant one."""
    deviations = targets.double().std(dim=0, correction=0).float()
    return torch.where(deviations > 0, deviations, 1.0)
