"""The one training loop: fit() trains a classifier, or the head alone on kept features."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from minibert.batches import Part, Texts
from minibert.epoch import optimizer_steps, set_step_rates, train_steps
from minibert.errors import InputError
from minibert.metrics import Scores, score
from minibert.model import Classifier, Encoder
from minibert.optim import UsedRows, adamw, parameter_groups
from minibert.packed import packable
from minibert.predictor import in_length_order, ready_to_answer
from minibert.runs import RunFolder
from minibert.runtime import Runtime
from minibert.settings import RunSettings
from minibert.states import Learner, Progress
from minibert.stopping import Signals, Stopped


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
    goes on after its newest state. Raises Stopped after a signal, the state saved.
    """
    module: nn.Module = model.head if settings.freeze else model
    optimizer, words = make_optimizer(model, train, settings)
    learner = Learner(module, optimizer, runtime.scaler(), runtime)
    weights = balanced_weights(train.labels, len(classes), settings.class_weights)
    weights = weights.to(runtime.device)
    progress = run.load_state(learner)
    steps = optimizer_steps(len(train), settings)
    with Signals(patient=True) as stop:
        while progress.epoch < settings.epochs and not out_of_patience(progress, settings.patience):
            with words.in_place() if words else nullcontext():
                train_steps(learner, train, weights, settings, progress, stop)
            if progress.step == (progress.epoch + 1) * steps and stop.number is None:
                if words:
                    words.settle(optimizer)
                logits = stop.at_once(
                    lambda: validation_logits(model, validation, settings, runtime)
                )
                if logits is not None and stop.number is None:
                    # Set again: a run that goes on from an epoch's last step has taken none.
                    lr = set_step_rates(optimizer, progress.step - 1, steps, settings)
                    scores = score(logits, validation.labels, classes)
                    end_epoch(progress, scores, settings, lr=lr, texts=len(train))
                    if progress.best_epoch == progress.epoch:
                        save_best()
            run.save_state(progress, learner, keep=settings.keep_states)
            if stop.number is not None:
                raise Stopped(stop.number)
    return progress


def end_epoch(
    progress: Progress, scores: Scores, settings: RunSettings, *, lr: float, texts: int
) -> None:
    """Note and print an epoch's figures, and whether it is the best so far."""
    progress.epoch += 1
    check_finite(scores.loss, f"the validation loss after epoch {progress.epoch}")
    figure = selection_figure(scores, settings.select)
    if figure > progress.best_figure or not progress.best_epoch:
        progress.best_figure, progress.best_epoch = figure, progress.epoch
    loss, seconds = progress.loss_sum / progress.weight_sum, progress.epoch_seconds
    row = {"epoch": progress.epoch, "train_loss": loss, "learning_rate": lr}
    speed = {"seconds": round(seconds, 3), "texts_per_second": round(texts / seconds, 1)}
    progress.history.append({**row, **validation_figures(scores), **speed})
    progress.loss_sum = progress.weight_sum = progress.epoch_seconds = 0.0
    mark = " *" if progress.best_epoch == progress.epoch else ""
    print(
        f"epoch {progress.epoch}/{settings.epochs}: train loss {loss:.4f}; "
        f"validation {scores}; {seconds:.1f} s{mark}"
    )


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
) -> tuple[AdamW, UsedRows | None]:
    """Return AdamW for all that trains, and the used rows that train in the word table's place."""
    encoder = None if settings.freeze else model.encoder

    def new_adamw() -> AdamW:
        rates = {"encoder_lr": settings.encoder_lr, "head_lr": settings.head_lr}
        return adamw(
            parameter_groups(encoder, model.head, **rates, weight_decay=settings.weight_decay)
        )

    trains_words = isinstance(encoder, Encoder) and encoder.embeddings.word.weight.requires_grad
    if not (trains_words and isinstance(train, Texts)):
        return new_adamw(), None
    words = UsedRows(model.encoder.embeddings, train.used_ids())
    with words.in_place():
        optimizer = new_adamw()
    words.follow(optimizer)
    return optimizer, words


def freeze_layers(model: Classifier, *, layers: int, embeddings: bool) -> None:
    """Take the lowest `layers` blocks, and the embeddings if asked, out of the training."""
    blocks = list(model.encoder.blocks)
    if layers > len(blocks):
        raise InputError(f"--freeze-layers is {layers}; this model has {len(blocks)} layers")
    for module in blocks[:layers] + [model.encoder.embeddings] * embeddings:
        module.requires_grad_(False)


def check_finite(loss: float, name: str) -> None:
    """Raise InputError for a loss that is no number: nothing that follows could be believed."""
    if not math.isfinite(loss):
        raise InputError(
            f"{name} is {loss}; lower --encoder-lr and --head-lr, or use --precision fp32 "
            "(the best epoch before it is kept)"
        )


def balanced_weights(labels: Tensor, classes: int, kind: str) -> Tensor:
    """Return each class's weight (C,): one, or N / (C x its count) as scikit-learn's "balanced"."""
    if kind == "none":
        return torch.ones(classes)
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.clamp(min=1).float())


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
