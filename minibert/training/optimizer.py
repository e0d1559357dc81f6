"""AdamW in groups, gradient clipping, and the hand-written warm-up schedule."""

import math

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from minibert.model.classifier import Classifier
from minibert.training.options import TrainingOptions


def make_optimizer(model: Classifier, options: TrainingOptions) -> AdamW:
    """Return AdamW (Loshchilov & Hutter 2017) for a classifier's trainable parameters."""
    groups = parameter_groups(
        None if options.freeze else model.encoder,
        model.head,
        encoder_lr=options.encoder_lr,
        head_lr=options.head_lr,
        weight_decay=options.weight_decay,
    )
    return AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)


def parameter_groups(
    encoder: nn.Module | None,
    head: nn.Module,
    *,
    encoder_lr: float,
    head_lr: float,
    weight_decay: float,
) -> list[dict]:
    """Return AdamW's groups: encoder and head, each with matrices and with vectors.

    Matrices decay; vectors, which are biases and LayerNorm's weights, do not (as in
    google-research/bert's optimization.py). Every trainable parameter is in exactly one group.
    """
    groups = []
    for name, module, lr in (("encoder", encoder, encoder_lr), ("head", head, head_lr)):
        parameters = [p for p in module.parameters() if p.requires_grad] if module else []
        for decay, chosen in (
            (weight_decay, [p for p in parameters if p.ndim >= 2]),
            (0.0, [p for p in parameters if p.ndim < 2]),
        ):
            if chosen:
                rates = {"lr": lr, "base_lr": lr, "weight_decay": decay}
                groups.append({"name": name, "params": chosen, **rates})
    return groups


def learning_rate_factor(step: int, steps: int, *, kind: str, warmup: float) -> float:
    """Return the factor of the peak learning rates at a step, counted from 0, of `steps`.

    In the first `warmup` fraction of the steps it rises linearly. Then `linear` falls to 0,
    `cosine` falls to 0 along half a wave, and `constant` stays at 1. With W warm-up steps the first
    step has the factor 1 / W; transformers' get_linear_schedule_with_warmup gives it 0 instead,
    which spends a step on nothing.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    if kind == "linear":
        return 1.0 - progress
    if kind == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def set_learning_rates(optimizer: Optimizer, factor: float) -> float:
    """Set every group's learning rate to `factor` times its peak; return the highest."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["base_lr"]
    return max(group["lr"] for group in optimizer.param_groups)


def clip_gradients(optimizer: Optimizer, largest: float) -> float | Tensor:
    """Scale all gradients down to a common norm of at most `largest` (Pascanu et al. 2013).

    Return the norm before clipping: a number on a CPU, else a tensor, which needs no waiting.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients and gradients[0].device.type != "cpu":
        return nn.utils.clip_grad_norm_(parameters, largest)
    # On a CPU, dot products read memory faster than torch's norms.
    flat = (gradient.reshape(-1) for gradient in gradients)
    norm = math.sqrt(sum(float(x.dot(x)) for x in flat))
    if not norm <= largest:
        torch._foreach_mul_(gradients, largest / (norm + 1e-6))
    return norm
