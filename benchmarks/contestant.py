"""A contestant's process: prepares itself, then does one repetition for each line that it reads.

python -m benchmarks.contestant TASK.json; a line is a number of texts, the answer to it is JSON.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.task import Repetition, Task, answer_all, answer_each, peak_memory


def prepare(task: Task) -> Callable[[int], Repetition]:
    """Load a peer and return what does one repetition over the first texts of the task."""
    peer = importlib.import_module(f"benchmarks.{task.peer}")
    if task.part in ("answering", "latency"):
        answer = peer.answerer(task)
        measure = answer_all if task.part == "answering" else answer_each
        return lambda count: measure(answer, task.texts[:count])
    return getattr(peer, task.part)(task)


def main(argv: Sequence[str]) -> None:
    """Serve until standard input ends."""
    # Libraries print too; what they print goes to standard error.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    task = Task(**json.loads(Path(argv[0]).read_text(encoding="utf-8")))
    repeat = prepare(task)
    first = True
    for line in sys.stdin:
        repetition = repeat(int(line))
        repetition.memory = repetition.memory or peak_memory()
        if not first:
            repetition.answers = []
        first = False
        print(json.dumps(asdict(repetition)), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
