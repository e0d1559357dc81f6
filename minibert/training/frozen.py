"""Frozen layers are not trained, so their output is computed once, with dropout off.

With `freeze` it is one vector per text, which the head reads; with `freeze_layers` one vector per
token, which the lowest trained layer reads.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from minibert.data.batches import Dataset, FeatureDataset
from minibert.data.hidden import HiddenDataset, allocate, in_file
from minibert.data.windows import encoded_rows, with_rows
from minibert.device import Compute
from minibert.errors import InputError
from minibert.inference.batched import prepare_for_inference
from minibert.model.classifier import Classifier
from minibert.model.encoder import Encoder
from minibert.training.options import TrainingOptions


@dataclass(frozen=True)
class Encoding:
    """The output of the frozen layers, computed once."""

    layers: int
    texts: int
    seconds: float
    bytes: int
    in_file: bool  # True: in a temporary file; False: in memory

    def __str__(self) -> str:
        if not self.texts:
            return f"{self.layers} frozen layers: their output is that of an earlier run"
        place = "a temporary file" if self.in_file else "memory"
        return (
            f"{self.layers} frozen layers: {self.texts:,} texts encoded once in {self.seconds:.1f} "
            f"s; {self.bytes / 1e6:,.1f} MB of output in {place}"
        )


@contextmanager
def frozen_layers(model: Classifier, options: TrainingOptions) -> Iterator[None]:
    """Exclude the layers that the options freeze from training inside this context."""
    frozen: list[nn.Module] = []
    if options.freeze_layers or options.freeze_embeddings:
        frozen = [model.encoder.embeddings, *model.encoder.blocks[: options.freeze_layers]]
    parameters = [p for module in frozen for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def check_layers(options: TrainingOptions, layers: int) -> None:
    """Raise InputError if more layers are to be frozen than the encoder has."""
    if options.freeze_layers > layers:
        raise InputError(
            f"--freeze-layers is {options.freeze_layers}; this model has {layers} layers"
        )


def encode(
    model: Classifier,
    datasets: Sequence[Dataset],
    options: TrainingOptions,
    compute: Compute,
    *,
    folder: Path | None,
) -> tuple[nn.Module, Sequence[Dataset], Encoding]:
    """Compute the output of the frozen layers once.

    Return the module above them, the datasets that it reads, and the cost.

    Large outputs are in a temporary file in `folder` (default: the system's temporary folder).
    """
    started = time.perf_counter()
    module: nn.Module
    encoded: Sequence[Dataset]
    outputs: Sequence[FeatureDataset | HiddenDataset]
    if options.freeze:
        layers, module = len(model.encoder.blocks), model.head
        outputs = encoded = encode_features(model, datasets, options, compute)
    else:
        layers = options.freeze_layers
        module = with_blocks(model, layers, None)
        below = with_blocks(model, 0, layers)
        outputs = encode_tokens(below, datasets, options, compute, folder=folder)
        encoded = [with_rows(*pair) for pair in zip(datasets, outputs, strict=True)]
    cost = Encoding(
        layers,
        texts=sum(len(x) for x in datasets if not isinstance(x, FeatureDataset)),
        seconds=time.perf_counter() - started,
        bytes=sum(output.values.nbytes for output in outputs),
        in_file=any(isinstance(x, HiddenDataset) and in_file(x.values) for x in outputs),
    )
    return module, encoded, cost


def encode_features(
    model: Classifier, datasets: Sequence[Dataset], options: TrainingOptions, compute: Compute
) -> list[FeatureDataset]:
    """Return the encoder's features of each dataset; one that holds features stays as it is."""
    given = [dataset for dataset in datasets if isinstance(dataset, FeatureDataset)]
    if len(given) == len(datasets):
        return given
    frozen = prepare_for_inference(model, compute, keep=True)
    return [
        dataset
        if isinstance(dataset, FeatureDataset)
        else frozen.features(dataset, batch_size=options.batch_size)
        for dataset in datasets
    ]


def encode_tokens(
    model: Classifier,
    datasets: Sequence[Dataset],
    options: TrainingOptions,
    compute: Compute,
    *,
    folder: Path | None,
) -> list[HiddenDataset]:
    """Return the encoder's output for every token of each dataset, in bf16 if bf16 computes.

    Of a dataset in windows, it is the output for its windows.
    """
    dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
    width = int(model.encoder.blocks[0].attention_norm.weight.shape[0])  # type: ignore
    frozen = prepare_for_inference(model, compute, keep=True)
    outputs = []
    for rows in map(encoded_rows, datasets):
        values = allocate(
            *(rows, width, dtype),
            device=compute.device,
            folder=folder,
            processes=compute.processes,
        )
        output = HiddenDataset(rows, values)
        frozen.encode(rows, output, batch_size=options.batch_size)
        outputs.append(output)
    return outputs


def with_blocks(model: Classifier, start: int, stop: int | None) -> Classifier:
    """Return a classifier that has some of the blocks and shares all weights with the model.

    Above the lowest blocks it reads hidden states (B, S, D) in place of token ids.
    """
    return Classifier(EncoderBlocks(model.encoder, start, stop), model.head, pooling=model.pooling)


class EncoderBlocks(Encoder):
    """Some blocks of an encoder; its embeddings are below the lowest block."""

    def __init__(self, encoder: Encoder, start: int, stop: int | None) -> None:
        nn.Module.__init__(self)  # an encoder without weights of its own
        self.embeddings = HiddenStates() if start else encoder.embeddings  # type: ignore[assignment]
        self.blocks = encoder.blocks[start:stop]
        self.pooler = encoder.pooler


class HiddenStates(nn.Module):
    """Takes the place of the embeddings: passes hidden states on, in the type of the blocks."""

    like: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("like", torch.empty(0), persistent=False)

    def forward(self, hidden: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        return hidden.to(self.like.dtype)
