"""Encoder and heads compute what transformers' BERT and DistilBERT compute, in training too; and a
text's logits do not depend on padding or on its neighbours in the batch.

Run: pytest tests/test_model.py
"""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import minibert.model.encoder
from minibert import model
from minibert.checkpoint.load import Checkpoint, load_classifier, save_weights
from minibert.model.config import EncoderConfig, HeadConfig, native_pooling
from minibert.model.encoder import Classifier, Encoder, Head, attention, attention_in_steps, pool
from minibert.training.optimizer import adamw, parameter_groups

LABELS = ("a", "b", "c")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
SHAPES = [
    {"width": 12, "heads": 2, "layers": 3, "feed_forward": 23, "activation": "gelu"},
    {"width": 15, "heads": 3, "layers": 1, "feed_forward": 7, "activation": "gelu_new"},
    {"width": 7, "heads": 7, "layers": 2, "feed_forward": 33, "activation": "relu"},
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """At these sizes threads only wait for each other, for seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomize(model: nn.Module, seed: int = 1) -> None:
    """Give every parameter other numbers: zero biases and norms at one would hide a mistake."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4, generator=random)


def original(family: str, folder: Path, **changes: Any) -> tuple[nn.Module, Checkpoint]:
    """Return a random classifier of transformers, and minibert's reading of the folder it wrote."""
    transformers = pytest.importorskip("transformers")
    numbers = tiny_config(family, **changes).to_json()
    config = transformers.AutoConfig.for_model(**numbers, num_labels=len(LABELS))
    theirs = transformers.AutoModelForSequenceClassification.from_config(config)
    randomize(theirs)
    theirs.save_pretrained(folder)
    return theirs.eval(), load_classifier(folder)


def make_batch(
    family: str, lengths: tuple[int, ...] = (9, 1, 6, 4), seed: int = 2
) -> dict[str, Tensor]:
    """Return random texts of these lengths, padded with 0; BERT's with a second segment."""
    random = torch.Generator().manual_seed(seed)
    columns = torch.arange(max(lengths))
    mask = columns < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, 50, mask.shape, generator=random) * mask
    batch = {"input_ids": ids, "attention_mask": mask.long()}
    if family == "bert":
        batch["token_type_ids"] = ((columns >= 3) & mask).long()
    return batch


# The same numbers as transformers


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


def named(values: Classifier, ours: Checkpoint, folder: Path) -> dict[str, Tensor]:
    """Return a classifier's parameters under transformers' names, by writing and reading them."""
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
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    theirs, ours = original(family, tmp_path, **rates)
    theirs.train()
    ours.model.train()
    # The rule of transformers' Trainer, by name; minibert's goes by the number of axes.
    decayed, others = [], []
    for name, parameter in theirs.named_parameters():
        vector = name.endswith("bias") or "norm" in name.lower()
        (others if vector else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=2e-3, eps=1e-8)
    optimizer = adamw(
        parameter_groups(
            ours.model.encoder, ours.model.head, encoder_lr=2e-3, head_lr=2e-3, weight_decay=0.1
        )
    )
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
    assert losses[0][-1] < 0.7 * losses[0][0]  # something was learned, so the steps did count


# Dropout


