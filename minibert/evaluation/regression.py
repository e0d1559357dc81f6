"""Numbers per text: values and targets to figures, in the unit of the data.

scipy, which scikit-learn needs and brings, is imported inside the function that uses it: it adds a
second to every start.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from minibert.errors import printable

TABLE_ROWS = 50  # outputs that a report lists


@dataclass(frozen=True)
class OutputScores:
    """The figures of one output; `pearson_95` is the 95% interval by Fisher's z.

    None is undefined: Pearson, Spearman and R2 for constant targets, Pearson and Spearman for
    constant values, all for values that are not finite.
    """

    pearson: float | None
    pearson_95: tuple[float, float] | None
    spearman: float | None
    mae: float | None
    rmse: float | None
    r2: float | None


@dataclass(frozen=True)
class RegressionScores:
    """The figures of one split: of each output, and their means over the outputs."""

    texts: int
    loss: float
    per_output: dict[str, OutputScores]
    mean: OutputScores
    predicted_classes: ClassVar[None] = None

    def figure(self, name: str) -> float:
        """Return pearson, spearman, r2 or (negated) mae, rmse or loss: higher is better.

        An undefined figure is minus infinity, so that every defined one is better.
        """
        if name == "loss":
            return -self.loss
        value = getattr(self.mean, name)
        if value is None:
            return -math.inf
        return -value if name in ("mae", "rmse") else value

    def to_json(self) -> dict:
        """Return the figures under the names that metrics.json gives them; undefined is null."""
        outputs = {name: asdict(scores) for name, scores in self.per_output.items()}
        return {"texts": self.texts, "loss": self.loss, **asdict(self.mean), "per_output": outputs}

    def __str__(self) -> str:
        mean = self.mean
        interval = "" if mean.pearson_95 is None else f" (95% interval {_interval(mean)})"
        text = (
            f"Pearson {_text(mean.pearson)}{interval}, Spearman {_text(mean.spearman)}, "
            f"MAE {_text(mean.mae, '.4g')}, RMSE {_text(mean.rmse, '.4g')}, R2 {_text(mean.r2)}, "
            f"{self.texts:,} texts"
        )
        outputs = len(self.per_output)
        return text if outputs == 1 else f"{text} (means of {outputs} outputs)"


def score_regression(
    values: Tensor, targets: Tensor, names: Sequence[str] | None = None, *, loss: float
) -> RegressionScores:
    """Score values (N, K) against targets (N, K), both in the unit of the data.

    `names` are those of the outputs (default: the numbers). `loss` is given, since it is computed
    from standardized values. An output with constant targets has no Pearson, Spearman or R2 and is
    left out of their means. A mean is undefined if that of another output is.
    """
    names = names or [str(number) for number in range(values.shape[1])]
    found, true = values.double().numpy(), targets.double().numpy()
    outputs = [_score_output(found[:, k], true[:, k]) for k in range(len(names))]
    varying = [scores for k, scores in enumerate(outputs) if np.ptp(true[:, k])]
    mean = OutputScores(
        pearson=_mean(scores.pearson for scores in varying),
        pearson_95=outputs[0].pearson_95 if len(outputs) == 1 else None,
        spearman=_mean(scores.spearman for scores in varying),
        mae=_mean(scores.mae for scores in outputs),
        rmse=_mean(scores.rmse for scores in outputs),
        r2=_mean(scores.r2 for scores in varying),
    )
    return RegressionScores(len(found), loss, dict(zip(names, outputs, strict=True)), mean)


def _score_output(values: np.ndarray, targets: np.ndarray) -> OutputScores:
    from scipy.stats import pearsonr, spearmanr

    if not np.isfinite(values).all():
        return OutputScores(None, None, None, None, None, None)
    pearson = interval = spearman = r2 = None
    errors, spread = values - targets, np.ptp(targets)
    if spread and np.ptp(values):
        result = pearsonr(values, targets)
        pearson, spearman = float(result.statistic), float(spearmanr(values, targets).statistic)
        if len(values) > 3:  # Fisher's z has the variance 1 / (N - 3)
            low, high = result.confidence_interval(0.95)
            interval = (float(low), float(high))
    if spread:
        r2 = float(1 - np.sum(errors**2) / np.sum((targets - targets.mean()) ** 2))
    return OutputScores(
        pearson=pearson,
        pearson_95=interval,
        spearman=spearman,
        mae=float(np.mean(abs(errors))),
        rmse=float(np.sqrt(np.mean(errors**2))),
        r2=r2,
    )


def _mean(figures: Iterable[float | None]) -> float | None:
    """Return the mean, or None if there are no figures or one of them is undefined."""
    values = list(figures)
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined and len(defined) == len(values) else None


def report_regression(values: Tensor, targets: Tensor, names: Sequence[str]) -> str:
    """Return a table of the first 50 outputs and the means of all."""
    scores = score_regression(values, targets, names, loss=math.nan)
    rows = [(printable(name, 60), scores.per_output[name]) for name in names[:TABLE_ROWS]]
    width = max(len("mean"), *(len(name) for name, _ in rows)) + 1
    heads = ("Pearson", "95% interval", "Spearman", "MAE", "RMSE", "R2")

    def line(name: str, cells: Sequence[str]) -> str:
        return f"{name:>{width}}" + "".join(f"{cell:>17}" for cell in cells)

    def cells(output: OutputScores) -> list[str]:
        correlations = [_text(output.pearson), _interval(output), _text(output.spearman)]
        return [
            *correlations,
            _text(output.mae, ".4g"),
            _text(output.rmse, ".4g"),
            _text(output.r2),
        ]

    lines = [line("", heads), "", *(line(name, cells(output)) for name, output in rows)]
    if len(names) > TABLE_ROWS:
        lines.append(f"... and {len(names) - TABLE_ROWS:,} outputs")
    if len(names) > 1:
        lines += ["", line("mean", cells(scores.mean))]
    return "\n".join(lines) + "\n"


def _interval(output: OutputScores) -> str:
    return "-" if output.pearson_95 is None else "{:.3f} to {:.3f}".format(*output.pearson_95)


def _text(value: float | None, style: str = ".3f") -> str:
    return "undefined" if value is None else format(value, style)
