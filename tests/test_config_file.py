"""A config.json is read, written back the same, or refused with an error that names the key.

Run: pytest tests/test_config_file.py
"""

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import CLASS_PREFIX
from helpers import SHARED, tiny_config

from minibert.checkpoint.config_file import (
    encoder_entries,
    parse_encoder,
    parse_head,
    read_encoder_config,
    read_head_config,
    write_config,
)
from minibert.checkpoint.families import FAMILIES
from minibert.errors import InputError
from minibert.model.config import EncoderConfig, HeadConfig, LongTexts

# The keys of each family. No two sizes are equal.
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {
        "model_type": "bert",
        "vocab_size": 31,
        "hidden_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 23,
        "max_position_embeddings": 40,
        "type_vocab_size": 5,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.11,
        "attention_probs_dropout_prob": 0.13,
        "classifier_dropout": 0.17,
        "layer_norm_eps": 1e-7,
        "initializer_range": 0.03,
        "pad_token_id": 4,
    },
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 31,
        "dim": 12,
        "n_layers": 3,
        "n_heads": 2,
        "hidden_dim": 23,
        "max_position_embeddings": 40,
        "activation": "gelu_new",
        "dropout": 0.11,
        "attention_dropout": 0.13,
        "seq_classif_dropout": 0.17,
        "initializer_range": 0.03,
        "pad_token_id": 4,
    },
}
CONFIGS["roberta"] = CONFIGS["bert"] | {"model_type": "roberta"}
CONFIGS["electra"] = CONFIGS["bert"] | {"model_type": "electra", "embedding_size": 7}
TINY = tiny_config("bert")

