"""A contestant's process: prepares itself, then does one repetition for each line that it reads.

python -m benchmarks.contestant TASK.json; a line is a number of texts, the answer to it is JSON.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.task import Repetition, Task, answer_all, answer_each, peak_memory


def serve(task: Task, turns: Iterator[int], report: Callable[[Repetition], None]) -> None:
    """Load a peer; in each turn it does one repetition over the first texts of the task."""
    if task.tuned and task.device == "cuda":
        import torch

        # minibert.model.kernels.attention_kernels says why; minibert chooses for itself.
        torch.backends.cuda.enable_cudnn_sdp(False)
    peer = importlib.import_module(f"benchmarks.{task.peer}")
    if hasattr(peer, f"serve_{task.part}"):  # it has a loop of its own
        getattr(peer, f"serve_{task.part}")(task, turns, report)
        return
    if task.part in ("answering", "latency"):
        measure = answer_all if task.part == "answering" else answer_each
        answer = peer.answerer(task)

        def repeat(count: int) -> Repetition:
            return measure(answer, task.texts[:count])
    else:
        repeat = getattr(peer, task.part)(task)
    for count in turns:
        report(repeat(count))


def main(argv: Sequence[str]) -> None:
    """Serve until standard input ends."""
    # Libraries print too; what they print goes to standard error.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    task = Task(**json.loads(Path(argv[0]).read_text(encoding="utf-8")))
    first = True

    def report(repetition: Repetition) -> None:
        nonlocal first
        repetition.memory = repetition.memory or peak_memory(task.device)
        if not first:
            repetition.answers = []
        first = False
        print(json.dumps(asdict(repetition)), file=replies, flush=True)

    serve(task, (int(line) for line in sys.stdin), report)


if __name__ == "__main__":
    main(sys.argv[1:])
