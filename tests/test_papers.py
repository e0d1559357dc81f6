"""What docs/reading.md quotes from the papers, each sentence as a test by hand.

No other library is compared here: each test writes the paper's formula out.
Run: pytest tests/test_papers.py
"""

import math

import pytest
import torch
from helpers import a_task, tiny_classifier, tiny_config
from models import LABELS, TOLERANCE, make_batch, randomize

from minibert.checkpoint.families import FAMILIES
from minibert.model.classifier import Head
from minibert.model.config import HeadConfig
from minibert.model.encoder import (
    ACTIVATION_LAYERS,
    Block,
    Encoder,
    SelfAttention,
    attention,
    initialize,
)
from minibert.training.options import TrainingOptions

pytestmark = pytest.mark.machine  # results depend on the processor's instructions


def test_an_input_is_the_sum_of_token_segment_and_position_embeddings() -> None:
    embeddings = Encoder(tiny_config("bert")).eval().embeddings
    randomize(embeddings)
    batch = make_batch("bert", (7, 7))
    ids, types = batch["input_ids"], batch["token_type_ids"]
    assert types.any() and embeddings.token_type is not None
    found = embeddings(ids, types)
    for text in range(2):
        for place in range(7):
            word = embeddings.word.weight[ids[text, place]]
            segment = embeddings.token_type.weight[types[text, place]]
            summed = word + segment + embeddings.position.weight[place]
            torch.testing.assert_close(found[text, place], embeddings.norm(summed), **TOLERANCE)


def test_masked_tokens_have_no_weight_and_the_weights_of_the_others_sum_to_one() -> None:
    q, k = torch.randn(2, 3, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(5) < torch.tensor([5, 1, 3])[:, None])[:, None, None, :]
    # The product of the weights and an identity matrix is the weights.
    weights = attention(q, k, torch.eye(5).expand(3, 2, 5, 5), mask, dropout_p=0.0)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 2, 5), **TOLERANCE)
    assert not weights.masked_select(~mask).any()
    assert (weights.masked_select(mask.expand_as(weights)) > 0).all()


def test_each_head_attends_with_its_own_slice_of_query_key_and_value() -> None:
    layer = SelfAttention(tiny_config("bert")).eval()
    randomize(layer)
    x = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(0))
    query, key, value = layer.qkv(x).split(12, dim=-1)
    heads = []
    for start in (0, 6):  # two heads of width 6
        q, k, v = (part[..., start : start + 6] for part in (query, key, value))
        weights = (q @ k.transpose(1, 2) / math.sqrt(6)).softmax(dim=-1)
        heads.append(weights @ v)
    expected = torch.cat(heads, dim=-1) @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x, None), expected, **TOLERANCE)


def test_the_activation_is_x_times_the_normal_distribution_function() -> None:
    x = torch.linspace(-5, 5, 101)
    expected = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]
    gelu = ACTIVATION_LAYERS[tiny_config("bert").activation]()
    torch.testing.assert_close(gelu(x), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert (ACTIVATION_LAYERS["gelu_new"]()(x) - gelu(x)).abs().max() > 1e-4  # its approximation


def test_a_layer_ends_with_the_norm_of_the_sum() -> None:
    block = Block(tiny_config("bert")).eval()
    initialize(block, 0.4)  # the norms stay without weight and bias: 1 and 0
    x = 3 + 2 * torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    inner = block.attention_norm(x + block.attention(x, None))
    expected = block.feed_forward_norm(inner + block.feed_forward(inner))
    found = block(x, None)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    # With the norms in front of the sub-layers (pre-norm), a layer's output has no fixed scale.
    torch.testing.assert_close(found.mean(dim=-1), torch.zeros(2, 5), **TOLERANCE)
    torch.testing.assert_close(found.var(dim=-1, correction=0), torch.ones(2, 5), **TOLERANCE)


def test_the_epsilon_of_the_norms_is_far_below_pytorchs() -> None:
    """With PyTorch's 1e-5, these vectors would be reduced to 0.0003."""
    encoder = Encoder(tiny_config("bert"))
    block = encoder.blocks[0]
    x = 1e-6 * torch.tensor([1.0, -1.0]).repeat(6)
    for norm in (encoder.embeddings.norm, block.attention_norm, block.feed_forward_norm):
        torch.testing.assert_close(norm(x), x * 1e6 / math.sqrt(2), rtol=1e-3, atol=0)


def test_distilbert_has_neither_segments_nor_a_pooler() -> None:
    model = tiny_classifier("distilbert").eval()
    names = [name for name, _ in model.encoder.named_parameters()]
    assert not [name for name in names if "token_type" in name or "pooler" in name]
    batch = make_batch("distilbert", (5, 5))
    types = torch.ones_like(batch["input_ids"])
    with torch.no_grad():
        found = model(batch["input_ids"], None, types)
        torch.testing.assert_close(found, model(batch["input_ids"]), rtol=0, atol=0)
    assert FAMILIES["distilbert"].native_pooling == "cls"


def test_the_loss_is_the_negative_log_softmax_of_c_times_w_transposed() -> None:
    head = Head(tiny_config("bert"), HeadConfig("linear", "cls", LABELS, 40)).eval()
    randomize(head)
    c = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 1, 1, 2])
    expected = torch.tensor(0.0)
    with torch.no_grad():
        for row, label in zip(c, labels.tolist(), strict=True):
            logits = [
                float(row @ w + b) for w, b in zip(head.out.weight, head.out.bias, strict=True)
            ]
            expected -= logits[label] - math.log(sum(map(math.exp, logits)))
        loss = a_task().losses(head(c), labels, torch.ones(3), TrainingOptions()).sum()
    torch.testing.assert_close(loss, expected, **TOLERANCE)
