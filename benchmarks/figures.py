"""Numbers to figures: medians with their range, ratios round by round, work, tables of text."""

import statistics
from collections.abc import Sequence

from minibert.model.config import EncoderConfig


def spread(values: Sequence[float]) -> str:
    """Return the median and the range, as a table shows them."""
    low, middle, high = (short(f(values)) for f in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def short(value: float) -> str:
    """Return a positive number with three digits, or all before the point."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide round by round, so that a slow minute of the machine counts on both sides."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(1000 * share) // 1000) - 1)]


def forward_operations(config: EncoderConfig, lengths: Sequence[int]) -> float:
    """Count the multiplications and additions of the encoder's matrix products at real tokens."""
    matrices = 4 * config.width**2 + 2 * config.width * config.feed_forward
    tokens, pairs = sum(lengths), sum(length**2 for length in lengths)
    return float(config.layers * (2 * matrices * tokens + 4 * config.width * pairs))


def agreement(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """Return the share of equal labels and the largest difference of two probabilities.

    One may have answered only the first of the texts.
    """
    pairs = list(zip(ours, theirs, strict=False))
    same = sum(_best(a) == _best(b) for a, b in pairs) / len(pairs)
    difference = max(abs(p - q) for a, b in pairs for p, q in zip(a, b, strict=True))
    return same, difference


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _best(row: Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)