# From the config.json of published encoders: what their users load, and of which family they are.
SMALL = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
ROBERTA = {
    **{"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    **{"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
}
ELECTRA = {
    **{"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"},
    **{"vocab_size": 30522, "num_hidden_layers": 12, "type_vocab_size": 2, "pad_token_id": 0},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "intfloat/e5-small-v2": {
        **{"model_type": "bert", "vocab_size": 30522, "num_hidden_layers": 12, **SMALL},
        **{"tokenizer_class": "BertTokenizer", "position_embedding_type": "absolute"},
    },
    "intfloat/multilingual-e5-small": {
        **{"model_type": "bert", "vocab_size": 250037, "num_hidden_layers": 12, **SMALL},
        **{"tokenizer_class": "XLMRobertaTokenizer", "pad_token_id": 0},
    },
    "BAAI/bge-small-en-v1.5": {
        **{"model_type": "bert", "vocab_size": 30522, "num_hidden_layers": 12, **SMALL},
        **{"architectures": ["BertModel"], "id2label": {"0": "LABEL_0"}},
    },
    "thenlper/gte-base": {
        **{"model_type": "bert", "vocab_size": 30522, "num_hidden_layers": 12, **BASE},
    },
    "Snowflake/snowflake-arctic-embed-xs": {
        **{"model_type": "bert", "vocab_size": 30522, "num_hidden_layers": 6, **SMALL},
    },
    "FacebookAI/roberta-base": {
        **{"model_type": "roberta", "vocab_size": 50265, "num_hidden_layers": 12, **BASE},
        **ROBERTA,
    },
    "distilbert/distilroberta-base": {
        **{"model_type": "roberta", "vocab_size": 50265, "num_hidden_layers": 6, **BASE},
        **ROBERTA,
    },
    "FacebookAI/xlm-roberta-base": {
        **{"model_type": "xlm-roberta", "vocab_size": 250002, "num_hidden_layers": 12, **BASE},
        **ROBERTA,
    },
    "almanach/camembert-base": {
        **{"model_type": "camembert", "vocab_size": 32005, "num_hidden_layers": 12, **BASE},
        **ROBERTA,
    },
    "google/electra-small-discriminator": {
        **{"model_type": "electra", "hidden_size": 256, "num_attention_heads": 4, **ELECTRA},
        **{"intermediate_size": 1024, "embedding_size": 128},
    },
    "google/electra-base-discriminator": {
        **{"model_type": "electra", "embedding_size": 768, **BASE, **ELECTRA},
    },
}


def published(name: str) -> dict[str, Any]:
    """Return a published config.json, or skip the test without the folder of published files."""
    file = SHARED / "checkpoints" / name
    if not file.is_file():
        pytest.skip(f"{name} is not available")
    return json.loads(file.read_text(encoding="utf-8"))


def read(data: dict[str, Any]) -> EncoderConfig:
    return parse_encoder(data, where="config.json")


# Reading the encoder's numbers


def test_every_key_reaches_its_field(family: str) -> None:
    rates = {"dropout": 0.11, "attention_dropout": 0.13, "classifier_dropout": 0.17}
    others: dict[str, Any] = {"token_types": 5, "layer_norm_eps": 1e-7}
    if family == "distilbert":
        others = {"token_types": 0, "layer_norm_eps": 1e-12}
    if family == "electra":
        others["embedding_width"] = 7
    traits = {**FAMILIES[family].config_defaults, **rates, **others, "pad_token_id": 4}
    assert read(CONFIGS[family]) == EncoderConfig(
        family=family,
        vocab_size=31,
        width=12,
        layers=3,
        heads=2,
        feed_forward=23,
        positions=40,
        activation="gelu_new",
        initializer_range=0.03,
        **traits,
    )


@pytest.mark.parametrize(
    ("name", "vocab_size"),
    [
        ("bert-base-uncased/config.json", 30522),
        ("bert-base-cased/config.finetuned-example.json", 28996),
    ],
)
def test_published_bert(name: str, vocab_size: int) -> None:
    expected = EncoderConfig("bert", vocab_size, 768, 12, 12, 3072, positions=512, token_types=2)
    assert read(published(name)) == expected
    assert expected.activation == "gelu" and expected.layer_norm_eps == 1e-12
    assert expected.dropout == expected.attention_dropout == 0.1


@pytest.mark.parametrize("name", ["config", "config.sst-2-english"])
def test_published_distilbert(name: str) -> None:
    found = read(published(f"distilbert-base-uncased/{name}.TRANSCRIBED.json"))
    traits = FAMILIES["distilbert"].config_defaults
    assert found == EncoderConfig("distilbert", 30522, 768, 6, 12, 3072, **traits)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_encoders_of_each_family_take_512_tokens(name: str) -> None:
    found = read(PUBLISHED[name])
    assert (found.family, found.max_tokens) == (PUBLISHED[name]["model_type"], 512)
    assert found.token_types == PUBLISHED[name].get("type_vocab_size", 2)
    assert found.embedding_width == PUBLISHED[name].get("embedding_size", 0)
    assert parse_head(PUBLISHED[name], found, where="config.json") is None


def test_the_first_token_of_roberta_has_the_position_after_the_padding_s() -> None:
    found = read(CONFIGS["roberta"] | {"max_position_embeddings": 7, "pad_token_id": 4})
    assert found.max_tokens == 2  # rows 5 and 6
    with pytest.raises(InputError, match=r"max_position_embeddings is 5; .* position is 5$"):
        read(CONFIGS["roberta"] | {"max_position_embeddings": 5, "pad_token_id": 4})


def test_old_google_config_without_model_type_is_bert() -> None:
    data = CONFIGS["bert"] | {"pooler_type": "first_token_transform", "directionality": "bidi"}
    del data["model_type"]
    assert read(data) == read(CONFIGS["bert"])


def test_a_missing_optional_key_has_the_default_of_the_family(family: str) -> None:
    sizes = {key: value for key, value in CONFIGS[family].items() if type(value) is not float}
    optional = ("max_position_embeddings", "type_vocab_size", "pad_token_id", "embedding_size")
    for key in optional:
        sizes.pop(key, None)
    found = read(sizes)
    assert (found.positions, found.layer_norm_eps) == (512, 1e-12)
    assert found.pad_token_id == (1 if family == "roberta" else 0)
    assert (found.dropout, found.attention_dropout) == (0.1, 0.1)
    assert found.token_types == (0 if family == "distilbert" else 2)
    assert found.classifier_dropout == (0.2 if family == "distilbert" else None)
    assert found.embedding_width == (128 if family == "electra" else 0)


def test_null_is_the_same_as_a_missing_key() -> None:
    assert read(CONFIGS["bert"] | {"classifier_dropout": None}).classifier_dropout is None
    assert read(CONFIGS["distilbert"] | {"seq_classif_dropout": None}).classifier_dropout == 0.2


def test_bert_has_dropout_after_attention_and_distilbert_has_none() -> None:
    assert read(CONFIGS["bert"]).attention_output_dropout == 0.11
    assert read(CONFIGS["distilbert"]).attention_output_dropout == 0.0


# Writing


def test_the_entries_of_a_config_are_those_it_was_read_from(family: str) -> None:
    assert encoder_entries(read(CONFIGS[family])) == CONFIGS[family]


@pytest.mark.parametrize("kind", ["native", "mlp"])
def test_encoder_and_head_are_read_as_they_were_written(
    family: str, kind: str, tmp_path: Path
) -> None:
    pooling = "pooler" if (family, kind) == ("bert", "native") else "cls"
    config, head = tiny_config(family), HeadConfig(kind, pooling, ("ä", "b", "c"), 17)
    write_config(tmp_path, config, head)
    assert read_encoder_config(tmp_path) == config
    assert read_head_config(tmp_path) == head


def test_long_texts_are_read_as_they_were_written(tmp_path: Path):
    head = HeadConfig("mlp", "cls", ("a", "b"), 17, long_texts=LongTexts("windows", 5, "max"))
    write_config(tmp_path, tiny_config("bert"), head)
    assert read_head_config(tmp_path) == head


def test_temperature_and_lowest_probability_are_read_as_they_were_written(tmp_path: Path):
    head = HeadConfig("mlp", "cls", ("a", "b"), 17, temperature=1.25, min_probability=0.875)
    write_config(tmp_path, TINY, head)
    assert read_head_config(tmp_path) == head


@pytest.mark.parametrize(
    ("task", "labels", "thresholds"),
    [
        ("multi-label", ("a", "b"), (0.25, 0.75)),
        ("multi-label", ("a",), ()),
        ("regression", ("stars",), ()),
        ("regression", ("stars", "length"), ()),
    ],
)
def test_the_task_and_its_thresholds_are_read_as_they_were_written(
    task: str, labels: tuple[str, ...], thresholds: tuple[float, ...], tmp_path: Path
) -> None:
    head = HeadConfig("mlp", "cls", labels, 17, task, thresholds)
    write_config(tmp_path, TINY, head)
    assert read_head_config(tmp_path) == head


# Refusals: the message names the file and the key


@pytest.mark.parametrize(
    "model_type", ["mpnet", "modernbert", "deberta-v2", "albert", "new", "", None, ["bert"]]
)
def test_another_family_is_refused_by_name_with_those_that_work(model_type: Any) -> None:
    works = "bert, distilbert, roberta, xlm-roberta, camembert, electra"
    with pytest.raises(InputError) as caught:
        read(CONFIGS["bert"] | {"model_type": model_type})
    said = f"config.json: model_type is {model_type!r}; minibert reads {works}"
    assert str(caught.value) == said


def test_a_config_that_names_no_family_is_refused() -> None:
    with pytest.raises(InputError, match="model_type"):
        read({"vocab_size": 31, "d_model": 12})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("position_embedding_type", "alibi"),  # jina-embeddings-v2, whose model_type is bert
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
    ],
)
def test_another_computation_is_refused(family: str, key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^config\.json: {key} "):
        read(CONFIGS[family] | {key: value})


@pytest.mark.parametrize(
    ("family", "key"),
    [
        *(("bert", key) for key in ("vocab_size", "hidden_size", "num_hidden_layers")),
        *(("bert", key) for key in ("num_attention_heads", "intermediate_size")),
        *(("distilbert", key) for key in ("vocab_size", "dim", "n_layers", "n_heads")),
        ("distilbert", "hidden_dim"),
    ],
)
def test_a_missing_size_is_refused(family: str, key: str) -> None:
    data = {name: value for name, value in CONFIGS[family].items() if name != key}
    with pytest.raises(InputError, match=rf"^config\.json: {key} is missing"):
        read(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "12"),
        ("hidden_size", 12.0),
        ("hidden_size", 0),
        ("hidden_size", -12),
        ("hidden_size", 10**9),
        ("num_hidden_layers", True),
        ("vocab_size", [31]),
        ("max_position_embeddings", 0),
        ("type_vocab_size", -1),
        ("pad_token_id", -1),
        ("hidden_dropout_prob", -0.1),
        ("hidden_dropout_prob", 1.0),
        ("hidden_dropout_prob", "0.1"),
        ("attention_probs_dropout_prob", float("nan")),
        ("classifier_dropout", {}),
        ("layer_norm_eps", -1e-12),
        ("initializer_range", False),
        ("hidden_act", 3),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^config\.json: {key} is "):
        read(CONFIGS["bert"] | {key: value})


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match=r"width of 12 .* 5 heads"):
        read(CONFIGS["bert"] | {"num_attention_heads": 5})


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(InputError, match=r"activation 'silu' is not one of gelu, gelu_new, relu"):
        read(CONFIGS["distilbert"] | {"activation": "silu"})


