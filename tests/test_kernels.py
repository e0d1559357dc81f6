"""The stepwise attention and the linear layer equal the plain ones, the latter also without its
private operator; dropout zeroes with its probability.

Run: pytest tests/test_kernels.py
"""

import math
import platform
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_classifier
from torch import Tensor, nn

from minibert.model import kernels
from minibert.model.kernels import (
    LEVELS,
    Dropout,
    Linear,
    attention_kernels,
    dropout,
    onednn_works,
    plain_attention,
    stepwise_attention,
    use_onednn,
    use_stepwise_attention,
)

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

MANY = 2**20
PROBABILITIES = [1 / LEVELS, 0.001, 0.1, 0.3, 0.5, 0.9, 1 - 1 / LEVELS]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


# Attention


def attention_inputs(queries: int, keys: int) -> tuple[list[Tensor], Tensor]:
    """Return q (3, 2, queries, 5), k and v (3, 2, keys, 5), and a mask (3, 1, 1, keys)."""
    random = torch.Generator().manual_seed(4)
    lengths = (queries, keys, keys)
    inputs = [torch.randn(3, 2, length, 5, generator=random) for length in lengths]
    real = torch.tensor([keys, 1, (keys + 1) // 2])[:, None]
    return inputs, (torch.arange(keys) < real)[:, None, None, :]


@pytest.mark.parametrize("texts", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(37, 37), (1, 37), (2, 2), (1, 1), (130, 130)])
def test_stepwise_attention_is_plain_attention_with_its_gradients(
    queries: int, keys: int, masked: bool, texts: int
) -> None:
    inputs, mask = attention_inputs(queries, keys)
    gradient = torch.randn(3, 2, queries, 5, generator=torch.Generator().manual_seed(6))
    cached = texts * 2 * queries * keys  # the weights of so many texts
    results = []
    for compute, options in (
        (plain_attention, {}),
        (stepwise_attention, {"cached_weights": cached}),
        (stepwise_attention, {}),
    ):
        leaves = [x.clone().requires_grad_() for x in inputs]
        values = compute(*leaves, mask if masked else None, dropout_p=0.0, **options)
        results.append([values, *torch.autograd.grad(values, leaves, gradient)])
    for plain, in_steps, in_one_step in zip(*results, strict=True):
        torch.testing.assert_close(in_steps, plain, **TOLERANCE)
        torch.testing.assert_close(in_one_step, plain, **TOLERANCE)


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_is_pytorchs(masked: bool) -> None:
    inputs, mask = attention_inputs(37, 37)
    mask = mask if masked else None
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    torch.testing.assert_close(plain_attention(*inputs, mask, dropout_p=0.0), expected, **TOLERANCE)


@pytest.mark.parametrize("texts", [1, 2, 3])
def test_attention_dropout_is_on_the_weights(texts: int) -> None:
    (q, k, v), _ = attention_inputs(37, 37)
    cached = texts * 2 * 37 * 37
    torch.manual_seed(5)
    # Each row of weights sums to one; with dropout it does so only on average.
    sums = stepwise_attention(q, k, torch.ones_like(v), None, dropout_p=0.25, cached_weights=cached)
    assert sums.std() > 0.05
    assert sums.mean().item() == pytest.approx(1.0, abs=0.05)
    # A weight that is zeroed is zeroed for all columns of v.
    torch.testing.assert_close(sums, sums[..., :1].expand_as(sums), **TOLERANCE)


@pytest.mark.parametrize(
    ("dtype", "gradients", "tokens", "dropout_p", "stepwise"),
    [
        (torch.float32, True, 37, 0.0, False),
        (torch.float32, True, 37, 0.1, True),
        (torch.float32, False, 37, 0.1, False),
        (torch.bfloat16, True, 128, 0.0, True),
        (torch.float16, True, 128, 0.0, True),
        (torch.bfloat16, True, 129, 0.0, False),
        (torch.bfloat16, True, 129, 0.1, True),
        (torch.bfloat16, False, 37, 0.0, False),
    ],
)
def test_training_on_a_cpu_is_stepwise_if_pytorchs_kernel_is_slower(
    dtype: torch.dtype, gradients: bool, tokens: int, dropout_p: float, stepwise: bool
) -> None:
    q = torch.zeros(1, 2, tokens, 5, dtype=dtype)
    with torch.set_grad_enabled(gradients):
        assert use_stepwise_attention(q, dropout_p) == stepwise
        assert not use_stepwise_attention(q.to("meta"), dropout_p)  # on another device, never


@pytest.mark.parametrize("before", [True, False])
def test_on_a_gpu_attention_does_not_use_cudnn_and_the_setting_is_restored(before: bool) -> None:
    enabled, enable = torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp
    original = enabled()
    enable(before)
    try:
        with pytest.raises(KeyError), attention_kernels(torch.device("cuda")):
            assert not enabled()
            assert torch.backends.cuda.flash_sdp_enabled()
            assert torch.backends.cuda.mem_efficient_sdp_enabled()
            raise KeyError
        assert enabled() == before
        with attention_kernels(torch.device("cpu")):
            assert enabled() == before
    finally:
        enable(original)


# Dropout


def kept(size: int, p: float, seed: int = 0) -> Tensor:
    """Return 1 for an element that is kept and 0 for one that is zeroed."""
    torch.manual_seed(seed)
    return (dropout(torch.ones(size), p) != 0).float()


@pytest.mark.parametrize("p", PROBABILITIES)
def test_elements_are_zeroed_with_probability_p_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(1)
    values = dropout(torch.ones(MANY), p)
    spread = math.sqrt(p * (1 - p) / MANY)  # of a binomial fraction; five are one in a million
    assert (values == 0).float().mean().item() == pytest.approx(p, abs=5 * spread)
    assert values.double().mean().item() == pytest.approx(1, abs=5 * spread / (1 - p))


@pytest.mark.parametrize("p", [*PROBABILITIES, 0.123456])
def test_kept_elements_are_scaled_by_the_rounded_probability(p: float) -> None:
    x = torch.randn(MANY, generator=torch.Generator().manual_seed(2)) + 9  # none is zero
    values = dropout(x, p)
    scale = LEVELS / (LEVELS - round(LEVELS * p))
    torch.testing.assert_close(values[values != 0], (x * scale)[values != 0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.49 / LEVELS])
def test_a_probability_that_rounds_to_zero_changes_nothing(p: float) -> None:
    x = torch.randn(999)
    assert torch.equal(dropout(x, p), x)


@pytest.mark.parametrize("p", [1.0, 1 - 1e-9])
def test_a_probability_that_rounds_to_one_zeroes_everything(p: float) -> None:
    x = torch.randn(999, requires_grad=True)
    values = dropout(x, p)
    values.sum().backward()
    assert not values.any() and x.grad is not None and not x.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_gradient_has_the_mask_and_the_scale_of_the_values(dtype: torch.dtype) -> None:
    x = (torch.rand(7, 33) + 1).to(dtype).requires_grad_()
    gradient = torch.randn(7, 33).to(dtype)
    values = dropout(x, 0.25)
    values.backward(gradient)
    assert x.grad is not None and values.dtype == x.grad.dtype == dtype
    mask = values != 0
    assert 0 < mask.sum() < mask.numel()
    torch.testing.assert_close(values, (x * mask * (4 / 3)).to(dtype))
    torch.testing.assert_close(x.grad, (gradient * mask * (4 / 3)).to(dtype))


def test_what_is_zeroed_is_zero_also_if_it_was_not_finite() -> None:
    values = dropout(torch.tensor([math.nan, math.inf, -math.inf]).repeat(99), 0.5)
    assert set(values.nan_to_num(1, 2, -2).tolist()) == {0, 1, 2, -2}


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3,), (5,), (3, 7), (2, 0, 3), (1, 5, 11)])
def test_every_size_works_also_if_four_does_not_divide_it(shape: tuple[int, ...]) -> None:
    found = torch.stack([dropout(torch.ones(shape), 0.5) for _ in range(60)])
    assert found.shape == (60, *shape)
    assert ((found == 0) | (found == 2)).all()
    # Each element, also the last one, is sometimes zeroed and sometimes kept.
    assert ((found == 0).any(dim=0) & (found == 2).any(dim=0)).all()


