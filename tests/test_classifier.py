"""Pooling and heads compute their formulas; logits do not depend on padding or other texts.

Run: pytest tests/test_classifier.py
"""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_classifier, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from models import LABELS, TOLERANCE, make_batch, modules_dropped, randomize
from torch import nn

from minibert.checkpoint.families import FAMILIES
from minibert.model.classifier import Classifier, Head, pool
from minibert.model.config import HeadConfig

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

# Padding and other texts


def classifier(family: str, pooling: str) -> Classifier:
    model = tiny_classifier(family, pooling=pooling)
    randomize(model)
    return model.eval()


MODELS = {
    (family, pooling): classifier(family, pooling)
    for family, pooling in [
        ("bert", "cls"),
        ("bert", "pooler"),
        ("bert", "mean"),
        ("distilbert", "cls"),
        ("distilbert", "mean"),
        ("roberta", "cls"),
        ("roberta", "mean"),
        ("electra", "cls"),
    ]
}


@pytest.mark.parametrize(("family", "pooling"), MODELS)
@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 17), min_size=1, max_size=5),
    extra=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_a_text_alone_has_the_logits_it_has_in_a_batch(
    family: str, pooling: str, lengths: list[int], extra: int, seed: int
) -> None:
    model = MODELS[family, pooling]
    batch = make_batch(family, tuple(lengths), seed)
    batch = {name: F.pad(values, (0, extra)) for name, values in batch.items()}
    with torch.no_grad():
        together = model(**batch)
        for row, length in enumerate(lengths):
            alone = {name: values[row : row + 1, :length] for name, values in batch.items()}
            del alone["attention_mask"]
            torch.testing.assert_close(model(**alone)[0], together[row], **TOLERANCE)


def test_poolings() -> None:
    hidden = torch.tensor(
        [[[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]], [[6.0, 7.0], [1e6, 1e6], [1e6, 1e6]]]
    )
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    pooler = nn.Linear(2, 2)
    nn.init.constant_(pooler.weight, 0.5)
    nn.init.constant_(pooler.bias, -1.0)

    def pooled(how: str) -> list[list[float]]:
        return pool(hidden, mask, how=how, pooler=pooler).tolist()

    assert pooled("mean") == [[3.0, 5.0], [6.0, 7.0]]
    assert pooled("cls") == [[1.0, 2.0], [6.0, 7.0]]
    first, second = [math.tanh(0.5)] * 2, [math.tanh(5.5)] * 2
    assert pooled("pooler") == [pytest.approx(first), pytest.approx(second)]
    assert pool(hidden[:1], None, how="mean", pooler=None).tolist() == [[3.0, 5.0]]
    assert pool(hidden, mask.bool(), how="mean", pooler=None).tolist() == [[3.0, 5.0], [6.0, 7.0]]


@pytest.mark.parametrize(("family", "pooling"), MODELS)
def test_only_mean_pooling_needs_the_last_layer_of_all_tokens(family: str, pooling: str) -> None:
    model, batch = MODELS[family, pooling], make_batch(family)
    widths: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *call: widths.append(call[-1].shape[1]))
        for block in model.encoder.blocks
    ]
    features = model.features(**batch)
    for hook in hooks:
        hook.remove()
    assert widths == [9, 9, 9 if pooling == "mean" else 1]
    hidden = model.encoder(**batch)
    pooler = model.encoder.pooler
    expected = pool(hidden, batch["attention_mask"], how=pooling, pooler=pooler)
    torch.testing.assert_close(features, expected, **TOLERANCE)
    torch.testing.assert_close(model(**batch), model.head(expected), **TOLERANCE)


# Heads


def test_classifier_dropout_of_none_is_the_hidden_dropout() -> None:
    native = HeadConfig("native", "pooler", LABELS, 40)
    assert Head(tiny_config("bert", dropout=0.37), native).dropout.p == 0.37


@pytest.mark.parametrize(
    ("kind", "hidden", "activation", "dropouts"),
    [
        ("mlp", 6, F.gelu, (0.0, 0.3)),
        ("relu", 512, F.relu, (0.0, 0.2)),
        ("linear", None, None, (0.0, 0.0)),
        ("native bert", None, None, (0.0, 0.17)),
        ("native distilbert", 12, F.relu, (0.0, 0.17)),
        ("native roberta", 12, torch.tanh, (0.17, 0.17)),
        ("native electra", 12, F.gelu, (0.17, 0.17)),
    ],
)
def test_heads(
    kind: str, hidden: int | None, activation: Any, dropouts: tuple[float, float]
) -> None:
    kind, _, family = kind.partition(" ")
    config = tiny_config(family or "bert", classifier_dropout=0.17)
    head = Head(config, HeadConfig(kind, FAMILIES[config.family].native_pooling, LABELS, 40)).eval()
    randomize(head)
    shapes = {name: tuple(value.shape) for name, value in head.named_parameters()}
    expected = {"out.weight": (3, hidden or 12), "out.bias": (3,)}
    if hidden:
        expected |= {"dense.weight": (hidden, 12), "dense.bias": (hidden,)}
    assert shapes == expected
    assert (head.input_dropout.p, head.dropout.p) == dropouts

    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
    logits = x
    if head.dense is not None:
        logits = activation(x @ head.dense.weight.T + head.dense.bias)
    logits = logits @ head.out.weight.T + head.out.bias
    torch.testing.assert_close(head(x), logits, **TOLERANCE)


def test_dropout_of_a_head_is_before_its_output_layer() -> None:
    head = Head(tiny_config("bert"), HeadConfig("mlp", "cls", LABELS, 40)).train()
    ((p, dropped),) = modules_dropped(head, {"x": torch.ones(5, 12)})
    assert p == 0.3
    assert dropped.shape == (5, 6)


def test_an_mlp_head_starts_with_xavier_weights_and_zero_biases() -> None:
    config = tiny_config("bert", width=90)
    torch.manual_seed(0)
    dense = Head(config, HeadConfig("mlp", "cls", LABELS, 40)).dense
    assert dense is not None and not dense.bias.any()
    bound = math.sqrt(6 / (90 + 45))  # PyTorch's default is sqrt(1 / 90)
    assert 0.99 * bound < dense.weight.abs().max() <= bound
    assert dense.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_a_native_head_starts_as_in_transformers() -> None:
    config = tiny_config("distilbert", width=90, initializer_range=0.07)
    torch.manual_seed(0)
    head = Head(config, HeadConfig("native", "cls", LABELS, 40))
    assert head.dense is not None and not head.dense.bias.any() and not head.out.bias.any()
    assert head.dense.weight.std().item() == pytest.approx(0.07, rel=0.05)


def test_features_are_the_cut_before_the_head() -> None:
    model = MODELS["distilbert", "mean"]
    batch = make_batch("distilbert")
    features = model.features(**batch)
    assert features.shape == (4, 12)
    torch.testing.assert_close(model.head(features), model(**batch), **TOLERANCE)
