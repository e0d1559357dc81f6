"""The encoder computes what transformers' encoders of each family compute, in training too.

Run: pytest tests/test_encoder.py
"""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_classifier, tiny_config
from models import TOLERANCE, make_batch, modules_dropped, original, randomize
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from minibert.checkpoint.load import Checkpoint
from minibert.checkpoint.save import save_weights
from minibert.model.classifier import Classifier
from minibert.model.encoder import Encoder, SelfAttention, attention, initialize
from minibert.training.optimizer import make_optimizer
from minibert.training.options import TrainingOptions

pytestmark = pytest.mark.machine  # results depend on the processor's instructions

SHAPES = [
    {"width": 12, "heads": 2, "layers": 3, "feed_forward": 23, "activation": "gelu"},
    {"width": 15, "heads": 3, "layers": 1, "feed_forward": 7, "activation": "gelu_new"},
    {"width": 7, "heads": 7, "layers": 2, "feed_forward": 33, "activation": "relu"},
]

# The same values as transformers'


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["activation"])
def test_hidden_states_and_logits(family: str, shape: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours = original(family, tmp_path, **shape)
    padded = make_batch(family)
    whole = make_batch(family, (5, 5, 5))
    plain = {"input_ids": whole["input_ids"]}  # no mask, all of token type 0
    for batch in (padded, whole, plain):
        with torch.no_grad():
            hidden = ours.model.encoder(**batch)
            torch.testing.assert_close(
                hidden, theirs.base_model(**batch).last_hidden_state, **TOLERANCE
            )
            torch.testing.assert_close(ours.model(**batch), theirs(**batch).logits, **TOLERANCE)
    assert hidden.shape == (3, 5, shape["width"])


def test_an_electra_whose_embeddings_are_not_projected(tmp_path: Path) -> None:
    theirs, ours = original("electra", tmp_path, embedding_width=12)
    assert "encoder.embeddings.project.weight" not in ours.model.state_dict()
    batch = make_batch("electra")
    with torch.no_grad():
        torch.testing.assert_close(ours.model(**batch), theirs(**batch).logits, **TOLERANCE)


def named(values: Classifier, ours: Checkpoint, folder: Path) -> dict[str, Tensor]:
    """Return a classifier's parameters under transformers' names."""
    folder.mkdir()
    save_weights(folder, values, ours.encoder, ours.head)
    return load_file(folder / "model.safetensors")


def test_gradients_of_all_parameters(family: str, tmp_path: Path) -> None:
    theirs, ours = original(family, tmp_path)
    batch, labels = make_batch(family), torch.tensor([2, 0, 1, 2])
    F.cross_entropy(theirs(**batch).logits, labels).backward()
    F.cross_entropy(ours.model(**batch), labels).backward()

    gradients = copy.deepcopy(ours.model)
    for place, parameter in zip(gradients.parameters(), ours.model.parameters(), strict=True):
        place.data = parameter.grad
    found = named(gradients, ours, tmp_path / "gradients")
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_thirty_steps_of_training(family: str, tmp_path: Path) -> None:
    no_dropout = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    theirs, ours = original(family, tmp_path, **no_dropout)
    theirs.train()
    ours.model.train()
    # transformers' Trainer goes by names, minibert by the number of axes.
    decayed, others = [], []
    for name, parameter in theirs.named_parameters():
        vector = name.endswith("bias") or "norm" in name.lower()
        (others if vector else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=2e-3, eps=1e-8)
    rates = {"encoder_lr": 2e-3, "head_lr": 2e-3, "weight_decay": 0.1}
    optimizer = make_optimizer(ours.model, TrainingOptions(**rates))
    losses: tuple[list[float], list[float]] = ([], [])
    for step in range(30):
        batch, labels = make_batch(family, seed=step % 3), torch.tensor([2, 0, 1, 2])
        for logits, algorithm, kept in (
            (theirs(**batch).logits, reference, losses[0]),
            (ours.model(**batch), optimizer, losses[1]),
        ):
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            algorithm.step()
            algorithm.zero_grad()
            kept.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[0][-1] < 0.9 * losses[0][0]  # it learns, so the steps matter


# The padding's vector


def test_a_pad_token_in_a_text_does_not_train_the_vector_of_the_padding(
    family: str, tmp_path: Path
) -> None:
    theirs, ours = original(family, tmp_path, pad_token_id=4)
    batch = {"input_ids": torch.tensor([[5, 4, 6, 4, 7], [4, 8, 9, 5, 6]])}  # no padding: no mask
    labels = torch.tensor([2, 0])
    for model in (theirs, ours.model):
        logits = model(**batch)
        F.cross_entropy(getattr(logits, "logits", logits), labels).backward()
    found = ours.model.encoder.embeddings.word.weight.grad
    expected = theirs.get_input_embeddings().weight.grad
    assert found is not None and not found[4].any() and found[5].any()
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_positions_of_roberta_count_the_tokens_that_are_no_padding() -> None:
    embeddings = Encoder(tiny_config("roberta", pad_token_id=1)).embeddings
    rows = torch.arange(41.0)[:, None].expand(-1, 12)
    embeddings.position.weight = torch.nn.Parameter(rows)
    vectors = embeddings.positions(torch.tensor([[7, 8, 1, 9, 1], [3, 1, 1, 1, 1]]))
    assert vectors[:, :, 0].tolist() == [[2, 3, 1, 4, 1], [2, 1, 1, 1, 1]]


def test_a_pad_token_in_a_text_has_the_vectors_of_transformers(family: str, tmp_path: Path) -> None:
    theirs, ours = original(family, tmp_path, pad_token_id=4)
    batch = {
        "input_ids": torch.tensor([[5, 4, 6, 4, 7], [4, 8, 9, 4, 4]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    with torch.no_grad():
        found = ours.model.encoder(**batch)
        expected = theirs.base_model(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], **TOLERANCE)


def test_the_id_that_fills_a_batch_up_does_not_matter(family: str, tmp_path: Path) -> None:
    """multilingual-e5's tokenizer fills with 1, but its config.json, and so minibert, says 0."""
    theirs, ours = original(family, tmp_path)
    batch, labels = make_batch(family), torch.tensor([2, 0, 1, 2])
    padding = batch["attention_mask"] == 0
    filled = {**batch, "input_ids": batch["input_ids"].masked_fill(padding, 1)}
    for model, inputs in ((theirs, filled), (ours.model, batch)):
        logits = model(**inputs)
        F.cross_entropy(getattr(logits, "logits", logits), labels).backward()
    found, expected = ours.model.encoder.embeddings, theirs.get_input_embeddings()
    torch.testing.assert_close(found.word.weight.grad, expected.weight.grad, **TOLERANCE)


def test_new_weights_are_those_of_transformers(family: str) -> None:
    encoder = Encoder(tiny_config(family, width=60, pad_token_id=4))
    initialize(encoder, 0.07)
    word, up = encoder.embeddings.word.weight, encoder.blocks[0].feed_forward.up
    assert word.std().item() == pytest.approx(0.07, rel=0.05)
    assert up.weight.std().item() == pytest.approx(0.07, rel=0.1)
    assert not word[4].any() and not up.bias.any()


# Dropout


def test_dropout_is_at_the_same_places_as_in_transformers(family: str, tmp_path: Path) -> None:
    rates = {"dropout": 0.11, "attention_dropout": 0.0, "classifier_dropout": 0.17}
    theirs, ours = original(family, tmp_path, **rates)
    batch = make_batch(family)
    expected = modules_dropped(theirs.train(), batch)
    found = modules_dropped(ours.model.train(), batch)
    # Embeddings; three layers, of which DistilBERT's have one place less; head.
    a_layer = [0.11] if family == "distilbert" else [0.11, 0.11]
    head = [0.17, 0.17] if family in ("roberta", "electra") else [0.17]
    assert [p for p, _ in found] == [0.11, *(3 * a_layer), *head]
    assert [p for p, _ in expected] == [p for p, _ in found]
    for (_, theirs_input), (_, ours_input) in zip(expected, found, strict=True):
        theirs_input = theirs_input[:, : ours_input.shape[1]]  # our last layer: first tokens only
        torch.testing.assert_close(ours_input, theirs_input, **TOLERANCE)


def attended_ones(p: float, *, training: bool) -> Tensor:
    """Return the weight (B, H) that each head gives to the only token of each of B texts."""
    layer = SelfAttention(tiny_config("bert", attention_dropout=p)).train(training)
    torch.nn.init.zeros_(layer.qkv.weight)
    torch.nn.init.ones_(layer.qkv.bias)  # every value vector is one
    inputs: list[Tensor] = []
    layer.out.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    torch.manual_seed(5)
    layer(torch.ones(4000, 1, 12), None)
    weights = inputs[0].detach().view(4000, 2, 6)
    torch.testing.assert_close(weights, weights[:, :, :1].expand(-1, -1, 6))
    return weights[:, :, 0]


def test_attention_dropout_zeroes_a_weight_with_its_probability_and_scales_the_others() -> None:
    weights = attended_ones(0.25, training=True)
    zeroed = weights == 0
    spread = math.sqrt(0.25 * 0.75 / 8000)  # of the fraction zeroed
    assert zeroed.float().mean().item() == pytest.approx(0.25, abs=5 * spread)
    torch.testing.assert_close(weights[~zeroed], torch.full_like(weights[~zeroed], 4 / 3))


def test_attention_dropout_is_off_in_evaluation_mode() -> None:
    weights = attended_ones(0.25, training=False)
    torch.testing.assert_close(weights, torch.ones_like(weights))


def test_all_dropout_is_off_in_evaluation_mode(family: str) -> None:
    model = tiny_classifier(family, dropout=0.5, attention_dropout=0.5)
    batch = make_batch(family)
    without = tiny_classifier(family, dropout=0.0, attention_dropout=0.0)
    assert not torch.allclose(model.train()(**batch), without.eval()(**batch), **TOLERANCE)
    torch.testing.assert_close(model.eval()(**batch), without(**batch), **TOLERANCE)


# The first token alone


@pytest.mark.parametrize("lengths", [(9, 1, 6, 4), (5, 5, 5)], ids=["padded", "whole"])
def test_the_first_token_alone_is_the_first_of_all(family: str, lengths: tuple[int, ...]) -> None:
    encoder = tiny_classifier(family).eval().encoder
    randomize(encoder)
    batch = make_batch(family, lengths)
    if len(set(lengths)) == 1:
        del batch["attention_mask"]
    random = torch.Generator().manual_seed(7)
    gradient = torch.randn(len(lengths), 12, generator=random)
    used = [p for name, p in encoder.named_parameters() if not name.startswith("pooler.")]
    found = []
    for first_only, tokens in ((False, max(lengths)), (True, 1)):
        hidden = encoder(**batch, first_only=first_only)
        assert hidden.shape == (len(lengths), tokens, 12)
        first = hidden[:, 0]
        found.append([first, *torch.autograd.grad(first, used, gradient)])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, **TOLERANCE)


# Attention


def queries(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return q, k, v (B=3, H=2, S=37, K=5), and a mask (B, 1, 1, S) that hides some of k."""
    random = torch.Generator().manual_seed(4)
    q, k, v = torch.randn(3, 3, 2, 37, 5, generator=random).to(dtype)
    return q, k, v, (torch.arange(37) < torch.tensor([37, 1, 20])[:, None])[:, None, None, :]


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_its_formula(masked: bool) -> None:
    q, k, v, mask = queries(torch.float32)
    scores = q @ k.transpose(-1, -2) / math.sqrt(5)
    if masked:
        scores = scores.masked_fill(~mask, -torch.inf)
    found = attention(q, k, v, mask if masked else None, dropout_p=0.0)
    torch.testing.assert_close(found, scores.softmax(dim=-1) @ v, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_half_precision_is_as_exact_as_pytorchs(
    dtype: torch.dtype, masked: bool
) -> None:
    q, k, v, mask = queries(dtype)
    hidden = mask if masked else None
    exact = attention(q.float(), k.float(), v.float(), hidden, dropout_p=0.0)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        pytorchs = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)
    error = (attention(q, k, v, hidden, dropout_p=0.0).float() - exact).abs().max()
    assert 0 < error <= 3 * (pytorchs.float() - exact).abs().max()


def test_an_encoder_without_pooler_has_no_pooler_weights() -> None:
    config = tiny_config("bert")
    names = {name for name, _ in Encoder(config, pooler=True).named_parameters()}
    without = {name for name, _ in Encoder(config).named_parameters()}
    assert names - without == {"pooler.weight", "pooler.bias"}