def test_views_that_are_not_contiguous_keep_their_places() -> None:
    x = torch.arange(1.0, 61.0).view(3, 4, 5)
    for view in (x.transpose(0, 2), x[:, 1:3, ::2], x[:1].expand(6, 4, 5)):
        leaf = view.detach().requires_grad_()
        values = dropout(leaf, 0.5)
        values.sum().backward()
        torch.testing.assert_close(values, view * 2 * (values != 0))
        torch.testing.assert_close(leaf.grad, 2.0 * (values != 0))


def test_one_seed_gives_one_mask_and_the_next_call_gives_another() -> None:
    assert torch.equal(kept(1001, 0.5, seed=3), kept(1001, 0.5, seed=3))
    assert not torch.equal(kept(1001, 0.5, seed=3), kept(1001, 0.5, seed=4))
    torch.manual_seed(3)
    first, second = dropout(torch.ones(1001), 0.5), dropout(torch.ones(1001), 0.5)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_neighbours_are_independent(p: float) -> None:
    """Four elements share one random number, of which each has its own 16 bits."""
    mask = kept(MANY, p) - (1 - p)
    for lag in (1, 2, 3, 4):
        correlation = (mask[lag:] * mask[:-lag]).mean() / (p * (1 - p))
        assert abs(correlation) < 5 / math.sqrt(MANY), lag
    zeroed = (kept(MANY, p) == 0).view(-1, 4).float().mean(dim=0)  # by quarter of a number
    assert zeroed.tolist() == pytest.approx([p] * 4, abs=5 * math.sqrt(4 * p * (1 - p) / MANY))


