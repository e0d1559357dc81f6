"""From the encoder's vectors to logits: pooling, the heads, and the classifier around them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from minibert.model.config import EncoderConfig, HeadConfig
from minibert.model.encoder import ACTIVATION_LAYERS, Encoder, initialize
from minibert.model.kernels import Dropout


def pool(
    hidden: Tensor, attention_mask: Tensor | None, *, how: str, pooler: nn.Linear | None
) -> Tensor:
    """(B, S, D) -> (B, D): first token, first token through the pooler, or mean of real tokens."""
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


def pool_windows(features: Tensor, window_counts: Tensor, *, how: str) -> Tensor:
    """(W, D) features of windows -> (B, D) float32: mean or max over those of each text.

    `window_counts` (B,) says how many each text has.
    """
    texts = torch.repeat_interleave(window_counts, output_size=len(features))  # (W,)
    pooled = torch.zeros(len(window_counts), features.shape[1], device=features.device)
    index, reduce = texts[:, None].expand_as(features), "amax" if how == "max" else how
    return pooled.scatter_reduce(0, index, features.float(), reduce, include_self=False)


class Head(nn.Module):
    """(B, D) -> (B, C): [dropout, dense, activation,] dropout, output."""

    def __init__(self, config: EncoderConfig, head: HeadConfig) -> None:
        super().__init__()
        shape = head_shape(config, head.kind)
        self.input_dropout = Dropout(shape.input_dropout)
        self.dense = nn.Linear(config.width, shape.hidden) if shape.hidden else None
        self.activation = ACTIVATION_LAYERS[shape.activation]()
        self.dropout = Dropout(shape.dropout)
        self.out = nn.Linear(shape.hidden or config.width, len(head.labels))
        is_regression = head.task == "regression"
        self.unit = Unit(len(head.labels)) if is_regression else None
        self.config = head
        if head.kind == "mlp":
            assert self.dense is not None
            nn.init.xavier_uniform_(self.dense.weight)
            nn.init.zeros_(self.dense.bias)
        if head.kind == "native" and not self.out.weight.is_meta:  # see empty_embedding
            initialize(self, config.initializer_range)
        if is_regression and not self.out.weight.is_meta:
            nn.init.zeros_(self.out.weight)  # a new head predicts the mean
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D) -> logits (B, C)."""
        if self.dense is not None:
            x = self.activation(self.dense(self.input_dropout(x)))
        x = self.dropout(x)
        if self.unit is not None:
            # A saved head has the data's unit in its weights: bf16 rounds 1000.4 to 1000.
            with torch.autocast(x.device.type, enabled=False):
                return self.unit(self.out(x.to(self.out.weight.dtype)))
        return self.out(x)

    @torch.no_grad()
    def set_unit(self, mean: Tensor, deviation: Tensor) -> None:
        """Let `out` compute (y - mean) / deviation, (C,) each; a trained head's y stay the same."""
        assert self.unit is not None
        unit, mean, deviation = self.unit, mean.to(self.out.bias), deviation.to(self.out.bias)
        if self.out.weight.any() or self.out.bias.any() or unit.mean.any():
            self.out.weight.mul_((unit.deviation / deviation)[:, None])
            self.out.bias.mul_(unit.deviation).add_(unit.mean - mean).div_(deviation)
        unit.mean, unit.deviation = mean, deviation

    def fold_unit(self) -> None:
        """Let `out` compute numbers in the data's unit."""
        if isinstance(self.unit, Unit):
            self.set_unit(torch.zeros_like(self.unit.mean), torch.ones_like(self.unit.deviation))


class Unit(nn.Module):
    """(B, C) standardized numbers -> (B, C) in the data's unit. Training folds it into `out`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__()
        # On the CPU also where weights are on the meta device: no checkpoint has them.
        zeros, ones = torch.zeros(numbers, device="cpu"), torch.ones(numbers, device="cpu")
        self.register_buffer("mean", zeros, persistent=False)
        self.register_buffer("deviation", ones, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift each column."""
        return x * self.deviation + self.mean


class HeadShape(NamedTuple):
    """The values in which the kinds of heads differ."""

    hidden: int  # width of the dense layer; 0: the head has none
    activation: str  # after the dense layer
    dropout: float  # before the output layer
    input_dropout: float = 0.0  # before the dense layer


def head_shape(config: EncoderConfig, kind: str) -> HeadShape:
    """Return the shape of a head of this kind, on an encoder with this configuration."""
    if kind == "mlp":
        return HeadShape(config.width // 2, "gelu", 0.3)
    if kind == "relu":
        return HeadShape(512, "relu", 0.2)
    if kind == "linear":
        return HeadShape(0, "gelu", 0.0)
    # The head of the family's ...ForSequenceClassification.
    native = config.dropout if config.classifier_dropout is None else config.classifier_dropout
    if config.native_activation is None:
        return HeadShape(0, "gelu", native)
    before = native if config.native_input_dropout else 0.0
    return HeadShape(config.width, config.native_activation, native, before)


class Classifier(nn.Module):
    """Encoder, pooling, head. With a frozen encoder, `features` runs once and the head trains."""

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

    def pool_windows(self, features: Tensor, window_counts: Tensor) -> Tensor:
        """Features of windows (W, D) -> of texts (B, D), which have `window_counts` (B,) each."""
        how = self.head.config.long_texts.window_pooling
        return pool_windows(features, window_counts, how=how)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        window_counts: Tensor | None = None,
    ) -> Tensor:
        """(B, S) ids -> logits (B, C).

        Of texts in windows, the ids are (W, S), and `window_counts` (B,) says how many of the W
        windows each text has.
        """
        features = self.features(input_ids, attention_mask, token_type_ids)
        if window_counts is not None:
            features = self.pool_windows(features, window_counts)
        return self.head(features)
