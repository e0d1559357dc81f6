"""What `fit` does before the first step, and after the last one or an error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from minibert.data.batches import Dataset
from minibert.device import Compute
from minibert.errors import InputError
from minibert.model.classifier import Classifier
from minibert.training.callback import Callback
from minibert.training.frozen import check_layers, encode
from minibert.training.options import TrainingOptions


def prepare(
    model: Classifier,
    train: Dataset,
    validation: Dataset,
    options: TrainingOptions,
    compute: Compute,
    callback: Callback,
) -> tuple[nn.Module, Dataset, Dataset, float]:
    """Return the module that trains, the datasets that it reads, and the seconds to encode them.

    With frozen layers the module is what is above them, and the datasets are their output.
    """
    classes = model.head.out.out_features
    for dataset in (train, validation):
        if not (len(dataset) and dataset.has_labels):
            raise InputError("training needs texts with labels; give both to dataset()")
        if int(dataset.labels.max()) >= classes:
            raise InputError(f"a label is not one of the model's {classes} classes")
    if compute.precision == "int8":
        raise InputError("int8 is for inference; train in bf16 or fp32")
    check_layers(options, len(model.encoder.blocks))
    model.to(compute.device)
    if not (options.freeze or options.freeze_layers):
        return model, train, validation, 0.0
    folder = callback.scratch_folder()
    datasets = (train, validation)
    module, (train, validation), encoding = encode(model, datasets, options, compute, folder=folder)
    callback.on_encoded(encoding)
    return module, train, validation, encoding.seconds


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
