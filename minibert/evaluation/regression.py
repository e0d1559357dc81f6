"""Numbers per text: values and targets to figures, in the unit of the data.

scipy, which scikit-learn needs and brings, is imported inside the function that uses it: it adds a
second to every start.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from minibert.errors import printable
from minibert.evaluation.intervals import (
    Interval,
    bootstrap,
    named,
    show_figures,
    show_interval,
    sorted_rows,
    spearman_interval,
)
from minibert.evaluation.weighted import errors

FIGURES = ("pearson", "spearman", "mae", "rmse", "r2")
TITLES = ("Pearson", "Spearman", "MAE", "RMSE", "R2")
STYLES = (".3f", ".3f", ".4g", ".4g", ".3f")
TABLE_ROWS = 50  # outputs that a report lists


@dataclass(frozen=True)
class OutputScores:
    """The figures of one output, and their 95% intervals by name.

    None is undefined: Pearson, Spearman and R2 for constant targets, Pearson and Spearman for
    constant values, all for values that are not finite. `with_intervals` adds the intervals of all
    but Spearman.
    """

    pearson: float | None
    spearman: float | None
    mae: float | None
    rmse: float | None
    r2: float | None
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the figures under the names that metrics.json gives them; undefined is null."""
        return named({name: getattr(self, name) for name in FIGURES}, self.intervals)

    def __str__(self) -> str:
        return show_figures(
            *(
                (f"{title} {_text(getattr(self, name), style)}", _interval(self, name, style))
                for name, title, style in zip(FIGURES, TITLES, STYLES, strict=True)
            )
        )


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
        outputs = {name: scores.to_json() for name, scores in self.per_output.items()}
        figures = {"texts": self.texts, "loss": self.loss, **self.mean.to_json()}
        return {**figures, "per_output": outputs}

    def __str__(self) -> str:
        text, outputs = f"{self.mean}, {self.texts:,} texts", len(self.per_output)
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
        spearman=_mean(scores.spearman for scores in varying),
        mae=_mean(scores.mae for scores in outputs),
        rmse=_mean(scores.rmse for scores in outputs),
        r2=_mean(scores.r2 for scores in varying),
        intervals=outputs[0].intervals if len(outputs) == 1 else {},
    )
    return RegressionScores(len(found), loss, dict(zip(names, outputs, strict=True)), mean)


def _score_output(values: np.ndarray, targets: np.ndarray) -> OutputScores:
    from scipy.stats import pearsonr, spearmanr

    if not np.isfinite(values).all():
        return OutputScores(None, None, None, None, None)
    pearson = spearman = r2 = None
    intervals: dict[str, Interval | None] = {"spearman": None}
    errors, spread = values - targets, np.ptp(targets)
    if spread and np.ptp(values):
        pearson = float(pearsonr(values, targets).statistic)
        spearman = float(spearmanr(values, targets).statistic)
        intervals["spearman"] = spearman_interval(spearman, len(values))
    if spread:
        r2 = float(1 - np.sum(errors**2) / np.sum((targets - targets.mean()) ** 2))
    return OutputScores(
        pearson=pearson,
        spearman=spearman,
        mae=float(np.mean(abs(errors))),
        rmse=float(np.sqrt(np.mean(errors**2))),
        r2=r2,
        intervals=intervals,
    )


def with_intervals(scores: RegressionScores, values: Tensor, targets: Tensor) -> RegressionScores:
    """Return the scores of these values (N, K) and targets (N, K) with their 95% intervals."""
    found, true = values.double().numpy(), targets.double().numpy()
    order = sorted_rows(true, found)
    drawn = bootstrap(errors(found[order], true[order]), np.ones(len(true), dtype=int))
    outputs = (*scores.per_output.values(), scores.mean)
    complete = []
    for k, output in enumerate(outputs):
        names = ("mae", "rmse", "r2", "pearson")
        resampled = dict(zip(names, drawn[4 * k : 4 * k + 4], strict=True))
        complete.append(replace(output, intervals={**output.intervals, **resampled}))
    per_output = dict(zip(scores.per_output, complete, strict=False))
    return replace(scores, per_output=per_output, mean=complete[-1])


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
    heads = ("Pearson", "Spearman", "95% interval", "MAE", "RMSE", "R2")

    def line(name: str, cells: Sequence[str]) -> str:
        return f"{name:>{width}}" + "".join(f"{cell:>17}" for cell in cells)

    def cells(output: OutputScores) -> list[str]:
        interval = _interval(output, "spearman", ".3f") or "-"
        correlations = [_text(output.pearson), _text(output.spearman), interval]
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


def _interval(output: OutputScores, name: str, style: str) -> str | None:
    return show_interval(output.intervals.get(name), style)


def _text(value: float | None, style: str = ".3f") -> str:
    return "undefined" if value is None else format(value, style)