def test_a_pad_token_outside_the_vocabulary_is_refused() -> None:
    assert read(CONFIGS["bert"] | {"pad_token_id": 30}).pad_token_id == 30
    with pytest.raises(InputError, match="pad_token_id"):
        read(CONFIGS["bert"] | {"pad_token_id": 31})


# The head that a config declares


def head_of(encoder: EncoderConfig = TINY, **data: Any) -> HeadConfig | None:
    return parse_head(data, encoder, where="config.json")


def minibert_entry(**changes: Any) -> dict[str, Any]:
    return {"head": "mlp", "pooling": "mean", "max_length": 17, **changes}


@pytest.mark.parametrize("architectures", [None, [], ["BertModel"], ["DistilBertForMaskedLM"]])
def test_no_head(architectures: Any) -> None:
    assert head_of(architectures=architectures, id2label={"0": "a", "1": "b"}) is None


def test_native_head_of_each_family(family: str) -> None:
    config = tiny_config(family)
    name = CLASS_PREFIX[family] + "ForSequenceClassification"
    found = head_of(config, architectures=[name], id2label={"1": "b", "0": "a", "2": "c"})
    pooling = "pooler" if family == "bert" else "cls"
    assert found == HeadConfig("native", pooling, ("a", "b", "c"), 40)


