"""Ten small faults: each breaks one thing and measures what moves. docs/broken.md has the table.

python -m benchmarks.broken DATA [--train N] [--test N] [--threads N]; DATA has the folder sst2. It
takes five minutes of one core.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.figures import markdown
from minibert.commands.parser import Parser
from minibert.commands.process import run_command
from minibert.data.batches import Dataset
from minibert.data.examples import Examples, load_examples
from minibert.device import choose_compute
from minibert.inference.text_classifier import TextClassifier
from minibert.model.classifier import Classifier
from minibert.training.loop import fit
from minibert.training.optimizer import parameter_groups
from minibert.training.options import TrainingOptions

BATCH = 32
RECIPE: dict[str, Any] = {"epochs": 2, "encoder_lr": 1e-4, "head_lr": 1e-3}


def main(argv: Sequence[str]) -> None:
    """Train the sound models, break copies of them, and print the table."""
    parser = Parser(prog="benchmarks.broken", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--train", type=int, default=1000, metavar="N", help="(default: 1000)")
    parser.add_argument("--test", type=int, default=400, metavar="N", help="(default: 400)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    flags = parser.parse_args(argv)
    torch.set_num_threads(flags.threads)
    train = first_rows(flags.data / "sst2" / "train.tsv", flags.train)
    test = first_rows(flags.data / "sst2" / "dev.tsv", flags.test)
    found = []
    for row in rows(train, test):
        print(" | ".join(row), file=sys.stderr, flush=True)
        found.append(row)
    print(markdown(["fault", "largest difference of a logit", "accuracy", "log loss"], found))


def first_rows(file: Path, count: int) -> Examples:
    """Return the first rows of a file."""
    examples = load_examples([file])
    examples.texts, examples.labels = examples.texts[:count], examples.labels[:count]
    return examples


def rows(train: Examples, test: Examples) -> Iterator[list[str]]:
    """Yield the table's rows: sound models, and what is broken in each."""
    sound, data = trained(train, test)
    expected, labels = logits_of(sound, data), data.labels
    yield ["none", *figures(expected, expected, labels)]
    for name, spoil in IN_INFERENCE.items():
        broken = copy.deepcopy(sound)
        spoil(broken)
        yield [name, *figures(logits_of(broken, data), expected, labels)]
    yield [
        "the last batch counted as a full one",
        "0",
        "",
        f"{mean_of_means(expected, labels):.4f}",
    ]
    for name, (context, before, options) in IN_TRAINING.items():
        with context():
            broken, _ = trained(train, test, before=before, **options)
        yield [name, *figures(logits_of(broken, data), expected, labels)]
    pooled, data = trained(train, test, pooling="pooler")
    expected = logits_of(pooled, data)
    yield ["none, with BERT's pooler", *figures(expected, expected, labels)]
    pooled.pooling = "cls"
    yield ["pooler left out", *figures(logits_of(pooled, data), expected, labels)]


def trained(
    train: Examples,
    test: Examples,
    *,
    pooling: str = "mean",
    before: Callable[[Classifier], object] = lambda model: None,
    **options: Any,
) -> tuple[Classifier, Dataset]:
    """Return a trained model, and the test texts; `before` spoils the model before training."""
    torch.manual_seed(options.get("seed", 0))
    classes = ["negative", "positive"]
    classifier = TextClassifier.pretrained("all-MiniLM-L6-v2", classes, pooling=pooling)
    before(classifier.model)
    train_data, test_data = (
        classifier.dataset(x.texts, [int(str(label)) for label in x.labels]) for x in (train, test)
    )
    few = classifier.dataset(["good", "bad"], ["positive", "negative"])  # `fit` needs some
    choice = TrainingOptions(**{**RECIPE, **options})
    compute = choose_compute("cpu", "fp32")
    fit(classifier.model, train_data, few, choice, compute=compute, keep_best=False)
    return classifier.model.eval(), test_data


@torch.no_grad()
def logits_of(model: Classifier, data: Dataset) -> Tensor:
    """Return logits (N, C) by batches in the file's order, so that most texts are padded."""
    torch.manual_seed(0)
    starts = range(0, len(data), BATCH)
    batches = [range(start, min(start + BATCH, len(data))) for start in starts]
    return torch.cat([model(*data.batch(list(batch)).inputs) for batch in batches])


def figures(logits: Tensor, expected: Tensor, labels: Tensor) -> list[str]:
    """Return the table's figures of a model beside those of the sound one."""
    difference = float((logits - expected).abs().max())
    accuracy = float((logits.argmax(dim=1) == labels).float().mean())
    loss = float(F.cross_entropy(logits, labels))
    return [f"{difference:.2g}", f"{100 * accuracy:.1f}", f"{loss:.4f}"]


def mean_of_means(logits: Tensor, labels: Tensor) -> float:
    """Return the mean of the batches' mean losses, of which the last has fewer texts."""
    batches = zip(logits.split(BATCH), labels.split(BATCH), strict=True)
    losses = [float(F.cross_entropy(*batch)) for batch in batches]
    return sum(losses) / len(losses)


def forget_mask(model: Classifier) -> None:
    """Let attention see the padding. The mean still leaves it out."""
    forward = model.encoder.forward
    model.encoder.forward = lambda ids, mask, types, **o: forward(ids, None, types, **o)  # type: ignore[method-assign]


def approximate_gelu(model: Classifier) -> None:
    """Use GELU's approximation with tanh, as GPT-2 does."""
    for module in model.encoder.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def swap_segments(model: Classifier) -> None:
    """Give all tokens segment B in place of A."""
    forward = model.encoder.forward
    model.encoder.forward = lambda ids, mask, types, **o: forward(  # type: ignore[method-assign]
        ids, mask, torch.ones_like(ids), **o
    )


def count_padding(model: Classifier) -> None:
    """Take the mean over all tokens of the padded batch."""
    model.features = lambda *inputs: model.encoder(*inputs).mean(dim=1)  # type: ignore[method-assign]


def lose_norms(model: Classifier) -> None:
    """Leave every norm of the encoder at 1 and 0, as a loader that does not know its names."""
    for module in model.encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()


def decay_vectors() -> AbstractContextManager:
    """Decay biases and norms too."""

    def groups(*modules: nn.Module, **rates: float) -> list[dict]:
        found = parameter_groups(*modules, **rates)  # type: ignore[arg-type]
        return [{**group, "weight_decay": rates["weight_decay"]} for group in found]

    return patch("minibert.training.optimizer.parameter_groups", groups)


IN_INFERENCE: dict[str, Callable[[Classifier], object]] = {
    "mask forgotten in attention": forget_mask,
    "GELU with tanh": approximate_gelu,
    "segments swapped": swap_segments,
    "padding counted in the mean": count_padding,
    "dropout on in evaluation": nn.Module.train,
}
Before = Callable[[Classifier], object]
IN_TRAINING: dict[str, tuple[Callable[[], AbstractContextManager], Before, dict[str, Any]]] = {
    "gamma and beta not renamed: norms lost": (nullcontext, lose_norms, {}),
    "decay on norms and biases": (decay_vectors, lambda model: None, {}),
    "rate not warmed up": (nullcontext, lambda model: None, {"warmup": 0.0}),
    "none, another seed": (nullcontext, lambda model: None, {"seed": 1}),
}

if __name__ == "__main__":
    sys.exit(run_command(main))
