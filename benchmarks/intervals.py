"""What the intervals of the final figures cost: python -m benchmarks.intervals; one Markdown table.

Processor seconds of one thread, on random logits.
"""

import time

import torch

from benchmarks.figures import markdown
from minibert.model.config import HeadConfig
from minibert.tasks.choice import task_of

CASES = (
    *(("single-label", 872, 2), ("single-label", 1821, 2), ("single-label", 100_000, 100)),
    *(("multi-label", 2000, 20), ("multi-label", 100_000, 100)),
    *(("regression", 2000, 1), ("regression", 100_000, 1)),
)


def seconds(kind: str, texts: int, outputs: int) -> tuple[float, float]:
    """Return what the figures take without and with intervals; each text has some three labels."""
    names = tuple(map(str, range(outputs)))
    task = task_of(HeadConfig("linear", "cls", names, 8, kind))
    logits = torch.randn(texts, outputs, generator=torch.Generator().manual_seed(0))
    targets = logits + torch.randn(texts, outputs)
    if kind == "single-label":
        targets = targets.argmax(dim=1)
    elif kind == "multi-label":
        targets = (targets > targets.quantile(1 - 3 / outputs, dim=1, keepdim=True)).float()
    times = []
    for score in (task.score, task.score_with_intervals):
        start = time.process_time()
        score(logits, targets)
        times.append(time.process_time() - start)
    return times[0], times[1]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    seconds("single-label", 50, 2)  # imports scikit-learn and scipy
    rows = []
    for kind, texts, outputs in CASES:
        plain, complete = seconds(kind, texts, outputs)
        rows.append([kind, f"{texts:,} x {outputs}", f"{plain:.2f}", f"{complete - plain:.2f}"])
    print(markdown(["task", "texts x outputs", "figures, s", "their intervals, s"], rows))


if __name__ == "__main__":
    main()
