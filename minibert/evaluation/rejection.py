"""The reject option: texts are accepted if their highest probability reaches a bound."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from minibert.evaluation.intervals import Interval, in_percent, show_figures, wilson_interval
from minibert.evaluation.thresholds import precision_threshold


@dataclass(frozen=True)
class Accepted:
    """The texts that are accepted; `interval` is the 95% Wilson interval of their accuracy.

    Accuracy and interval are None if no text is accepted; the interval also on the split that chose
    `min_probability` for an accuracy.
    """

    min_probability: float
    texts: int
    coverage: float  # accepted texts / all texts
    accuracy: float | None
    interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Return the figures under the names that metrics.json gives them."""
        return {
            "min_probability": self.min_probability,
            "texts": self.texts,
            "coverage": self.coverage,
            "accuracy": self.accuracy,
            "accuracy_95": self.interval and list(self.interval),
        }

    def __str__(self) -> str:
        text = (
            f"accepted with a probability of at least {self.min_probability:.4g}: "
            f"{self.texts:,} texts ({100 * self.coverage:.1f}%)"
        )
        if self.accuracy is None:
            return text
        return f"{text}, {show_figures(in_percent('accuracy', self.accuracy, self.interval))}"


def score_accepted(highest: Tensor, correct: Tensor, min_probability: float) -> Accepted:
    """Score texts by their highest probability (N,) and whether their class is correct (N,)."""
    accepted = highest.double() >= min_probability
    texts, hits = int(accepted.sum()), int(correct[accepted].sum())
    coverage = texts / len(correct)
    if not texts:
        return Accepted(min_probability, 0, coverage, None, None)
    return Accepted(min_probability, texts, coverage, hits / texts, wilson_interval(hits, texts))


def lowest_probability(highest: Tensor, correct: Tensor, accuracy: float) -> float | None:
    """Return the lowest bound with which the accepted texts reach an accuracy, None if none does.

    `highest` (N,) are the texts' probabilities, `correct` (N,) says whose class is correct.
    """
    return precision_threshold(highest.double().numpy(), correct.numpy(), accuracy)
