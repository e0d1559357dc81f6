"""The training loop: `fit` trains a classifier, or its head on a frozen encoder's features."""

import math
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from minibert.data.batches import Dataset, to_device
from minibert.device import Compute, choose_compute
from minibert.errors import InputError
from minibert.inference.batched import head_for_inference, prepare_for_inference
from minibert.model.classifier import Classifier, Head
from minibert.tasks.prior import prior_of
from minibert.tasks.task import Scores, Task
from minibert.training.callback import Callback
from minibert.training.finite import FiniteCheck
from minibert.training.frozen import frozen_layers
from minibert.training.gradients import GradientSum
from minibert.training.optimizer import (
    clip_gradients,
    learning_rate_factor,
    make_optimizer,
    set_learning_rates,
)
from minibert.training.options import TrainingOptions
from minibert.training.prepare import best_weights, prepare
from minibert.training.state import TrainResult, TrainState
from minibert.training.steps import (
    kept_random_state,
    optimizer_steps,
    seed_dropout,
    step_batches,
)
from minibert.training.word_rows import compact_word_rows


def fit(
    model: Classifier,
    train: Dataset,
    validation: Dataset,
    options: TrainingOptions | None = None,
    *,
    compute: Compute | None = None,
    callback: Callback | None = None,
    keep_best: bool = True,
    sample_weight: Sequence[float] | np.ndarray | None = None,
) -> TrainResult:
    """Train a classifier until the epochs or the patience are used up. Nothing is printed.

    The model ends in evaluation mode, on the device of `compute` (default: this machine's best),
    with the weights of the epoch that is best on `validation`, or of the last if keep_best=False.
    `sample_weight` (N,) says how much each training row counts in the loss (default: all the same).
    The temperature and thresholds of an earlier training are dropped.
    Batches and dropout depend on `options.seed`; torch's random state stays as it was. Raises
    InputError for a loss or gradient that is not finite. `help(minibert)` shows an example.
    """
    options, callback = options or TrainingOptions(), callback or Callback()
    compute = compute or choose_compute()
    prepared = prepare(model, train, validation, options, compute, callback, sample_weight)
    module, task, train, validation, weights, row_weights, encoding = prepared
    finite = FiniteCheck(train, options, compute)
    with (
        frozen_layers(model, options),
        best_weights(model, keep=keep_best) as keep_weights,
        compact_word_rows(model.encoder, train) as whole_table,
        kept_random_state(compute.device),
        closing(callback),
    ):
        optimizer = make_optimizer(model, options)
        add_up = GradientSum(optimizer, compute.processes)
        state = first_state(module, optimizer, task, options, compute, train, validation)
        callback.on_start(state)
        state.start_clock()
        while not finished(state):
            module.train()
            for rows in remaining_steps(train, state):
                state.start_clock()
                lr = set_step_rates(state)
                loss = add_up(forward_backward(state, train, rows, weights, compute, row_weights))
                norm = clip(state)
                finite.check(state.step, loss, norm)
                update_weights(state)
                state.count_step(loss, norm, texts=sum(map(len, rows)), lr=lr)
                callback.on_step(state, loss, lr)
            finite.raise_if_found()
            state.count_time()
            table = whole_table()
            with callback.validating(state), table:
                scores = validate(state, validation, compute)
            if state.end_epoch(scores):
                with whole_table():
                    keep_weights()
                    callback.on_best(model)
            callback.on_epoch(state)
        callback.on_end(state)
    return state.result(encoding)


def first_state(
    module: nn.Module,
    optimizer: AdamW,
    task: Task,
    options: TrainingOptions,
    compute: Compute,
    train: Dataset,
    validation: Dataset,
) -> TrainState:
    """Return the state before the first step."""
    texts = len(train)
    steps = optimizer_steps(texts, options)
    prior = prior_of(task, train.labels, validation.labels, options)
    scaler, device = compute.scaler(), compute.device
    return TrainState(module, optimizer, scaler, device, task, options, texts, steps, prior)


def finished(state: TrainState) -> bool:
    """Return whether all epochs are done, or the last `patience` of them were no better."""
    patience = state.options.patience
    worse = state.epoch - state.best_epoch
    return state.epoch >= state.options.epochs or (patience is not None and worse >= patience)


def remaining_steps(train: Dataset, state: TrainState) -> list[list[np.ndarray]]:
    """Return the steps left in this epoch. A step is a list of batches of row numbers."""
    done = state.step - state.epoch * state.steps_per_epoch
    return step_batches(train, state.options, state.epoch)[done:]


def set_step_rates(state: TrainState) -> float:
    """Set the learning rates of the next step; return the highest."""
    options, total = state.options, state.steps_per_epoch * state.options.epochs
    factor = learning_rate_factor(state.step, total, kind=options.schedule, warmup=options.warmup)
    return set_learning_rates(state.optimizer, factor)


def forward_backward(
    state: TrainState,
    train: Dataset,
    rows: Sequence[np.ndarray],
    weights: Tensor,
    compute: Compute,
    row_weights: Tensor,
) -> Tensor:
    """Compute the gradients of one step; return its loss.

    `rows` are the row numbers of each batch of the step. A batch's summed loss is divided by the
    rows of the whole step, so several batches equal one large batch. Each of several processes has
    some of the batches, and so a part of the gradients and of the loss.
    """
    texts = sum(map(len, rows))
    total_loss = torch.zeros((), device=compute.device)
    state.scaler.scale(total_loss)  # it must know of the step, also without a batch
    for number in compute.processes.deal(range(len(rows))):
        batch = train.batch(rows[number]).to(compute.device)
        seed_dropout(state.options.seed, state.step, number, compute.device)
        with compute.autocast():
            logits = state.module(*batch.inputs)
        losses = state.task.losses(logits.float(), batch.labels, weights, state.options)
        loss = losses @ to_device(row_weights[rows[number]], compute.device) / texts
        state.scaler.scale(loss).backward()
        total_loss += loss.detach()
    return total_loss


def clip(state: TrainState) -> float | Tensor:
    """Scale the gradients down to `options.clip`; return their norm, or 0 if it is not limited."""
    state.scaler.unscale_(state.optimizer)
    return clip_gradients(state.optimizer, state.options.clip) if state.options.clip else 0.0


def update_weights(state: TrainState) -> None:
    """Take the optimizer's step. In fp16 the scaler leaves it out if a gradient is not finite."""
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()


def validate(state: TrainState, validation: Dataset, compute: Compute) -> Scores:
    """Score the module that trains, as it is used for inference."""
    if isinstance(state.module, Classifier):
        inference_model = prepare_for_inference(state.module, compute, keep=True)
    else:
        assert isinstance(state.module, Head)
        inference_model = head_for_inference(state.module, compute)
    logits = inference_model.logits(validation, batch_size=state.options.batch_size)
    scores = state.task.score(logits, validation.labels)
    if not math.isfinite(scores.loss):
        raise InputError(
            f"the validation loss is {scores.loss}; lower --encoder-lr and --head-lr, or use "
            "--precision fp32"
        )
    return scores
