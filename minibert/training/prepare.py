"""What `fit` does before the first step, and after the last one or an error."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from minibert.data.batches import Dataset, FeatureDataset
from minibert.device import Compute
from minibert.errors import InputError
from minibert.inference.batched import prepare_for_inference
from minibert.model.classifier import Classifier
from minibert.model.encoder import Encoder
from minibert.training.options import TrainingOptions


def prepare(
    model: Classifier,
    train: Dataset,
    validation: Dataset,
    options: TrainingOptions,
    compute: Compute,
) -> tuple[nn.Module, Dataset, Dataset, float]:
    """Return the module that trains, the datasets that it reads, and the seconds to encode them.

    With `options.freeze` the module is the head; the datasets are the encoder's features, computed
    once with its dropout off.
    """
    for dataset in (train, validation):
        if not (len(dataset) and dataset.has_labels):
            raise InputError("training needs texts with labels; give both to dataset()")
    if compute.precision == "int8":
        raise InputError("int8 is for inference; train in bf16 or fp32")
    model.to(compute.device)
    freeze_layers(model, options)
    if not options.freeze:
        return model, train, validation, 0.0
    started = time.perf_counter()
    train, validation = encode_features(model, (train, validation), options, compute)
    return model.head, train, validation, time.perf_counter() - started


def encode_features(
    model: Classifier, datasets: Sequence[Dataset], options: TrainingOptions, compute: Compute
) -> list[Dataset]:
    """Return the encoder's features of each dataset; one that holds features stays as it is."""
    if all(isinstance(dataset, FeatureDataset) for dataset in datasets):
        return list(datasets)
    frozen = prepare_for_inference(model, compute, keep=True)
    return [
        dataset
        if isinstance(dataset, FeatureDataset)
        else frozen.features(dataset, batch_size=options.batch_size)
        for dataset in datasets
    ]


def freeze_layers(model: Classifier, options: TrainingOptions) -> None:
    """Let the embeddings and all blocks train, except those that the options freeze.

    An encoder of another library, which the benchmarks compare with, is not touched.
    """
    if not isinstance(model.encoder, Encoder):
        return
    check_layers(options, len(model.encoder.blocks))
    model.encoder.embeddings.requires_grad_(not options.freeze_embeddings)
    for number, block in enumerate(model.encoder.blocks):
        block.requires_grad_(number >= options.freeze_layers)


def check_layers(options: TrainingOptions, layers: int) -> None:
    """Raise InputError if more layers are to be frozen than the encoder has."""
    if options.freeze_layers > layers:
        raise InputError(
            f"--freeze-layers is {options.freeze_layers}; this model has {layers} layers"
        )


@contextmanager
def best_weights(model: Classifier, *, keep: bool) -> Iterator[Callable[[], None]]:
    """Leave the model in evaluation mode, also after an error.

    Yields a function that keeps the current weights in memory. If it was called, the model ends
    with the last weights that it kept. Without `keep` it does nothing.
    """
    best: dict[str, Tensor] = {}

    def keep_weights() -> None:
        if keep:
            best.update({name: x.to("cpu", copy=True) for name, x in model.state_dict().items()})

    try:
        yield keep_weights
    finally:
        if best:
            model.load_state_dict(best)
        model.eval()


def class_weights(labels: Tensor, classes: int, kind: str) -> Tensor:
    """Return each class's weight (C,): 1, or for "balanced" N / (C x its count) as scikit-learn."""
    if kind == "none":
        return torch.ones(classes)
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.clamp(min=1).float())
