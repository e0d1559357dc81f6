"""Finds a loss or gradient that is NaN or infinite, and names the texts and the likely cause."""

import math

import numpy as np
import torch
from torch import Tensor

from minibert.data.batches import Dataset
from minibert.device import Compute
from minibert.errors import InputError
from minibert.training.options import TrainingOptions
from minibert.training.steps import optimizer_steps, step_batches


class FiniteCheck:
    """Checks the loss of every step, and the norm of the gradient if it is clipped.

    On a CPU a bad step is found before the optimizer takes it. On a GPU the first bad step is kept
    there until `raise_if_found`, so that no step waits. In fp16 the loss scaler skips gradients
    that are not finite, so only the loss is checked.
    """

    def __init__(self, train: Dataset, options: TrainingOptions, compute: Compute) -> None:
        self.train, self.options, self.precision = train, options, compute.precision
        self.check_now = compute.device.type == "cpu"
        self.found = torch.tensor([-1.0, 0.0, 0.0], device=compute.device)  # step, loss, norm

    def check(self, step: int, loss: Tensor, norm: float | Tensor) -> None:
        """Check the loss and the gradient's norm of a step, counted from 0 over all epochs."""
        checked_norm = norm if self.precision != "fp16" else 0.0
        if self.check_now:
            if not math.isfinite(float(loss)) or not math.isfinite(float(checked_norm)):
                raise self._error(step, float(loss), float(checked_norm))
            return
        if not isinstance(checked_norm, Tensor):
            checked_norm = torch.full_like(loss, checked_norm)  # a copy from the CPU would wait
        here = torch.stack((torch.full_like(loss, step), loss, checked_norm.to(loss)))
        is_first = ~here.isfinite().all() & (self.found[0] < 0)
        self.found = torch.where(is_first, here, self.found)

    def raise_if_found(self) -> None:
        """Raise InputError if a step was not finite."""
        step, loss, norm = self.found.tolist()
        if step >= 0:
            raise self._error(int(step), loss, norm)

    def _error(self, step: int, loss: float, norm: float) -> InputError:
        options = self.options
        what = f"the loss is {loss}"
        if math.isfinite(loss):
            what = f"the gradient's norm is {norm}"
        precision = f", or {self.precision} has too few digits (--precision fp32)"
        return InputError(
            f"step {step + 1}: {what}, on {self._places(step)}; likely a learning rate is too high "
            f"(--encoder-lr is {options.encoder_lr:g}, --head-lr {options.head_lr:g})"
            f"{'' if self.precision == 'fp32' else precision}"
        )

    def _places(self, step: int) -> str:
        """Name the first texts of a step by file and line, or by row."""
        epoch, in_epoch = divmod(step, optimizer_steps(len(self.train), self.options))
        rows = np.concatenate(step_batches(self.train, self.options, epoch)[in_epoch])
        places = self.train.places
        first = [places[row] if places else f"row {row + 1}" for row in rows[:3]]
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        return f"{', '.join(first)}{more}"
