"""`config.json` to the numbers of an encoder and its head, and back. Bad values are errors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from reprlib import repr as shorten  # bounds length and depth
from typing import Any

from minibert.checkpoint.families import FAMILIES
from minibert.errors import CONTROL_CHARACTERS, InputError
from minibert.files import model_file, read_json, write_json
from minibert.model.config import (
    ACTIVATIONS,
    HEADS,
    POOLINGS,
    TEMPERATURES,
    EncoderConfig,
    HeadConfig,
    LongTexts,
)

# Our tasks -> transformers' problem_type.
PROBLEM_TYPES = {
    "single-label": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
SIZES = ("vocab_size", "width", "layers", "heads", "feed_forward")  # required in config.json
# Settings that change the computation -> the only value that this encoder supports.
FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
}


def read_config(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the content of a folder's `config.json`, and the file's name for error messages."""
    file = model_file(folder, "config.json")
    if file is None:
        raise InputError(f"{folder}: holds no checkpoint (no config.json)")
    return read_json(file), str(file)


def read_encoder_config(folder: Path) -> EncoderConfig:
    """Return the encoder's numbers. Raises InputError if this encoder cannot follow them."""
    data, where = read_config(folder)
    return parse_encoder(data, where=where)


def read_head_config(folder: Path) -> HeadConfig | None:
    """Return the head that a folder stores, or None if it stores none that minibert can use.

    Raises InputError only for the encoder's entries in `config.json`. A model whose head cannot be
    used can still lend its encoder to a new head.
    """
    data, where = read_config(folder)
    encoder = parse_encoder(data, where=where)
    try:
        return parse_head(data, encoder, where=where)
    except InputError:
        return None


def write_config(folder: Path, config: EncoderConfig, head: HeadConfig) -> None:
    """Write a `config.json` from which transformers reads the encoder, and a native head too."""
    # DistilBERT has names of its own for these; readers beside transformers know BERT's alone.
    sizes = {"hidden_size": config.width, "num_hidden_layers": config.layers}
    data = {**encoder_entries(config), **sizes}
    suffix = "ForSequenceClassification" if head.kind == "native" else "Model"
    data["architectures"] = [FAMILIES[config.family].class_prefix + suffix]
    data["dtype"] = "float32"
    data["id2label"] = {str(number): name for number, name in enumerate(head.labels)}
    data["label2id"] = {name: number for number, name in enumerate(head.labels)}
    data["problem_type"] = PROBLEM_TYPES[head.task]
    data["minibert"] = {"head": head.kind, "pooling": head.pooling, "max_length": head.max_length}
    if head.thresholds:
        data["minibert"]["thresholds"] = list(head.thresholds)
    if head.long_texts != LongTexts():
        data["minibert"]["long_texts"] = asdict(head.long_texts)
    for name in ("temperature", "min_probability"):
        if getattr(head, name) != getattr(HeadConfig, name):
            data["minibert"][name] = getattr(head, name)
    write_json(folder / "config.json", data)


def encoder_entries(config: EncoderConfig) -> dict[str, Any]:
    """Return the entries of `config.json` from which `parse_encoder` reads this config."""
    keys = FAMILIES[config.family].config_keys
    values = {theirs: getattr(config, ours) for ours, theirs in keys.items()}
    return {"model_type": config.family, **values}


