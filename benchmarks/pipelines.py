"""transformers' pipeline() in the race: as people start it, and at its best."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.task import Answerer, Repetition, Task, run_whole

SCRIPT = """import sys
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1], device=sys.argv[2])(sys.argv[3]))
"""


def answerer(task: Task) -> Answerer:
    """Return the answering of texts with probabilities, in input order."""
    import torch
    from transformers import pipeline

    options: dict[str, Any] = {}
    if task.tuned:
        options = {"dtype": torch.bfloat16, "batch_size": task.batch}
    pipe: Any = pipeline("text-classification", model=task.folder, device=task.device, **options)
    config = pipe.model.config
    names = [config.id2label[number] for number in range(config.num_labels)]

    def answer(texts: Sequence[str]) -> list[list[float]]:
        scores = [
            {entry["label"]: entry["score"] for entry in entries}
            for entries in pipe(list(texts), top_k=None)
        ]
        return [[row[name] for name in names] for row in scores]

    return predict_batches(answer) if task.tuned else answer


def predict_batches(answer: Answerer) -> Answerer:
    """Wrap an answering: the texts sorted by their characters, the answers put back."""

    def sorted_answer(texts: Sequence[str]) -> list[Any]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
        found = dict(zip(order, answer([texts[i] for i in order]), strict=True))
        return [found[i] for i in range(len(texts))]

    return sorted_answer


def start(task: Task) -> Callable[[int], Repetition]:
    """Run a script of three lines on one text."""
    command = [sys.executable, "-c", SCRIPT, task.folder, task.device]
    return lambda count: run_whole([*command, task.texts[0]])
