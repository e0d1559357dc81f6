"""What the benchmark and its contestants' processes tell each other, and how these read the clock.

Nothing heavy is imported here: a contestant's memory is measured, and holds its own library only.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCH = 32  # unless --batch says otherwise
EPOCHS = 10  # with a frozen encoder
LONGEST = 128  # tokens; longer texts are left out of the work, so that nobody has to cut one

Answerer = Callable[[Sequence[str]], Iterable[Iterable[float]]]


@dataclass(frozen=True)
class Task:
    """All that a contestant's process must know; `peer` is a file of this folder."""

    part: str
    peer: str
    precision: str
    tuned: bool
    folder: str
    device: str
    threads: int
    texts: list[str]
    labels: list[int]
    corpus: list[str] = field(default_factory=list)  # the texts' whole data set, where it matters
    batch: int = BATCH


@dataclass
class Repetition:
    """The seconds of some texts; of each call where they came one by one; what was answered.

    A text that is read in ten epochs counts ten times; `memory` is the peak so far, in bytes.
    """

    seconds: float
    texts: int
    calls: list[float] = field(default_factory=list)
    answers: list[list[float]] = field(default_factory=list)
    memory: int = 0


def answer_all(answer: Answerer, texts: Sequence[str]) -> Repetition:
    """Answer all texts in one call."""
    started = time.perf_counter()
    answers = answer(texts)
    seconds = time.perf_counter() - started
    return Repetition(seconds, len(texts), answers=[[float(p) for p in row] for row in answers])


def answer_each(answer: Answerer, texts: Sequence[str]) -> Repetition:
    """Answer the texts one call each."""
    calls = []
    for text in texts:
        started = time.perf_counter()
        answer([text])
        calls.append(time.perf_counter() - started)
    return Repetition(sum(calls), len(texts), calls)


def run_whole(command: Sequence[str]) -> Repetition:
    """Run a program that answers one text, from its start to its end."""
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    seconds = time.perf_counter() - started
    return Repetition(seconds, 1, memory=_bytes(resource.getrusage(resource.RUSAGE_CHILDREN)))


def peak_memory(device: str) -> int:
    """Return the most bytes that this process had resident, or its tensors occupied on the GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    # On Linux getrusage starts from the peak of the process that this one was started by.
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    return _bytes(resource.getrusage(resource.RUSAGE_SELF))


def _bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
