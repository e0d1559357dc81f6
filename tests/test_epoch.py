"""Proves that a step which cannot be believed, or has no memory, ends a run with what to do.

Run: pytest tests/test_epoch.py
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from minibert.training.epoch import FiniteWatch, stretch_end, train_steps
from torch import Tensor, nn

from minibert import epoch
from minibert.commands.interrupts import DeferredInterrupt
from minibert.commands.options import RunSettings
from minibert.data.batches import FeatureDataset, training_order
from minibert.device import Compute
from minibert.errors import InputError
from minibert.training.state import Learner, Progress

CPU = torch.device("cpu")
GIVEN = RunSettings(batch_size=3, accumulate=2, epochs=2, head_lr=0.02, encoder_lr=0.003)
PART = FeatureDataset(
    torch.randn(13, 5, generator=torch.Generator().manual_seed(0)), torch.arange(13) % 3
)


def train(module: nn.Module, progress: Progress, precision: torch.dtype = torch.float32) -> None:
    """Train on to the end of an epoch: three steps of 6, 6 and 1 rows, or with 4 for a 6."""
    optimizer = torch.optim.AdamW([{"params": list(module.parameters()), "base_lr": 0.1}])
    runtime = Compute(CPU, precision)
    learner = Learner(module, optimizer, runtime.scaler(), runtime)
    train_steps(learner, PART, torch.ones(3), GIVEN, progress, DeferredInterrupt(patient=True))


def spoiled(monkeypatch, step: int, spoil: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Let the loss or the gradients of a step be what `spoil` makes of them."""
    whole, calls = epoch.accumulate_gradients, []

    def accumulate_gradients(learner, *rest):
        loss, weight = whole(learner, *rest)
        calls.append(1)
        return (spoil(learner.module, loss) if len(calls) == step else loss), weight

    monkeypatch.setattr(epoch, "accumulate_gradients", accumulate_gradients)


def nan_loss(module: nn.Module, loss: Tensor) -> Tensor:
    return loss * math.nan


def inf_gradient(module: nn.Module, loss: Tensor) -> Tensor:
    module.weight.grad[1, 2] = math.inf
    return loss


def rows_of(step: int) -> list[int]:
    order = training_order(PART.lengths, 3, seed=0, epoch=0)
    return (np.concatenate(order[2 * step - 2 : 2 * step]) + 1).tolist()


@pytest.mark.parametrize(
    ("clip", "spoil", "step", "what"),
    [
        (1.0, nan_loss, 2, "the loss is nan"),
        (0.0, nan_loss, 2, "the loss is nan"),
        (1.0, inf_gradient, 2, "the gradient's norm is inf"),
        (0.0, inf_gradient, 3, "the gradient's norm is inf"),  # the last before a state is saved
    ],
)
def test_what_is_not_finite_ends_the_run_before_the_weights_have_it(
    monkeypatch, clip, spoil, step, what
):
    monkeypatch.setattr(f"{__name__}.GIVEN", dataclasses.replace(GIVEN, clip=clip))
    spoiled(monkeypatch, step, spoil)
    module, progress, before = nn.Linear(5, 3), Progress(), []
    module.register_forward_pre_hook(lambda *_: before.append(module.weight.detach().clone()))
    with pytest.raises(InputError) as error:
        train(module, progress)
    rows = rows_of(step)
    more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
    assert str(error.value) == (
        f"step {step}: {what}, with rows {', '.join(map(str, rows[:4]))}{more} of the training "
        "part; likely a learning rate is too high (--encoder-lr is 0.003, --head-lr 0.02); the "
        "best epoch before it is kept"
    )
    assert progress.step == step - 1
    assert torch.equal(module.weight, before[-1])


def test_without_clipping_an_infinite_gradient_shows_in_the_next_loss(monkeypatch):
    monkeypatch.setattr(f"{__name__}.GIVEN", dataclasses.replace(GIVEN, clip=0.0))
    spoiled(monkeypatch, 1, inf_gradient)
    with pytest.raises(InputError, match="step 2: the loss is nan"):
        train(nn.Linear(5, 3), Progress())


def test_a_lower_precision_is_named_as_a_cause(monkeypatch):
    spoiled(monkeypatch, 1, nan_loss)
    with pytest.raises(InputError, match=r"0.02\), or the numbers of bf16 too .*--precision fp32"):
        train(nn.Linear(5, 3), Progress(), torch.bfloat16)


def test_in_fp16_infinite_gradients_are_usual_and_only_the_loss_counts(monkeypatch):
    spoiled(monkeypatch, 2, inf_gradient)
    progress = Progress()
    train(nn.Linear(5, 3), progress, torch.float16)
    assert progress.step == 3
    spoiled(monkeypatch, 1, nan_loss)
    with pytest.raises(InputError, match="step 1: the loss is nan"):
        train(nn.Linear(5, 3), Progress(), torch.float16)


@pytest.mark.parametrize("norms", [True, False])
def test_a_device_that_is_not_waited_for_keeps_the_first_of_several(norms):
    groups = [[np.array([number])] for number in range(5)]
    watch = FiniteWatch(groups, 10, GIVEN, Compute(CPU), norms=norms)
    watch.waits = True
    figures = [(0.5, 1.0), (0.5, math.inf), (math.nan, 1.0), (math.inf, math.nan), (0.5, 1.0)]
    for number, (loss, norm) in enumerate(figures):
        watch.see(10 + number, torch.tensor(loss), torch.tensor(norm))
        if number == 0:
            watch.look()  # all is well so far
    said = "step 12: the gradient's norm is inf, with rows 2 of"
    if not norms:
        said = "step 13: the loss is nan, with rows 3 of"
    with pytest.raises(InputError, match=said):
        watch.look()


# --- memory


class Hungry(nn.Linear):
    """A layer that asks for more than any machine has, in a way of its own."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(5, 3)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if self.error is None:
            return torch.empty(2**50)
        raise self.error


@pytest.mark.parametrize(
    "error", [None, MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to")]
)
def test_out_of_memory_says_what_to_change(error):
    with pytest.raises(InputError) as raised:
        train(Hungry(error), Progress())
    assert str(raised.value) == (
        "out of memory, training on 3 texts at once, the longest of 1 tokens; start a new run with "
        "--batch-size 2 --accumulate 4 (the same steps), a --max-length below 1, or "
        "--precision bf16"
    )


def test_another_runtime_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="a bug"):
        train(Hungry(RuntimeError("a bug")), Progress())


# --- stretches


def test_a_stretch_ends_where_a_state_is_due():
    every = dataclasses.replace(GIVEN, save_every=4)
    assert [stretch_end(step, 10, every) for step in (0, 3, 4, 7, 8, 9)] == [4, 4, 8, 8, 10, 10]
    assert stretch_end(3, 10, GIVEN) == 10