def test_native_head_without_names_has_two_classes_as_in_transformers() -> None:
    data = published("bert-base-cased/config.finetuned-example.json")
    found = parse_head(data, read(data), where="config.json")
    assert found == HeadConfig("native", "pooler", ("LABEL_0", "LABEL_1"), 512)


def test_the_sst2_classifier() -> None:
    data = published("distilbert-base-uncased/config.sst-2-english.TRANSCRIBED.json")
    found = parse_head(data, read(data), where="config.json")
    assert found == HeadConfig("native", "cls", ("NEGATIVE", "POSITIVE"), 512)


def test_the_entry_minibert_wins_over_the_architecture() -> None:
    found = head_of(
        architectures=["BertForSequenceClassification"],
        id2label={"0": "a", "1": "b"},
        minibert=minibert_entry(),
    )
    assert found == HeadConfig("mlp", "mean", ("a", "b"), 17)


def test_classes_are_ordered_by_their_numbers_not_by_the_text_of_the_numbers() -> None:
    names = {str(number): f"class {number}" for number in reversed(range(12))}
    found = head_of(minibert=minibert_entry(), id2label=names)
    assert found is not None
    assert found.labels == tuple(f"class {number}" for number in range(12))


@pytest.mark.parametrize(
    "id2label",
    [
        {"1": "a", "2": "b"},  # not from 0
        {"0": "a", "2": "b"},  # a gap
        {"zero": "a", "one": "b"},
        ["a", "b"],
        {"0": "a", "1": None},
        {"0": "a", "1": ["b"]},
        {"0": "a", "1": "a"},
        {"0": "a", "1": "b\x1b[31m"},  # control characters of a terminal
        {"0": "a", "1": "b\x9b31m"},
        {"0": "a\n", "1": "b"},
        {"0": "a", "1": "\ud800"},  # a lone surrogate
    ],
)
def test_bad_id2label_is_refused(id2label: Any) -> None:
    with pytest.raises(InputError, match=r"^config\.json: id2label "):
        head_of(minibert=minibert_entry(), id2label=id2label)


