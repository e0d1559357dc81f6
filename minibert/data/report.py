"""The data report: what is in the splits, and what to look at before training."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from minibert.data.columns import Columns
from minibert.data.duplicates import Duplicates
from minibert.data.minhash import SIMILAR
from minibert.data.token_report import TokenReport
from minibert.errors import printable

SHORT = 3  # characters without spaces and punctuation; texts with fewer are counted
FEW = 10  # training rows; classes with fewer are named
SHOWN = 3  # rows that are printed of each finding
EQUAL = "(up to case, spaces and punctuation)"
NEAR = f"(similarity {SIMILAR} or more)"


@dataclass(frozen=True)
class Finding:
    """Rows to look at: how many, and the first of them, each with its place."""

    count: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class SplitReport:
    """What is in one split. Its leaks are the rows whose text the training split has too.

    None was not searched for: the leaks of the training split, and near ones in a short report.
    """

    source: str
    rows: int
    classes: dict[str, int]  # the rows of each class, the most frequent first; none in a regression
    without_class: int  # rows of several labels that have none
    numbers: tuple[tuple[float, float, float], ...]  # lowest, highest and mean, in a regression
    absent_classes: tuple[str, ...]  # that another split has
    bad: Finding  # rows that cannot be used
    bad_kinds: dict[str, int]
    short: Finding
    wrong_encoding: Finding
    duplicates: Duplicates
    near_duplicates: Duplicates | None
    leaks: Duplicates | None
    near_leaks: Duplicates | None

    def lines(self, name: str) -> Iterator[str]:
        """Yield what a report prints, one fact per line."""
        full = self.near_duplicates is not None
        yield f"{name}: {self.rows:,} texts ({self._labels()}) from {printable(self.source)}"
        if self.bad.count:
            rows, kinds = f"{self.bad.count:,} bad rows", _counted(self.bad_kinds)
            yield f"  {f'{rows} need --bad-rows drop' if full else f'dropped {rows}'} ({kinds})"
            yield from _shown(self.bad.first)
        if self.absent_classes:
            yield f"  no text of {_names(self.absent_classes)}"
        if self.short.count and full:
            yield f"  under {SHORT} characters: {self.short.count:,}"
            yield from _shown(self.short.first)
        if self.wrong_encoding.count:
            yield f"  likely wrong encoding: {self.wrong_encoding.count:,}; see --encoding"
            yield from _shown(self.wrong_encoding.first)
        yield from _duplicates(self.duplicates, f"repeat an earlier text {EQUAL}")
        yield from _duplicates(self.near_duplicates, f"nearly repeat another text {NEAR}")
        yield from _duplicates(self.leaks, f"also in the training split {EQUAL}")
        if self.leaks and self.leaks.count:
            yield "    scores on them do not measure generalization; see --leaks"
        yield from _duplicates(self.near_leaks, f"nearly in the training split {NEAR}")

    def _labels(self) -> str:
        """Return the counts of the most frequent classes, or the range of the numbers."""
        if self.numbers:
            return "; ".join(f"{low:g} to {high:g}, mean {m:.4g}" for low, high, m in self.numbers)
        rest = f"{self.without_class:,} without a class" if self.without_class else ""
        return "; ".join(part for part in (_counted(self.classes), rest) if part)


@dataclass(frozen=True)
class DataReport:
    """What is in a data set, as `train.py --check-data` prints it.

    A run prints a short report before it trains; `validation_in_test` and `tokens` are then None.
    """

    columns: Columns
    possible_pair: str | None  # an unused column that may be a second text
    task: str
    task_reason: str
    splits: dict[str, SplitReport]
    leaks_dropped: int  # training texts that --leaks drop has dropped
    validation_in_test: Duplicates | None
    similar_classes: tuple[str, ...]  # that differ in case and spaces only
    small_classes: dict[str, int]  # classes with few training rows
    tokens: dict[str, TokenReport] | None

    def to_json(self) -> dict[str, Any]:
        """Return all findings, as JSON has them."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the report, one fact per line."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"columns: {self.columns}"
        if other := self.possible_pair:
            yield (
                f"  one text per row; for {printable(other, 40)!r} as second text give "
                f"--text-column {_quoted(self.columns.text)} --pair-column {_quoted(other)}"
            )
        if self.task_reason:
            yield f"task: {self.task} ({self.task_reason})"
        if self.similar_classes:
            yield (
                "  labels that differ only in case or spaces are separate classes: "
                f"{_names(self.similar_classes)}; write them alike if they are one class"
            )
        if self.small_classes:
            yield f"  classes with under {FEW} training texts: {_counted(self.small_classes)}"
        for name, split in self.splits.items():
            yield from split.lines(name)
            if name == "train" and self.leaks_dropped:
                yield f"  dropped {self.leaks_dropped:,} texts of another split (--leaks drop)"
            if name == "test":
                yield from _duplicates(
                    self.validation_in_test, f"also in the validation split {EQUAL}"
                )
        if "test" not in self.splits:
            yield "test: none; give --test (with a validation file, no test split is split off)"
        for name, tokens in (self.tokens or {}).items():
            yield from tokens.lines(name)


def _duplicates(found: Duplicates | None, what: str) -> Iterator[str]:
    """Yield the lines of repeated texts; those with two labels are shown first."""
    if found is None or not found.count:
        return
    parts = {"exactly": found.identical, "with another label": found.contradicting}
    of_them = ", ".join(f"{count:,} {part}" for part, count in parts.items() if count)
    yield f"  {what}: {found.count:,}{f' ({of_them})' if of_them else ''}"
    yield from _shown(dict.fromkeys(map(str, (*found.first_contradicting, *found.first))))


def _shown(places: Iterable[str]) -> Iterator[str]:
    for place in list(places)[:SHOWN]:
        yield f"    {printable(place, 300)}"


def _counted(counts: dict[str, int], most: int = 8) -> str:
    """Return the first names with their counts; of many, how many there are, and the last one."""
    listed = [f"{printable(name, 60)} {count:,}" for name, count in counts.items()]
    if len(listed) <= most:
        return ", ".join(listed)
    return f"{', '.join(listed[:most])}, ...; {len(listed):,} in all, the last {listed[-1]}"


def _names(names: Iterable[str]) -> str:
    listed = [printable(name, 40) for name in names]
    return ", ".join(listed[:10]) + (f", ... ({len(listed):,} in all)" if listed[10:] else "")


def _quoted(name: str) -> str:
    """Return a column's name as a shell reads it."""
    return shlex.quote(printable(name, 40))
