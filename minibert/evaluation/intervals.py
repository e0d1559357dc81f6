"""95% intervals of figures: formulas for proportions and ranks, the bootstrap for the rest.

scipy, which scikit-learn needs and brings, is imported inside the functions that use it: it adds a
second to every start.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Interval = tuple[float, float]
# Weights (B, R) of R rows, in texts, to the figures (B, K) of B samples of texts.
Statistic = Callable[[np.ndarray], np.ndarray]

Z = 1.959964  # of the normal distribution's middle 95%
RESAMPLES = 2000
SEED = 0
WEIGHTS_IN_MEMORY = 4_000_000


def wilson_interval(correct: int, texts: int) -> Interval:
    """Return the 95% interval of a proportion (Wilson 1927), which stays between 0 and 1."""
    p, weight = correct / texts, Z * Z / texts
    middle = (p + weight / 2) / (1 + weight)
    reach = Z / (1 + weight) * math.sqrt(p * (1 - p) / texts + weight / (4 * texts))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def f1_interval(hits: int, texts: int) -> Interval:
    """Return the 95% interval of one class's F1.

    `texts` have the class, are predicted to have it, or both; `hits` are both. F1 is 2J / (1 + J)
    of the proportion J = hits / texts, so the ends of J's Wilson interval become those of F1
    (Lam et al. 2023, arXiv 2309.14621). Unlike the bootstrap's, it is not empty if F1 is 1.
    """
    low, high = wilson_interval(hits, texts)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def class_intervals(hits: int, support: int, predicted: int) -> dict[str, Interval | None]:
    """Return the intervals of one class's precision, recall and F1; None without a text.

    `support` texts have the class, `predicted` are predicted to have it, `hits` are both.
    """
    union = support + predicted - hits
    return {
        "precision": wilson_interval(hits, predicted) if predicted else None,
        "recall": wilson_interval(hits, support) if support else None,
        "f1": f1_interval(hits, union) if union else None,
    }


def spearman_interval(r: float, texts: int) -> Interval | None:
    """Return the 95% interval of a rank correlation by Fisher's z.

    Its variance is (1 + r^2 / 2) / (N - 3) (Bonett and Wright 2000). None below 4 texts, and for 1
    and -1, whose interval would be empty. The bootstrap would make ties, which change the ranks.
    """
    if texts < 4 or 1 - abs(r) < 1e-12:
        return None
    reach = Z * math.sqrt((1 + r**2 / 2) / (texts - 3))
    return math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach)


def bootstrap(statistic: Statistic, counts: np.ndarray) -> list[Interval | None]:
    """Return the 95% interval of each of a statistic's K figures.

    The texts are drawn again, N of N with replacement. The ends are quantiles of the resampled
    figures, corrected for their median bias (Efron 1981, BC). The seed is fixed: the same rows give
    the same intervals. An interval is None where resampling says nothing: if all resamples have the
    same figure, as those of a perfect prediction have; if the figure of one is undefined; and if
    the bias is over one standard error, as that of macro-F1 with a text or two for each class.

    Args:
        statistic: the figures (B, K) of weights (B, R).
        counts: (R,) how many of the N texts each row stands for.
    """
    from scipy.stats import norm

    (observed,) = statistic(counts[None].astype(float))
    figures = np.concatenate([statistic(weights) for weights in resample(counts)])
    intervals: list[Interval | None] = []
    for found, column in zip(observed, figures.T, strict=True):
        if not np.isfinite(column).all() or not np.ptp(column):
            intervals.append(None)
            continue
        bias = norm.ppf(np.mean(column < found) + np.mean(column == found) / 2)
        if abs(bias) > 1:
            intervals.append(None)
            continue
        low, high = np.quantile(column, norm.cdf(2 * bias + np.array([-Z, Z])))
        intervals.append((float(low), float(high)))
    return intervals


def resample(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the weights (B, R) of RESAMPLES samples of all texts, in chunks."""
    random = np.random.default_rng(SEED)
    rows, texts = len(counts), int(counts.sum())
    row_of_text = np.repeat(np.arange(rows), counts)
    chunk = max(1, WEIGHTS_IN_MEMORY // max(rows, texts))
    for start in range(0, RESAMPLES, chunk):
        size = min(chunk, RESAMPLES - start)
        if texts > 10 * rows:  # a multinomial draw costs 10 times a text's, but is one per row
            weights = random.multinomial(texts, counts / texts, size=size)
        else:
            drawn = row_of_text[random.integers(texts, size=(size, texts))]
            drawn += rows * np.arange(size)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        yield weights.astype(float)


def sorted_rows(*columns: np.ndarray) -> np.ndarray:
    """Return the order of N texts by their values, so that their order in a file does not matter.

    `columns` are (N, ...); the first decide first, so give exact ones before computed ones.
    """
    rows = np.hstack([column.reshape(len(column), -1).astype(float) for column in columns])
    # Compared byte by byte, the highest first: rounding in the last bits hardly changes the order.
    rows = np.ascontiguousarray(rows, dtype=">f8")
    return np.argsort(rows.view(np.dtype((np.void, rows.shape[1] * 8))).ravel(), kind="stable")


def named(figures: Mapping[str, Any], intervals: Mapping[str, Interval | None]) -> dict[str, Any]:
    """Return the figures, each NAME followed by NAME_95, its interval, if it is known."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        found[name] = value
        if name in intervals:
            interval = intervals[name]
            found[f"{name}_95"] = None if interval is None else list(interval)
    return found


def in_percent(
    title: str, value: float | None, interval: Interval | None
) -> tuple[str, str | None]:
    """Return a figure and its interval as `show_figures` takes them; None is undefined."""
    if value is None:
        return f"{title} undefined", None
    return f"{title} {100 * value:.1f}%", show_interval(interval, ".1f", 100)


def show_interval(interval: Interval | None, style: str, factor: float = 1) -> str | None:
    """Return the ends of an interval, times a factor, for a person."""
    return interval and " to ".join(format(factor * end, style) for end in interval)


def show_figures(*figures: tuple[str, str | None]) -> str:
    """Return figures and their intervals as one line, which says once what the intervals are."""
    parts, name = [], "95% interval "
    for text, interval in figures:
        if interval:
            text, name = f"{text} ({name}{interval})", ""
        parts.append(text)
    return ", ".join(parts)