@pytest.mark.parametrize(
    ("problem", "task"),
    [
        ("single_label_classification", "single-label"),
        ("multi_label_classification", "multi-label"),
        ("regression", "regression"),
        (None, "single-label"),
    ],
)
def test_the_problem_type_is_the_task(problem: str | None, task: str) -> None:
    found = head_of(architectures=["BertForSequenceClassification"], problem_type=problem)
    assert found is not None and (found.task, len(found.labels)) == (task, 2)


def test_one_output_without_a_problem_type_is_a_number_as_in_transformers() -> None:
    found = head_of(architectures=["BertForSequenceClassification"], id2label={"0": "LABEL_0"})
    assert found == HeadConfig("native", "pooler", ("LABEL_0",), 40, "regression")
    counted = head_of(architectures=["BertForSequenceClassification"], num_labels=1)
    assert counted == found


def test_one_class_is_none_to_choose_from() -> None:
    with pytest.raises(InputError, match=r"^config\.json: one class is none to choose from"):
        head_of(
            architectures=["BertForSequenceClassification"],
            problem_type="single_label_classification",
            num_labels=1,
        )


@pytest.mark.parametrize("problem", ["classification", "", 2, ["regression"]])
def test_an_unknown_problem_type_is_refused(problem: Any) -> None:
    with pytest.raises(InputError, match=r"^config\.json: problem_type is .*, not one of single"):
        head_of(architectures=["BertForSequenceClassification"], problem_type=problem)


@pytest.mark.parametrize("count", [0, -2, 2.0, "2", 10**6])
def test_another_number_of_labels_is_refused(count: Any) -> None:
    with pytest.raises(InputError, match=r"^config\.json: num_labels is "):
        head_of(architectures=["BertForSequenceClassification"], num_labels=count)


@pytest.mark.parametrize("architectures", ["BertModel", 1, {"0": "BertModel"}])
def test_architectures_must_be_a_list(architectures: Any) -> None:
    with pytest.raises(InputError, match=r"^config\.json: architectures "):
        head_of(architectures=architectures)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        "mlp",
        ["mlp", "mean", 17],
        {"head": "mlp", "pooling": "mean"},
        minibert_entry(head="deep"),
        minibert_entry(pooling="max"),
        minibert_entry(max_length="17"),
        minibert_entry(max_length=2),
        minibert_entry(max_length=TINY.positions + 1),
        minibert_entry(thresholds=[0.5]),  # of two classes
        minibert_entry(thresholds=[0.5, 1.5]),
        minibert_entry(thresholds=[0.5, "0.5"]),
        minibert_entry(thresholds=0.5),
        minibert_entry(long_texts={"how": "window"}),
        minibert_entry(long_texts={"how": "windows", "stride": 0}),
        minibert_entry(long_texts={"window_pooling": "cls"}),
        minibert_entry(long_texts={"length": 7}),
        minibert_entry(long_texts="windows"),
        minibert_entry(temperature=0),
        minibert_entry(temperature=1e9),
        minibert_entry(temperature=float("nan")),
        minibert_entry(temperature="1.5"),
        minibert_entry(temperature=True),
        minibert_entry(temperature=None),
        minibert_entry(min_probability=-0.5),
        minibert_entry(min_probability=1.5),
        minibert_entry(min_probability=[0.5]),
    ],
)
def test_a_damaged_minibert_entry_is_refused(entry: Any) -> None:
    with pytest.raises(InputError, match=r"^config\.json: the entry minibert "):
        head_of(minibert=entry, id2label={"0": "a", "1": "b"})


@pytest.mark.parametrize("length", [3, TINY.positions])
def test_max_length_is_from_three_tokens_to_all_positions(length: int) -> None:
    found = head_of(minibert=minibert_entry(max_length=length))
    assert found is not None and found.max_length == length
