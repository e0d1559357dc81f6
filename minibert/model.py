"""BERT and DistilBERT (Devlin et al. 2018; Sanh et al. 2019), from token ids to logits.

Axes, for the whole package: B texts, S padded length, D width, H heads, K head width,
F feed-forward width, C classes. The classes stand in the order in which a text passes them.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.config import EncoderConfig, HeadConfig
from minibert.dropout import Dropout, dropout

ACTIVATION_LAYERS = {
    "gelu": lambda: nn.GELU(),  # exact, with erf
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "relu": lambda: nn.ReLU(),
}
CACHED_WEIGHTS = 2**23  # of attention: past so many, a processor's cache has lost the first ones


class Embeddings(nn.Module):
    """Word + position + token type, normalised (Devlin et al., section 3, figure 2)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = empty_table(config.vocab_size, config.width)
        self.position = empty_table(config.positions, config.width)
        self.token_type = None
        if config.token_types:
            self.token_type = empty_table(config.token_types, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """(B, S) ids -> (B, S, D); no token types means that all are of type 0."""
        x = self.word(input_ids) + self.position.weight[: input_ids.shape[1]]
        if self.token_type is not None:
            if token_type_ids is None:
                x = x + self.token_type.weight[0]
            else:
                x = x + self.token_type(token_type_ids)
        return self.dropout(self.norm(x))


def empty_table(rows: int, width: int) -> nn.Embedding:
    """Return an embedding of zeros: a checkpoint or `initialize` gives it its values.

    nn.Embedding's own would be drawn first, and on the meta device, where a checkpoint's module
    begins, drawing imports PyTorch's compiler: a second of every start.
    """
    return nn.Embedding.from_pretrained(torch.zeros(rows, width), freeze=False)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, dropout_p: float) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, with dropout on the weights (Vaswani et al. 2017, section 3.2.1).

    k, v are (B, H, S, K), q too or with fewer tokens; mask is (B, 1, 1, S), true where a token is
    real, or none.
    """
    # A CPU's flash kernel is the fastest for answers. Training, it cannot drop weights, and its
    # backward pass in half precision is slower than plain products at the lengths of most texts.
    half = q.dtype in (torch.bfloat16, torch.float16)
    slow = q.device.type == "cpu" and (dropout_p > 0 or (half and q.shape[2] <= 128))
    if slow and torch.is_grad_enabled():
        return attention_in_steps(q, k, v, mask, dropout_p=dropout_p)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)


def attention_in_steps(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, dropout_p: float
) -> Tensor:
    """Compute `attention` as its formula says, for so many texts at once as the cache holds."""
    at_once = max(1, CACHED_WEIGHTS // (q.shape[1] * q.shape[2] * k.shape[2]))
    if len(q) > at_once:
        masks = itertools.repeat(None) if mask is None else mask.split(at_once)
        parts = zip(q.split(at_once), k.split(at_once), v.split(at_once), masks, strict=False)
        return torch.cat([attention_in_steps(*part, dropout_p=dropout_p) for part in parts])
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, S, S)
    if mask is not None:
        weights = weights.masked_fill_(~mask, -math.inf)
    return dropout(torch.softmax(weights, dim=-1), dropout_p) @ v


class SelfAttention(nn.Module):
    """Every token looks at every real token of its own text, in H heads of width K."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_dropout = config.attention_dropout
        # Query, key and value in one product: three thin ones leave a CPU's matrix units waiting.
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.dropout = Dropout(config.attention_output_dropout)

    def forward(self, x: Tensor, mask: Tensor | None, *, first_only: bool = False) -> Tensor:
        """(B, S, D) -> (B, S, D), or with `first_only` what the first token sees: (B, 1, D)."""
        B, S, D = x.shape
        qkv = self.qkv(x).view(B, S, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # three of (B, H, S, K)
        if first_only:
            q = q[:, :, :1]
        x = attention(q, k, v, mask, dropout_p=self.attention_dropout if self.training else 0.0)
        x = x.transpose(1, 2).flatten(2)  # (B, S, D)
        return self.dropout(self.out(x))


class FeedForward(nn.Module):
    """D -> F -> D at every token by itself (Vaswani et al., section 3.3)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.feed_forward)
        self.activation = ACTIVATION_LAYERS[config.activation]()
        self.down = nn.Linear(config.feed_forward, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        return self.dropout(self.down(self.activation(self.up(x))))


class Block(nn.Module):
    """One layer. The norm follows the sum (post-norm), unlike in later transformers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None, *, first_only: bool = False) -> Tensor:
        """(B, S, D) -> (B, S, D), or with `first_only` (B, 1, D)."""
        seen = self.attention(x, mask, first_only=first_only)
        x = x[:, :1] if first_only else x
        x = self.attention_norm(x + seen)
        return self.feed_forward_norm(x + self.feed_forward(x))


