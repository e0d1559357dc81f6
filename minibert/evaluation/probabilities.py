"""What the labels of a split say about the probabilities that a model gives it."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from minibert.errors import printable
from minibert.evaluation.calibration import Calibration, score_calibration
from minibert.evaluation.rejection import Accepted

RARE = 1 / 3  # of the texts; the figures of a class with more are in files only


@dataclass(frozen=True)
class RareClass:
    """How well logits rank the rarer of two classes; None if all texts have one class."""

    name: str
    texts: int
    fraction: float  # of all texts
    average_precision: float | None
    roc_auc: float | None

    def __str__(self) -> str:
        text = f"{printable(self.name, 60)}, the rarer class ({self.texts:,} texts): "
        if self.average_precision is None or self.roc_auc is None:
            return f"{text}average precision and ROC AUC undefined"
        return f"{text}average precision {self.average_precision:.4f}, ROC AUC {self.roc_auc:.4f}"


@dataclass(frozen=True)
class ProbabilityScores:
    """The figures of one split's probabilities, before and after the model's temperature."""

    temperature: float
    before: Calibration
    after: Calibration
    accepted: Accepted | None = None  # None: the model rejects no text
    rare_class: RareClass | None = None  # None: there are not two classes

    def to_json(self) -> dict[str, Any]:
        """Return the figures under the names that metrics.json gives them."""
        calibration = {name: asdict(getattr(self, name)) for name in ("before", "after")}
        figures: dict[str, Any] = {"calibration": {"temperature": self.temperature, **calibration}}
        if self.accepted:
            figures["accepted"] = self.accepted.to_json()
        if self.rare_class:
            figures["rare_class"] = asdict(self.rare_class)
        return figures

    def lines(self) -> list[str]:
        """Return one line for each kind of figure."""
        title, found = "probabilities", [self.after]
        if self.temperature != 1:
            title = f"before and after temperature {self.temperature:.4g}"
            found = [self.before, self.after]
        errors = " and ".join(f"{100 * x.expected_calibration_error:.1f}%" for x in found)
        brier = " and ".join(f"{x.brier:.4f}" for x in found)
        losses = " and ".join(f"{x.log_loss:.4f}" for x in found)
        line = f"{title}: calibration error {errors}, Brier score {brier}, log loss {losses}"
        lines = [line]
        if self.accepted:
            lines.append(str(self.accepted))
        if self.rare_class and self.rare_class.fraction <= RARE:
            lines.append(str(self.rare_class))
        return lines


def score_probabilities(
    logits: Tensor, targets: Tensor, *, temperature: float
) -> ProbabilityScores:
    """Score the probabilities of logits (N, C) and of logits / temperature."""
    before = score_calibration(logits, targets)
    after = score_calibration(logits.double() / temperature, targets)
    return ProbabilityScores(temperature, before, after)


def rarer_class(targets: Tensor) -> int:
    """Return which class, 0 or 1, fewer texts have; 1 if as many have the other."""
    second = int(targets.sum())
    return int(second <= len(targets) - second)


def score_rare_class(logits: Tensor, targets: Tensor, names: tuple[str, ...]) -> RareClass:
    """Score logits (N, 2) for class numbers (N,), as to how they rank the rarer class.

    The difference of the logits ranks the texts: probabilities near 1 would be equal.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    rare = rarer_class(targets)
    truth = (targets == rare).numpy()
    if not truth.any():
        return RareClass(names[rare], 0, 0.0, None, None)
    scores = (logits[:, rare] - logits[:, 1 - rare]).double().numpy()
    texts, precision = int(truth.sum()), float(average_precision_score(truth, scores))
    roc_auc = float(roc_auc_score(truth, scores))
    return RareClass(names[rare], texts, texts / len(targets), precision, roc_auc)
