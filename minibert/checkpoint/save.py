"""A classifier to `model.safetensors` under the family's own tensor names."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from minibert.checkpoint.families import FAMILIES, head_names
from minibert.checkpoint.load import tensor_names
from minibert.files import write_atomic
from minibert.model.classifier import Classifier
from minibert.model.config import EncoderConfig, HeadConfig


def save_weights(folder: Path, model: Classifier, config: EncoderConfig, head: HeadConfig) -> None:
    """Write `model.safetensors` in float32. The file is complete or not there.

    With a native head, transformers' ...ForSequenceClassification reads it; with another head,
    transformers reads the encoder.
    """
    prefix = f"{config.family}." if head.kind == "native" else ""
    parts = (
        (model.encoder, FAMILIES[config.family].encoder_names, prefix),
        (model.head, head_names(config.family, head.kind), ""),
    )
    tensors = {}
    for module, table, start in parts:
        state = module.state_dict()
        for ours, theirs in tensor_names(state, table, start).items():
            for name, tensor in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
                # A chunk is a view, and safetensors refuses tensors that share memory.
                tensors[name] = tensor.to("cpu", torch.float32).clone()
    path = folder / "model.safetensors"
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"}))
