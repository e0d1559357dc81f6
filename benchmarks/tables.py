"""A race's outcomes to the rows of its table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.figures import forward_operations, markdown, percentile, ratios, short, spread
from benchmarks.machine import Limits
from benchmarks.rounds import Outcome
from benchmarks.task import Repetition
from minibert.model.config import EncoderConfig

FORWARD, TRAINING = 1, 3  # a backward pass does twice a forward pass's products


@dataclass
class Section:
    """One part of the benchmark: what was done where, its table, and what there is to say."""

    part: str
    about: list[str]
    header: list[str]
    rows: list[list[str]]
    outcomes: list[Outcome]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for outcome in self.outcomes:
            if outcome.failed:
                self.problems.append(f"{outcome.entry.name} failed: {outcome.failed}")
            if outcome.skipped:
                self.notes.append(f"{outcome.entry.name} is left out: it {outcome.skipped}")

    def __str__(self) -> str:
        lines = [f"- {line}" for line in self.notes + self.problems]
        about = "\n".join(self.about)
        return f"## {self.part}\n\n{about}\n\n{markdown(self.header, self.rows)}\n\n" + "".join(
            f"{line}\n" for line in lines
        )

    def to_json(self) -> dict[str, Any]:
        """Return all that is known of it."""
        contestants = [
            {
                "name": outcome.entry.name,
                "precision": outcome.entry.task.precision,
                "repetitions": [asdict(repetition) for repetition in outcome.repetitions],
                "skipped": outcome.skipped,
                "failed": outcome.failed,
            }
            for outcome in self.outcomes
        ]
        table = {"header": self.header, "rows": self.rows}
        said = {"part": self.part, "about": self.about, "notes": self.notes + self.problems}
        return {**said, **table, "contestants": contestants}


def rate_table(
    outcomes: Sequence[Outcome],
    lengths: Sequence[int],
    config: EncoderConfig,
    limits: Limits,
    *,
    passes: int,
) -> tuple[list[str], list[list[str]]]:
    """Make texts/s, tokens/s, the share of the limit and the memory of each contestant."""
    header = ["", "precision", "texts/s", "tokens/s", "of the limit", "peak MiB"]

    def cells(outcome: Outcome) -> list[str]:
        count = outcome.entry.texts
        middle = median(rates(outcome)) / count  # repetitions a second
        work = passes * forward_operations(config, lengths[:count])
        limit = limits.operations(outcome.entry.task.precision)
        share = f"{100 * work * middle / limit:.0f}%" if limit else "-"
        tokens = short(sum(lengths[:count]) * middle)
        precision = outcome.entry.task.precision
        return [precision, spread(rates(outcome)), tokens, share, memory(outcome)]

    return compared(header, outcomes, rates, cells)


def latency_table(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """Make the median and the 99th percentile of a call, in milliseconds."""
    header = ["", "precision", "p50 ms", "p99 ms", "peak MiB"]

    def cells(outcome: Outcome) -> list[str]:
        shown = [
            spread([1000 * percentile(r.calls, share) for r in outcome.repetitions])
            for share in (0.5, 0.99)
        ]
        return [outcome.entry.task.precision, *shown, memory(outcome)]

    def speeds(outcome: Outcome) -> list[float]:
        return [1 / percentile(r.calls, 0.5) for r in outcome.repetitions]

    return compared(header, outcomes, speeds, cells)


def seconds_table(
    outcomes: Sequence[Outcome], texts: int, what: str
) -> tuple[list[str], list[list[str]]]:
    """Make the seconds of a work of so many texts; who did less of it is scaled up."""
    header = ["", "precision", what, "peak MiB"]

    def cells(outcome: Outcome) -> list[str]:
        seconds = spread([texts / rate for rate in rates(outcome)])
        return [outcome.entry.task.precision, seconds, memory(outcome)]

    return compared(header, outcomes, rates, cells)


def compared(
    header: list[str],
    outcomes: Sequence[Outcome],
    speeds: Callable[[Outcome], list[float]],
    cells: Callable[[Outcome], list[str]],
) -> tuple[list[str], list[list[str]]]:
    """Add a column for each of minibert's contestants: how many times as fast as the row it is."""
    there = [outcome for outcome in outcomes if outcome.runs]
    ours = [outcome for outcome in there if outcome.entry.task.peer == "ours"]
    rows = []
    for outcome in there:
        faster = [
            "" if own is outcome else spread(ratios(speeds(own), speeds(outcome))) for own in ours
        ]
        rows.append([outcome.entry.name, *cells(outcome), *faster])
    return header + [f"{own.entry.name} / it" for own in ours], rows


def rates(outcome: Outcome) -> list[float]:
    """Return the texts a second of each repetition."""
    return [repetition.texts / repetition.seconds for repetition in outcome.repetitions]


def memory(outcome: Outcome) -> str:
    """Return the highest peak of a contestant's repetitions."""
    peaks: list[Repetition] = outcome.repetitions
    return f"{max(repetition.memory for repetition in peaks) / 2**20:,.0f}"
