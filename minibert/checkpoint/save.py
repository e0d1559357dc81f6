"""A classifier to `model.safetensors` under the family's own tensor names, and its pooling."""

import copy
from pathlib import Path

import torch
from safetensors.torch import save_file

from minibert.checkpoint.families import FAMILIES, head_names
from minibert.checkpoint.load import tensor_names
from minibert.files import write_atomic, write_json
from minibert.model.classifier import Classifier, Head
from minibert.model.config import EncoderConfig, HeadConfig


def save_weights(
    folder: Path,
    model: Classifier,
    config: EncoderConfig,
    head: HeadConfig,
    *,
    temperature: float = 1.0,
) -> None:
    """Write `model.safetensors` in float32. The file is complete or not there.

    With a native head, transformers' ...ForSequenceClassification reads it; with another head,
    transformers reads the encoder. The head's numbers are in the data's unit, its logits divided by
    `temperature`.
    """
    family, native = FAMILIES[config.family], head.kind == "native"
    encoder = model.encoder.state_dict()
    if native and head.pooling != "pooler":  # ...ForSequenceClassification then has no pooler
        encoder = {name: x for name, x in encoder.items() if not name.startswith("pooler.")}
    head_state = folded_head(model.head, temperature).state_dict()
    parts = (
        (encoder, family.encoder_names, family.prefix if native else ""),
        (head_state, head_names(config.family, head.kind), ""),
    )
    tensors = {}
    for state, table, start in parts:
        for ours, theirs in tensor_names(state, table, start).items():
            for name, tensor in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
                # A chunk is a view, and safetensors refuses tensors that share memory.
                tensors[name] = tensor.to("cpu", torch.float32).clone()
    path = folder / "model.safetensors"
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"}))


@torch.no_grad()
def folded_head(head: Head, temperature: float) -> Head:
    """Return a copy of a head with the data's unit and a temperature in its output layer."""
    head = copy.deepcopy(head)
    head.fold_unit()
    head.unit = None
    for parameter in head.out.parameters():
        parameter.div_(temperature)
    return head


def write_pooling(folder: Path, config: EncoderConfig, head: HeadConfig) -> None:
    """Write the pooling for sentence-transformers, which without it takes the mean.

    It has no name for the pooler, of which nothing is written.
    """
    if head.pooling == "pooler":
        return
    start = "sentence_transformers.models."
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{start}Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{start}Pooling"},
    ]
    pooling = {
        "word_embedding_dimension": config.width,
        "pooling_mode_cls_token": head.pooling == "cls",
        "pooling_mode_mean_tokens": head.pooling == "mean",
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "modules.json", modules)
