"""Proves which parameters decay at which rate, and the schedules against hand and transformers.

Run: pytest tests/test_optim.py
"""

import math

import pytest
import torch
from conftest import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minibert.config import HeadConfig
from minibert.model import Classifier, Encoder, Head
from minibert.optim import (
    adamw,
    learning_rate_factor,
    parameter_groups,
    set_learning_rates,
)
from minibert.settings import SCHEDULES

RATES = {"encoder_lr": 2e-5, "head_lr": 1e-4, "weight_decay": 0.03}


def classifier(family: str, head: str = "mlp") -> Classifier:
    config = tiny_config(family)
    given = HeadConfig(head, "cls", ("a", "b", "c"), config.positions)
    encoder = Encoder(config, pooler=family == "bert")
    return Classifier(encoder, Head(config, given), pooling="cls")


# --- groups


@pytest.mark.parametrize("head", ["mlp", "relu", "linear", "native"])
def test_every_parameter_is_in_exactly_one_group_with_the_rate_and_decay_of_its_kind(family, head):
    model = classifier(family, head)
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


def test_what_does_not_train_is_in_no_group(family):
    model = classifier(family)
    model.encoder.embeddings.requires_grad_(False)
    model.encoder.blocks[0].requires_grad_(False)
    groups = parameter_groups(model.encoder, model.head, **RATES)
    grouped = {id(p) for group in groups for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


def test_without_an_encoder_only_the_head_is_grouped(family):
    model = classifier(family)
    groups = parameter_groups(None, model.head, **RATES)
    assert {group["lr"] for group in groups} == {1e-4}
    assert sum(len(group["params"]) for group in groups) == len(list(model.head.parameters()))


def test_the_update_is_adamw_s_with_bert_s_betas_and_epsilon():
    matrix, vector = nn.Parameter(torch.tensor([[2.0]])), nn.Parameter(torch.tensor([2.0]))
    groups = parameter_groups(None, nn.ParameterList([matrix, vector]), **RATES)
    optimizer = adamw(groups)
    for p in (matrix, vector):
        p.grad = torch.full_like(p, 0.5)
    optimizer.step()
    # First step: the bias-corrected moments are g and g^2, so the step is lr * g / (|g| + eps).
    step = 1e-4 * 0.5 / (0.5 + 1e-8)
    assert vector.item() == pytest.approx(2 - step, abs=1e-7)
    assert matrix.item() == pytest.approx(2 * (1 - 1e-4 * 0.03) - step, abs=1e-7)
    assert optimizer.defaults["betas"] == (0.9, 0.999) and optimizer.defaults["eps"] == 1e-8


def test_a_factor_is_of_each_group_s_own_rate_however_often_it_is_set(family):
    model = classifier(family)
    optimizer = adamw(parameter_groups(model.encoder, model.head, **RATES))
    set_learning_rates(optimizer, 0.1)
    assert set_learning_rates(optimizer, 0.5) == pytest.approx(5e-5)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-5, 5e-5}


# --- schedules


def factors(kind: str, steps: int, warmup: float) -> list[float]:
    return [learning_rate_factor(i, steps, kind=kind, warmup=warmup) for i in range(steps)]


def test_the_schedules_by_hand():
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
def test_after_the_warmup_the_schedules_are_transformers_own(kind, steps, warmup):
    """While rising they differ by one step on purpose: theirs spends a step at a rate of 0."""
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
def test_every_rate_is_above_zero_and_never_over_the_highest(steps, warmup, kind):
    found = factors(kind, steps, warmup)
    assert min(found) > 0 and max(found) == pytest.approx(1.0) and max(found) <= 1.0


@settings(deadline=None)
@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(SCHEDULES))
def test_rates_rise_and_then_never_rise_again(steps, warmup, kind):
    found = factors(kind, steps, warmup)
    rising = math.ceil(warmup * steps)
    assert found[:rising] == sorted(found[:rising])
    assert found[rising:] == sorted(found[rising:], reverse=True)