def modules_dropped(model: nn.Module, batch: dict[str, Tensor]) -> list[tuple[float, Tensor]]:
    """Return the rate and the input of each dropout module that works, in order; let all pass."""
    seen: list[tuple[float, Tensor]] = []

    def look(module: nn.Dropout, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        if module.p and module.training:
            seen.append((module.p, inputs[0].detach()))
        return inputs[0]

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(look)
    model(**batch)
    return seen


@pytest.fixture
def attention_rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The dropout rate of each attention, torch's kernel or our own, which then drops nothing."""
    rates: list[float] = []
    kernel = F.scaled_dot_product_attention

    def spy(*args: Any, dropout_p: float = 0.0, **options: Any) -> Tensor:
        rates.append(dropout_p)
        return kernel(*args, dropout_p=0.0, **options)

    def let_pass(weights: Tensor, p: float) -> Tensor:
        rates.append(p)
        return weights

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(minibert.model.encoder, "dropout", let_pass)
    return rates


def test_dropout_stands_where_the_original_has_it(
    family: str, tmp_path: Path, attention_rates: list[float]
) -> None:
    rates = {"dropout": 0.11, "attention_dropout": 0.13, "classifier_dropout": 0.17}
    theirs, ours = original(family, tmp_path, **rates)
    batch = make_batch(family)
    expected = modules_dropped(theirs.train(), batch)
    assert attention_rates == [0.13] * 3
    found = modules_dropped(ours.model.train(), batch)
    assert attention_rates == [0.13] * 6
    # Embeddings, three layers, head; only BERT's attention output is dropped too.
    a_layer = [0.11, 0.11] if family == "bert" else [0.11]
    assert [rate for rate, _ in found] == [0.11, *(3 * a_layer), 0.17]
    assert [rate for rate, _ in expected] == [rate for rate, _ in found]
    for (_, theirs_input), (_, ours_input) in zip(expected, found, strict=True):
        theirs_input = theirs_input[:, : ours_input.shape[1]]  # our last layer: first tokens only
        torch.testing.assert_close(ours_input, theirs_input, **TOLERANCE)


def test_nothing_is_dropped_in_eval(
    family: str, tmp_path: Path, attention_rates: list[float]
) -> None:
    _, ours = original(family, tmp_path, dropout=0.5, attention_dropout=0.5)
    batch = make_batch(family)
    assert modules_dropped(ours.model, batch) == []  # load_classifier returns it in eval()
    assert attention_rates == [0.0] * 3


def test_classifier_dropout_null_is_the_hidden_rate() -> None:
    native = HeadConfig("native", "pooler", LABELS, 40)
    assert Head(tiny_config("bert", dropout=0.37), native).dropout.p == 0.37


# Padding and neighbours


def classifier(family: str, pooling: str) -> Classifier:
    config = tiny_config(family)
    head = Head(config, HeadConfig("mlp", pooling, LABELS, config.positions))
    model = Classifier(Encoder(config, pooler=family == "bert"), head, pooling=pooling)
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


def test_the_poolings() -> None:
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
    assert pool(hidden, mask.bool(), how="mean", pooler=None).tolist() == pooled("mean")


# The first token alone


@pytest.mark.parametrize("lengths", [(9, 1, 6, 4), (5, 5, 5)], ids=["padded", "whole"])
def test_the_first_token_alone_is_that_of_all(family: str, lengths: tuple[int, ...]) -> None:
    encoder = MODELS[family, "cls"].encoder
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


# The heads


@pytest.mark.parametrize(
    ("kind", "hidden", "activation", "dropout"),
    [
        ("mlp", 6, F.gelu, 0.3),
        ("relu", 512, F.relu, 0.2),
        ("linear", None, None, 0.0),
        ("native bert", None, None, 0.17),
        ("native distilbert", 12, F.relu, 0.17),
    ],
)
def test_the_heads(kind: str, hidden: int | None, activation: Any, dropout: float) -> None:
    kind, _, family = kind.partition(" ")
    config = tiny_config(family or "bert", classifier_dropout=0.17)
    head = Head(config, HeadConfig(kind, native_pooling(config.family), LABELS, 40)).eval()
    randomize(head)
    shapes = {name: tuple(value.shape) for name, value in head.named_parameters()}
    expected = {"out.weight": (3, hidden or 12), "out.bias": (3,)}
    if hidden:
        expected |= {"dense.weight": (hidden, 12), "dense.bias": (hidden,)}
    assert shapes == expected
    assert head.dropout.p == dropout

    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
    logits = x
    if head.dense is not None:
        logits = activation(x @ head.dense.weight.T + head.dense.bias)
    logits = logits @ head.out.weight.T + head.out.bias
    torch.testing.assert_close(head(x), logits, **TOLERANCE)


def test_dropout_of_a_head_falls_on_what_its_output_layer_reads() -> None:
    head = Head(tiny_config("bert"), HeadConfig("mlp", "cls", LABELS, 40)).train()
    ((rate, dropped),) = modules_dropped(head, {"x": torch.ones(5, 12)})
    assert rate == 0.3
    assert dropped.shape == (5, 6)


def test_the_mlp_begins_with_xavier_weights_and_zero_biases() -> None:
    config = tiny_config("bert", width=90)
    torch.manual_seed(0)
    dense = Head(config, HeadConfig("mlp", "cls", LABELS, 40)).dense
    assert dense is not None and not dense.bias.any()
    bound = math.sqrt(6 / (90 + 45))  # torch's own default would end at sqrt(1 / 90)
    assert 0.99 * bound < dense.weight.abs().max() <= bound
    assert dense.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_a_native_head_begins_as_the_original_does() -> None:
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
    assert torch.equal(model.head(features), model(**batch))


# The attention


def queries(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return q, k, v (B=3, H=2, S=37, K=5), and a mask (B, 1, 1, S) that hides some of k."""
    random = torch.Generator().manual_seed(4)
    q, k, v = torch.randn(3, 3, 2, 37, 5, generator=random).to(dtype)
    return q, k, v, (torch.arange(37) < torch.tensor([37, 1, 20])[:, None])[:, None, None, :]


def test_attention_is_its_formula() -> None:
    q, k, v, mask = queries(torch.float32)
    for hidden in (None, mask):
        scores = q @ k.transpose(-1, -2) / math.sqrt(5)
        if hidden is not None:
            scores = scores.masked_fill(~hidden, -torch.inf)
        expected = scores.softmax(dim=-1) @ v
        torch.testing.assert_close(attention(q, k, v, hidden, dropout_p=0.0), expected, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_half_precision_is_as_exact_as_torchs_own_choice(dtype: torch.dtype, masked: bool) -> None:
    q, k, v, mask = queries(dtype)
    hidden = mask if masked else None
    exact = attention(q.float(), k.float(), v.float(), hidden, dropout_p=0.0)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        usual = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)
    error = (attention(q, k, v, hidden, dropout_p=0.0).float() - exact).abs().max()
    assert 0 < error <= 3 * (usual.float() - exact).abs().max()


@pytest.mark.parametrize(
    ("dtype", "gradients", "tokens", "dropout_p", "kernel"),
    [
        (torch.float32, True, 37, 0.0, True),
        (torch.float32, True, 37, 0.1, False),
        (torch.float32, False, 37, 0.1, True),
        (torch.bfloat16, True, 128, 0.0, False),
        (torch.float16, True, 128, 0.0, False),
        (torch.bfloat16, True, 129, 0.0, True),
        (torch.bfloat16, True, 129, 0.1, False),
        (torch.bfloat16, False, 37, 0.0, True),
    ],
)
def test_a_cpu_trains_in_steps_where_torchs_kernel_is_slow(
    dtype: torch.dtype,
    gradients: bool,
    tokens: int,
    dropout_p: float,
    kernel: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[bool] = []
    original = F.scaled_dot_product_attention

    def spy(*args: Any, **options: Any) -> Tensor:
        called.append(True)
        return original(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    q, k, v = torch.randn(3, 1, 2, tokens, 5).to(dtype)
    with torch.set_grad_enabled(gradients):
        attention(q, k, v, None, dropout_p=dropout_p)
    assert called == [True] * kernel


@pytest.mark.parametrize("texts_at_once", [3, 2, 1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [37, 1])
def test_attention_in_steps_is_attention_with_its_gradients(
    tokens: int, masked: bool, texts_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "CACHED_WEIGHTS", texts_at_once * 2 * tokens * 37)
    *inputs, mask = queries(torch.float32)
    inputs[0] = inputs[0][:, :, :tokens]
    gradient = torch.randn(3, 2, tokens, 5, generator=torch.Generator().manual_seed(6))
    found = []
    for function in (attention, attention_in_steps):
        leaves = [x.clone().requires_grad_() for x in inputs]
        values = function(*leaves, mask if masked else None, dropout_p=0.0)
        found.append([values, *torch.autograd.grad(values, leaves, gradient)])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, **TOLERANCE)


def test_attention_dropout_is_of_the_weights() -> None:
    q, k, _, _ = queries(torch.float32)
    ones = torch.ones_like(k)
    torch.manual_seed(5)
    # Each row of weights sums to one; with dropout it does so only on average.
    sums = attention(q, k, ones, None, dropout_p=0.25)
    assert sums.std() > 0.05
    assert sums.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(sums[..., 0], sums[..., 4])  # a weight is dropped for all of v's columns


def test_an_encoder_without_pooler_has_no_pooler_weights() -> None:
    config: EncoderConfig = tiny_config("bert")
    names = {name for name, _ in Encoder(config, pooler=True).named_parameters()}
    without = {name for name, _ in Encoder(config).named_parameters()}
    assert names - without == {"pooler.weight", "pooler.bias"}
