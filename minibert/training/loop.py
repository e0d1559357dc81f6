"""The training loop: `fit` trains a classifier, or its head on a frozen encoder's features."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from minibert.data.batches import Batch, Dataset, FeatureDataset
from minibert.device import Compute, choose_compute
from minibert.errors import InputError
from minibert.evaluation.metrics import Scores, score
from minibert.inference.batched import head_for_inference, prepare_for_inference
from minibert.model.classifier import Classifier
from minibert.training.finite import FiniteCheck
from minibert.training.optimizer import (
    clip_gradients,
    learning_rate_factor,
    make_optimizer,
    set_learning_rates,
)
from minibert.training.options import TrainingOptions
from minibert.training.state import EpochRecord, TrainState
from minibert.training.steps import optimizer_steps, step_batches
from minibert.training.word_rows import compact_word_rows


class Callback:
    """What happens around the steps. This one keeps the best epoch's weights in memory.

    From `on_start` to `close`, except in `validating` and `on_best`, the model embeds only the
    tokens of the training texts.

    Example:
        >>> class Losses(Callback):
        ...     def on_step(self, state, loss, lr):
        ...         print(f"step {state.step}: loss {float(loss):.3f}")
    """

    def __init__(self) -> None:
        self.best: dict[str, Tensor] = {}

    def on_start(self, state: TrainState) -> None:
        """Before the first step. May set `state` to a saved one."""

    def on_step(self, state: TrainState, loss: Tensor, lr: float) -> None:
        """After each optimizer step, with its mean loss and highest learning rate."""

    def validating(self, state: TrainState) -> AbstractContextManager:
        """Return the context of each validation."""
        return nullcontext()

    def on_best(self, model: Classifier) -> None:
        """After each epoch that is the best so far."""
        self.best = {name: x.to("cpu", copy=True) for name, x in model.state_dict().items()}

    def on_epoch(self, state: TrainState) -> None:
        """After each epoch; its figures are state.history[-1]."""

    def close(self) -> None:
        """After the last epoch, or an error."""

    def on_end(self, model: Classifier) -> None:
        """After the last epoch and `close`."""
        if self.best:
            model.load_state_dict(self.best)


@dataclass(frozen=True)
class TrainResult:
    """What `fit` returns."""

    history: tuple[EpochRecord, ...]  # the figures of each epoch
    best_epoch: int  # counted from 1
    steps: int  # of the optimizer
    seconds: float  # of all steps


def fit(
    model: Classifier,
    train: Dataset,
    validation: Dataset,
    options: TrainingOptions | None = None,
    *,
    compute: Compute | None = None,
    callback: Callback | None = None,
) -> TrainResult:
    """Train a classifier until the epochs or the patience are used up.

    The model ends with the weights of the epoch whose validation figure is the best, on the device
    of `compute` (default: the best of this machine). Batches depend on `options.seed`, dropout on
    torch's random state. Nothing is printed or written; `callback` sees every step. Raises
    InputError for a loss or gradient that is not finite. `help(minibert)` shows an example.
    """
    options, compute = options or TrainingOptions(), compute or choose_compute()
    callback = callback or Callback()
    module, train, validation = prepare(model, train, validation, options, compute)
    weights = class_weights(train.labels, model.head.out.out_features, options.class_weights)
    weights = weights.to(compute.device)
    finite = FiniteCheck(train, options, compute)
    with closing(callback), compact_word_rows(model.encoder, train) as whole_table:
        state = first_state(module, make_optimizer(model, options), options, compute, len(train))
        optimizer, scaler = state.optimizer, state.scaler
        callback.on_start(state)
        while not finished(state):
            module.train()
            for rows in remaining_steps(train, state):
                lr = set_step_rates(state)
                batches = [train.batch(batch_rows).to(compute.device) for batch_rows in rows]
                loss, weight = forward_backward(state, batches, weights, compute)
                scaler.unscale_(optimizer)
                norm = clip_gradients(optimizer, options.clip) if options.clip else 0.0
                finite.check(state.step, loss, norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                state.count_step(loss, weight, texts=sum(map(len, rows)), lr=lr)
                callback.on_step(state, loss, lr)
            finite.raise_if_found()
            with callback.validating(state), whole_table():
                scores = validate(model, validation, options, compute)
            if state.end_epoch(scores):
                with whole_table():
                    callback.on_best(model)
            callback.on_epoch(state)
    callback.on_end(model)
    return TrainResult(tuple(state.history), state.best_epoch, state.step, state.seconds)


def prepare(
    model: Classifier,
    train: Dataset,
    validation: Dataset,
    options: TrainingOptions,
    compute: Compute,
) -> tuple[nn.Module, Dataset, Dataset]:
    """Return the module that trains and the datasets that it reads.

    With `options.freeze` these are the head and the encoder's features, computed once.
    """
    model.to(compute.device)
    freeze_layers(model, layers=options.freeze_layers, embeddings=options.freeze_embeddings)
    if not options.freeze:
        return model, train, validation
    size = options.batch_size
    train, validation = (
        encode_features(model, dataset, compute, batch_size=size) for dataset in (train, validation)
    )
    return model.head, train, validation


def encode_features(
    model: Classifier, dataset: Dataset, compute: Compute, *, batch_size: int
) -> Dataset:
    """Return the encoder's features of a dataset, its dropout off; features stay as they are."""
    if isinstance(dataset, FeatureDataset):
        return dataset
    return prepare_for_inference(model, compute, keep=True).features(dataset, batch_size=batch_size)


