"""The optimizer steps of an epoch: how many, and the batches of each."""

import math

import numpy as np

from minibert.data.batches import Dataset, training_order
from minibert.training.options import TrainingOptions


def optimizer_steps(texts: int, options: TrainingOptions) -> int:
    """Return the number of optimizer steps per epoch, partial ones included."""
    return math.ceil(math.ceil(texts / options.batch_size) / options.accumulate)


def step_batches(train: Dataset, options: TrainingOptions, epoch: int) -> list[list[np.ndarray]]:
    """Return the rows of each batch of each optimizer step of an epoch."""
    order = training_order(train.lengths, options.batch_size, seed=options.seed, epoch=epoch)
    size = options.accumulate
    return [order[start : start + size] for start in range(0, len(order), size)]
