"""AdamW's groups, gradient clipping, and the learning rate schedules.

Run: pytest tests/test_optimizer.py
"""

import math

import pytest
import torch
from helpers import tiny_classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minibert.training.optimizer import (
    clip_gradients,
    learning_rate_factor,
    make_optimizer,
    parameter_groups,
    set_learning_rates,
)
from minibert.training.options import SCHEDULES, TrainingOptions

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

RATES = {"encoder_lr": 2e-5, "head_lr": 1e-4, "weight_decay": 0.03}


# --- groups


@pytest.mark.parametrize("head", ["mlp", "relu", "linear", "native"])
def test_every_parameter_is_in_exactly_one_group(family, head):
    model = tiny_classifier(family, head=head)
    groups = parameter_groups(model.encoder, model.head, **RATES)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    group_of = {id(p): group for group in groups for p in group["params"]}
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    for name, p in model.named_parameters():
        group = group_of[id(p)]
        assert group["lr"] == group["base_lr"] == (1e-4 if name.startswith("head.") else 2e-5), name
        undecayed = name.endswith("bias") or id(p) in norms
        assert group["weight_decay"] == (0.0 if undecayed else 0.03), name


def test_frozen_parameters_are_in_no_group(family):
    model = tiny_classifier(family)
    model.encoder.embeddings.requires_grad_(False)
    model.encoder.blocks[0].requires_grad_(False)
    groups = parameter_groups(model.encoder, model.head, **RATES)
    grouped = {id(p) for group in groups for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


def test_without_an_encoder_only_the_head_is_grouped(family):
    model = tiny_classifier(family)
    groups = parameter_groups(None, model.head, **RATES)
    assert {group["lr"] for group in groups} == {1e-4}
    assert sum(len(group["params"]) for group in groups) == len(list(model.head.parameters()))


def test_the_first_update_by_hand():
    """AdamW with BERT's betas and epsilon: matrices decay, vectors do not."""
    model = tiny_classifier(head="linear")
    options = TrainingOptions(freeze=True, head_lr=1e-4, weight_decay=0.03)
    optimizer = make_optimizer(model, options)
    matrix, vector = model.head.out.weight, model.head.out.bias
    for p in (matrix, vector):
        nn.init.constant_(p, 2.0)
        p.grad = torch.full_like(p, 0.5)
    optimizer.step()
    # The bias-corrected moments are g and g^2, so the step is lr * g / (|g| + eps).
    step = 1e-4 * 0.5 / (0.5 + 1e-8)
    torch.testing.assert_close(vector, torch.full((3,), 2 - step))
    torch.testing.assert_close(matrix, torch.full((3, 12), 2 * (1 - 1e-4 * 0.03) - step))
    assert optimizer.defaults["betas"] == (0.9, 0.999) and optimizer.defaults["eps"] == 1e-8


def test_a_factor_multiplies_each_group_s_peak_rate_and_not_the_last_rate(family):
    optimizer = make_optimizer(tiny_classifier(family), TrainingOptions())
    set_learning_rates(optimizer, 0.1)
    assert set_learning_rates(optimizer, 0.5) == pytest.approx(5e-5)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-5, 5e-5}


# --- clipping


def with_gradients(*gradients: torch.Tensor | None) -> torch.optim.Optimizer:
    """Return an optimizer of parameters that have these gradients."""
    parameters = []
    for gradient in gradients:
        parameters.append(nn.Parameter(torch.ones(2 if gradient is None else gradient.shape)))
        parameters[-1].grad = None if gradient is None else gradient.clone()
    return torch.optim.SGD(parameters)


def gradients_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor | None]:
    return [p.grad for p in optimizer.param_groups[0]["params"]]


@pytest.mark.parametrize("largest", [0.1, 4.99, 5.01, 1e9])
def test_clipping_equals_torch_s(largest):
    """The norm is 5: of 3 and 4 in two parameters; a third has no gradient."""
    gradients = (torch.full((3, 3), 1.0).T, None, torch.tensor([0.0, -4.0]))
    ours, theirs = with_gradients(*gradients), with_gradients(*gradients)
    assert clip_gradients(ours, largest) == pytest.approx(5)
    nn.utils.clip_grad_norm_(theirs.param_groups[0]["params"], largest)
    for gradient, expected in zip(gradients_of(ours), gradients_of(theirs), strict=True):
        assert (gradient is None) == (expected is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)
    clipped = math.hypot(*(x.norm().item() for x in gradients_of(ours) if x is not None))
    assert clipped == pytest.approx(min(5.0, largest), rel=1e-5)


def test_clipping_accepts_no_gradient_and_a_gradient_of_zero():
    assert clip_gradients(with_gradients(None), 1.0) == 0
    zero = with_gradients(torch.zeros(3))
    assert clip_gradients(zero, 1.0) == 0
    assert zero.param_groups[0]["params"][0].grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_clipping_a_gradient_that_is_not_finite_equals_torch_s_too(value):
    gradients = (torch.tensor([1.0, value, 0.0]), torch.tensor([2.0]))
    ours, theirs = with_gradients(*gradients), with_gradients(*gradients)
    clip_gradients(ours, 1.0)
    nn.utils.clip_grad_norm_(theirs.param_groups[0]["params"], 1.0)
    for gradient, expected in zip(gradients_of(ours), gradients_of(theirs), strict=True):
        torch.testing.assert_close(gradient, expected, equal_nan=True)


# --- schedules


def factors(kind: str, steps: int, warmup: float) -> list[float]:
    return [learning_rate_factor(i, steps, kind=kind, warmup=warmup) for i in range(steps)]


def test_schedules_by_hand():
    assert factors("linear", 6, 1 / 3) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    half = math.sqrt(0.5)
    cosine = [0.5, 1.0, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert factors("cosine", 6, 1 / 3) == pytest.approx(cosine)
    assert factors("constant", 6, 1 / 3) == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert factors("linear", 4, 0.0) == [1.0, 0.75, 0.5, 0.25]
    assert factors("linear", 4, 1.0) == [0.25, 0.5, 0.75, 1.0]
    assert factors("linear", 1, 0.1) == [1.0]


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize(("steps", "warmup"), [(13, 0.3), (40, 0.1), (7, 0.0)])
def test_after_the_warmup_schedules_equal_those_of_transformers(kind, steps, warmup):
    """In the warm-up they differ by one step on purpose: theirs starts with a rate of 0."""
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    make = getattr(transformers, f"get_{kind}_schedule_with_warmup")
    rising = math.ceil(warmup * steps)
    theirs = make(optimizer, rising, steps).lr_lambdas[0]
    ours = factors(kind, steps, warmup)
    assert ours[rising:] == pytest.approx([theirs(i) for i in range(rising, steps)])
    assert ours[:rising] == pytest.approx([theirs(i + 1) for i in range(rising)])


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from(SCHEDULES))
def test_every_rate_is_above_zero_and_at_most_the_peak(steps, warmup, kind):
    found = factors(kind, steps, warmup)
    assert min(found) > 0 and max(found) == pytest.approx(1.0) and max(found) <= 1.0


@settings(deadline=None)
@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(SCHEDULES))
def test_rates_rise_in_the_warmup_and_never_after_it(steps, warmup, kind):
    found = factors(kind, steps, warmup)
    rising = math.ceil(warmup * steps)
    assert found[:rising] == sorted(found[:rising])
    assert found[rising:] == sorted(found[rising:], reverse=True)
