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
    "bert": HeadConfig("native", "pooler", ("bad", "fine", "good"), 40),
    "distilbert": HeadConfig("native", "cls", ("bad", "fine", "good"), 40),
}
Tensors = dict[str, Tensor]

# The published names, spelled out: a mistake in the table of families must not repeat here.
LAYER = {
    "bert": {
        "attention.self.query": "DD",
        "attention.self.key": "DD",
        "attention.self.value": "DD",
        "attention.output.dense": "DD",
        "attention.output.LayerNorm": "D",
        "intermediate.dense": "FD",
        "output.dense": "DF",
        "output.LayerNorm": "D",
    },
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
AXES = {"D": SIZES["width"], "F": SIZES["feed_forward"], "V": len(VOCABULARY)}


def published(family: str, prefix: str | None = None) -> Tensors:
    """Return random tensors under the names of a published encoder, with the family's prefix."""
    prefix = f"{family}." if prefix is None else prefix
    random = torch.Generator().manual_seed(6)
    tensors: Tensors = {}

    def add(name: str, *shape: int) -> None:
        tensors[prefix + name] = torch.randn(shape, generator=random)

    add("embeddings.word_embeddings.weight", AXES["V"], AXES["D"])
    add("embeddings.position_embeddings.weight", SIZES["positions"], AXES["D"])
    if family == "bert":
        add("embeddings.token_type_embeddings.weight", 2, AXES["D"])
        add("pooler.dense.weight", AXES["D"], AXES["D"])
        add("pooler.dense.bias", AXES["D"])
    add("embeddings.LayerNorm.weight", AXES["D"])
    add("embeddings.LayerNorm.bias", AXES["D"])
    layers = "encoder.layer" if family == "bert" else "transformer.layer"
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
    if family == "distilbert":
        tensors["pre_classifier.weight"] = torch.randn(12, 12, generator=random)
        tensors["pre_classifier.bias"] = torch.randn(12, generator=random)
    tensors["classifier.weight"] = torch.randn(classes, 12, generator=random)
    tensors["classifier.bias"] = torch.randn(classes, generator=random)
    name = "Bert" if family == "bert" else "DistilBert"
    native = {
        "architectures": [f"{name}ForSequenceClassification"],
        "id2label": {"0": "bad", "1": "fine", "2": "good"},
    }
    return folder_with(folder, family, tensors, **(native | entries)), tensors


def head_note(found: Checkpoint) -> str:
    """Return the note about the head."""
    (note,) = (note for note in found.notes if note.startswith("head: "))
    return note
