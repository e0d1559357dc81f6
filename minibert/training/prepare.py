"""What `fit` does before the first step, and after the last one or an error."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from minibert.data.batches import Dataset
from minibert.device import Compute
from minibert.errors import InputError
from minibert.inference.prepack import check_not_prepared
from minibert.model.classifier import Classifier
from minibert.tasks.choice import task_of
from minibert.tasks.task import Task
from minibert.training.callback import Callback
from minibert.training.frozen import check_layers, encode
from minibert.training.options import TrainingOptions


class Prepared(NamedTuple):
    """What `fit` trains and reads."""

    module: nn.Module  # the classifier, or what is above its frozen layers
    task: Task
    train: Dataset  # of texts, or of the frozen layers' output
    validation: Dataset
    weights: Tensor  # of the loss
    row_weights: Tensor  # (N,), what each row's loss is multiplied by
    encoding_seconds: float


def prepare(
    model: Classifier,
    train: Dataset,
    validation: Dataset,
    options: TrainingOptions,
    compute: Compute,
    callback: Callback,
    sample_weight: Sequence[float] | np.ndarray | None = None,
) -> Prepared:
    """Check the datasets and options, and compute the output of frozen layers.

    Raises InputError for labels, options and weights that do not fit the model's task; the model
    is then unchanged.
    """
    check_trainable(model)
    # What was fitted to the probabilities of an earlier training does not hold after this one.
    config = replace(model.head.config, temperature=1.0, thresholds=(), min_probability=0.0)
    task = task_of(config)
    for dataset in (train, validation):
        if not (len(dataset) and dataset.has_labels):
            raise InputError("training needs texts with labels; give both to dataset()")
        task.check(dataset.labels)
    task.check_options(options)
    task.selects(options.select)
    if compute.precision == "int8":
        raise InputError("int8 is for inference; train in bf16 or fp32")
    if options.freeze_layers:
        check_layers(options, len(model.encoder.blocks))
    weights = task.weights(train.labels, options)
    row_weights = as_row_weights(sample_weight, task.row_weights(train.labels, weights))
    weights = weights.to(compute.device)
    model.head.config = config
    model.to(compute.device)
    task.prepare_head(model.head, train.labels)
    if not (options.freeze or options.freeze_layers):
        return Prepared(model, task, train, validation, weights, row_weights, encoding_seconds=0.0)
    folder = callback.scratch_folder()
    datasets = (train, validation)
    module, (train, validation), encoding = encode(model, datasets, options, compute, folder=folder)
    if encoding.texts:
        callback.on_encoded(encoding)
    return Prepared(module, task, train, validation, weights, row_weights, encoding.seconds)


def check_trainable(model: Classifier) -> None:
    """Raise InputError for weights that are packed, or in half precision: small steps are lost."""
    check_not_prepared(model)
    for parameter in model.parameters():
        if parameter.dtype != torch.float32:
            raise InputError(f"the model has weights in {parameter.dtype}; training needs float32")


def as_row_weights(
    sample_weight: Sequence[float] | np.ndarray | None, label_weights: Tensor
) -> Tensor:
    """Return what each row's loss is multiplied by (N,).

    `label_weights` (N,) are in the losses already. The mean of the products is 1, so that a row
    counts the same in whichever batch it is: a batch's own mean would give a batch without rows of
    a rare class as much weight as one with them. Raises InputError unless `sample_weight` has one
    positive, finite number for each row.
    """
    rows = len(label_weights)
    if sample_weight is None:
        return torch.full((rows,), 1 / float(label_weights.mean()))
    problem = InputError(
        f"sample_weight must be {rows} positive numbers, one for each training row"
    )
    try:
        weights = torch.from_numpy(np.asarray(sample_weight, dtype=np.float64))
    except (TypeError, ValueError):
        raise problem from None
    if weights.shape != (rows,) or not (weights.isfinite() & (weights > 0)).all():
        raise problem
    weights = weights / weights.max()  # whose sum may overflow
    return (weights / (weights * label_weights).mean()).float()


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
        model.head.fold_unit()
        model.eval()
