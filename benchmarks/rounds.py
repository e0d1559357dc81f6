"""Contestants taken in turn, A B C A B C: what slows the machine for a while slows all of them.

Each is a process that lives through all rounds; one that waits costs nothing.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.task import ROOT, Repetition, Task
from minibert.errors import printable

# File of this folder -> the packages that it needs besides minibert's own.
PACKAGES = {
    "tutorial": ("transformers",),
    "trainer": ("transformers", "accelerate"),
    "pipelines": ("transformers",),
    "onnx_runtime": ("transformers", "onnx", "onnxruntime"),
    "open_vino": ("transformers", "onnx", "openvino"),
}


class ContestantError(Exception):
    """A contestant's process ended; the message is the last line it left."""


@dataclass(frozen=True)
class Entry:
    """A contestant, and the texts it takes to warm up and in each repetition."""

    name: str
    task: Task
    warm_up: int
    texts: int


@dataclass
class Outcome:
    """A contestant's repetitions and first answers, or why it has none."""

    entry: Entry
    repetitions: list[Repetition] = field(default_factory=list)
    answers: list[list[float]] = field(default_factory=list)
    skipped: str = ""
    failed: str = ""

    @property
    def runs(self) -> bool:
        """Say whether it still takes part."""
        return not self.skipped and not self.failed


class Process:
    """One contestant's process; its two files stand in `folder` under `name`."""

    def __init__(self, task: Task, folder: Path, name: str) -> None:
        file, self.log = folder / f"{name}.json", folder / f"{name}.log"
        file.write_text(json.dumps(asdict(task)), encoding="utf-8")
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(threads, str(task.threads))}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.contestant", str(file)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def repeat(self, texts: int) -> Repetition:
        """Have one repetition done; raises ContestantError where the process is gone."""
        assert self.child.stdin and self.child.stdout
        try:
            print(texts, file=self.child.stdin, flush=True)
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self.child.wait()
            written = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line for line in reversed(written) if line.strip()), "")
            raise ContestantError(printable(last.strip()) or f"exit status {status}")
        return Repetition(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        self.child.kill()
        self.child.communicate()


def race(entries: Sequence[Entry], *, repeats: int, folder: Path) -> list[Outcome]:
    """Warm all contestants up, one after the other, then take them in turn `repeats` times."""
    outcomes = [Outcome(entry, skipped=missing(entry.task.peer)) for entry in entries]
    processes: dict[str, Process] = {}
    try:
        for number in range(repeats + 1):
            turns = list(enumerate(outcomes))
            first = number % len(turns)  # nobody always comes after the same other
            for index, outcome in turns[first:] + turns[:first]:
                if outcome.runs:
                    entry = outcome.entry
                    if entry.name not in processes:
                        processes[entry.name] = Process(
                            entry.task, folder, f"{entry.task.part}-{index}"
                        )
                    take_turn(outcome, processes[entry.name], warm_up=number == 0)
    finally:
        for process in processes.values():
            process.close()
    return outcomes


def take_turn(outcome: Outcome, process: Process, *, warm_up: bool) -> None:
    """Do one repetition of one contestant, or note that it failed."""
    entry = outcome.entry
    what = "warm-up" if warm_up else f"round {len(outcome.repetitions) + 1}"
    try:
        found = process.repeat(entry.warm_up if warm_up else entry.texts)
    except ContestantError as error:
        outcome.failed = str(error)
        print(f"{entry.task.part}, {what}: {entry.name} failed: {error}", file=sys.stderr)
        return
    if warm_up:
        outcome.answers = found.answers
    else:
        outcome.repetitions.append(found)
    print(
        f"{entry.task.part}, {what}: {entry.name}: {found.texts:,} texts in {found.seconds:.2f} s",
        file=sys.stderr,
    )


def missing(peer: str) -> str:
    """Say which packages a peer lacks here and what installs them; nothing where all are here."""
    lacking = [name for name in PACKAGES.get(peer, ()) if not importlib.util.find_spec(name)]
    if not lacking:
        return ""
    return f'needs {", ".join(lacking)}: pip install -e ".[bench]"'
