"""What the tests of checkpoint/ share: folders with the tensors of published checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SIZES, VOCABULARY, tiny_config
from safetensors.torch import save_file
from torch import Tensor

from minibert.checkpoint.config_file import encoder_entries
from minibert.checkpoint.load import Checkpoint, load_classifier
from minibert.errors import InputError
from minibert.model.config import HeadConfig

LINEAR = HeadConfig("linear", "cls", ("a", "b"), 40)
NATIVE = {
    family: HeadConfig("native", pooling, ("bad", "fine", "good"), 40)
    for family, pooling in [
        ("bert", "pooler"),
        ("distilbert", "cls"),
        ("roberta", "cls"),
        ("xlm-roberta", "cls"),
        ("camembert", "cls"),
        ("electra", "cls"),
    ]
}
Tensors = dict[str, Tensor]

# The published names, spelled out: a mistake in the table of families must not repeat here.
BERT_LAYER = {
    "attention.self.query": "DD",
    "attention.self.key": "DD",
    "attention.self.value": "DD",
    "attention.output.dense": "DD",
    "attention.output.LayerNorm": "D",
    "intermediate.dense": "FD",
    "output.dense": "DF",
    "output.LayerNorm": "D",
}
LAYER = {
    "bert": BERT_LAYER,
    "roberta": BERT_LAYER,
    "electra": BERT_LAYER,
    "distilbert": {
        "attention.q_lin": "DD",
        "attention.k_lin": "DD",
        "attention.v_lin": "DD",
        "attention.out_lin": "DD",
        "sa_layer_norm": "D",
        "ffn.lin1": "FD",
        "ffn.lin2": "DF",
        "output_layer_norm": "D",
    },
}
CLASS_PREFIX = {
    "bert": "Bert",
    "distilbert": "DistilBert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
}
# The dense layer of a native head, and its output layer.
NATIVE_LAYERS = {
    "bert": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "electra": ("classifier.dense", "classifier.out_proj"),
}
AXES = {"D": SIZES["width"], "F": SIZES["feed_forward"], "V": len(VOCABULARY)}


def published(family: str, prefix: str | None = None) -> Tensors:
    """Return random tensors under the names of a published encoder, with the family's prefix."""
    prefix = f"{family}." if prefix is None else prefix
    random = torch.Generator().manual_seed(6)
    tensors: Tensors = {}

    def add(name: str, *shape: int) -> None:
        tensors[prefix + name] = torch.randn(shape, generator=random)

    width = 5 if family == "electra" else AXES["D"]
    add("embeddings.word_embeddings.weight", AXES["V"], width)
    add("embeddings.position_embeddings.weight", 41 if family == "roberta" else 40, width)
    if family != "distilbert":
        add("embeddings.token_type_embeddings.weight", 1 if family == "roberta" else 2, width)
    if family in ("bert", "roberta"):
        add("pooler.dense.weight", AXES["D"], AXES["D"])
        add("pooler.dense.bias", AXES["D"])
    if family == "electra":
        add("embeddings_project.weight", AXES["D"], width)
        add("embeddings_project.bias", AXES["D"])
    add("embeddings.LayerNorm.weight", width)
    add("embeddings.LayerNorm.bias", width)
    layers = "transformer.layer" if family == "distilbert" else "encoder.layer"
    for number in range(SIZES["layers"]):
        for name, axes in LAYER[family].items():
            add(f"{layers}.{number}.{name}.weight", *(AXES[axis] for axis in axes))
            add(f"{layers}.{number}.{name}.bias", AXES[axes[0]])
    return tensors


def folder_with(folder: Path, family: str, tensors: Tensors, **entries: Any) -> Path:
    """Write a folder with a config.json, these entries added, and these tensors as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = encoder_entries(tiny_config(family))
    (folder / "config.json").write_text(json.dumps(config | entries))
    save_file(tensors, folder / "model.safetensors")
    return folder


def same_encoder(one: Checkpoint, other: Checkpoint) -> bool:
    """Return whether two checkpoints have the same encoder weights."""
    a, b = one.model.encoder.state_dict(), other.model.encoder.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def refused(folder: Path, pattern: str, head: HeadConfig | None = LINEAR) -> None:
    """Assert that loading raises an InputError that matches the pattern."""
    with pytest.raises(InputError, match=pattern):
        load_classifier(folder, head)


def classified(
    folder: Path, family: str, *, classes: int = 3, **entries: Any
) -> tuple[Path, Tensors]:
    """Write a classifier with a native head as transformers does; return its folder and tensors.

    `entries` replace those of config.json.
    """
    tensors = published(family)
    random = torch.Generator().manual_seed(8)
    *dense, out = NATIVE_LAYERS[family]
    for name, rows in [*((name, 12) for name in dense), (out, classes)]:
        tensors[f"{name}.weight"] = torch.randn(rows, 12, generator=random)
        tensors[f"{name}.bias"] = torch.randn(rows, generator=random)
    native = {
        "architectures": [f"{CLASS_PREFIX[family]}ForSequenceClassification"],
        "id2label": {"0": "bad", "1": "fine", "2": "good"},
    }
    return folder_with(folder, family, tensors, **(native | entries)), tensors


def head_note(found: Checkpoint) -> str:
    """Return the note about the head."""
    (note,) = (note for note in found.notes if note.startswith("head: "))
    return note