def parse_encoder(data: Mapping[str, Any], *, where: str) -> EncoderConfig:
    """Read the encoder's numbers; `where` names the file in errors."""
    name = _family_name(data, where)
    family = FAMILIES[name]
    for key, value in FIXED.items():
        if data.get(key, value) != value:
            raise InputError(
                f"{where}: {key} is {shorten(data[key])}; minibert's encoder supports {value!r}"
            )
    values: dict[str, Any] = dict(family.config_defaults)
    types = {field.name: field.type for field in fields(EncoderConfig)}
    for ours, theirs in family.config_keys.items():
        if data.get(theirs) is not None:
            values[ours] = _checked(data[theirs], types[ours], f"{where}: {theirs}")
        elif ours in SIZES:
            raise InputError(f"{where}: {theirs} is missing; every {name} config has it")
    config = EncoderConfig(family=name, **values)
    if config.layers > 200:
        raise InputError(f"{where}: {config.layers} layers is more than any known encoder has")
    if config.width % config.heads:
        raise InputError(
            f"{where}: a width of {config.width} is not divisible by {config.heads} heads"
        )
    if config.activation not in ACTIVATIONS:
        raise InputError(
            f"{where}: activation {shorten(config.activation)} is not one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    if config.pad_token_id >= config.vocab_size:
        raise InputError(f"{where}: pad_token_id is not below vocab_size ({config.vocab_size})")
    if config.max_tokens < 1:
        raise InputError(
            f"{where}: {family.config_keys['positions']} is {config.positions}; the first token's "
            f"position is {config.positions - config.max_tokens}"
        )
    return config


def parse_head(data: Mapping[str, Any], encoder: EncoderConfig, *, where: str) -> HeadConfig | None:
    """Return the head that `config.json` declares: minibert's, the family's native one, or None.

    A native head with one output predicts a number, as in transformers. Raises InputError for a
    head that cannot be used.
    """
    ours = data.get("minibert")
    architectures = data.get("architectures") or []
    if not isinstance(architectures, list):
        raise InputError(f"{where}: architectures is {shorten(architectures)}, not a list")
    native = any(
        isinstance(name, str) and name.endswith("ForSequenceClassification")
        for name in architectures
    )
    if ours is None and not native:
        return None
    labels = _labels(data, where)
    task = _task(data, labels, where)
    if ours is None:
        pooling = FAMILIES[encoder.family].native_pooling
        return HeadConfig("native", pooling, labels, encoder.max_tokens, task)
    try:
        thresholds = tuple(ours.get("thresholds", ()))
        long_texts = LongTexts(**ours.get("long_texts", {}))
        head = HeadConfig(
            *(ours["head"], ours["pooling"], labels, ours["max_length"], task),
            *(thresholds, long_texts),
            temperature=ours.get("temperature", HeadConfig.temperature),
            min_probability=ours.get("min_probability", HeadConfig.min_probability),
        )
    except (AttributeError, KeyError, TypeError):
        raise InputError(
            f"{where}: the entry minibert lacks head, pooling or max_length, or has others than "
            "this version knows"
        ) from None
    length_fits = type(head.max_length) is int and 3 <= head.max_length <= encoder.max_tokens
    thresholds_fit = len(thresholds) in (0, len(labels)) and all(
        type(x) is float and 0 < x < 1 for x in thresholds
    )
    if thresholds_fit and thresholds and task == "single-label":
        thresholds_fit = len(labels) == 2 and abs(sum(thresholds) - 1) < 1e-6
    fits = length_fits and thresholds_fit and long_texts.is_valid and _probabilities_fit(head)
    if head.kind not in HEADS or head.pooling not in POOLINGS or not fits:
        raise InputError(f"{where}: the entry minibert holds values this version does not know")
    return head


def _probabilities_fit(head: HeadConfig) -> bool:
    """Return whether temperature and lowest probability are in range, and the task has them."""
    has_temperature = head.task != "regression" or head.temperature == 1
    has_bound = head.task == "single-label" or head.min_probability == 0
    if not all(type(x) in (int, float) for x in (head.temperature, head.min_probability)):
        return False
    lowest, highest = TEMPERATURES
    in_range = lowest <= head.temperature <= highest and 0 <= head.min_probability <= 1
    return has_temperature and has_bound and in_range


def _task(data: Mapping[str, Any], labels: Sequence[str], where: str) -> str:
    """Return the task of a head with these outputs."""
    problem = data.get("problem_type")
    if problem is None:
        problem = "regression" if len(labels) == 1 else "single_label_classification"
    tasks = {theirs: ours for ours, theirs in PROBLEM_TYPES.items()}
    if not isinstance(problem, str) or problem not in tasks:
        raise InputError(
            f"{where}: problem_type is {shorten(problem)}, not one of {', '.join(tasks)}"
        )
    if tasks[problem] == "single-label" and len(labels) < 2:
        raise InputError(f"{where}: one class is none to choose from; id2label must name two")
    return tasks[problem]


def _family_name(data: Mapping[str, Any], where: str) -> str:
    # The small BERTs of google/bert_uncased_L-* were published without a model_type.
    name = data.get("model_type", "bert" if "hidden_size" in data else None)
    if not isinstance(name, str) or name not in FAMILIES:
        raise InputError(
            f"{where}: model_type is {shorten(name)}; minibert reads {', '.join(FAMILIES)}"
        )
    return name


def _checked(value: Any, kind: Any, where: str) -> Any:
    """Check a value against its field's type and the range of any real checkpoint."""
    if kind is str:
        if not isinstance(value, str):
            raise InputError(f"{where} is {shorten(value)}, not a string")
        return value
    if kind is int:
        lowest = 0 if where.endswith(("pad_token_id", "type_vocab_size")) else 1
        if type(value) is not int or not lowest <= value <= 10_000_000:
            raise InputError(
                f"{where} is {shorten(value)}, not a whole number from {lowest} to 10,000,000"
            )
        return value
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise InputError(f"{where} is {shorten(value)}, not a number from 0 to below 1")
    return float(value)


def _labels(data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the class names in the order of their numbers, which are strings in JSON."""
    id2label = data.get("id2label")
    if not id2label:
        count = data.get("num_labels", 2)
        if type(count) is not int or not 1 <= count <= 100_000:
            raise InputError(f"{where}: num_labels is {shorten(count)}, not a number of classes")
        return tuple(f"LABEL_{number}" for number in range(count))
    try:
        names = {int(number): name for number, name in id2label.items()}
        labels = tuple(names[number] for number in range(len(names)))
    except (AttributeError, KeyError, ValueError):
        raise InputError(f"{where}: id2label does not number the classes 0, 1, 2, ...") from None
    if not all(isinstance(name, str) for name in labels):
        raise InputError(f"{where}: id2label must name the classes with strings")
    if any(map(CONTROL_CHARACTERS.search, labels)):
        raise InputError(f"{where}: id2label names a class with control characters")
    if len(set(labels)) < len(labels):
        raise InputError(f"{where}: id2label gives one name to two classes")
    return labels
