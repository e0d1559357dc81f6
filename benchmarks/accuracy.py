"""Test accuracy with minibert's encoder and with transformers', on the same batches.

python -m benchmarks.accuracy --seeds 3 [options of train.py but --freeze]
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minibert.checkpoint.config_file import read_encoder_config, read_head_config
from minibert.checkpoint.load import load_classifier
from minibert.commands.new_head import choose_head
from minibert.commands.options import RunOptions, Settings
from minibert.commands.parser import Parser, add_options
from minibert.commands.process import run_command
from minibert.data.datasets import TokenizedSplits, build_datasets, tokenize_splits
from minibert.data.options import DataOptions
from minibert.data.splits import Splits, read_splits
from minibert.data.tokenizer import Tokenizer
from minibert.device import choose_compute
from minibert.errors import InputError
from minibert.hub import find_model
from minibert.inference.batched import prepare_for_inference
from minibert.tasks.choice import task_of
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions


class TransformersEncoder(nn.Module):
    """transformers' encoder behind the call of minibert's."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(folder)

    @property
    def embeddings(self) -> nn.Module:
        """The embeddings, which minibert may freeze."""
        return self.model.embeddings

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
        """(B, S) ids -> (B, S, D); it always computes all tokens of the last layer."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        return self.model(**inputs).last_hidden_state


def main(argv: Sequence[str]) -> None:
    """Train both encoders with each seed and print every test accuracy, then the means."""
    parser = Parser(prog="benchmarks.accuracy", description=__doc__)
    for kind in (RunOptions, DataOptions, TrainingOptions):
        add_options(parser, kind)
    settings = Settings.from_dict(vars(parser.parse_args(argv)))
    training, seeds = settings.training, settings.run.seeds
    frozen = training.freeze or training.freeze_layers or training.freeze_embeddings
    if frozen or settings.run.head == "logistic":
        raise InputError(
            "this benchmark trains the whole encoder; drop --head logistic and the --freeze flags"
        )
    folder = find_model(settings.run.model, revision=settings.run.revision)
    config = read_encoder_config(folder)
    print(choose_compute(settings.run.device, settings.run.precision))
    splits = read_splits(settings.data)
    if splits.test is None:
        raise InputError("there is no test split to score; give --test")
    tokenized = tokenize_splits(splits, Tokenizer.from_folder(folder, config), settings.data)
    accuracies: dict[str, list[float]] = {"minibert": [], "transformers": []}
    for seed in range(seeds):
        for encoder in accuracies:
            seeded = Settings.from_dict({**settings.to_dict(), "seed": seed})
            accuracy = test_accuracy(encoder, folder, splits, tokenized, seeded)
            accuracies[encoder].append(accuracy)
            print(f"seed {seed}, {encoder}: test accuracy {100 * accuracy:.2f}%", flush=True)
    for encoder, values_of_seeds in accuracies.items():
        spread = statistics.stdev(values_of_seeds) if seeds > 1 else float("nan")
        mean = statistics.mean(values_of_seeds)
        print(f"{encoder}: {100 * mean:.2f}% (sd {100 * spread:.2f}, {seeds} seeds)")


def test_accuracy(
    encoder: str, folder: Path, splits: Splits, tokenized: TokenizedSplits, settings: Settings
) -> float:
    """Train with one encoder and return the test accuracy of the best epoch."""
    compute = choose_compute(settings.run.device, settings.run.precision)
    torch.manual_seed(settings.training.seed)
    config = read_encoder_config(folder)
    stored = read_head_config(folder)
    head = choose_head(stored, config, splits.train, settings.run, tokenized)
    model: Any = load_classifier(folder, head).model
    datasets = build_datasets(tokenized, splits, task_of(head).targets, config)
    if encoder == "transformers":
        model.encoder = TransformersEncoder(folder)
    fit(model, datasets["train"], datasets["validation"], settings.training, compute=compute)
    ready = prepare_for_inference(model, compute)
    logits = ready.logits(datasets["test"], batch_size=settings.training.batch_size)
    return task_of(head).score(logits, datasets["test"].labels).figure("accuracy")


if __name__ == "__main__":
    sys.exit(run_command(main))
