"""Proves how far a packed model's answers are from the plain one's: not at all in fp32, by bf16's
own roundings in bf16, by a bound that can be computed in int8.

Run: pytest tests/test_packed.py
"""

import copy
from typing import Any

import pytest
import torch
from helpers import tiny_config
from torch import Tensor, nn

from minibert.inference.cpu import PLAIN, PrepackedLinear, QuantizedLinear, fused_name, pack
from minibert.model.config import HeadConfig
from minibert.model.encoder import Classifier, Encoder, Head, initialize

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="needs a PyTorch with oneDNN"
)

SHAPES = [
    {"width": 12, "heads": 2, "layers": 3, "feed_forward": 23, "activation": "gelu"},
    {"width": 15, "heads": 3, "layers": 1, "feed_forward": 7, "activation": "gelu_new"},
    {"width": 7, "heads": 7, "layers": 2, "feed_forward": 33, "activation": "relu"},
]
POOLINGS = {"bert": ("cls", "pooler", "mean"), "distilbert": ("cls", "mean")}
BF16 = 2.0**-8  # half the distance between two neighbours, relative: the error of one rounding


def batch(lengths: tuple[int, ...], *, padded: bool = True, pairs: bool = False) -> dict:
    """Return random texts; whole ones have no mask, pairs a second segment from token 3 on."""
    random = torch.Generator().manual_seed(1)
    columns = torch.arange(max(lengths))
    mask = columns < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, 50, mask.shape, generator=random)
    inputs: dict[str, Tensor] = {"input_ids": ids}
    if padded:
        inputs = {"input_ids": ids * mask, "attention_mask": mask}
    if pairs:
        inputs["token_type_ids"] = (columns >= 3).expand_as(mask).long()
    return inputs


SOME = [batch((9, 1, 6, 4)), batch((5, 5, 5), padded=False)]
# 64 texts of 2 to 17 tokens: enough to compare errors and to count labels.
MANY = batch(tuple(2 + i % 16 for i in range(64)))


def classifier(family: str, pooling: str, **shape: Any) -> Classifier:
    """A random model whose biases are not zero, and for which no class is the usual one."""
    torch.manual_seed(0)
    config = tiny_config(family, **shape)
    head = Head(config, HeadConfig("linear", pooling, ("a", "b", "c"), config.positions))
    model = Classifier(Encoder(config, pooler=family == "bert"), head, pooling=pooling)
    initialize(model, 0.3)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias, std=0.3)
    with torch.no_grad():
        model.head.out.bias -= model.eval()(**MANY).mean(dim=0)
    return model


@torch.no_grad()
def answers(model: Classifier, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs)


# Whole models


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["activation"])
def test_fp32_is_the_plain_model(family, shape):
    for pooling in POOLINGS[family]:
        plain = classifier(family, pooling, **shape)
        packed = pack(copy.deepcopy(plain), "fp32")
        batches = [*SOME, batch((7, 4), pairs=True)] if family == "bert" else SOME
        for inputs in batches:
            expected = answers(plain, inputs)
            torch.testing.assert_close(answers(packed, inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["activation"])
def test_bf16_errs_by_a_few_roundings_and_not_much_more_than_autocast(family, shape):
    for pooling in POOLINGS[family]:
        plain = classifier(family, pooling, **shape)
        exact = answers(plain, MANY)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            usual = answers(plain, MANY).float() - exact
        error = answers(pack(copy.deepcopy(plain), "bf16"), MANY) - exact
        assert 0 < error.std() < 10 * BF16 * exact.std()
        assert error.std() < 3 * usual.std() and error.abs().max() < 3 * usual.abs().max()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["activation"])
