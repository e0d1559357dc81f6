"""The numbers of a checkpoint, from and to its `config.json`.

BERT and DistilBERT are one encoder with other values; what differs stands in the two key tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from reprlib import repr as shown  # of a bounded length and depth
from typing import Any

from minibert.errors import CONTROL, InputError

ACTIVATIONS = ("gelu", "gelu_new", "relu")
POOLINGS = ("cls", "pooler", "mean")
HEADS = ("mlp", "relu", "linear", "native")

# Our field -> the family's key in config.json. Sizes must be there; the rest has defaults.
CONFIG_KEYS = {
    "bert": {
        "vocab_size": "vocab_size",
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "positions": "max_position_embeddings",
        "token_types": "type_vocab_size",
        "activation": "hidden_act",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "classifier_dropout": "classifier_dropout",
        "layer_norm_eps": "layer_norm_eps",
        "initializer_range": "initializer_range",
        "pad_token_id": "pad_token_id",
    },
    "distilbert": {
        "vocab_size": "vocab_size",
        "width": "dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "feed_forward": "hidden_dim",
        "positions": "max_position_embeddings",
        "activation": "activation",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
        "initializer_range": "initializer_range",
        "pad_token_id": "pad_token_id",
    },
}

# Settings that change the computation: key -> the only value that this encoder has.
FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
}


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes and rates of an encoder; `family` is `bert` or `distilbert`."""

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
    classifier_dropout: float | None = None  # none: `dropout`
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0

    @property
    def attention_output_dropout(self) -> float:
        """Dropout after the attention's output projection, which DistilBERT does not have."""
        return 0.0 if self.family == "distilbert" else self.dropout

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> "EncoderConfig":
        """Read a checkpoint's `config.json`; `where` names the file in errors.

        Raises InputError for a family, a setting or a number that this encoder cannot follow.
        """
        family = _family(data, where)
        for key, value in FIXED.items():
            if data.get(key, value) != value:
                raise InputError(
                    f"{where}: {key} is {shown(data[key])}; minibert's encoder only knows {value!r}"
                )
        values: dict[str, Any] = {"classifier_dropout": 0.2 if family == "distilbert" else None}
        if family == "distilbert":
            values["token_types"] = 0
        kinds = {field.name: field.type for field in fields(cls)}
        for ours, theirs in CONFIG_KEYS[family].items():
            if data.get(theirs) is not None:
                values[ours] = _number(data[theirs], kinds[ours], f"{where}: {theirs}")
            elif ours in ("vocab_size", "width", "layers", "heads", "feed_forward"):
                raise InputError(f"{where}: {theirs} is missing; every {family} config has it")
        config = cls(family=family, **values)
        if config.layers > 200:
            raise InputError(f"{where}: {config.layers} layers is more than any known encoder has")
        if config.width % config.heads:
            raise InputError(
                f"{where}: a width of {config.width} cannot be shared by {config.heads} heads"
            )
        if config.activation not in ACTIVATIONS:
            raise InputError(
                f"{where}: activation {shown(config.activation)} is not one of "
                f"{', '.join(ACTIVATIONS)}"
            )
        if config.pad_token_id >= config.vocab_size:
            raise InputError(f"{where}: pad_token_id is not below vocab_size ({config.vocab_size})")
        return config

    def to_json(self) -> dict[str, Any]:
        """Return what `config.json` says of these numbers, under the family's own keys."""
        keys = CONFIG_KEYS[self.family]
        data = {theirs: getattr(self, ours) for ours, theirs in keys.items()}
        return {"model_type": self.family, **data}


@dataclass(frozen=True)
class HeadConfig:
    """What stands on the encoder: how a text becomes one vector, the head, the classes' names."""

    kind: str
    pooling: str
    labels: tuple[str, ...]
    max_length: int  # tokens a text, the special ones included


def native_pooling(family: str) -> str:
    """Return the pooling under the family's own `...ForSequenceClassification` head."""
    return "pooler" if family == "bert" else "cls"


def read_head(data: Mapping[str, Any], encoder: EncoderConfig, *, where: str) -> HeadConfig | None:
    """Return the head that a `config.json` declares: minibert's, the family's own, or none."""
    own = data.get("minibert")
    architectures = data.get("architectures") or []
    if not isinstance(architectures, list):
        raise InputError(f"{where}: architectures is {shown(architectures)}, not a list")
    native = any(
        isinstance(name, str) and name.endswith("ForSequenceClassification")
        for name in architectures
    )
    if own is None and not native:
        return None
    if data.get("problem_type") not in (None, "single_label_classification"):
        raise InputError(
            f"{where}: problem_type is {shown(data['problem_type'])}; "
            "minibert predicts one class a text"
        )
    labels = _labels(data, where)
    if own is None:
        pooling = native_pooling(encoder.family)
        return HeadConfig("native", pooling, labels, encoder.positions)
    try:
        head = HeadConfig(own["head"], own["pooling"], labels, own["max_length"])
    except (KeyError, TypeError):
        raise InputError(f"{where}: the entry minibert lacks head, pooling or max_length") from None
    length_fits = type(head.max_length) is int and 3 <= head.max_length <= encoder.positions
    if head.kind not in HEADS or head.pooling not in POOLINGS or not length_fits:
        raise InputError(f"{where}: the entry minibert holds values this version does not know")
    return head


def _family(data: Mapping[str, Any], where: str) -> str:
    # The small BERTs of google/bert_uncased_L-* were published without a model_type.
    family = data.get("model_type", "bert" if "hidden_size" in data else None)
    if not isinstance(family, str) or family not in CONFIG_KEYS:
        raise InputError(
            f"{where}: model_type is {shown(family)}; minibert reads {' and '.join(CONFIG_KEYS)}"
        )
    return family


def _number(value: Any, kind: Any, where: str) -> Any:
    """Check a config value against its field's type and the range any real checkpoint has."""
    if kind is str:
        if not isinstance(value, str):
            raise InputError(f"{where} is {shown(value)}, not a string")
        return value
    if kind is int:
        lowest = 0 if where.endswith(("pad_token_id", "type_vocab_size")) else 1
        if type(value) is not int or not lowest <= value <= 10_000_000:
            raise InputError(
                f"{where} is {shown(value)}, not a whole number from {lowest} to 10,000,000"
            )
        return value
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise InputError(f"{where} is {shown(value)}, not a number from 0 to below 1")
    return float(value)


def _labels(data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the class names in the order of their numbers, which are strings in JSON."""
    id2label = data.get("id2label")
    if not id2label:
        count = data.get("num_labels", 2)
        if type(count) is not int or not 2 <= count <= 100_000:
            raise InputError(f"{where}: num_labels is {shown(count)}, not a number of classes")
        return tuple(f"LABEL_{number}" for number in range(count))
    try:
        names = {int(number): name for number, name in id2label.items()}
        labels = tuple(names[number] for number in range(len(names)))
    except (AttributeError, KeyError, ValueError):
        raise InputError(f"{where}: id2label does not number the classes 0, 1, 2, ...") from None
    if len(labels) < 2 or not all(isinstance(name, str) for name in labels):
        raise InputError(f"{where}: id2label must name two or more classes with strings")
    if any(map(CONTROL.search, labels)):
        raise InputError(f"{where}: id2label names a class with control characters")
    if len(set(labels)) < len(labels):
        raise InputError(f"{where}: id2label gives one name to two classes")
    return labels
