"""How far a run's int8 answers are from fp32, and from themselves with other neighbours.

python -m benchmarks.rounding --model RUN --data FILE [--texts N]; one Markdown table
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import minibert
from benchmarks.figures import markdown
from minibert.commands.process import run_command
from minibert.data.examples import load_examples

BATCH_SIZES = (7, 32, 64, 100)  # one for each order of the texts


def main(argv: Sequence[str]) -> None:
    """Print the largest and mean difference of a probability, and how many labels differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE")
    parser.add_argument("--texts", type=int, default=500, metavar="N", help="(default: 500)")
    flags = parser.parse_args(argv)
    texts = load_examples([flags.data]).texts[: flags.texts]
    header = ["int8 beside", "largest difference", "mean", f"labels of {len(texts)} changed"]
    print(markdown(header, rows(flags.model, texts)))


def rows(model: str, texts: list[str]) -> list[list[str]]:
    """Return the table's rows."""
    int8 = minibert.load(model, device="cpu", precision="int8").predict_proba(texts)
    fp32 = minibert.load(model, device="cpu", precision="fp32").predict_proba(texts)
    one = minibert.load(model, device="cpu", precision="int8", batch_size=1)
    found = [
        ["fp32", *difference(int8, fp32)],
        [
            "each text alone",
            *difference(int8, np.concatenate([one.predict_proba(t) for t in texts])),
        ],
    ]
    for seed, size in enumerate(BATCH_SIZES):
        order = np.random.default_rng(seed).permutation(len(texts))
        predictor = minibert.load(model, device="cpu", precision="int8", batch_size=size)
        shuffled = np.empty_like(int8)
        shuffled[order] = predictor.predict_proba([texts[row] for row in order])
        found.append([f"another order, batches of {size}", *difference(int8, shuffled)])
    return found


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[str, str, str]:
    """Return the largest and the mean difference of a probability, and the labels that differ."""
    distance = np.abs(ours - theirs)
    changed = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    return f"{distance.max():.2g}", f"{distance.mean():.2g}", str(changed)


if __name__ == "__main__":
    sys.exit(run_command(main))
