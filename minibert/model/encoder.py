"""The encoder of BERT (Devlin et al. 2018) and the families of its shape: token ids to vectors.

Axes, for the whole package: B texts, S padded length, D width, H heads, K head width,
F feed-forward width, C classes. Classes are defined in the order in which data passes them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.model.config import EncoderConfig
from minibert.model.kernels import (
    Dropout,
    Linear,
    attention_kernels,
    stepwise_attention,
    use_stepwise_attention,
)

ACTIVATION_LAYERS = {
    "gelu": lambda: nn.GELU(),  # exact, with erf
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "relu": lambda: nn.ReLU(),
    "tanh": lambda: nn.Tanh(),
}


class Embeddings(nn.Module):
    """Word + position + token type embeddings, normalized (Devlin et al., section 3, figure 2)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embedding_width or config.width
        # The padding's vector gets no gradient, as in transformers: without padding_idx a literal
        # "[PAD]" in a text would train it.
        self.word = empty_embedding(config.vocab_size, width, config.pad_token_id)
        self.position = empty_embedding(config.positions, width, config.padding_position)
        self.token_type = None
        if config.token_types:
            self.token_type = empty_embedding(config.token_types, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)
        # ELECTRA's embeddings can be narrower than its layers (Clark et al. 2020, section 3.3).
        narrow = width != config.width
        self.project = Linear(width, config.width) if narrow else nn.Identity()

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """(B, S) ids -> (B, S, D). Without token types, every token is of type 0."""
        x = self.word(input_ids) + self.positions(input_ids)
        if self.token_type is not None:
            if token_type_ids is None:
                x = x + self.token_type.weight[0]
            else:
                x = x + self.token_type(token_type_ids)
        return self.project(self.dropout(self.norm(x)))

    def positions(self, input_ids: Tensor) -> Tensor:
        """(B, S) ids -> the vectors of their positions: (S, D), or (B, S, D) in RoBERTa."""
        pad = self.position.padding_idx
        if pad is None:
            return self.position.weight[: input_ids.shape[1]]
        # RoBERTa numbers the tokens that are not padding from pad + 1; padding has the number pad.
        real = (input_ids != pad).long()
        return self.position(pad + real * real.cumsum(dim=1))


def empty_embedding(rows: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    """Return an embedding of zeros, to be filled from a checkpoint or by `initialize`.

    nn.Embedding draws random values first. On the meta device, where loading starts, that imports
    PyTorch's compiler and slows down every start.
    """
    weight = torch.zeros(rows, width)
    return nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=padding_idx)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, dropout_p: float) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, with dropout on the weights (Vaswani et al. 2017, section 3.2.1).

    k and v are (B, H, S, K); q has the same shape or fewer tokens. The mask is (B, 1, 1, S), true
    at real tokens; None means that there is no padding.
    """
    if use_stepwise_attention(q, dropout_p):
        return stepwise_attention(q, k, v, mask, dropout_p=dropout_p)
    with attention_kernels(q.device):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al., section 3.2.2): H heads of width K = D / H."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_dropout = config.attention_dropout
        # One product for query, key and value: three narrow ones use a CPU's matrix units less.
        self.qkv = Linear(config.width, 3 * config.width)
        self.out = Linear(config.width, config.width)
        self.dropout = Dropout(config.attention_output_dropout)

    def forward(self, x: Tensor, mask: Tensor | None, *, first_only: bool = False) -> Tensor:
        """(B, S, D) -> (B, S, D), or with `first_only` the first token's output: (B, 1, D)."""
        B, S, D = x.shape
        qkv = self.qkv(x).view(B, S, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # three of (B, H, S, K)
        if first_only:
            q = q[:, :, :1]
        x = attention(q, k, v, mask, dropout_p=self.attention_dropout if self.training else 0.0)
        x = x.transpose(1, 2).flatten(2)  # (B, S, D)
        return self.dropout(self.out(x))


class FeedForward(nn.Module):
    """D -> F -> D at every position (Vaswani et al., section 3.3)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up = Linear(config.width, config.feed_forward)
        self.activation = ACTIVATION_LAYERS[config.activation]()
        self.down = Linear(config.feed_forward, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        return self.dropout(self.down(self.activation(self.up(x))))


class Block(nn.Module):
    """One layer. The norm follows the residual sum (post-norm), unlike in later transformers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None, *, first_only: bool = False) -> Tensor:
        """(B, S, D) -> (B, S, D), or with `first_only` (B, 1, D)."""
        attended = self.attention(x, mask, first_only=first_only)
        x = x[:, :1] if first_only else x
        x = self.attention_norm(x + attended)
        return self.feed_forward_norm(x + self.feed_forward(x))


class Encoder(nn.Module):
    """Token ids to one vector per token. Holds the pooler's weights if the checkpoint has them.

    Example:
        >>> config = EncoderConfig("bert", 99, width=12, layers=2, heads=3, feed_forward=48)
        >>> Encoder(config)(torch.tensor([[2, 7, 5, 3]])).shape
        torch.Size([1, 4, 12])
    """

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
        """(B, S) ids -> (B, S, D) float32.

        The mask is (B, S), nonzero at real tokens; None means no padding. With `first_only` the
        last block computes the first token alone and the result is (B, 1, D): the same values for
        less work.
        """
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        x = self.embeddings(input_ids, token_type_ids)
        for block in self.blocks:
            x = block(x, mask, first_only=first_only and block is self.blocks[-1])
        return x.float()  # pooler and head stay in fp32 where the blocks do not


def initialize(module: nn.Module, std: float) -> None:
    """Draw new weights as transformers does for all families.

    Matrices are normal, biases and the padding's vector zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            nn.init.zeros_(layer.weight[layer.padding_idx])
