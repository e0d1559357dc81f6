"""What differs between families of checkpoints: config keys, tensor names, the native head.

A family is one entry of FAMILIES. Names come from transformers' configuration_*.py and
modeling_*.py of each family. docs/families.md tells what differs in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# Our module -> the checkpoint's modules. Three names are one fused matrix here.
Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Family:
    """One family of checkpoints, as values."""

    class_prefix: str  # of transformers' class names: BertModel
    config_keys: Mapping[str, str]  # our field -> key in config.json
    config_defaults: Mapping[str, Any]  # of our fields, if config.json does not say or has no key
    prefix: str  # before the encoder's names in a classifier
    encoder_names: Names
    head_names: Names  # of the native ...ForSequenceClassification head
    native_pooling: str  # what that head reads
    wordpiece_class: str | None  # transformers' class for BERT's tokenizer; None: the generic one


# Devlin et al. 2018. Sentence encoders such as MiniLM, e5, bge, gte and arctic-embed are BERTs.
BERT = Family(
    class_prefix="Bert",
    config_keys={
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
    config_defaults={},
    prefix="bert.",
    encoder_names={
        "embeddings.word": ("embeddings.word_embeddings",),
        "embeddings.position": ("embeddings.position_embeddings",),
        "embeddings.token_type": ("embeddings.token_type_embeddings",),
        "embeddings.norm": ("embeddings.LayerNorm",),
        "blocks.{}.attention.qkv": (
            "encoder.layer.{}.attention.self.query",
            "encoder.layer.{}.attention.self.key",
            "encoder.layer.{}.attention.self.value",
        ),
        "blocks.{}.attention.out": ("encoder.layer.{}.attention.output.dense",),
        "blocks.{}.attention_norm": ("encoder.layer.{}.attention.output.LayerNorm",),
        "blocks.{}.feed_forward.up": ("encoder.layer.{}.intermediate.dense",),
        "blocks.{}.feed_forward.down": ("encoder.layer.{}.output.dense",),
        "blocks.{}.feed_forward_norm": ("encoder.layer.{}.output.LayerNorm",),
        "pooler": ("pooler.dense",),
    },
    head_names={"out": ("classifier",)},
    native_pooling="pooler",
    wordpiece_class="BertTokenizer",
)
# Sanh et al. 2019.
DISTILBERT = Family(
    class_prefix="DistilBert",
    config_keys={
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
    config_defaults={
        "token_types": 0,
        "classifier_dropout": 0.2,
        "dropout_after_attention": False,
        "native_activation": "relu",
    },
    prefix="distilbert.",
    encoder_names={
        "embeddings.word": ("embeddings.word_embeddings",),
        "embeddings.position": ("embeddings.position_embeddings",),
        "embeddings.norm": ("embeddings.LayerNorm",),
        "blocks.{}.attention.qkv": (
            "transformer.layer.{}.attention.q_lin",
            "transformer.layer.{}.attention.k_lin",
            "transformer.layer.{}.attention.v_lin",
        ),
        "blocks.{}.attention.out": ("transformer.layer.{}.attention.out_lin",),
        "blocks.{}.attention_norm": ("transformer.layer.{}.sa_layer_norm",),
        "blocks.{}.feed_forward.up": ("transformer.layer.{}.ffn.lin1",),
        "blocks.{}.feed_forward.down": ("transformer.layer.{}.ffn.lin2",),
        "blocks.{}.feed_forward_norm": ("transformer.layer.{}.output_layer_norm",),
    },
    head_names={"dense": ("pre_classifier",), "out": ("classifier",)},
    native_pooling="cls",
    wordpiece_class="DistilBertTokenizer",
)
# Liu et al. 2019. DistilRoBERTa is one too.
ROBERTA = replace(
    BERT,
    class_prefix="Roberta",
    config_defaults={
        "pad_token_id": 1,
        "positions_after_padding": True,
        "native_activation": "tanh",
        "native_input_dropout": True,
    },
    prefix="roberta.",
    head_names={"dense": ("classifier.dense",), "out": ("classifier.out_proj",)},
    native_pooling="cls",
    wordpiece_class=None,
)
# Clark et al. 2020: the discriminator, which is the part that is fine-tuned.
ELECTRA = replace(
    BERT,
    class_prefix="Electra",
    config_keys={**BERT.config_keys, "embedding_width": "embedding_size"},
    config_defaults={
        "embedding_width": 128,
        "native_activation": "gelu",
        "native_input_dropout": True,
    },
    prefix="electra.",
    encoder_names={
        **{ours: theirs for ours, theirs in BERT.encoder_names.items() if ours != "pooler"},
        "embeddings.project": ("embeddings_project",),
    },
    head_names=ROBERTA.head_names,
    native_pooling="cls",
)
FAMILIES = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "roberta": ROBERTA,
    "xlm-roberta": replace(ROBERTA, class_prefix="XLMRoberta"),
    "camembert": replace(ROBERTA, class_prefix="Camembert"),
    "electra": ELECTRA,
}

# The head kinds mlp, relu and linear have the same names in every family.
MINIBERT_HEAD_NAMES: Names = {"dense": ("minibert_head.dense",), "out": ("minibert_head.out",)}

# Tensors that a classifier does not need: pattern -> what they are, to be reported.
IGNORED = {
    r"(.+\.)?embeddings\.position_ids": "a buffer",
    r"cls\..+": "pre-training heads",
    r"vocab_(transform|layer_norm|projector)\..+": "pre-training head",
    r"lm_head\..+": "pre-training head",
    r"(discriminator_predictions|generator_predictions|generator_lm_head)\..+": "pre-training head",
    r"(pre_classifier|classifier|qa_outputs)\..+": "another task's head",
    r"minibert_head\..+": "another run's head",
}


def head_names(family: str, kind: str) -> Names:
    """Return the tensor names of a head of this kind on an encoder of this family."""
    return FAMILIES[family].head_names if kind == "native" else MINIBERT_HEAD_NAMES
