"""The optimizer steps of an epoch: how many, and the batches of each."""

import math

import numpy as np

from minibert.data.batches import Dataset, training_order
from minibert.data.windows import split_batch
from minibert.training.options import TrainingOptions


def optimizer_steps(texts: int, options: TrainingOptions) -> int:
    """Return the number of optimizer steps per epoch, partial ones included."""
    return math.ceil(math.ceil(texts / options.batch_size) / options.accumulate)


def step_batches(train: Dataset, options: TrainingOptions, epoch: int) -> list[list[np.ndarray]]:
    """Return the rows of each batch of each optimizer step of an epoch.

    A batch of texts in windows is several, so that none has more than `batch_size` windows.
    """
    order = training_order(train.lengths, options.batch_size, seed=options.seed, epoch=epoch)
    size = options.accumulate
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    limit = options.batch_size
    return [[part for rows in step for part in split_batch(train, rows, limit)] for step in steps]
