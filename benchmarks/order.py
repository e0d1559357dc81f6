"""Batches of texts of similar length beside random batches: padding, seconds, accuracy.

python -m benchmarks.order DATA [--seeds N]

DATA has the folders sst2, banking77 and sms_spam. A seed draws the training rows, the head, the
batches and dropout. In SMS spam the length predicts the label: spam is longer.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from minibert.commands.parser import Parser
from minibert.commands.process import run_command
from minibert.data import batches
from minibert.data.batches import Dataset, training_order
from minibert.data.classes import output_names
from minibert.data.examples import Examples, load_examples
from minibert.device import choose_compute
from minibert.inference.batched import prepare_for_inference
from minibert.inference.text_classifier import TextClassifier
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions

FILES = {
    "sst2": ("train.tsv", "test.tsv"),
    "banking77": ("train.csv", "test.csv"),
    "sms_spam": ("sms.tsv", None),  # the rows that the seed does not draw are the test rows
}
MODEL, ROWS, TESTS, EPOCHS = "all-MiniLM-L6-v2", 1000, 1500, 3
# With a noise of that many batches a row's length does not matter.
NOISE = {"similar lengths": batches.NOISE_BATCHES, "random": ROWS}


@dataclass(frozen=True)
class Measured:
    """One training."""

    padding: float  # padded tokens of all tokens
    seconds: float  # of an epoch, the first left out
    accuracy: float  # in percent, of the test texts


def main(argv: Sequence[str]) -> None:
    """Train with both orders in turn, and print the table."""
    parser = Parser(prog="benchmarks.order", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="(default: 5)")
    flags = parser.parse_args(argv)
    print("| data | batches | padding | seconds an epoch | accuracy | difference |")
    print("|---|---|---|---|---|---|")
    for name, files in FILES.items():
        measured: dict[str, list[Measured]] = {order: [] for order in NOISE}
        for seed in range(flags.seeds):
            train, test, classes = read(flags.data / name, *files, seed=seed)
            for order, noise in NOISE.items():
                with mock.patch.object(batches, "NOISE_BATCHES", noise):
                    measured[order].append(measure(train, test, classes, seed=seed))
                print(name, order, seed, measured[order][-1], file=sys.stderr, flush=True)
        for order, runs in measured.items():
            print(table_row(name, order, runs, measured["random"]), flush=True)


def read(
    folder: Path, train: str, test: str | None, *, seed: int
) -> tuple[Examples, Examples, tuple[str, ...]]:
    """Return ROWS training examples that the seed draws, up to TESTS test examples, the classes."""
    examples = load_examples([folder / train])
    rows = np.random.default_rng(seed).permutation(len(examples))
    unseen, others = examples, rows[ROWS:]
    if test is not None:
        unseen = load_examples([folder / test])
        others = np.random.default_rng(0).permutation(len(unseen))
    drawn = examples.take(rows[:ROWS].tolist(), "train")
    return drawn, unseen.take(others[:TESTS].tolist(), "test"), output_names(examples)


def measure(train: Examples, test: Examples, classes: tuple[str, ...], *, seed: int) -> Measured:
    """Train, and score the last epoch on the test texts."""
    compute = choose_compute("cpu")
    torch.manual_seed(seed)
    classifier = TextClassifier.pretrained(MODEL, classes, pooling="mean")
    texts = classifier.dataset(train.texts, train.labels)
    few = classifier.dataset(train.texts[:4], train.labels[:4])  # validation: chooses nothing
    options = TrainingOptions(epochs=EPOCHS, encoder_lr=1e-4, head_lr=1e-3, seed=seed)
    result = fit(classifier.model, texts, few, options, compute=compute, keep_best=False)
    model = prepare_for_inference(classifier.model, compute)
    unseen = classifier.dataset(test.texts, test.labels)
    scores = classifier.task.score(model.logits(unseen, batch_size=32), unseen.labels)
    seconds = statistics.median(record.seconds for record in result.history[1:])
    return Measured(padding(texts, options), seconds, 100 * scores.figure("accuracy"))


def padding(texts: Dataset, options: TrainingOptions) -> float:
    """Return the padded tokens of all tokens in the batches of the first epoch."""
    order = training_order(texts.lengths, options.batch_size, seed=options.seed, epoch=0)
    tokens = sum(len(rows) * int(texts.lengths[rows].max()) for rows in order)
    return 1 - int(texts.lengths.sum()) / tokens


def table_row(name: str, order: str, runs: Sequence[Measured], random: Sequence[Measured]) -> str:
    """Return medians of padding and seconds, means of the accuracy and of its difference."""
    cells = [name, order, f"{statistics.median(100 * run.padding for run in runs):.1f}%"]
    cells.append(f"{statistics.median(run.seconds for run in runs):.2f}")
    cells.append(mean_and_deviation([run.accuracy for run in runs]))
    pairs = zip(runs, random, strict=True)
    differences = [run.accuracy - other.accuracy for run, other in pairs]
    cells.append("" if runs is random else mean_and_deviation(differences))
    return f"| {' | '.join(cells)} |"


def mean_and_deviation(values: Sequence[float]) -> str:
    """Return the mean and the standard deviation as a table shows them."""
    deviation = f" (sd {statistics.stdev(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    sys.exit(run_command(main))
