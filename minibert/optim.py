"""AdamW in two groups of learning rates, and the hand-written warm-up schedules."""

import math

import torch
from torch import nn
from torch.optim import AdamW


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
