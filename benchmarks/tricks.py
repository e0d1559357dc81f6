"""What each trick for speed saves beside its plain twin: python -m benchmarks tricks"""

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from benchmarks.figures import spread
from benchmarks.machine import describe_machine
from benchmarks.parts import Setup
from benchmarks.tables import Section
from benchmarks.workload import DISTILBERT
from minibert.data.batches import TextDataset, TokenIds
from minibert.device import Compute, cpu_has_bf16
from minibert.inference.batched import prepare_for_inference
from minibert.inference.cpu import PrepackedLinear, QuantizedLinear, int8_levels, prepacking_works
from minibert.model import kernels
from minibert.model.classifier import Classifier, Head
from minibert.model.config import HeadConfig
from minibert.model.encoder import Encoder
from minibert.training.word_rows import CompactEmbedding

TEXTS, TOKENS, HEADS, WIDTH, FEED_FORWARD, VOCABULARY = 32, 64, 12, 768, 3072, 30522


def tricks(setup: Setup) -> Section:
    """Measure each trick and its plain twin in turn."""
    torch.manual_seed(0)
    rows = []
    for name, plain, fast in pairs():
        times = [(milliseconds(plain), milliseconds(fast)) for _ in range(setup.repeats)]
        slow, quick = (spread(column) for column in zip(*times, strict=True))
        saved = spread([slow / quick for slow, quick in times])
        rows.append([name, slow, quick, saved])
        print(f"tricks: {name}: {saved}", file=sys.stderr)
    about = [
        f"{describe_machine('cpu', setup.threads)}.",
        f"DistilBERT's sizes, batches of {TEXTS} texts. Each is measured {setup.repeats} times in "
        "turn with its plain twin. Median (lowest to highest).",
    ]
    return Section("tricks", about, ["", "plain ms", "fast ms", "plain / fast"], rows, [])


def milliseconds(work: Callable[[], object]) -> float:
    """Return the median time of a call."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return 1000 * timer.blocked_autorange(min_run_time=0.3).median


def pairs() -> list[tuple[str, Callable[[], object], Callable[[], object]]]:
    """Return each trick's name, its plain computation, and its fast one."""
    found = []
    types = [torch.float32] + [torch.bfloat16] * cpu_has_bf16()
    for dtype in types:
        for tokens in (16, 128, 512):
            name = f"attention in training, {tokens} tokens, {str(dtype)[6:]}"
            found.append((name, *attention(tokens, dtype)))
    found.append(("dropout in training", *dropout()))
    for precision in ("fp32", "bf16", "int8"):
        if prepacking_works(precision) or (precision == "int8" and int8_levels(torch.float32)):
            found.append((f"linear layer with GELU, {precision}", *linear(precision)))
    if kernels.use_onednn(torch.zeros(1, 1)):
        found.append(("linear layer in training, float32", *trained_linear()))
    found.append(("word rows: forward, backward, AdamW", *word_rows()))
    for precision in ["fp32"] + ["bf16"] * cpu_has_bf16():
        for tokens in (128, 512):
            name = f"two blocks, one call, {tokens} tokens, {precision}"
            found.append((name, *one_call(tokens, precision)))
    return found


def attention(tokens: int, dtype: torch.dtype) -> tuple[Callable, Callable]:
    """Forward and backward with dropout, by PyTorch's own function and by ours."""
    shape = (3, TEXTS, HEADS, tokens, WIDTH // HEADS)
    qkv = torch.randn(shape, dtype=dtype, requires_grad=True)
    gradient = torch.randn(shape[1:], dtype=dtype)

    def training(function: Callable[..., Tensor]) -> Callable[[], None]:
        return lambda: function(*qkv).backward(gradient)

    return (
        training(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)),
        training(lambda q, k, v: kernels.stepwise_attention(q, k, v, None, dropout_p=0.1)),
    )


def dropout() -> tuple[Callable, Callable]:
    """Forward and backward of dropout on the activations of a batch."""
    x = torch.randn(TEXTS, TOKENS, WIDTH, requires_grad=True)
    gradient = torch.randn_like(x)
    return (
        lambda: F.dropout(x, 0.1).backward(gradient),
        lambda: kernels.dropout(x, 0.1).backward(gradient),
    )


def linear(precision: str) -> tuple[Callable, Callable]:
    """A feed-forward layer's first half: nn.Linear and GELU, and one kernel; int8 beside fp32."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layer, gelu = nn.Linear(WIDTH, FEED_FORWARD, dtype=dtype), nn.GELU()
    x = torch.randn(TEXTS * 16, WIDTH, dtype=dtype)
    fast: nn.Module = PrepackedLinear(layer, gelu)
    if precision == "int8" and (levels := int8_levels(torch.float32)):
        fast = QuantizedLinear(layer, gelu, levels=levels)

    def without_gradients(work: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: work(x))

    return without_gradients(lambda x: gelu(layer(x))), without_gradients(fast)


def trained_linear() -> tuple[Callable, Callable]:
    """Forward and backward of a feed-forward layer's first half, by PyTorch's product and ours."""
    plain, fast = nn.Linear(WIDTH, FEED_FORWARD), kernels.Linear(WIDTH, FEED_FORWARD)
    x = torch.randn(TEXTS * 16, WIDTH, requires_grad=True)
    gradient = torch.randn(TEXTS * 16, FEED_FORWARD)
    return lambda: plain(x).backward(gradient), lambda: fast(x).backward(gradient)


def word_rows() -> tuple[Callable, Callable]:
    """A training step of the word embeddings alone; the texts use a tenth of the vocabulary."""
    ids = torch.randint(VOCABULARY // 10, (TEXTS, TOKENS))
    texts = TextDataset(
        [TokenIds(row.numpy(), TOKENS) for row in ids], None, pad_token_id=0, token_types=False
    )
    table = nn.Embedding(VOCABULARY, WIDTH)
    return step(table, ids), step(CompactEmbedding(table, texts.used_ids()), ids)


def step(embedding: nn.Module, ids: Tensor) -> Callable[[], None]:
    """Return a training step of an embedding."""
    optimizer = torch.optim.AdamW(embedding.parameters(), fused=True)
    gradient = torch.randn(*ids.shape, WIDTH)

    def run() -> None:
        embedding(ids).backward(gradient)
        optimizer.step()
        optimizer.zero_grad()

    return run


def one_call(tokens: int, precision: str) -> tuple[Callable, Callable]:
    """One call for a batch of texts: all cores on one batch, and smaller ones for each core."""
    config = replace(DISTILBERT, layers=2, vocab_size=2)
    head = Head(config, HeadConfig("linear", "mean", ("a", "b"), max_length=tokens))
    classifier = Classifier(Encoder(config), head, pooling="mean")
    model = prepare_for_inference(classifier, Compute(torch.device("cpu"), precision))
    rows = [TokenIds(np.ones(tokens, dtype=np.int32), tokens)] * TEXTS
    texts = TextDataset(rows, None, pad_token_id=0, token_types=False)
    inputs = texts.batch(np.arange(TEXTS)).inputs

    @torch.no_grad()
    def one_batch() -> None:
        with model.context():
            model.module(*inputs)

    return one_batch, lambda: model.logits(texts, batch_size=TEXTS)