def test_the_layer_is_active_only_in_training_mode() -> None:
    layer, x = Dropout(0.5), torch.ones(999)
    assert 300 < (layer.train()(x) == 0).sum() < 700
    assert torch.equal(layer.eval()(x), x)


# Linear layers


needs_onednn = pytest.mark.skipif(
    platform.machine() != "x86_64" or not torch.backends.mkldnn.is_available(),
    reason="needs x86 and oneDNN",
)


@pytest.fixture
def as_on_amd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train as on an AMD processor with AVX512; the operator is tried again before and after."""
    monkeypatch.setattr(kernels, "amd_with_avx512", lambda: True)
    onednn_works.cache_clear()
    yield
    onednn_works.cache_clear()


def gradients(layer: nn.Module, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return a layer's output, and the gradients of its input, weight and bias."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(gradient)
    found = [y.detach(), x.grad, layer.weight.grad, layer.bias.grad]
    layer.zero_grad()
    return found


@needs_onednn
@pytest.mark.parametrize("shape", [(7,), (1, 7), (3, 5, 7), (2, 17, 7), (2, 3, 5, 7)])
def test_a_linear_layer_is_pytorchs_with_its_gradients(shape, as_on_amd: None) -> None:
    torch.manual_seed(0)
    layer, plain = Linear(7, 11).train(), nn.Linear(7, 11)
    plain.load_state_dict(layer.state_dict())
    x, gradient = torch.randn(shape), torch.randn(*shape[:-1], 11)
    assert use_onednn(x)
    for found, expected in zip(
        gradients(layer, x, gradient), gradients(plain, x, gradient), strict=True
    ):
        torch.testing.assert_close(found, expected, **TOLERANCE)


@needs_onednn
def test_a_linear_layer_takes_inputs_and_gradients_that_are_not_contiguous(as_on_amd: None) -> None:
    layer, plain = Linear(7, 11).train(), nn.Linear(7, 11)
    plain.load_state_dict(layer.state_dict())
    gradient = torch.randn(11, 5, 3).transpose(0, 2)
    for x in (torch.randn(7, 5, 3).transpose(0, 2), torch.randn(5, 7).expand(3, 5, 7)):
        for given in (gradient, torch.randn(()).expand(3, 5, 11)):
            for found, expected in zip(
                gradients(layer, x, given), gradients(plain, x, given), strict=True
            ):
                torch.testing.assert_close(found, expected, **TOLERANCE)


@needs_onednn
def test_the_gradients_of_an_encoder_are_those_of_pytorchs_layers(
    family: str, as_on_amd: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_classifier(family, dropout=0.0, attention_dropout=0.0).train()
    ids, labels = torch.tensor([[7, 8, 9], [9, 10, 11]]), torch.tensor([0, 2])
    results = []
    for onednn in (True, False):
        monkeypatch.setattr(kernels, "amd_with_avx512", lambda onednn=onednn: onednn)
        torch.manual_seed(0)  # of the head's dropout
        F.cross_entropy(model(ids), labels).backward()
        results.append([weight.grad for weight in trained(model)])
        model.zero_grad()
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE)


@needs_onednn
def test_a_linear_layer_multiplies_only_for_the_gradients_that_are_needed(
    as_on_amd: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, calls = kernels.onednn_product, []

    def counted(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return product(*arguments)

    layer = Linear(7, 11).train()
    assert use_onednn(torch.randn(3, 7))  # the operator is tried here
    monkeypatch.setattr(kernels, "onednn_product", counted)
    layer(torch.randn(3, 7)).sum().backward()
    assert len(calls) == 2  # the output, and the weight's gradient
    layer.weight.requires_grad_(False)
    layer(torch.randn(3, 7, requires_grad=True)).sum().backward()
    assert len(calls) == 4  # the output, and the input's gradient
    layer.eval()(torch.randn(3, 7))
    assert len(calls) == 4


@needs_onednn
def test_onednn_multiplies_only_fp32_in_training_on_a_cpu(as_on_amd: None) -> None:
    x = torch.randn(3, 7)
    assert use_onednn(x)
    for other in (x.bfloat16(), x.to("meta"), x[:0]):
        assert not use_onednn(other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not use_onednn(x)
        assert Linear(7, 11).train()(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "name", "expected"),
    [
        ("AVX512", "AMD EPYC 9R14", True),
        ("AVX512", "Intel(R) Xeon(R) Platinum", False),
        ("AVX512", None, False),
        ("AVX2", "AMD EPYC 7R13", False),
    ],
)
def test_amds_processors_with_avx512_use_it(
    capability: str, name: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    if name is None:  # before torch 2.10
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        found = {"cpu_name": name}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert kernels.amd_with_avx512.__wrapped__() == expected


def failing(error: Exception) -> Callable[..., Tensor]:
    def operator(*_: Any) -> Tensor:
        raise error

    return operator


OPERATORS: dict[str, Callable[..., Any]] = {
    "missing": failing(AttributeError("no operator _linear_pointwise")),
    "other signature": failing(TypeError("missing argument")),
    "not for a CPU": failing(NotImplementedError("no kernel")),
    "other result": lambda x, weight, bias, *_: x @ weight.t(),
    "other type": lambda x, weight, bias, *_: (x @ weight.t(), None),
}


@needs_onednn
@pytest.mark.parametrize("operator", OPERATORS)
def test_without_the_operator_training_uses_pytorchs_layers_and_warns_once(
    operator: str, as_on_amd: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", OPERATORS[operator])
    model = tiny_classifier(dropout=0.3, attention_dropout=0.3).train()
    ids, labels = torch.tensor([[7, 8, 9], [9, 10, 11]]), torch.tensor([0, 2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            F.cross_entropy(model(ids), labels).backward()
    assert all(weight.grad is not None for weight in trained(model))
    (warning,) = caught
    assert "_linear_pointwise" in str(warning.message)
    assert "training uses PyTorch's own linear layers" in str(warning.message)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return all parameters but the pooler's, which a head on the first token does not use."""
    return [p for name, p in model.named_parameters() if "pooler" not in name]


@needs_onednn
def test_this_pytorch_has_the_operator(as_on_amd: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert onednn_works()
