"""Wrong labels: how many flipped ones `train.py --folds` lists, and how many it lists beside them.

python -m benchmarks.flipped DATA OUT [--rows N] [--seed S]

Flips 5% of the labels of N rows of a file, each to another class at random, and cross-validates a
logistic regression on frozen all-MiniLM-L6-v2. OUT is a new folder for the file and the run. A
listed label that was wrong before counts as a mistake of the list.
"""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.figures import markdown
from minibert.commands import train
from minibert.commands.arguments import parse_train
from minibert.commands.folds import ISSUES
from minibert.commands.parser import Parser
from minibert.commands.process import run_command
from minibert.data.examples import load_examples
from minibert.data.readers import read_rows
from minibert.files import write_text
from minibert.runs import OUT_OF_FOLD

FLIPPED = 0.05
RECIPE = ("--model", "all-MiniLM-L6-v2", "--head", "logistic", "--folds", "5", "--no-baseline")


def main(argv: Sequence[str]) -> None:
    """Flip labels, list the wrong ones, print how many of them are flipped."""
    parser = Parser(prog="benchmarks.flipped", description=__doc__)
    parser.add_argument("data", type=Path, help="a labelled file with one class per text")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--rows", type=int, default=10_000, metavar="N", help="(default: 10000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(default: 0)")
    flags = parser.parse_args(argv)
    flags.out.mkdir(parents=True)
    file, run = flags.out / "flipped.csv", flags.out / "run"
    flipped = flip(flags.data, file, rows=flags.rows, seed=flags.seed)
    train.main(parse_train([*RECIPE, "--data", str(file), "--out", str(run)]))
    print(table(flipped & set(lines_of(run / OUT_OF_FOLD)), lines_of(run / ISSUES)))


def flip(data: Path, file: Path, *, rows: int, seed: int) -> set[int]:
    """Write rows of the data with some labels flipped; return the lines of these."""
    random = np.random.default_rng(seed)
    examples = load_examples([data])
    examples = examples.take(random.permutation(len(examples))[:rows].tolist(), str(data))
    classes = sorted(set(examples.labels))
    chosen = random.choice(len(examples), size=round(FLIPPED * len(examples)), replace=False)
    for row in chosen.tolist():
        others = [name for name in classes if name != examples.labels[row]]
        examples.labels[row] = str(random.choice(others))
    text = io.StringIO()
    lines = [" ".join(x.split()) for x in examples.texts]  # a row is a line
    csv.writer(text).writerows([("text", "label"), *zip(lines, examples.labels, strict=True)])
    write_text(file, text.getvalue())
    return {row + 2 for row in chosen.tolist()}


def lines_of(file: Path) -> list[int]:
    """Return the line of the data that each row of a file is about."""
    return [int(str(row.fields["line"])) for row in read_rows(file)]


def table(flipped: set[int], listed: Sequence[int]) -> str:
    """Return precision and recall of the first k listed lines, and of all, as Markdown."""
    header = ("listed", "flipped among them", "precision", "recall of the flipped")
    sizes = [k for k in (50, 100, 200, len(flipped)) if k < len(listed)] + [len(listed)]
    rows = []
    for size in sorted(sizes):
        hits = len(flipped & set(listed[:size]))
        shown = (f"{100 * hits / size:.1f}%", f"{100 * hits / len(flipped):.1f}%")
        rows.append((f"{size:,}", f"{hits:,}", *shown))
    return f"{len(flipped):,} labels are flipped\n{markdown(header, rows)}"


if __name__ == "__main__":
    sys.exit(run_command(main))
