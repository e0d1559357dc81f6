"""Linear layers for inference: fp32 equals the plain layer; bf16 and int8 err by their roundings.

The bounds of int8 follow from the largest quantized weight that this processor computes exactly
(`int8_levels`: 127 or 90). Run: pytest tests/test_cpu.py
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT, finish_script, random_texts, tiny_classifier, write_checkpoint
from torch import Tensor, nn

from minibert.data.batches import TextDataset
from minibert.device import choose_compute
from minibert.inference.batched import prepare_for_inference
from minibert.inference.cpu import (
    PrepackedLinear,
    QuantizedLinear,
    int8_levels,
    plain_linear,
    prepacking_works,
)
from minibert.inference.prepack import lowest_output, prepack
from minibert.model.classifier import Classifier
from minibert.model.config import HeadConfig

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

PREPACKING, LEVELS = prepacking_works("fp32"), int8_levels(torch.float32)
needs_prepacking = pytest.mark.skipif(not PREPACKING, reason="needs x86 and oneDNN")
needs_bf16 = pytest.mark.skipif(not prepacking_works("bf16"), reason="needs AVX512-BF16")
needs_int8 = pytest.mark.skipif(not LEVELS, reason="needs x86 and oneDNN")
PRECISIONS = [
    pytest.param("fp32", marks=needs_prepacking),
    pytest.param("bf16", marks=needs_bf16),
    pytest.param("int8", marks=needs_int8),
]
LAYERS = {
    "prepacked": pytest.param(PrepackedLinear, marks=needs_prepacking),
    "quantized": pytest.param(
        lambda *layer: QuantizedLinear(*layer, levels=LEVELS), marks=needs_int8
    ),
}

SHAPES = [
    {"width": 12, "heads": 2, "layers": 3, "feed_forward": 23, "activation": "gelu"},
    {"width": 15, "heads": 3, "layers": 1, "feed_forward": 7, "activation": "gelu_new"},
    {"width": 7, "heads": 7, "layers": 2, "feed_forward": 33, "activation": "relu"},
]
POOLINGS = {
    "bert": ("cls", "pooler", "mean"),
    "distilbert": ("cls", "mean"),
    "roberta": ("cls", "pooler", "mean"),
    "electra": ("cls", "mean"),
}
BF16 = 2.0**-8  # half the distance between two neighbours, relative: the error of one rounding
# The distance between two weights, relative to the largest.
INT8 = 1 / (LEVELS.weights if LEVELS else 1)


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
    """A random model whose biases are not zero, and which predicts each class about as often."""
    model = tiny_classifier(family, head="linear", pooling=pooling, **shape)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.3)
            nn.init.normal_(layer.bias, std=0.3)
    with torch.no_grad():
        model.head.out.bias -= model.eval()(**MANY).mean(dim=0)
    return model


@torch.no_grad()
def logits(model: Classifier, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs)


def prepacked(model: Classifier, precision: str) -> Classifier:
    model = copy.deepcopy(model)
    assert prepack(model, precision)
    return model


# Whole models


@needs_prepacking
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["activation"])
def test_fp32_equals_the_plain_model(family, shape):
    for pooling in POOLINGS[family]:
        plain = classifier(family, pooling, **shape)
        batches = [*SOME, batch((7, 4), pairs=True)] if family == "bert" else SOME
        for inputs in batches:
            found = logits(prepacked(plain, "fp32"), inputs)
            torch.testing.assert_close(found, logits(plain, inputs), rtol=1e-5, atol=1e-5)


@needs_bf16
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["activation"])
def test_bf16_errs_by_a_few_roundings_and_not_much_more_than_autocast(family, shape):
    for pooling in POOLINGS[family]:
        plain = classifier(family, pooling, **shape)
        exact = logits(plain, MANY)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast_error = logits(plain, MANY).float() - exact
        error = logits(prepacked(plain, "bf16"), MANY) - exact
        assert 0 < error.std() < 10 * BF16 * exact.std()
        assert error.std() < 3 * autocast_error.std()
        assert error.abs().max() < 3 * autocast_error.abs().max()


@needs_int8
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["activation"])
def test_int8_errs_by_a_few_of_its_steps(family, shape):
    for pooling in POOLINGS[family]:
        plain = classifier(family, pooling, **shape)
        exact = logits(plain, MANY)
        found = logits(prepacked(plain, "int8"), MANY)
        assert 0 < (found - exact).std() < 13 * INT8 * exact.std()  # a tenth with 127 levels
        both = torch.stack([found.flatten(), exact.flatten()])
        assert torch.corrcoef(both)[0, 1] > 1 - (13 * INT8) ** 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_label_differs_only_if_two_classes_are_nearly_equal(family, precision):
    """The margin is in standard deviations of the logits."""
    margin = {"fp32": 1e-5, "bf16": 50 * BF16, "int8": 50 * INT8}[precision]
    plain = classifier(family, "mean", **SHAPES[0])
    exact = logits(plain, MANY)
    found = logits(prepacked(plain, precision), MANY)
    first, second = exact.topk(2, dim=1).values.T
    clear = first - second > margin * exact.std()
    assert clear.sum() > 15 and len(exact.argmax(dim=1).unique()) == 3
    assert torch.equal(found.argmax(dim=1)[clear], exact.argmax(dim=1)[clear])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_prepared_model_is_in_evaluation_mode_and_returns_float32(precision):
    model = prepacked(classifier("bert", "pooler").train(), precision)
    assert not model.training
    assert logits(model, SOME[0]).dtype == torch.float32
    kind = QuantizedLinear if precision == "int8" else PrepackedLinear
    assert sum(isinstance(layer, kind) for layer in model.modules()) == 3 * 4
    assert model.encoder.pooler.weight.dtype == model.head.out.weight.dtype == torch.float32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_prepared_model_cannot_be_saved_moved_or_converted(precision):
    model = prepacked(classifier("bert", "cls"), precision)
    with pytest.raises(RuntimeError, match="prepared for inference has no state_dict"):
        model.state_dict()
    for convert in (model.double, lambda: model.to(torch.bfloat16), lambda: model.to("meta")):
        with pytest.raises(RuntimeError, match="prepared for inference cannot be moved"):
            convert()


# One layer


def linear(rows: int, columns: int, seed: int = 2) -> nn.Linear:
    torch.manual_seed(seed)
    layer = nn.Linear(columns, rows)
    nn.init.normal_(layer.weight, std=0.05)
    return layer.requires_grad_(False)


def quantized(layer: nn.Linear, x: Tensor) -> Tensor:
    return QuantizedLinear(layer, levels=LEVELS)(x)


INPUTS = {
    "normal": lambda x: x,
    "positive": lambda x: x.abs() + 0.5,
    "negative": lambda x: -x.abs() - 0.5,
    "small": lambda x: x * 1e-6,
    "large": lambda x: x * 1e6,
}


@needs_int8
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("shape", [(384, 96), (31, 67), (1, 5), (3, 1)])
def test_a_quantized_layer_errs_by_a_few_of_its_steps(name, shape):
    columns, rows = shape
    layer, x = linear(rows, columns), torch.randn(40, columns)
    layer.bias.zero_()
    x = INPUTS[name](x)
    expected = layer(x)
    assert (quantized(layer, x) - expected).norm() < 2.5 * INT8 * expected.norm()


@needs_int8
@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize(("columns", "rows"), [(768, 2304), (384, 1536), (3072, 768)])
def test_products_do_not_saturate_at_the_sizes_of_real_layers(columns, rows, tokens):
    """All weights and inputs are near the largest quantized values, as in the worst real case."""
    layer = linear(rows, columns)
    layer.weight.copy_(torch.linspace(0.9, 1.0, rows * columns).view(rows, columns))
    x = torch.linspace(0.9, 1.0, tokens * columns).view(tokens, columns)
    expected = layer(x)
    assert (quantized(layer, x) - expected).abs().max() < INT8 * expected.abs().max()


@needs_prepacking
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize(("columns", "rows"), [(768, 2304), (384, 1536), (3072, 768)])
def test_a_prepacked_layer_equals_the_plain_one_at_the_sizes_of_real_layers(
    columns, rows, tokens, capability, monkeypatch
):
    """With AVX512 the kernel computes the activation too."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer, x = linear(rows, columns), torch.randn(tokens, columns)
    found = PrepackedLinear(layer, nn.GELU())(x)
    expected = plain_linear(x, layer.weight, layer.bias, nn.GELU())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def outlier() -> Tensor:
    x = torch.randn(4, 20)
    x[2, 3] = 300.0
    return x


