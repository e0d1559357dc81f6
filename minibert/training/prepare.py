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
    classes = model.head.out.out_features
    for dataset in (train, validation):
        if not (len(dataset) and dataset.has_labels):
            raise InputError("training needs texts with labels; give both to dataset()")
        if int(dataset.labels.max()) >= classes:
            raise InputError(f"a label is not one of the model's {classes} classes")
    if compute.precision == "int8":
        raise InputError("int8 is for inference; train in bf16 or fp32")
    model.to(compute.device)
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


@contextmanager
def frozen_layers(model: Classifier, options: TrainingOptions) -> Iterator[None]:
    """Exclude the layers that the options freeze from training inside this context."""
    frozen: list[nn.Module] = []
    if options.freeze_embeddings:
        frozen.append(model.encoder.embeddings)
    if options.freeze_layers:
        check_layers(options, len(model.encoder.blocks))
        frozen += model.encoder.blocks[: options.freeze_layers]
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
