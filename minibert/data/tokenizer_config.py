"""tokenizer_config.json: what transformers reads beside tokenizer.json, and must agree with it.

transformers' BertTokenizer takes the vocabulary from tokenizer.json, but lower-casing, accents and
special tokens from tokenizer_config.json (tokenization_bert.py).
"""

from collections.abc import Mapping
from typing import Any

SPECIAL_TOKENS = ("unk", "sep", "pad", "cls", "mask")
# The switches' names here and in tokenizer.json's BertNormalizer, and transformers' defaults.
SWITCHES = (
    ("do_lower_case", "lowercase", True),
    ("strip_accents", "strip_accents", None),  # None: as do_lower_case
    ("tokenize_chinese_chars", "handle_chinese_chars", True),
)
# Classes that read everything from tokenizer.json.
GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
# The entries that are kept when a tokenizer is saved, since they change ids and lengths. Others can
# have paths of the computer that wrote them.
KEPT = (
    *(name for name, *_ in SWITCHES),
    *(f"{name}_token" for name in (*SPECIAL_TOKENS, "bos", "eos")),
    *("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"),
    *("add_prefix_space", "model_input_names", "model_max_length"),
)
# Classes that return no token types, whatever tokenizer.json says.
UNTYPED_CLASSES = (
    "DistilBertTokenizer",
    "RobertaTokenizer",
    "XLMRobertaTokenizer",
    "CamembertTokenizer",
)


def normalizer_switches(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of tokenizers' BertNormalizer that a tokenizer_config.json asks for."""
    return {theirs: config.get(name, default) for name, theirs, default in SWITCHES}


def special_token(config: Mapping[str, Any], name: str) -> str | None:
    """Return a special token: a string, or in older files an object with its `content`."""
    value = config.get(f"{name}_token")
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def takes_token_types(config: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer of a tokenizer_config.json gives a pair two token types.

    multilingual-e5-small is a BERT with two token types whose tokenizer gives only the first.
    """
    inputs = config.get("model_input_names")
    if isinstance(inputs, list):
        return "token_type_ids" in inputs
    return str(config.get("tokenizer_class")).removesuffix("Fast") not in UNTYPED_CLASSES


def disagreement(
    normalizer: Mapping[str, Any], prefix_space: bool | None, config: Mapping[str, Any]
) -> str | None:
    """Return which switches differ between tokenizer.json and tokenizer_config.json, or None.

    The switches of tokenizer.json are in its normalizer, if that is BERT's, and in byte-level BPE's
    `prefix_space`, which is None for other tokenizers.
    """
    if config.get("tokenizer_class") in GENERIC_CLASSES:
        return None
    values: dict[str, tuple[Any, Any]] = {}  # in tokenizer.json, in tokenizer_config.json
    if prefix_space is not None:
        values["add_prefix_space"] = (prefix_space, config.get("add_prefix_space", False))
    if normalizer.get("type") == "BertNormalizer":
        requested = normalizer_switches(config)
        effective = _effective(normalizer), _effective(requested)
        for name, theirs, _ in SWITCHES:
            follows = normalizer[theirs] is None and requested[theirs] is None  # do_lower_case
            if not follows:
                values[name] = (effective[0][theirs], effective[1][theirs])
    different = []
    for name, (used, stated) in values.items():
        if used != stated:
            source = f"{'' if name in config else 'by default '}in tokenizer_config.json"
            different.append(f"{name}: {used} in tokenizer.json, {stated} {source}")
    return "; ".join(different) or None


def transformers_config(
    source: Mapping[str, Any],
    *,
    tokenizer_class: str | None,
    normalizer: Mapping[str, Any],
    prefix_space: bool | None,
    special: Mapping[str, str],
    token_types: bool,
) -> dict[str, Any]:
    """Return a tokenizer_config.json with which transformers computes the same ids.

    Args:
        source: the tokenizer_config.json that the tokenizer was read with.
        tokenizer_class: None if only the generic class reads this tokenizer.json correctly.
        normalizer: tokenizer.json's normalizer.
        prefix_space: whether byte-level BPE puts a space before each text; None for others.
        special: the special tokens by name: unk, sep, pad, cls, mask.
        token_types: whether the model takes token types.
    """
    config = {name: source[name] for name in KEPT if name in source}
    for name, token in special.items():
        if special_token(source, name) != token:
            config[f"{name}_token"] = token
    if prefix_space is not None:
        config["add_prefix_space"] = prefix_space  # transformers 4 applies it in every class
    if tokenizer_class is None:
        inputs = ["input_ids", *["token_type_ids"] * token_types, "attention_mask"]
        return {**config, "tokenizer_class": GENERIC_CLASSES[0], "model_input_names": inputs}
    switches = {name: normalizer[theirs] for name, theirs, _ in SWITCHES}
    return {**config, "tokenizer_class": tokenizer_class, **switches}


def _effective(switches: Mapping[str, Any]) -> dict[str, Any]:
    """Return the switches with strip_accents as it takes effect."""
    if switches["strip_accents"] is None:
        return {**switches, "strip_accents": switches["lowercase"]}
    return dict(switches)
