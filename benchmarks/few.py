"""Few labels: test accuracy of fine-tuning and of a logistic regression on frozen features.

python -m benchmarks.few DATA CELLS.jsonl [--threads N]

DATA has the folders sst2, ag_news and banking77. A seed draws the training rows of each class, the
head, the batches and the folds. Cells that CELLS.jsonl has are not measured again. Each of the
smallest takes a minute, of the largest half an hour.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from minibert.commands.parser import Parser
from minibert.commands.process import run_command
from minibert.data.classes import output_names
from minibert.data.examples import Examples, load_examples
from minibert.device import choose_compute
from minibert.files import write_text
from minibert.inference.batched import prepare_for_inference
from minibert.inference.text_classifier import TextClassifier
from minibert.training.history import TrainResult
from minibert.training.logistic import fit_logistic
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions

FILES = {
    "sst2": ("train.tsv", "test.tsv"),
    "ag_news": ("train.csv", "test.csv"),
    "banking77": ("train.csv", "test.csv"),
}
EPOCHS = {8: 20, 64: 10, 512: 5}  # of fine-tuning, by rows per class
BATCH = {8: 4, 64: 8, 512: 16}
MODEL, SEEDS, TESTS = "all-MiniLM-L6-v2", 3, 2000
METHODS = ("fine-tuned", "logistic")


@dataclass(frozen=True)
class Cell:
    """One training: the data, rows per class, the seed and the method."""

    data: str
    rows: int
    seed: int
    method: str


@dataclass(frozen=True)
class Measured(Cell):
    """What was measured."""

    texts: int
    loss: float  # of the training texts, in the last epoch
    accuracy: float  # of the test texts
    seconds: float  # of the processor, for training


def main(argv: Sequence[str]) -> None:
    """Measure the cells that are not measured yet, the quickest first; print the table."""
    parser = Parser(prog="benchmarks.few", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("cells", type=Path, help="file of the measured cells, JSON lines")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    flags = parser.parse_args(argv)
    torch.set_num_threads(flags.threads)
    measured = []
    if flags.cells.exists():
        measured = [Measured(**json.loads(x)) for x in flags.cells.read_text().splitlines()]
    done = {Cell(x.data, x.rows, x.seed, x.method) for x in measured}
    splits = {name: read(flags.data / name, *files) for name, files in FILES.items()}
    try:
        for cell in cells({name: train for name, (train, _) in splits.items()}):
            if cell not in done:
                measured.append(measure(cell, *splits[cell.data]))
                lines = (json.dumps(asdict(x)) + "\n" for x in measured)
                write_text(flags.cells, "".join(lines))
                print(measured[-1], file=sys.stderr, flush=True)
    finally:  # Ctrl-C shows what is measured
        print(table(measured))


def read(folder: Path, train: str, test: str) -> tuple[Examples, Examples]:
    """Return the training examples and at most TESTS test examples."""
    examples = load_examples([folder / test])
    rows = np.random.default_rng(0).permutation(len(examples))[:TESTS]
    return load_examples([folder / train]), examples.take(rows.tolist(), "test")


def cells(data: dict[str, Examples]) -> Iterator[Cell]:
    """Yield all cells, the quickest first."""
    sizes = [
        (epochs * len(draw(examples, rows, seed=0)), name, rows)
        for name, examples in data.items()
        for rows, epochs in EPOCHS.items()
    ]
    for _, name, rows in sorted(sizes):
        for seed in range(SEEDS):
            for method in reversed(METHODS):
                yield Cell(name, rows, seed, method)


def draw(examples: Examples, rows: int, *, seed: int) -> Examples:
    """Return at most so many examples of each class."""
    labels = np.array(examples.labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = [order[labels[order] == name][:rows] for name in np.unique(labels)]
    return examples.take(np.concatenate(chosen).tolist(), "train")


def measure(cell: Cell, train: Examples, test: Examples) -> Measured:
    """Train, and score the last epoch on the test texts."""
    chosen = draw(train, cell.rows, seed=cell.seed)
    compute = choose_compute("cpu")
    torch.manual_seed(cell.seed)
    head = "linear" if cell.method == "logistic" else "mlp"
    classifier = TextClassifier.pretrained(MODEL, output_names(train), head=head, pooling="mean")
    few = classifier.dataset(chosen.texts[:4], chosen.labels[:4])  # validation: chooses nothing
    started = time.process_time()
    texts = classifier.dataset(chosen.texts, chosen.labels)
    result: TrainResult
    if cell.method == "logistic":
        options = TrainingOptions(seed=cell.seed)
        result = fit_logistic(classifier.model, texts, few, options, compute=compute)
    else:
        options = TrainingOptions(
            epochs=EPOCHS[cell.rows],
            batch_size=BATCH[cell.rows],
            encoder_lr=1e-4,
            head_lr=1e-3,
            seed=cell.seed,
        )
        result = fit(classifier.model, texts, few, options, compute=compute, keep_best=False)
    seconds, loss = time.process_time() - started, result.history[-1].train_loss
    model = prepare_for_inference(classifier.model, compute)
    unseen = classifier.dataset(test.texts, test.labels)
    scores = classifier.task.score(model.logits(unseen, batch_size=32), unseen.labels)
    accuracy = scores.figure("accuracy")
    return Measured(**asdict(cell), texts=len(texts), loss=loss, accuracy=accuracy, seconds=seconds)


def table(measured: Sequence[Measured]) -> str:
    """Return mean and standard deviation of the accuracies, and mean seconds, as Markdown."""
    lines = [
        "| data | rows per class | texts | fine-tuned | its seconds | logistic | its seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    sizes = {(x.texts, x.data, x.rows) for x in measured}
    for texts, data, rows in sorted(sizes, key=lambda size: (size[1], size[2])):
        row = [data, str(rows), f"{texts:,}"]
        for method in METHODS:
            here = [x for x in measured if (x.data, x.rows, x.method) == (data, rows, method)]
            row += summary(here)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def summary(measured: Sequence[Measured]) -> tuple[str, str]:
    """Return accuracy in percent with its deviation, and seconds, of one method's seeds."""
    if not measured:
        return "", ""
    percents = [100 * x.accuracy for x in measured]
    seconds = f"{statistics.mean(x.seconds for x in measured):.1f}"
    if len(measured) == 1:
        return f"{percents[0]:.1f} (1 seed)", seconds
    mean, deviation = statistics.mean(percents), statistics.stdev(percents)
    seeds = "" if len(measured) == SEEDS else f", {len(measured)} seeds"
    return f"{mean:.1f} (sd {deviation:.1f}{seeds})", seconds


if __name__ == "__main__":
    sys.exit(run_command(main))
