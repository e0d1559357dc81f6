"""A rare class: what class weights and a tuned threshold do to F1, recall and calibration.

python -m benchmarks.imbalance DATA CELLS.jsonl [--threads N]

DATA has the folders sms_spam and sst2. SMS spam is split 40:30:30. SST-2 is cut to 5%
positive texts: 2,000 phrases for training, and the negative sentences of its other two files with
as few positive ones. A seed draws the phrases, the split of SMS spam, the head and the batches.
Cells that CELLS.jsonl has are not measured again.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minibert.commands.parser import Parser
from minibert.commands.process import run_command
from minibert.data.examples import Examples, load_examples
from minibert.data.splits import split_examples
from minibert.device import choose_compute
from minibert.evaluation.metrics import score
from minibert.evaluation.probabilities import score_probabilities
from minibert.evaluation.thresholds import tune_thresholds
from minibert.files import write_text
from minibert.inference.batched import prepare_for_inference
from minibert.inference.text_classifier import TextClassifier
from minibert.tasks.single_label import SingleLabel
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions

RARE = {"sms_spam": "spam", "sst2": "1"}
WEIGHTS = ("none", "sqrt", "balanced")
MODEL, SEEDS, TEXTS, RATE = "all-MiniLM-L6-v2", 5, 2000, 0.05
COLUMNS = {
    "macro_f1": "macro-F1",
    "recall": "recall",
    "precision": "precision",
    "error_before": "ECE before T",
    "error": "ECE",
    "loss_before": "log loss before T",
    "loss": "log loss",
    "tuned_macro_f1": "macro-F1, tuned threshold",
    "tuned_recall": "recall, tuned threshold",
}


@dataclass(frozen=True)
class Cell:
    """One training: the data, the class weights and the seed."""

    data: str
    weights: str
    seed: int


def main(argv: Sequence[str]) -> None:
    """Measure the cells that are not measured yet; print the table."""
    parser = Parser(prog="benchmarks.imbalance", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("cells", type=Path, help="file of the measured cells, JSON lines")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    flags = parser.parse_args(argv)
    torch.set_num_threads(flags.threads)
    measured = []
    if flags.cells.exists():
        measured = [json.loads(line) for line in flags.cells.read_text().splitlines()]
    done = {Cell(x["data"], x["weights"], x["seed"]) for x in measured}
    cells = [Cell(x, y, seed) for seed in range(SEEDS) for x in RARE for y in WEIGHTS]
    try:
        for cell in cells:
            if cell not in done:
                measured.append({**asdict(cell), **measure(cell, flags.data)})
                write_text(flags.cells, "".join(json.dumps(x) + "\n" for x in measured))
                print(measured[-1], file=sys.stderr, flush=True)
    finally:  # Ctrl-C shows what is measured
        print(table(measured))


def read(data: str, folder: Path, seed: int) -> list[Examples]:
    """Return the training, validation and test examples."""
    if data == "sms_spam":
        return split_examples(load_examples([folder / data / "sms.tsv"]), (40, 30, 30), seed=seed)
    files = [load_examples([folder / data / name]) for name in ("train.tsv", "dev.tsv", "test.tsv")]
    return [cut(files[0], TEXTS, seed=seed), *(cut(x, None, seed=0) for x in files[1:])]


def cut(examples: Examples, texts: int | None, *, seed: int) -> Examples:
    """Return so many examples, or all negative ones, of which RATE are positive."""
    positive = np.array(examples.labels) == "1"
    order = np.random.default_rng(seed).permutation(len(examples))
    negatives = order[~positive[order]]
    if texts is not None:
        negatives = negatives[: round((1 - RATE) * texts)]
    positives = order[positive[order]][: round(len(negatives) * RATE / (1 - RATE))]
    return examples.take([*negatives.tolist(), *positives.tolist()], examples.source)


def measure(cell: Cell, folder: Path) -> dict[str, float]:
    """Train one epoch; score the test texts."""
    splits = read(cell.data, folder, cell.seed)
    compute = choose_compute("cpu")
    torch.manual_seed(cell.seed)
    names = sorted(set(splits[0].labels))
    classifier = TextClassifier.pretrained(MODEL, names, pooling="mean")
    train, validation, test = (classifier.dataset(x.texts, x.labels) for x in splits)
    options = TrainingOptions(
        epochs=1, encoder_lr=1e-4, head_lr=1e-3, class_weights=cell.weights, seed=cell.seed
    )
    fit(classifier.model, train, validation, options, compute=compute, keep_best=False)
    classifier.calibrate(validation, compute=compute)
    model, task = prepare_for_inference(classifier.model, compute), classifier.task
    assert isinstance(task, SingleLabel)
    logits = {x: model.logits(x, batch_size=32) for x in (validation, test)}
    rare = names.index(RARE[cell.data])
    at_half = figures(logits[test].argmax(dim=1) == rare, test.labels == rare)
    probabilities = {x: task.probabilities(y.double())[:, [rare]] for x, y in logits.items()}
    truth = (validation.labels == rare).float()[:, None]
    (threshold,) = tune_thresholds(probabilities[validation], truth)
    tuned = figures(probabilities[test][:, 0] >= threshold, test.labels == rare)
    scores = score_probabilities(logits[test], test.labels, temperature=task.head.temperature)
    return {
        **at_half,
        "error_before": scores.before.expected_calibration_error,
        "error": scores.after.expected_calibration_error,
        "loss_before": scores.before.log_loss,
        "loss": scores.after.log_loss,
        **{f"tuned_{name}": x for name, x in tuned.items()},
    }


def figures(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Return macro-F1, and recall and precision of the rare class, of booleans (N,)."""
    logits = torch.stack([~predicted, predicted], dim=1).float()
    scores = score(logits, truth.long())
    rare = scores.per_class["1"]
    return {
        "macro_f1": scores.macro_f1,
        "recall": rare["recall"],
        "precision": rare["precision"],
    }


def table(measured: Sequence[dict]) -> str:
    """Return mean and standard deviation over the seeds, as Markdown."""
    lines = [f"| data | weights | {' | '.join(COLUMNS.values())} |"]
    lines += ["|---" * (2 + len(COLUMNS)) + "|"]
    for data, weights in {(x["data"], x["weights"]): None for x in measured}:
        here = [x for x in measured if (x["data"], x["weights"]) == (data, weights)]
        cells = [summary(name, [x[name] for x in here]) for name in COLUMNS]
        lines.append(f"| {data} | {weights} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(name: str, values: Sequence[float]) -> str:
    """Return the mean and the standard deviation; all but the log loss in percent."""
    factor, style = (1, ".3f") if name.startswith("loss") else (100, ".1f")
    mean = format(factor * statistics.mean(values), style)
    if len(values) == 1:
        return f"{mean} (1 seed)"
    return f"{mean} (sd {format(factor * statistics.stdev(values), style)})"


if __name__ == "__main__":
    sys.exit(run_command(main))
