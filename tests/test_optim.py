"""Proves which parameters decay at which rate, clipping and the used rows against torch's own,
and the schedules against hand and transformers.

Run: pytest tests/test_optim.py
"""

import copy
import math

import pytest
import torch
from helpers import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minibert.commands.options import SCHEDULES
from minibert.model.config import HeadConfig
from minibert.model.encoder import Classifier, Embeddings, Encoder, Head, initialize
from minibert.training.optimizer import (
    UsedRows,
    adamw,
    clip_gradients,
    learning_rate_factor,
    parameter_groups,
    set_learning_rates,
)

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


# --- clipping


def with_gradients(*gradients: torch.Tensor | None) -> list[nn.Parameter]:
    """Return parameters that have these gradients."""
    parameters = []
    for gradient in gradients:
        parameters.append(nn.Parameter(torch.ones(2 if gradient is None else gradient.shape)))
        parameters[-1].grad = None if gradient is None else gradient.clone()
    return parameters


@pytest.mark.parametrize("largest", [0.1, 4.99, 5.01, 1e9])
def test_clipping_is_torch_s(largest):
    """The norm is 5: of 3 and 4 in two parameters; a third has no gradient."""
    gradients = (torch.full((3, 3), 1.0).T, None, torch.tensor([0.0, -4.0]))
    ours, theirs = with_gradients(*gradients), with_gradients(*gradients)
    clip_gradients(ours, largest)
    nn.utils.clip_grad_norm_(theirs, largest)
    for p, expected in zip(ours, theirs, strict=True):
        assert (p.grad is None) == (expected.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected.grad, rtol=1e-6, atol=0)
    clipped = math.hypot(*(p.grad.norm().item() for p in ours if p.grad is not None))
    assert clipped == pytest.approx(min(5.0, largest), rel=1e-5)


def test_clipping_takes_parameters_without_gradients_and_gradients_of_zero():
    clip_gradients([], 1.0)
    clip_gradients(with_gradients(None), 1.0)
    (zero,) = with_gradients(torch.zeros(3))
    clip_gradients([zero], 1.0)
    assert zero.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_clipping_what_is_no_number_is_torch_s_too(value):
    gradients = (torch.tensor([1.0, value, 0.0]), torch.tensor([2.0]))
    ours, theirs = with_gradients(*gradients), with_gradients(*gradients)
    clip_gradients(ours, 1.0)
    nn.utils.clip_grad_norm_(theirs, 1.0)
    for p, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, expected.grad, equal_nan=True)


# --- the used rows of the word table

USED = torch.tensor([1, 3, 4, 7])


def embeddings() -> Embeddings:
    torch.manual_seed(0)
    module = Embeddings(tiny_config("distilbert", vocab_size=9, dropout=0.0))
    initialize(module, 1.0)
    return module


def optimizer_of(module: nn.Module) -> torch.optim.AdamW:
    """Return AdamW at a rate that an epoch's steps change, with a decay that can be seen."""
    groups = [{"params": list(module.parameters()), "weight_decay": 0.1, "base_lr": 0.05}]
    return adamw(groups)


def train_on(module: Embeddings, optimizer: torch.optim.AdamW, steps: list[list[int]]) -> None:
    for number, ids in enumerate(steps):
        set_learning_rates(optimizer, 1 / (1 + number))
        values = module(torch.tensor([ids]), None)
        (values * torch.arange(12)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def trained_beside_the_whole_table(
    epochs: list[list[list[int]]], *, resumed: bool = False
) -> tuple[Embeddings, Embeddings]:
    """Train two twins, one whole and one by its used rows; return them."""
    whole, ours = embeddings(), embeddings()
    whole_optimizer = optimizer_of(whole)
    words = UsedRows(ours, USED)
    with words.in_place():
        optimizer = optimizer_of(ours)
    words.follow(optimizer)
    for steps in epochs:
        if resumed:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        with words.in_place():
            train_on(ours, optimizer, steps)
        words.settle(optimizer)
        train_on(whole, whole_optimizer, steps)
    return whole, ours


@pytest.mark.parametrize(
    "epochs",
    [
        [[[1, 3], [7, 4], [1, 1]]],  # rows come, stay away, come again; one comes twice
        [[[1, 3, 4, 7]], [[7]], [[3, 1], [4]]],
    ],
    ids=["one epoch", "three epochs"],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_used_rows_train_to_the_whole_table(epochs, resumed):
    """Rows that wait move by their moments, rows that no text uses by the decay alone."""
    whole, ours = trained_beside_the_whole_table(epochs, resumed=resumed)
    before = embeddings().word.weight
    unused = torch.tensor([0, 2, 5, 6, 8])
    assert (whole.word.weight[unused] / before[unused] < 0.999).all()  # the decay can be seen
    for (name, expected), found in zip(whole.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, msg=name)


def test_used_rows_give_the_vectors_of_the_table_and_have_no_others():
    module, ids = embeddings(), torch.tensor([[7, 1, 1], [4, 3, 7]])
    expected = module(ids, None)
    words = UsedRows(module, USED)
    with words.in_place():
        assert torch.equal(module(ids, None), expected)
        assert module.word is words and words.rows.shape == (4, 12)
        assert sum(p.shape[0] == 9 for p in module.parameters()) == 0  # the table does not train
        with pytest.raises(IndexError):
            module(torch.tensor([[0]]), None)


def test_the_table_is_back_in_its_place_after_an_error():
    module = embeddings()
    table, words = module.word, UsedRows(module, USED)
    with pytest.raises(KeyboardInterrupt), words.in_place():
        raise KeyboardInterrupt
    assert module.word is table and torch.equal(table.weight, embeddings().word.weight)


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
