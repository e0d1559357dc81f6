"""Where a classifier of single labels is wrong: surest errors, confused classes, text lengths."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from minibert.errors import printable
from minibert.evaluation.intervals import in_percent, show_figures, wilson_interval

SUREST, PAIRS = 5, 5  # errors, and pairs of classes, that a report shows
LENGTHS = (16, 32, 64, 128, 256, 512)  # tokens, the longest of each group


@dataclass(frozen=True)
class Outcome:
    """A text, its label, and what was predicted."""

    text: str
    pair: str | None
    label: str
    prediction: str
    probability: float  # of the prediction
    tokens: int  # before a cut, special tokens included
    cut: bool  # whether the model did not read all of them

    @property
    def right(self) -> bool:
        """Whether the prediction is the label."""
        return self.label == self.prediction

    def __str__(self) -> str:
        text = self.text if self.pair is None else f"{self.text} / {self.pair}"
        classes = f"{printable(self.label, 30)} -> {printable(self.prediction, 30)}"
        return f"{100 * self.probability:5.1f}%  {classes}: {printable(text, 100)}"


def surest_errors(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the wrong predictions, the most probable first."""
    wrong = [outcome for outcome in outcomes if not outcome.right]
    return sorted(wrong, key=lambda outcome: (-outcome.probability, outcome.text))


def report_mistakes(outcomes: Sequence[Outcome]) -> str:
    """Return at most 24 lines: the surest errors, examples of common ones, accuracy by length."""
    lines = []
    if errors := surest_errors(outcomes):
        lines += ["surest errors (probability, true -> predicted, text):"]
        lines += map(str, errors[:SUREST])
        pairs = Counter((error.label, error.prediction) for error in errors)
        examples = {(error.label, error.prediction): error for error in reversed(errors[SUREST:])}
        common = [(examples[pair], n) for pair, n in pairs.most_common(PAIRS) if pair in examples]
        if common:
            lines += [
                "",
                "examples of the commonest mistakes (texts, probability, true -> predicted, text):",
            ]
            lines += [f"{count:6,d}  {example}" for example, count in common]
        lines += [""]
    groups = group_by_length(outcomes)
    if len(groups) > 1:
        lines += ["accuracy by length:"]
        for name, group in groups.items():
            right = sum(outcome.right for outcome in group)
            interval = wilson_interval(right, len(group))
            figure = show_figures(in_percent("accuracy", right / len(group), interval))
            lines += [f"{name:>20}: {figure}, {len(group):,} texts"]
        lines += [""]
    return "\n".join(lines)


def group_by_length(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Return the texts by their number of tokens; those that were cut are one group."""
    groups: dict[str, list[Outcome]] = {}
    for low, high in zip((0, *LENGTHS), (*LENGTHS, None), strict=True):
        name = f"over {low} tokens" if high is None else f"{low + 1} to {high} tokens"
        inside = [x for x in outcomes if low < x.tokens and (high is None or x.tokens <= high)]
        groups[name] = [x for x in inside if not x.cut]
    groups["cut"] = [x for x in outcomes if x.cut]
    return {name: group for name, group in groups.items() if group}
