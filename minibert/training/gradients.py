"""The sum of a step's gradients over several processes, which compute its batches."""

import math

import torch
from torch import Tensor
from torch.optim import Optimizer

from minibert.processes import Processes

ALIGNED = 16  # numbers; each gradient starts where a tensor of its own would, at 64 bytes


class GradientSum:
    """Adds up the gradients and the loss of a step over all processes; of one, leaves them.

    One flat buffer, which is kept, is one call for the whole step. DistributedDataParallel sends
    parts of it while the backward pass still computes, but it takes the mean over the processes,
    of which each must have as many batches: docs/scaling.md compares.
    """

    def __init__(self, optimizer: Optimizer, processes: Processes) -> None:
        self.processes = processes
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.flat = torch.empty(0)  # the loss, then the gradients
        self.gradients: list[Tensor] = []  # views of it, for each of the parameters

    def __call__(self, loss: Tensor) -> Tensor:
        """Replace each parameter's gradient by the sum; return the sum of the losses."""
        if self.processes.size == 1:
            return loss
        if not self.gradients:
            self._allocate(loss.device)
        if self.parameters[0].grad is None:  # the step has fewer batches than processes
            self.flat.zero_()
        else:
            computed = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_copy_(self.gradients, computed)
        self.flat[0] = loss
        self.processes.add_up(self.flat)
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.flat[0].clone()

    def _allocate(self, device: torch.device) -> None:
        """Make the buffer for the parameters that the model uses: those that have a gradient.

        A step has at least one batch, which the first process computes.
        """
        used = self.processes.call_first(lambda: [p.grad is not None for p in self.parameters])
        self.parameters = [p for p, is_used in zip(self.parameters, used, strict=True) if is_used]
        sizes = [ALIGNED * math.ceil(p.numel() / ALIGNED) for p in self.parameters]
        self.flat = torch.zeros(ALIGNED + sum(sizes), device=device)
        parts = self.flat[ALIGNED:].split(sizes)
        self.gradients = [
            part[: p.numel()].view(p.shape) for part, p in zip(parts, self.parameters, strict=True)
        ]
