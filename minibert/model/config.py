"""The numbers that define an encoder and the head on it. Files are parsed in `checkpoint`."""

from dataclasses import dataclass

ACTIVATIONS = ("gelu", "gelu_new", "relu")
POOLINGS = ("cls", "pooler", "mean")
HEADS = ("mlp", "relu", "linear", "native")
TASKS = ("single-label", "multi-label", "regression")


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes, rates and the family (`bert` or `distilbert`) of an encoder.

    Defaults are those of Devlin et al. 2018 and of transformers' BertConfig.
    """

    family: str
    vocab_size: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    positions: int = 512
    token_types: int = 2  # 0: the family has none
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float | None = None  # None: the same as `dropout`
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0

    @property
    def attention_output_dropout(self) -> float:
        """Dropout after attention's output projection, which DistilBERT does not have."""
        return 0.0 if self.family == "distilbert" else self.dropout


@dataclass(frozen=True)
class HeadConfig:
    """The head of a classifier: its kind, the pooling below it, what its outputs are."""

    kind: str  # one of HEADS
    pooling: str  # one of POOLINGS
    labels: tuple[str, ...]  # names of the classes, or of the numbers of a regression
    max_length: int  # tokens per text, special tokens included
    task: str = "single-label"  # one of TASKS
    thresholds: tuple[float, ...] = ()  # multi-label: a class's lowest probability; (): 0.5
