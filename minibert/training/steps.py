"""The optimizer steps of an epoch: how many, the batches of each, and their random numbers."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

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


def seed_dropout(seed: int, step: int, batch: int, device: torch.device) -> None:
    """Make dropout a function of the run's seed, the step and the number of the batch in it.

    It then depends neither on the steps of this process before, nor on which process computes.
    """
    number = int(np.random.SeedSequence([seed, step, batch]).generate_state(1, np.uint64)[0])
    if device.type == "cuda":
        with torch.cuda.device(device):  # the other GPUs keep their random state
            torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)
    else:  # torch.manual_seed would prepare the seeds of all other devices too, which is slow
        torch.default_generator.manual_seed(number)


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Give torch's random state back as it was on entry."""
    mps = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng has no MPS
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)
