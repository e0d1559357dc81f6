"""The steps of an epoch; stopped after any of them, a run goes on to the same bits."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.batches import Batch, Part, training_order
from minibert.display import EpochDisplay
from minibert.errors import InputError
from minibert.optim import clip_gradients, learning_rate_factor, set_learning_rates
from minibert.runtime import Runtime, memory_advice
from minibert.settings import RunSettings
from minibert.states import Learner, Progress
from minibert.stopping import Signals


def train_steps(
    learner: Learner,
    train: Part,
    weights: Tensor,
    settings: RunSettings,
    progress: Progress,
    stop: Signals,
) -> None:
    """Train on to the next state to save: an epoch's end, a `save_every`th step, or a signal.

    `progress` counts the steps. Raises InputError for a loss or gradient that is not finite, on a
    CPU before the weights have it, and where memory runs out.
    """
    optimizer, scaler, runtime = learner.optimizer, learner.scaler, learner.runtime
    learner.module.train()
    steps = optimizer_steps(len(train), settings)
    first = progress.epoch * steps
    order = training_order(
        train.lengths, settings.batch_size, seed=settings.seed, epoch=progress.epoch
    )
    groups = list(groups_of(order, settings.accumulate))
    texts = sum(len(rows) for group in groups[: progress.step - first] for rows in group)
    display = EpochDisplay(
        f"epoch {progress.epoch + 1}/{settings.epochs}",
        steps=steps,
        texts=len(train),
        done=(progress.step - first, texts),
    )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    watch = FiniteWatch(groups, first, settings, runtime, norms=not scaler.is_enabled())
    sums = torch.tensor([progress.loss_sum, progress.weight_sum], device=runtime.device)
    started = time.perf_counter()
    advice = lambda: smaller_steps(groups[progress.step - first], train, settings)  # noqa: E731
    with memory_advice(advice), closing(display):
        end = stretch_end(progress.step, first + steps, settings)
        for step in range(progress.step, end):
            rows = groups[step - first]
            lr = set_step_rates(optimizer, step, steps, settings)
            batches = [train.batch(batch_rows).to(runtime.device) for batch_rows in rows]
            loss, weight = accumulate_gradients(learner, batches, weights, settings.label_smoothing)
            scaler.unscale_(optimizer)
            ending = step + 1 == end or stop.number is not None
            norm: float | Tensor = 0.0
            # Without clipping the norm costs 7% of a step; what is not finite shows in the next
            # step's loss, but what is saved has no next step.
            if settings.clip or ending:
                norm = clip_gradients(parameters, settings.clip or math.inf)
            watch.see(step, loss, norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            sums += torch.stack((loss * weight, weight))
            texts += sum(len(batch.labels) for batch in batches)
            progress.step = step + 1
            if display.due():
                watch.look()
                display.show(texts, loss=float(loss), lr=lr)
            if ending:
                break
    watch.look()
    progress.loss_sum, progress.weight_sum = sums.tolist()
    seconds = time.perf_counter() - started
    progress.epoch_seconds += seconds
    progress.seconds += seconds


def stretch_end(step: int, epoch_end: int, settings: RunSettings) -> int:
    """Return the step after which the next state is to be saved."""
    if settings.save_every is None:
        return epoch_end
    return min(epoch_end, (step // settings.save_every + 1) * settings.save_every)


def set_step_rates(
    optimizer: torch.optim.Optimizer, step: int, steps: int, settings: RunSettings
) -> float:
    """Set the learning rates of a step, counted over all epochs of `steps`; return the highest."""
    factor = learning_rate_factor(
        step, steps * settings.epochs, kind=settings.schedule, warmup=settings.warmup
    )
    return set_learning_rates(optimizer, factor)


class FiniteWatch:
    """Finds the first step whose loss or gradient is not finite, and says what may be the cause.

    On a CPU that step is found before the optimizer takes it. A GPU is not waited for: it keeps
    what it found until somebody looks. With fp16's scaled loss, gradients that are not finite are
    skipped as a matter of course, so `norms` is false and the loss alone counts.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[np.ndarray]],
        first: int,
        settings: RunSettings,
        runtime: Runtime,
        *,
        norms: bool,
    ) -> None:
        self.groups, self.first, self.norms = groups, first, norms
        self.settings, self.precision = settings, runtime.precision
        self.waits = runtime.device.type != "cpu"
        self.found = torch.tensor([-1.0, 0.0, 0.0], device=runtime.device)  # step, loss, norm

    def see(self, step: int, loss: Tensor, norm: float | Tensor) -> None:
        """Note a step's loss and its gradient's norm."""
        if not self.waits:
            figures = float(loss), float(norm) if self.norms else 0.0
            if not all(map(math.isfinite, figures)):
                raise self._error(step, *figures)
            return
        seen = norm if self.norms and isinstance(norm, Tensor) else torch.zeros_like(loss)
        here = torch.stack((torch.full_like(loss, step), loss, seen))
        is_first = ~here.isfinite().all() & (self.found[0] < 0)
        self.found = torch.where(is_first, here, self.found)

    def look(self) -> None:
        """Raise InputError if a step was not finite."""
        if self.waits:
            step, loss, norm = self.found.tolist()
            if step >= 0:
                raise self._error(int(step), loss, norm)

    def _error(self, step: int, loss: float, norm: float) -> InputError:
        rows = np.concatenate(self.groups[step - self.first]) + 1
        more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
        what = (
            f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        )
        low = f", or the numbers of {self.precision} too small (--precision fp32)"
        return InputError(
            f"step {step + 1}: {what}, with rows {', '.join(map(str, rows[:4]))}{more} of the "
            f"training part; likely a learning rate is too high (--encoder-lr is "
            f"{self.settings.encoder_lr:g}, --head-lr {self.settings.head_lr:g})"
            f"{'' if self.precision == 'fp32' else low}; the best epoch before it is kept"
        )


def smaller_steps(rows: Sequence[np.ndarray], train: Part, settings: RunSettings) -> str:
    """Return what to do where memory does not suffice for a step."""
    size = settings.batch_size
    longest = max(int(train.lengths[batch_rows].max()) for batch_rows in rows)
    same = f"--batch-size {-(-size // 2)} --accumulate {2 * settings.accumulate} (the same steps), "
    return (
        f"training on {size} texts at once, the longest of {longest} tokens; start a new run with "
        f"{same if size > 1 else ''}a --max-length below {longest}, or --precision bf16"
    )


def accumulate_gradients(
    learner: Learner, batches: Sequence[Batch], weights: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Add up the gradients of one step; return its mean loss and the weight of its labels.

    Loss and gradients are those of the batches as one big batch: each batch's sum is divided by the
    weight of the whole step, known beforehand from the labels.
    """
    whole = torch.stack([weights[batch.labels].sum() for batch in batches]).sum()
    total = torch.zeros((), device=whole.device)
    for batch in batches:
        with learner.runtime.autocast():
            logits = learner.module(*batch.inputs)
        loss = F.cross_entropy(
            logits.float(),
            batch.labels,
            weight=weights,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        loss = loss / whole
        learner.scaler.scale(loss).backward()
        total += loss.detach()
    return total, whole


def optimizer_steps(texts: int, settings: RunSettings) -> int:
    """Return the number of optimizer steps in an epoch, the last partial ones counted."""
    return math.ceil(math.ceil(texts / settings.batch_size) / settings.accumulate)


def groups_of(order: Sequence[np.ndarray], size: int) -> Iterator[Sequence[np.ndarray]]:
    """Yield the batches of each optimizer step."""
    for start in range(0, len(order), size):
        yield order[start : start + size]
