"""Test accuracy with minibert's encoder and with transformers', on the same batches.

python -m benchmarks.accuracy --seeds 3 [options of train.py but --freeze]
"""

import copy
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minibert.checkpoint.load import load_classifier, read_encoder_config
from minibert.commands.options import Flags, RunSettings, add_options
from minibert.data.datasets import labelled, tokenize
from minibert.data.examples import class_names
from minibert.data.splits import Splits, read_splits
from minibert.data.tokenizer import TokenIds, Tokenizer
from minibert.device import choose_compute
from minibert.errors import InputError, run_command
from minibert.evaluation.metrics import score
from minibert.hub import find_model
from minibert.inference.predictor import predict_batches
from minibert.model.config import HeadConfig
from minibert.runs import RunFolder
from minibert.training.loop import fit


class TransformersEncoder(nn.Module):
    """transformers' encoder behind the call of minibert's."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(folder)

    @property
    def pooler(self) -> nn.Linear | None:
        """The pooler's weights, where minibert's encoder has them."""
        pooler = getattr(self.model, "pooler", None)
        return None if pooler is None else pooler.dense

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        *,
        first_only: bool,
    ) -> Tensor:
        """(B, S) ids -> (B, S, D); it cannot leave out the other tokens of the last layer."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        return self.model(**inputs).last_hidden_state


def main(argv: Sequence[str]) -> None:
    """Train both encoders with each seed and print every test accuracy, then the means."""
    parser = Flags(prog="benchmarks.accuracy", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each")
    add_options(parser)
    given = vars(parser.parse_args(argv))
    seeds = given.pop("seeds")
    settings = RunSettings(**given)
    folder = find_model(settings.model, revision=settings.revision)
    config = read_encoder_config(folder)
    if settings.freeze or settings.freeze_layers or settings.freeze_embeddings:
        raise InputError("this benchmark trains the whole encoder; leave out the --freeze flags")
    print(choose_compute(settings.device, settings.precision))
    parts = read_splits(settings)
    if parts.test is None:
        raise InputError("there is no test part to score; give --test")
    max_length, rows = tokenize(
        parts,
        Tokenizer.from_folder(folder, config),
        longest=settings.max_length,
        positions=config.positions,
    )
    found: dict[str, list[float]] = {"minibert": [], "transformers": []}
    for seed in range(seeds):
        for encoder, accuracies in found.items():
            seeded = replace(settings, seed=seed)
            accuracy = test_accuracy(encoder, folder, parts, rows, seeded, max_length)
            accuracies.append(accuracy)
            print(f"seed {seed}, {encoder}: test accuracy {100 * accuracy:.2f}%", flush=True)
    for encoder, accuracies in found.items():
        spread = statistics.stdev(accuracies) if seeds > 1 else float("nan")
        mean = statistics.mean(accuracies)
        print(f"{encoder}: {100 * mean:.2f}% (sd {100 * spread:.2f}, {seeds} seeds)")


def test_accuracy(
    encoder: str,
    folder: Path,
    parts: Splits,
    rows: dict[str, list[TokenIds]],
    settings: RunSettings,
    max_length: int,
) -> float:
    """Train with one encoder and return the test accuracy of the best epoch."""
    runtime = choose_compute(settings.device, settings.precision)
    torch.manual_seed(settings.seed)
    wanted = HeadConfig(
        settings.head, settings.pooling or "cls", class_names(parts.train), max_length
    )
    checkpoint = load_classifier(folder, wanted)
    texts = labelled(rows, parts, wanted.labels, checkpoint.encoder)
    model: Any = checkpoint.model
    if encoder == "transformers":
        model.encoder = TransformersEncoder(folder)
    model.to(runtime.device)
    best: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as place:
        fit(
            model,
            texts["train"],
            texts["validation"],
            settings,
            classes=wanted.labels,
            run=RunFolder(Path(place)),
            save_best=lambda: best.update(copy.deepcopy(model.state_dict())),
            runtime=runtime,
        )
    model.load_state_dict(best)
    model.eval()
    logits = predict_batches(model, texts["test"], batch_size=settings.batch_size, runtime=runtime)
    return score(logits, texts["test"].labels, wanted.labels).accuracy


if __name__ == "__main__":
    sys.exit(run_command(main))