class Encoder(nn.Module):
    """Token ids to one vector a token; with the pooler's weights where the checkpoint has them."""

    def __init__(self, config: EncoderConfig, *, pooler: bool = False) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.pooler = nn.Linear(config.width, config.width) if pooler else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        first_only: bool = False,
    ) -> Tensor:
        """(B, S) ids -> (B, S, D). The mask is (B, S), true at real tokens; none: no padding.

        With `first_only` the last block makes the first token's vector alone, (B, 1, D): most of
        that block's work falls away, and what is left is the same.
        """
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        x = self.embeddings(input_ids, token_type_ids)
        for block in self.blocks:
            x = block(x, mask, first_only=first_only and block is self.blocks[-1])
        return x.float()  # pooler and head are in fp32 also where the blocks are not


def pool(
    hidden: Tensor, attention_mask: Tensor | None, *, how: str, pooler: nn.Linear | None
) -> Tensor:
    """(B, S, D) -> (B, D): the first token, that through the pooler, or the mean of real tokens."""
    if how == "mean":
        if attention_mask is None:
            return hidden.mean(dim=1)
        weights = attention_mask.to(hidden.dtype)[:, :, None]  # (B, S, 1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    first = hidden[:, 0]
    if how == "cls":
        return first
    assert how == "pooler" and pooler is not None
    return torch.tanh(pooler(first))


class Head(nn.Module):
    """(B, D) -> (B, C): [dense, activation,] dropout, output. The kinds are sets of values."""

    def __init__(self, config: EncoderConfig, head: HeadConfig) -> None:
        super().__init__()
        hidden, activation, dropout = head_values(config, head.kind)
        self.dense = nn.Linear(config.width, hidden) if hidden else None
        self.activation = ACTIVATION_LAYERS[activation]()
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(hidden or config.width, len(head.labels))
        if head.kind == "mlp":
            assert self.dense is not None
            nn.init.xavier_uniform_(self.dense.weight)
            nn.init.zeros_(self.dense.bias)
        if head.kind == "native" and not self.out.weight.is_meta:  # see empty_table
            initialize(self, config.initializer_range)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D) -> logits (B, C)."""
        if self.dense is not None:
            x = self.activation(self.dense(x))
        return self.out(self.dropout(x))


def head_values(config: EncoderConfig, kind: str) -> tuple[int, str, float]:
    """Return a head's hidden width (0: none), its activation and its dropout."""
    if kind == "mlp":
        return config.width // 2, "gelu", 0.3
    if kind == "relu":
        return 512, "relu", 0.2
    if kind == "linear":
        return 0, "gelu", 0.0
    own = config.dropout if config.classifier_dropout is None else config.classifier_dropout
    return (config.width, "relu", own) if config.family == "distilbert" else (0, "gelu", own)


class Classifier(nn.Module):
    """Encoder, pool, head; `features` is the cut at which a frozen encoder's results are kept."""

    def __init__(self, encoder: Encoder, head: Head, *, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.pooling = pooling

    def features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """(B, S) ids -> (B, D)."""
        first_only = self.pooling != "mean"
        hidden = self.encoder(input_ids, attention_mask, token_type_ids, first_only=first_only)
        return pool(hidden, attention_mask, how=self.pooling, pooler=self.encoder.pooler)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """(B, S) ids -> logits (B, C)."""
        return self.head(self.features(input_ids, attention_mask, token_type_ids))


def initialize(module: nn.Module, std: float) -> None:
    """Draw new weights as transformers does for both families: normal matrices, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