def test_int8_errs_by_a_tenth_of_the_spread_at_most(family, shape):
    for pooling in POOLINGS[family]:
        plain = classifier(family, pooling, **shape)
        exact = answers(plain, MANY)
        found = answers(pack(copy.deepcopy(plain), "int8"), MANY)
        assert 0 < (found - exact).std() < 0.1 * exact.std()
        both = torch.stack([found.flatten(), exact.flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.995


@pytest.mark.parametrize(("precision", "margin"), [("fp32", 1e-5), ("bf16", 0.2), ("int8", 0.4)])
def test_a_label_differs_only_where_two_classes_were_nearly_equal(family, precision, margin):
    """The margin is in standard deviations of a text's logits."""
    plain = classifier(family, "mean", **SHAPES[0])
    exact = answers(plain, MANY)
    found = answers(pack(copy.deepcopy(plain), precision), MANY)
    first, second = exact.topk(2, dim=1).values.T
    clear = first - second > margin * exact.std()
    assert clear.sum() > 20 and len(exact.argmax(dim=1).unique()) == 3
    assert torch.equal(found.argmax(dim=1)[clear], exact.argmax(dim=1)[clear])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_packed_model_answers_in_fp32_and_has_nothing_left_to_train_in_its_layers(precision):
    packed = pack(classifier("bert", "pooler").train(), precision)
    assert not packed.training
    assert answers(packed, SOME[0]).dtype == torch.float32
    assert not any("attention." in name and "norm" not in name for name in packed.state_dict())
    kind = QuantizedLinear if precision == "int8" else PrepackedLinear
    assert sum(isinstance(layer, kind) for layer in packed.modules()) == 3 * 4
    assert packed.encoder.pooler.weight.dtype == packed.head.out.weight.dtype == torch.float32


# One layer


def linear(rows: int, columns: int, seed: int = 2) -> nn.Linear:
    torch.manual_seed(seed)
    layer = nn.Linear(columns, rows)
    nn.init.normal_(layer.weight, std=0.05)
    return layer.requires_grad_(False)


INPUTS = {
    "normal": lambda x: x,
    "positive": lambda x: x.abs() + 0.5,
    "negative": lambda x: -x.abs() - 0.5,
    "small": lambda x: x * 1e-6,
    "large": lambda x: x * 1e6,
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("shape", [(384, 96), (31, 67), (1, 5), (3, 1)])
def test_a_quantized_layer_errs_by_less_than_two_percent(name, shape):
    columns, rows = shape
    layer, x = linear(rows, columns), torch.randn(40, columns)
    layer.bias.zero_()
    x = INPUTS[name](x)
    expected = layer(x)
    found = QuantizedLinear(layer, PLAIN)(x)
    assert (found - expected).norm() < 0.02 * expected.norm()


def outlier() -> Tensor:
    x = torch.randn(4, 20)
    x[2, 3] = 300.0
    return x


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(4, 20),
        outlier(),
        -outlier(),
        torch.full((4, 20), 3.0),
        torch.full((4, 20), -3.0),
        torch.tensor([[-1.5, 253.5] * 10]),  # both ends are half-way between two steps
    ],
    ids=["normal", "outlier", "negative outlier", "constant", "negative constant", "half-way"],
)
def test_no_output_of_a_quantized_layer_errs_by_more_than_its_steps_allow(x):
    """A weight errs by half a step at most, an input too, but at the range's ends by a whole."""
    layer = linear(9, 20)
    error = (QuantizedLinear(layer, PLAIN)(x) - layer(x)).abs()
    step = (max(x.max().item(), 0.0) - min(x.min().item(), 0.0)) / 255
    steps = layer.weight.abs().amax(dim=1) / 127  # (out,)
    bound = step * layer.weight.abs().sum(dim=1)
    bound = bound + steps / 2 * (x.abs() + step).sum(dim=1, keepdim=True)
    assert (error <= bound + 1e-6).all()
    assert error.mean() < bound.mean() / 3  # since roundings go up as often as down


def test_whole_numbers_within_the_steps_are_exact_and_others_are_rounded_to_them():
    """Inputs of -100 to 154 have steps of 1; each output's weights have a step of their own."""
    random = torch.Generator().manual_seed(3)
    layer = linear(5, 8)
    weight = torch.randint(-127, 128, (5, 8), generator=random).float()
    weight[:, 2] = 127.0
    layer.weight.copy_(weight * 2.0 ** -torch.arange(5)[:, None])
    layer.bias.zero_()
    x = torch.randint(-99, 154, (6, 8), generator=random).float()
    x[0, :2] = torch.tensor([-100.0, 154.0])
    expected = layer(x)
    x[1:] += 0.8 * torch.rand(5, 8, generator=random) - 0.4
    assert torch.equal(QuantizedLinear(layer, PLAIN)(x), expected)


def test_a_quantized_layer_leaves_its_input_as_it_is():
    x = torch.randn(3, 20)
    before = x.clone()
    QuantizedLinear(linear(9, 20), PLAIN)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_row_of_weights_that_are_all_zero_gives_its_bias(value):
    layer = linear(9, 20)
    layer.weight[4] = 0.0
    found = QuantizedLinear(layer, PLAIN)(torch.full((3, 20), value))
    assert found[:, 4].tolist() == pytest.approx([layer.bias[4].item()] * 3)
    if not value:  # and inputs that are all zero give all biases
        torch.testing.assert_close(found, layer.bias.expand(3, 9))


@pytest.mark.parametrize("kind", [PrepackedLinear, QuantizedLinear])
@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU()], ids=["erf", "tanh", "relu"]
)
def test_the_kernel_computes_the_activation_too(kind, activation):
    layer, x = linear(33, 17), 20 * torch.randn(5, 4, 17)
    plain, fused = kind(layer, PLAIN)(x), kind(layer, fused_name(activation))(x)
    assert fused.shape == (5, 4, 33) and fused.dtype == torch.float32
    assert (plain.abs() > 1).any() and (plain.abs() < 1).any()
    # 1e-4 tells the two GELUs from each other, which differ by 5e-4.
    torch.testing.assert_close(fused, activation(plain), rtol=0, atol=1e-4)