def freeze_layers(model: Classifier, *, layers: int, embeddings: bool) -> None:
    """Exclude the lowest `layers` blocks from training, and the embeddings if asked."""
    blocks = list(model.encoder.blocks) if layers else []
    if layers > len(blocks):
        raise InputError(f"--freeze-layers is {layers}; this model has {len(blocks)} layers")
    for module in blocks[:layers] + [model.encoder.embeddings] * embeddings:
        module.requires_grad_(False)


def class_weights(labels: Tensor, classes: int, kind: str) -> Tensor:
    """Return each class's weight (C,): 1, or for "balanced" N / (C x its count) as scikit-learn."""
    if kind == "none":
        return torch.ones(classes)
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.clamp(min=1).float())


def first_state(
    module: nn.Module, optimizer: AdamW, options: TrainingOptions, compute: Compute, texts: int
) -> TrainState:
    """Return the state before the first step."""
    steps = optimizer_steps(texts, options)
    return TrainState(module, optimizer, compute.scaler(), compute.device, options, texts, steps)


def finished(state: TrainState) -> bool:
    """Return whether all epochs are done, or the last `patience` of them were no better."""
    patience = state.options.patience
    worse = state.epoch - state.best_epoch
    return state.epoch >= state.options.epochs or (patience is not None and worse >= patience)


def remaining_steps(train: Dataset, state: TrainState) -> Iterator[list[np.ndarray]]:
    """Yield the rows of each batch of each step that the epoch still has to take."""
    done = state.step - state.epoch * state.steps_per_epoch
    state.start_clock()
    yield from step_batches(train, state.options, state.epoch)[done:]


def set_step_rates(state: TrainState) -> float:
    """Set the learning rates of the next step; return the highest."""
    options, total = state.options, state.steps_per_epoch * state.options.epochs
    factor = learning_rate_factor(state.step, total, kind=options.schedule, warmup=options.warmup)
    return set_learning_rates(state.optimizer, factor)


def forward_backward(
    state: TrainState,
    batches: Sequence[Batch],
    weights: Tensor,
    compute: Compute,
) -> tuple[Tensor, Tensor]:
    """Add up the gradients of one step; return its mean loss and the weight of its labels.

    Loss and gradients are those of all batches as a single one: each batch's sum is divided by the
    weight of the whole step, which the labels tell beforehand.
    """
    whole = torch.stack([weights[batch.labels].sum() for batch in batches]).sum()
    total = torch.zeros((), device=whole.device)
    for batch in batches:
        with compute.autocast():
            logits = state.module(*batch.inputs)
        loss = F.cross_entropy(
            logits.float(),
            batch.labels,
            weight=weights,
            label_smoothing=state.options.label_smoothing,
            reduction="sum",
        )
        loss = loss / whole
        state.scaler.scale(loss).backward()
        total += loss.detach()
    return total, whole


def validate(
    model: Classifier, validation: Dataset, options: TrainingOptions, compute: Compute
) -> Scores:
    """Score the model, or with `options.freeze` its head, as it is used for inference."""
    if options.freeze:
        ready = head_for_inference(model, compute)
    else:
        ready = prepare_for_inference(model, compute, keep=True)
    logits = ready.logits(validation, batch_size=options.batch_size)
    scores = score(logits, validation.labels)
    if not math.isfinite(scores.loss):
        raise InputError(
            f"the validation loss is {scores.loss}; lower --encoder-lr and --head-lr, or use "
            "--precision fp32 (the best epoch before it is kept)"
        )
    return scores
