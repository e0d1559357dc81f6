"""The one training loop: fit() trains a classifier, or the head alone on kept features."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from minibert.batches import Batch, Part, Texts, training_order
from minibert.display import EpochDisplay
from minibert.errors import InputError
from minibert.metrics import Scores, score
from minibert.model import Classifier, Encoder
from minibert.optim import (
    UsedRows,
    adamw,
    clip_gradients,
    learning_rate_factor,
    parameter_groups,
    set_learning_rates,
)
from minibert.packed import packable
from minibert.predictor import in_length_order, ready_to_answer
from minibert.runs import Progress, RunFolder
from minibert.runtime import Runtime
from minibert.settings import RunSettings


def fit(
    model: Classifier,
    train: Part,
    validation: Part,
    settings: RunSettings,
    *,
    classes: Sequence[str],
    run: RunFolder,
    save_best: Callable[[], None],
    runtime: Runtime,
) -> Progress:
    """Train until the epochs or the patience are used up; `save_best` follows each best epoch.

    With `settings.freeze` the parts hold features and only the head trains. A run that was stopped
    goes on after its last finished epoch.
    """
    module: nn.Module = model.head if settings.freeze else model
    optimizer, in_training = make_optimizer(model, train, settings)
    scaler = runtime.scaler()
    weights = balanced_weights(train.labels, len(classes), settings.class_weights)
    weights = weights.to(runtime.device)
    progress = run.load_state(module, optimizer, scaler, runtime.device)
    while progress.epoch < settings.epochs and not out_of_patience(progress, settings.patience):
        started = time.perf_counter()
        with in_training():
            epoch_loss, lr = train_epoch(
                module, train, settings, progress.epoch, optimizer, scaler, weights, runtime
            )
        seconds = time.perf_counter() - started
        logits = validation_logits(model, validation, settings, runtime)
        scores = score(logits, validation.labels, classes)
        check_finite(scores.loss, f"the validation loss after epoch {progress.epoch + 1}")
        progress.epoch += 1
        progress.seconds += seconds
        figure = selection_figure(scores, settings.select)
        if figure > progress.best_figure or not progress.best_epoch:
            progress.best_figure, progress.best_epoch = figure, progress.epoch
            save_best()
        row = {"epoch": progress.epoch, "train_loss": epoch_loss, "learning_rate": lr}
        speed = {"seconds": round(seconds, 3), "texts_per_second": round(len(train) / seconds, 1)}
        progress.history.append({**row, **validation_figures(scores), **speed})
        run.save_state(progress, module, optimizer, scaler, runtime.device)
        mark = " *" if progress.best_epoch == progress.epoch else ""
        print(
            f"epoch {progress.epoch}/{settings.epochs}: train loss {epoch_loss:.4f}; "
            f"validation {scores}; {seconds:.1f} s{mark}"
        )
    return progress


def validation_logits(
    model: Classifier, validation: Part, settings: RunSettings, runtime: Runtime
) -> Tensor:
    """Let the model, or with `settings.freeze` its head, answer the validation part."""
    module: nn.Module = model.head.eval()
    if settings.freeze:  # in fp32 where predict.py packs the encoder
        packed = runtime.device.type == "cpu" and packable(runtime.precision)
        runtime = replace(runtime, packed=packed)
    else:
        module, runtime = ready_to_answer(model, runtime, keep=True)
    return in_length_order(module, validation, batch_size=settings.batch_size, runtime=runtime)


def make_optimizer(
    model: Classifier, train: Part, settings: RunSettings
) -> tuple[AdamW, Callable[[], AbstractContextManager[None]]]:
    """Return AdamW for all that trains, and the context in which epochs are trained with it."""
    encoder = None if settings.freeze else model.encoder

    def new_adamw() -> AdamW:
        rates = {"encoder_lr": settings.encoder_lr, "head_lr": settings.head_lr}
        return adamw(
            parameter_groups(encoder, model.head, **rates, weight_decay=settings.weight_decay)
        )

    trains_words = isinstance(encoder, Encoder) and encoder.embeddings.word.weight.requires_grad
    if not (trains_words and isinstance(train, Texts)):
        return new_adamw(), nullcontext
    words = UsedRows(model.encoder.embeddings, train.used_ids())
    with words.in_place():
        optimizer = new_adamw()
    words.follow(optimizer)
    return optimizer, words.in_place


def freeze_layers(model: Classifier, *, layers: int, embeddings: bool) -> None:
    """Take the lowest `layers` blocks, and the embeddings if asked, out of the training."""
    blocks = list(model.encoder.blocks)
    if layers > len(blocks):
        raise InputError(f"--freeze-layers is {layers}; this model has {len(blocks)} layers")
    for module in blocks[:layers] + [model.encoder.embeddings] * embeddings:
        module.requires_grad_(False)


def train_epoch(
    module: nn.Module,
    train: Part,
    settings: RunSettings,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    weights: Tensor,
    runtime: Runtime,
) -> tuple[float, float]:
    """Train one pass over the texts; return the mean loss and the last step's learning rate."""
    module.train()
    steps = optimizer_steps(len(train.labels), settings)
    order = training_order(train.lengths, settings.batch_size, seed=settings.seed, epoch=epoch)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    display = EpochDisplay(epoch + 1, settings.epochs, steps=steps, texts=len(train.labels))
    sums = torch.zeros(2, device=runtime.device)  # of the weighted losses, and of the weights
    texts, lr = 0, 0.0
    for step, rows in enumerate(groups_of(order, settings.accumulate), start=epoch * steps):
        factor = learning_rate_factor(
            step, steps * settings.epochs, kind=settings.schedule, warmup=settings.warmup
        )
        lr = set_learning_rates(optimizer, factor)
        batches = [train.batch(batch_rows).to(runtime.device) for batch_rows in rows]
        loss, weight = accumulate_gradients(
            module, batches, scaler, weights, settings.label_smoothing, runtime
        )
        if settings.clip:
            scaler.unscale_(optimizer)
            clip_gradients(parameters, settings.clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        sums += torch.stack((loss * weight, weight))
        texts += sum(len(batch.labels) for batch in batches)
        if display.due():
            check_finite(float(loss), f"the training loss at step {step + 1}")
            display.show(texts, loss=float(loss), lr=lr)
    display.close()
    mean = float(sums[0] / sums[1])
    check_finite(mean, f"the training loss of epoch {epoch + 1}")
    return mean, lr


def check_finite(loss: float, name: str) -> None:
    """Raise InputError for a loss that is no number: nothing that follows could be believed."""
    if not math.isfinite(loss):
        raise InputError(
            f"{name} is {loss}; lower --encoder-lr and --head-lr, or use --precision fp32 "
            "(the best epoch before it is kept)"
        )


def accumulate_gradients(
    module: nn.Module,
    batches: Sequence[Batch],
    scaler: torch.amp.GradScaler,
    weights: Tensor,
    label_smoothing: float,
    runtime: Runtime,
) -> tuple[Tensor, Tensor]:
    """Add up the gradients of one step; return its mean loss and the weight of its labels.

    Loss and gradients are those of the batches as one big batch: each batch's sum is divided by the
    weight of the whole step, known beforehand from the labels.
    """
    whole = torch.stack([weights[batch.labels].sum() for batch in batches]).sum()
    total = torch.zeros((), device=whole.device)
    for batch in batches:
        with runtime.autocast():
            logits = module(*batch.inputs)
        loss = F.cross_entropy(
            logits.float(),
            batch.labels,
            weight=weights,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        loss = loss / whole
        scaler.scale(loss).backward()
        total += loss.detach()
    return total, whole


def balanced_weights(labels: Tensor, classes: int, kind: str) -> Tensor:
    """Return each class's weight (C,): one, or N / (C x its count) as scikit-learn's "balanced"."""
    if kind == "none":
        return torch.ones(classes)
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.clamp(min=1).float())


def optimizer_steps(texts: int, settings: RunSettings) -> int:
    """Return the number of optimizer steps in an epoch, the last partial ones counted."""
    return math.ceil(math.ceil(texts / settings.batch_size) / settings.accumulate)


def groups_of(order: Sequence[np.ndarray], size: int) -> Iterator[Sequence[np.ndarray]]:
    """Yield the batches of each optimizer step."""
    for start in range(0, len(order), size):
        yield order[start : start + size]


def validation_figures(scores: Scores) -> dict[str, float]:
    """Return what history.csv says of the validation part."""
    return {
        "validation_loss": scores.loss,
        "validation_accuracy": scores.accuracy,
        "validation_macro_f1": scores.macro_f1,
    }


def selection_figure(scores: Scores, select: str) -> float:
    """Return the figure that chooses the best epoch, higher is better."""
    return {"accuracy": scores.accuracy, "macro-f1": scores.macro_f1, "loss": -scores.loss}[select]


def out_of_patience(progress: Progress, patience: int | None) -> bool:
    """Say whether the last `patience` epochs brought nothing better."""
    return patience is not None and progress.epoch - progress.best_epoch >= patience
