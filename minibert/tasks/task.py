"""A task: what a label means, the loss, what the logits say, and how good the predictions are.

Training, evaluation, prediction and saving call these methods and know nothing else about a task.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from minibert.data.examples import Examples
from minibert.errors import InputError
from minibert.evaluation.figures import LOWER_IS_BETTER
from minibert.evaluation.probabilities import ProbabilityScores
from minibert.model.classifier import Head
from minibert.model.config import HeadConfig

EXPONENTS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}  # of the balanced class weights


class LossOptions(Protocol):
    """The options of training that change the loss."""

    @property
    def label_smoothing(self) -> float: ...  # noqa: D102
    @property
    def class_weights(self) -> str: ...  # noqa: D102
    @property
    def regression_loss(self) -> str: ...  # noqa: D102


class Scores(Protocol):
    """The figures of one split."""

    @property
    def loss(self) -> float:
        """The mean loss."""
        ...

    @property
    def predicted_classes(self) -> int | None:
        """How many classes are predicted for any text; None if a text has not one class."""
        ...

    def figure(self, name: str) -> float:
        """Return a figure, negated if lower is better; minus infinity if it is undefined."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return all figures, as metrics.json has them."""
        ...


class Task(ABC):
    """One kind of prediction.

    Args:
        head: its labels are the classes, or the names of the predicted numbers.
    """

    figures: ClassVar[tuple[str, ...]]  # names for --select, the default first
    prior: ClassVar[str]  # what the best constant prediction knows
    keys: tuple[str, ...]  # of a prediction's record; the last may have a value for each name

    def __init__(self, head: HeadConfig) -> None:
        self.head, self.names = head, head.labels

    @abstractmethod
    def targets(self, examples: Examples, *, numbers: bool = False) -> np.ndarray:
        """Return what the loss compares logits with, a row for each example.

        With `numbers`, a label may also be the number of a class. Raises InputError, with file and
        line, for a label that this model does not have.
        """

    @abstractmethod
    def check(self, targets: Tensor) -> None:
        """Raise InputError for targets that are not of this task, or of another model."""

    def check_options(self, options: LossOptions) -> None:
        """Raise InputError for options that this task does not have."""
        if options.regression_loss != "mse":
            raise InputError(f"--regression-loss {options.regression_loss} is for regression")

    def prepare_head(self, head: Head, targets: Tensor) -> None:  # noqa: B027 (most need nothing)
        """Adapt a head to all targets of the training split, before the first step."""

    @abstractmethod
    def weights(self, targets: Tensor, options: LossOptions) -> Tensor:
        """Return the weights of the loss from all targets of the training split: (C,)."""

    @abstractmethod
    def losses(
        self, logits: Tensor, targets: Tensor, weights: Tensor, options: LossOptions
    ) -> Tensor:
        """Return the loss of each row (B,)."""

    @abstractmethod
    def row_weights(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Return (B,), by whose sum the sum of the losses is divided to be a mean."""

    @abstractmethod
    def constant(self, targets: Tensor, weights: Tensor, options: LossOptions) -> Tensor:
        """Return the logits (C,) of a model that knows the targets' frequencies or means alone."""

    @abstractmethod
    def score(self, logits: Tensor, targets: Tensor) -> Scores:
        """Return the figures of logits (N, C)."""

    def score_probabilities(self, logits: Tensor, targets: Tensor) -> ProbabilityScores | None:
        """Return the figures of the probabilities; None if the task has none."""
        return None

    @abstractmethod
    def score_with_intervals(self, logits: Tensor, targets: Tensor) -> Scores:
        """Return the figures of logits (N, C), each with its 95% interval: up to seconds."""

    @abstractmethod
    def report(self, logits: Tensor, targets: Tensor) -> str:
        """Return a table of the figures per class."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities (N, C), with the head's temperature.

        Raises InputError if the task has none.
        """

    @abstractmethod
    def predict(self, logits: Tensor) -> list[Any]:
        """Return the prediction of each row: a class, a tuple of classes, or a number."""

    @abstractmethod
    def labels(self, targets: Tensor) -> list[Any]:
        """Return what `predict` returns for correct predictions."""

    @abstractmethod
    def records(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return each row's prediction under `keys`, rounded, for JSON."""

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """A table's columns for the last key: one for each name."""
        one = {"probabilities": "probability", "values": "value"}.get(self.keys[-1])
        return tuple(f"{one}_{name}" for name in self.names) if one else ()

    @cached_property
    def fields(self) -> frozenset[str]:
        """The names that a prediction has in records and tables."""
        return frozenset((*self.keys, *self.columns))

    def selects(self, name: str | None) -> str:
        """Return the figure that selects the best epoch. Raises InputError for another task's."""
        if name is not None and name not in self.figures:
            raise InputError(
                f"--select {name} is not a figure of this task; it has {', '.join(self.figures)}"
            )
        return name or self.figures[0]


def figures_of(scores: Scores, names: Sequence[str]) -> dict[str, float | None]:
    """Return figures by name, not negated; None for one that is undefined."""
    values = {name: scores.figure(name) for name in names}
    return {
        name: None if math.isinf(x) else -x if name in LOWER_IS_BETTER else x
        for name, x in values.items()
    }


def check_finite(scores: Scores) -> None:
    """Raise InputError if the loss is NaN or infinite, as the logits then are."""
    if not math.isfinite(scores.loss):
        raise InputError(f"the loss is {scores.loss}; the model's weights may be too large")


def check_shape(targets: Tensor, columns: int, what: str) -> None:
    """Raise InputError unless the targets are float rows (N, columns)."""
    if targets.ndim != 2 or targets.shape[1] != columns or targets.dtype != torch.float32:
        shape = tuple(targets.shape)
        raise InputError(f"the targets have shape {shape}; {what}: give them to dataset()")
