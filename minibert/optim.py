"""AdamW in two groups of learning rates, clipping, and the hand-written warm-up schedules."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from minibert.model import Embeddings


def parameter_groups(
    encoder: nn.Module | None,
    head: nn.Module,
    *,
    encoder_lr: float,
    head_lr: float,
    weight_decay: float,
) -> list[dict]:
    """Return AdamW's groups: encoder and head, each with decayed matrices and undecayed vectors.

    Biases and LayerNorm's weights are the vectors (google-research/bert's optimization.py leaves
    them out of the decay). Every parameter that trains is in exactly one group.
    """
    groups = []
    for module, lr in ((encoder, encoder_lr), (head, head_lr)):
        parameters = [p for p in module.parameters() if p.requires_grad] if module else []
        for decay, chosen in (
            (weight_decay, [p for p in parameters if p.ndim >= 2]),
            (0.0, [p for p in parameters if p.ndim < 2]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": lr, "base_lr": lr, "weight_decay": decay})
    return groups


def adamw(groups: list[dict]) -> AdamW:
    """AdamW (Loshchilov & Hutter 2017), all parameters in one kernel."""
    return AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)


class UsedRows(nn.Module):
    """The rows of the word table that the training texts use, trained in the table's place.

    A row that no text uses never has a gradient: AdamW only decays it, which is one product at the
    end of an epoch, `settle`. The table is half of a small model; what is left of it, with its
    gradient and moments, costs a fraction of the time and memory, and the results are the whole
    table's.
    """

    def __init__(self, embeddings: Embeddings, used: Tensor) -> None:
        super().__init__()
        weight = embeddings.word.weight
        self.embeddings = [embeddings]  # in a list, or it would be a part of this module
        self.used = used.to(weight.device)
        self.rows = nn.Parameter(weight.detach()[self.used])
        self.places = torch.full((len(weight),), len(used), device=weight.device)
        self.places[self.used] = torch.arange(len(used), device=weight.device)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) ids -> (B, S, D)."""
        return F.embedding(self.places[input_ids], self.rows)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Stand in the table's place for a while; the table has the rows' new values afterwards."""
        (embeddings,) = self.embeddings
        table: Any = embeddings.word
        with torch.no_grad():
            self.rows.copy_(table.weight[self.used])
        embeddings.word = self  # type: ignore[assignment]
        try:
            yield
        finally:
            embeddings.word = table
            with torch.no_grad():
                table.weight[self.used] = self.rows

    @torch.no_grad()
    def settle(self, optimizer: AdamW) -> None:
        """Decay the rows that no text uses as the steps since the last time would have done."""
        (embeddings,) = self.embeddings
        weight = embeddings.word.weight
        weight.mul_(optimizer.state[self.rows].pop("decay", 1.0))
        weight[self.used] = self.rows

    def follow(self, optimizer: AdamW) -> None:
        """Keep what the optimizer's steps decay with its moments, so that a saved state has it."""

        def after_step(*_: Any) -> None:
            # Looked up each time: resuming gives the optimizer new groups.
            groups = optimizer.param_groups
            (group,) = (g for g in groups if any(p is self.rows for p in g["params"]))
            skipped = getattr(optimizer, "found_inf", 0.0)  # 1 where fp16's gradients overflowed
            left = 1.0 - (1.0 - skipped) * group["lr"] * group["weight_decay"]
            state = optimizer.state[self.rows]
            state["decay"] = left * state.get("decay", torch.ones((), device=self.rows.device))

        optimizer.register_step_post_hook(after_step)


def clip_gradients(parameters: Sequence[Tensor], largest: float) -> float | Tensor:
    """Scale the gradients down to a common norm of at most `largest` (Pascanu et al. 2013).

    Return the norm they had: a number, or on a GPU, which need not be waited for, a tensor.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients and gradients[0].device.type != "cpu":
        return nn.utils.clip_grad_norm_(parameters, largest)
    # Dot products read a CPU's memory three times as fast as torch's norms do.
    flat = (gradient.reshape(-1) for gradient in gradients)
    norm = math.sqrt(sum(float(x.dot(x)) for x in flat))
    if not norm <= largest:
        torch._foreach_mul_(gradients, largest / (norm + 1e-6))
    return norm


def learning_rate_factor(step: int, steps: int, *, kind: str, warmup: float) -> float:
    """Return what the learning rates are multiplied with at a step (counted from 0) of `steps`.

    The first `warmup` share of the steps rises linearly; then linear falls to 0, cosine falls to 0
    along half a wave, constant stays.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    if kind == "linear":
        return 1.0 - done
    if kind == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Give every group its share of its own rate; return the highest rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["base_lr"]
    return max(group["lr"] for group in optimizer.param_groups)
