"""The numbers that define an encoder and the head on it. Files are parsed in `checkpoint`."""

from dataclasses import dataclass

ACTIVATIONS = ("gelu", "gelu_new", "relu")
POOLINGS = ("cls", "pooler", "mean")
HEADS = ("mlp", "relu", "linear", "native")
TASKS = ("single-label", "multi-label", "regression")
LONG_TEXTS = ("cut", "head-tail", "windows")
WINDOW_POOLINGS = ("mean", "max")
TEMPERATURES = (0.05, 20.0)  # beyond them all probabilities are 0 and 1, or all are alike


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes, rates and the family of an encoder, and the values in which families differ.

    Defaults are those of Devlin et al. 2018 and of transformers' BertConfig. The family is a key of
    `checkpoint.families.FAMILIES`, which has the values of the others.
    """

    family: str
    vocab_size: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    positions: int = 512  # rows of the table of positions
    token_types: int = 2  # 0: the family has none
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float | None = None  # None: the same as `dropout`
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    embedding_width: int = 0  # of the embeddings before they are projected; 0: the same as `width`
    positions_after_padding: bool = False  # False: the first token's position is 0
    dropout_after_attention: bool = True  # after its output layer
    native_activation: str | None = None  # of the native head's dense layer; None: it has none
    native_input_dropout: bool = False  # the native head has dropout before its dense layer too

    @property
    def attention_output_dropout(self) -> float:
        """Dropout after attention's output layer."""
        return self.dropout if self.dropout_after_attention else 0.0

    @property
    def padding_position(self) -> int | None:
        """The padding's row in the table of positions; the first token's is the next."""
        return self.pad_token_id if self.positions_after_padding else None

    @property
    def max_tokens(self) -> int:
        """Tokens per text for which there are positions."""
        padding = self.padding_position
        return self.positions if padding is None else self.positions - padding - 1


@dataclass(frozen=True)
class LongTexts:
    """What happens to texts with more tokens than a head's `max_length`.

    Example:
        >>> LongTexts("windows", stride=64).is_valid
        True
    """

    how: str = "cut"  # one of LONG_TEXTS
    stride: int | None = None  # tokens from a window's start to the next; None: half a window
    window_pooling: str = "mean"  # of the windows' features, one of WINDOW_POOLINGS

    @property
    def is_valid(self) -> bool:
        """Whether each value is one that it may have."""
        stride_fits = self.stride is None or (type(self.stride) is int and self.stride > 0)
        return self.how in LONG_TEXTS and self.window_pooling in WINDOW_POOLINGS and stride_fits


@dataclass(frozen=True)
class HeadConfig:
    """The head of a classifier: its kind, the pooling below it, what its outputs are."""

    kind: str  # one of HEADS
    pooling: str  # one of POOLINGS
    labels: tuple[str, ...]  # names of the classes, or of the numbers of a regression
    max_length: int  # tokens per text, special tokens included
    task: str = "single-label"  # one of TASKS
    # Lowest probability of a class; (): 0.5. Multi-label, or two classes, whose sum is then 1.
    thresholds: tuple[float, ...] = ()
    long_texts: LongTexts = LongTexts()
    temperature: float = 1.0  # probabilities are those of logits / temperature
    min_probability: float = 0.0  # single-label: lowest that is not rejected; 0: none is
