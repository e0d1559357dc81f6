"""Losses and gradients that are not finite, and which steps have which rows.

Run: pytest tests/test_finite.py
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minibert.data.batches import Batch, FeatureDataset, training_order
from minibert.device import Compute
from minibert.errors import InputError
from minibert.model.classifier import Classifier
from minibert.training.callback import Callback
from minibert.training.finite import FiniteCheck
from minibert.training.loop import fit
from minibert.training.options import TrainingOptions
from minibert.training.state import TrainResult, TrainState
from minibert.training.steps import optimizer_steps, step_batches

CPU = torch.device("cpu")
VALUES = torch.randn(13, 12, generator=torch.Generator().manual_seed(0))


def options(**changes: Any) -> TrainingOptions:
    """Steps of 6, 6 and 1 rows, or of 4 instead of a 6."""
    values = {"batch_size": 3, "accumulate": 2, "epochs": 2, "head_lr": 0.02, "encoder_lr": 0.003}
    return TrainingOptions(**{**values, "freeze": True, **changes})


class Spoiled(FeatureDataset):
    """Features whose batches of one step are NaN; every step has two batches but the last."""

    def __init__(self, step: int = 0, places: Sequence[str] | None = None) -> None:
        super().__init__(VALUES.clone(), torch.arange(13) % 3, places=places)
        self.step, self.batches = step, 0

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        self.batches += 1
        batch = super().batch(rows)
        if (self.batches + 1) // 2 == self.step:
            values = batch.inputs[0]
            assert values is not None
            return Batch((values * math.nan,), batch.labels)
        return batch


class Watcher(Callback):
    """Keeps the weights after each step; lets the gradient of one step be infinite."""

    def __init__(self, model: Classifier, inf_step: int = 0) -> None:
        super().__init__()
        self.inf_step, self.backwards, self.steps = inf_step, 0, 0
        self.weight = model.head.out.weight
        self.weights = [self.weight.detach().clone()]
        self.weight.register_hook(self.gradient)

    def gradient(self, gradient: Tensor) -> Tensor:
        self.backwards += 1
        gradient = gradient.clone()
        if (self.backwards + 1) // 2 == self.inf_step:
            gradient[1, 2] = math.inf
        return gradient

    def on_step(self, state: TrainState, loss: Tensor, lr: float) -> None:
        self.steps = state.step
        self.weights.append(self.weight.detach().clone())


def train(
    *,
    nan_step: int = 0,
    inf_step: int = 0,
    precision: str = "fp32",
    places: Sequence[str] | None = None,
    **changes: Any,
) -> tuple[Watcher, Callable[[], TrainResult]]:
    """Return a callback, and what trains with the loss or the gradient of a step spoiled."""
    model = tiny_classifier(head="linear")
    watcher = Watcher(model, inf_step)
    dataset, compute = Spoiled(nan_step, places), Compute(CPU, precision)
    given = options(**changes)
    return watcher, lambda: fit(model, dataset, Spoiled(), given, compute=compute, callback=watcher)


def rows_of(step: int) -> list[int]:
    """The rows of a step of the first epoch, counted from 1."""
    order = training_order(np.ones(13, dtype=int), 3, seed=0, epoch=0)
    return (np.concatenate(order[2 * step - 2 : 2 * step]) + 1).tolist()


@pytest.mark.parametrize(
    ("spoiled", "clip", "problem"),
    [
        ({"nan_step": 2}, 1.0, "the loss is nan"),
        ({"nan_step": 2}, 0.0, "the loss is nan"),
        ({"inf_step": 2}, 1.0, "the gradient's norm is inf"),
    ],
)
def test_a_bad_step_raises_before_the_optimizer_takes_it(spoiled, clip, problem):
    watcher, run = train(**spoiled, clip=clip)
    rows = rows_of(2)
    more = f" and {len(rows) - 3} more"
    names = ", ".join(f"row {row}" for row in rows[:3])
    with pytest.raises(InputError) as error:
        run()
    assert str(error.value) == (
        f"step 2: {problem}, on {names}{more}; likely a learning rate is too high (--encoder-lr is "
        "0.003, --head-lr 0.02)"
    )
    assert watcher.steps == 1
    assert torch.equal(watcher.weight, watcher.weights[-1])


def test_without_clipping_an_infinite_gradient_shows_in_the_next_loss():
    with pytest.raises(InputError, match="step 2: the loss is nan"):
        train(inf_step=1, clip=0.0)[1]()


def test_without_clipping_the_validation_finds_an_infinite_gradient_of_the_last_step():
    with pytest.raises(InputError, match=r"the validation loss is nan; lower --encoder-lr"):
        train(inf_step=3, clip=0.0, epochs=1)[1]()


def test_a_step_names_the_file_and_line_of_its_texts():
    places = [f"reviews.csv, line {number + 2}" for number in range(13)]
    first, second, third, *more = (f"reviews.csv, line {row + 1}" for row in rows_of(1))
    with pytest.raises(InputError, match=f"on {first}, {second}, {third} and {len(more)} more;"):
        train(nan_step=1, places=places)[1]()


def test_a_lower_precision_is_named_as_a_cause():
    with pytest.raises(InputError, match=r"0.02\), or bf16 has too few digits .*--precision fp32"):
        train(nan_step=1, precision="bf16")[1]()


def test_in_fp16_an_infinite_gradient_skips_the_step_and_only_the_loss_is_checked():
    watcher, run = train(inf_step=2, precision="fp16")
    run()
    assert torch.equal(watcher.weights[1], watcher.weights[2])
    assert not torch.equal(watcher.weights[2], watcher.weights[3])
    with pytest.raises(InputError, match="step 1: the loss is nan"):
        train(nan_step=1, precision="fp16")[1]()


@pytest.mark.parametrize(
    ("precision", "message"),
    [("fp32", "step 3: the gradient's norm is inf"), ("fp16", "step 4: the loss is nan")],
)
def test_a_gpu_keeps_the_first_bad_step_until_it_is_asked(precision, message):
    """On a CPU, told not to wait; fp16 does not check the gradient."""
    check = FiniteCheck(Spoiled(), options(), Compute(CPU, precision))
    check.check_now = False
    figures = [(0.5, 1.0), (0.5, 2.0), (0.5, math.inf), (math.nan, 1.0), (math.inf, math.nan)]
    for step, (loss, norm) in enumerate(figures):
        check.check(step, torch.tensor(loss), torch.tensor(norm))
        if step == 1:
            check.raise_if_found()  # nothing is found so far
    with pytest.raises(InputError, match=message):
        check.raise_if_found()


# --- the rows of each step


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5))
def test_an_epoch_has_as_many_steps_as_are_counted(rows, batch_size, accumulate):
    dataset = FeatureDataset(torch.zeros(rows, 2), torch.zeros(rows, dtype=torch.int64))
    chosen = TrainingOptions(batch_size=batch_size, accumulate=accumulate)
    steps = step_batches(dataset, chosen, epoch=0)
    assert len(steps) == optimizer_steps(rows, chosen)
    order = training_order(dataset.lengths, batch_size, seed=0, epoch=0)
    assert [x.tolist() for step in steps for x in step] == [x.tolist() for x in order]
    assert all(len(step) == accumulate for step in steps[:-1])