@needs_int8
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(4, 20),
        outlier(),
        -outlier(),
        torch.full((4, 20), 3.0),
        torch.full((4, 20), -3.0),
        torch.tensor(
            [[-1.5, LEVELS.inputs // 2 - 0.5 if LEVELS else 1.0] * 10]
        ),  # half-way between two steps
    ],
    ids=["normal", "outlier", "negative outlier", "constant", "negative constant", "half-way"],
)
@pytest.mark.parametrize("lowest", [None, "lowest"])
def test_no_output_of_a_quantized_layer_errs_by_more_than_its_steps_allow(x, lowest):
    """A weight errs by half a step at most, an input too."""
    layer = linear(9, 20)
    if lowest:
        lowest = x.min().item()
        step = (x.amax(dim=1, keepdim=True) - lowest) / LEVELS.inputs  # (tokens, 1)
    else:
        step = x.abs().amax(dim=1, keepdim=True) / (LEVELS.inputs // 2)
    found = QuantizedLinear(layer, levels=LEVELS, lowest=lowest)(x)
    error = (found - layer(x)).abs()
    weight_step = layer.weight.abs().amax(dim=1) / LEVELS.weights  # (out,)
    bound = 0.501 * step * layer.weight.abs().sum(dim=1)
    bound = bound + 0.501 * weight_step * (x.abs() + step).sum(dim=1, keepdim=True)
    assert (error <= bound + 1e-5).all()
    assert error.mean() < bound.mean() / 2 + 1e-5  # roundings go up as often as down


@needs_int8
@pytest.mark.parametrize("lowest", [None, -70.0])
def test_integers_within_the_steps_are_exact_and_others_are_rounded_to_them(lowest):
    """All inputs have steps of 1; each output's weights have steps of their own."""
    highest = LEVELS.inputs // 2 if lowest is None else LEVELS.inputs + int(lowest)
    random = torch.Generator().manual_seed(3)
    layer = linear(5, 8)
    top = LEVELS.weights
    weight = torch.randint(-top, top + 1, (5, 8), generator=random).float()
    weight[:, 2] = top
    layer.weight.copy_(weight * 2.0 ** -torch.arange(5)[:, None])
    layer.bias.zero_()
    x = torch.randint(-69, highest, (6, 8), generator=random).float()
    x[:, 0] = highest
    expected = layer(x)
    x[:, 1:] += 0.8 * torch.rand(6, 7, generator=random) - 0.4
    found = QuantizedLinear(layer, levels=LEVELS, lowest=lowest)(x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-2)


@needs_int8
def test_a_quantized_layer_does_not_change_its_input():
    x = torch.randn(3, 20)
    before = x.clone()
    quantized(linear(9, 20), x)
    assert torch.equal(x, before)


@needs_int8
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_row_of_zero_weights_gives_its_bias(value):
    layer = linear(9, 20)
    layer.weight[4] = 0.0
    found = quantized(layer, torch.full((3, 20), value))
    assert found[:, 4].tolist() == pytest.approx([layer.bias[4].item()] * 3)
    if not value:  # zero inputs give all biases
        torch.testing.assert_close(found, layer.bias.expand(3, 9))


@needs_int8
@pytest.mark.parametrize("lowest", [None, -4.0])
def test_a_token_does_not_depend_on_the_others(lowest):
    layer = QuantizedLinear(linear(9, 20), levels=LEVELS, lowest=lowest)
    x = torch.randn(4, 20).clamp(min=-3.9)
    loud = torch.cat([x, torch.full((1, 20), 40.0)])
    torch.testing.assert_close(layer(loud)[:4], layer(x), rtol=1e-5, atol=1e-6)


CHUNKS = {1: [1] * 15, 45: [3, 3, 3, 2, 2, 2], 150: [8, 7], 151: [15], 301: [15]}


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lowest", [None, -4.0])
@pytest.mark.parametrize(("rows", "columns"), [(9, 20), (20, 9)])
@pytest.mark.parametrize("size", CHUNKS)
def test_tokens_are_computed_in_chunks(monkeypatch, size, rows, columns, lowest, dtype):
    """15 tokens have 300 values on the wider side of the layer."""
    layer = QuantizedLinear(linear(rows, columns), nn.GELU(), levels=LEVELS, lowest=lowest)
    x = torch.randn(3, 5, columns).clamp(min=-3.9).to(dtype)
    expected = layer(x)
    forward, chunks = layer._forward_chunk, []
    monkeypatch.setattr(
        layer, "_forward_chunk", lambda chunk: chunks.append(len(chunk)) or forward(chunk)
    )
    monkeypatch.setattr("minibert.inference.cpu.CHUNK", size)
    margin = 1e-6 if dtype == torch.float32 else BF16
    torch.testing.assert_close(layer(x), expected, rtol=margin, atol=1e-6)
    assert chunks == CHUNKS[size]


@needs_int8
def test_a_quantized_layer_takes_no_tokens():
    assert quantized(linear(9, 20), torch.empty(2, 0, 20)).shape == (2, 0, 9)


@needs_int8
@pytest.mark.parametrize("chunk", [100, 2**19])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["activation"])
def test_in_int8_a_text_has_the_same_logits_alone_and_in_any_batch(
    family, shape, chunk, monkeypatch
):
    """No batch is padded: padding changes the last bits of attention, and roundings show them."""
    monkeypatch.setattr("minibert.inference.cpu.CHUNK", chunk)
    compute = choose_compute("cpu", "int8")
    model = prepare_for_inference(classifier(family, "mean", **shape), compute)
    texts = random_texts(40)
    together = model.logits(texts, batch_size=7)
    assert torch.unique(together, dim=0).shape == (40, 3)
    for row, expected in zip(texts.rows, together, strict=True):
        alone = TextDataset([row], None, pad_token_id=0, token_types=False)
        found = model.logits(alone, batch_size=7)
        torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lowest_output_of_an_activation(activation, dtype):
    values = activation(torch.linspace(-10, 1, 100_001).to(dtype))
    assert lowest_output(activation) <= values.min() < lowest_output(activation) + 2e-3


@pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU()], ids=["erf", "tanh", "relu"]
)
def test_the_kernel_computes_the_activation_too(kind, activation):
    layer, x = linear(33, 17), 20 * torch.randn(5, 4, 17)
    plain, fused = kind(layer)(x), kind(layer, activation)(x)
    assert fused.shape == (5, 4, 33) and fused.dtype == torch.float32
    assert (plain.abs() > 1).any() and (plain.abs() < 1).any()
    # 1e-4 tells the two GELUs from each other, which differ by 5e-4.
    torch.testing.assert_close(fused, activation(plain), rtol=0, atol=1e-4)


# Probes


def test_the_probes_do_not_draw_from_the_random_state():
    """Otherwise dropout would depend on when a process first predicts."""
    before = torch.get_rng_state()
    prepacking_works.__wrapped__("fp32")
    int8_levels.__wrapped__(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


REMOVE_PRIVATE_OPERATORS = """
import sys, warnings
import torch

class Missing:
    def __getattr__(self, name):
        raise AttributeError(f"no operator {name}")

torch.ops.mkldnn, torch.ops.onednn = Missing(), Missing()
for name in [name for name in vars(torch.cpu) if name.startswith("_is_")]:
    delattr(torch.cpu, name)
vars(torch.cpu).pop("get_capabilities", None)
import minibert.model.kernels
minibert.model.kernels.amd_with_avx512 = lambda: True
"""
PREDICT_AND_FIT = """
import minibert
from minibert.inference.text_classifier import TextClassifier

def lines(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(warning.message) for warning in caught]

texts, labels = ["good film", "bad soup", "it was great fun"] * 3, ["a", "b", "a"] * 3
folder = sys.argv[1]
predictor, first = lines(lambda: minibert.load(folder, device="cpu", precision="fp32"))
logits, second = lines(lambda: predictor.logits(texts[:3]))
classifier = TextClassifier.pretrained(folder, ["a", "b"], max_length=20)
data = classifier.dataset(texts, labels)
compute = minibert.choose_compute("cpu", "fp32")
options = minibert.TrainingOptions(epochs=2)
result, third = lines(lambda: minibert.fit(classifier.model, data, data, options, compute=compute))
try:
    minibert.load(folder, device="cpu", precision="int8")
    refusal = ""
except minibert.InputError as error:
    refusal = str(error)
print(repr((logits.tolist(), first + second, third, result.steps, refusal)))
"""


def in_a_process(code: str, folder: Path) -> Any:
    done = finish_script(["-c", code], folder, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


@needs_prepacking
def test_without_private_operators_everything_works_but_int8(tmp_path):
    """A new PyTorch may rename them: one warning each for predictions and for training."""
    folder = write_checkpoint(tmp_path / "m", head=HeadConfig("mlp", "cls", ("a", "b"), 20))
    code = "import sys, warnings\n" + PREDICT_AND_FIT
    expected, no_warnings, _, steps, _ = in_a_process(code, folder)
    code = REMOVE_PRIVATE_OPERATORS + PREDICT_AND_FIT
    found, predicting, training, steps_without, refusal = in_a_process(code, folder)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert steps_without == steps == 2
    assert no_warnings == []
    assert len(predicting) == 1 and "slower plain layer" in predicting[0]
    assert len(training) == 1 and "_linear_pointwise" in training[0]
    assert "\n" not in predicting[0] + training[0]
    assert "--precision int8 needs" in refusal and "use fp32 or auto" in refusal
