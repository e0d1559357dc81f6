"""What metrics.json has about the texts: their classes, their lengths, accuracy by length."""

from typing import Any

from torch import Tensor

from minibert.data.datasets import TokenizedSplits, count_lengths
from minibert.data.long_texts import TokenizedTexts
from minibert.data.report import DataReport
from minibert.evaluation.outcomes import accuracy_by_length
from minibert.tasks.single_label import SingleLabel
from minibert.tasks.task import Task

BARS = 40  # of the histogram of lengths


def data_figures(report: DataReport, tokenized: TokenizedSplits) -> dict[str, Any]:
    """Return the texts, classes and tokens of each split.

    Texts of tokens 1 to `width`, `width` + 1 to 2 x `width`, ... are counted in `lengths`, before
    any is cut.
    """
    splits = {}
    for name, texts in tokenized.texts.items():
        width, counts = count_lengths(texts.lengths, bars=BARS)
        splits[name] = {
            "texts": len(texts.counts),
            "repeated_texts": report.splits[name].duplicates.count,
            "texts_in_train": leaks.count if (leaks := report.splits[name].leaks) else 0,
            "classes": report.splits[name].classes,
            "tokens": int(texts.lengths.sum()),
            "cut_texts": texts.cut,
            "lost_tokens": int(texts.lost.sum()),
            "lengths": {"width": width, "texts": counts.tolist()},
        }
    return {"max_length": tokenized.max_length, **splits}


def length_figures(
    task: Task, logits: Tensor, labels: Tensor, texts: TokenizedTexts
) -> dict[str, Any]:
    """Return the accuracy by length for metrics.json; nothing unless a text has one class."""
    if not isinstance(task, SingleLabel):
        return {}
    right = (task.decide(logits) == labels).numpy()
    return {"by_length": accuracy_by_length(texts.lengths, texts.lost > 0, right)}
