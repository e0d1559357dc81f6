"""Hugging Face folders: checkpoints in, models out, through one table of names a family.

Reading is strict: every encoder tensor must be there, known and of the right shape. Only a head
may be new. Name sources: transformers' modeling_bert.py and modeling_distilbert.py.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from minibert.config import EncoderConfig, HeadConfig, native_pooling, read_head
from minibert.errors import InputError, printable
from minibert.files import model_file, read_json, write_atomic, write_json
from minibert.model import Classifier, Encoder, Head
from minibert.weights import read_tensors

# Our module -> the checkpoint's; three names are one fused matrix here.
ENCODER_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "bert": {
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
    "distilbert": {
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
}
OWN_HEAD_NAMES: dict[str, tuple[str, ...]] = {
    "dense": ("minibert_head.dense",),
    "out": ("minibert_head.out",),
}
NATIVE_HEAD_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "bert": {"out": ("classifier",)},
    "distilbert": {"dense": ("pre_classifier",), "out": ("classifier",)},
}
CLASS_NAMES = {"bert": "Bert", "distilbert": "DistilBert"}

# What a classifier has no use for: pattern -> what it is, for the run to say.
IGNORED = {
    r"(.+\.)?embeddings\.position_ids": "a buffer",
    r"cls\..+": "pre-training heads",
    r"vocab_(transform|layer_norm|projector)\..+": "pre-training head",
    r"(pre_classifier|classifier|qa_outputs)\..+": "another task's head",
    r"minibert_head\..+": "another run's head",
}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A model read from a folder, and what the reading has to say, a line each."""

    model: Classifier
    encoder: EncoderConfig
    head: HeadConfig
    notes: tuple[str, ...]


def read_encoder_config(folder: Path) -> EncoderConfig:
    """Read the encoder's numbers from a checkpoint folder."""
    file = _config_file(folder)
    return EncoderConfig.from_json(read_json(file), where=str(file))


def load_classifier(folder: Path, wanted: HeadConfig | None = None) -> Checkpoint:
    """Read a folder's encoder and head; with `wanted`, that head, new unless the folder has it.

    Raises InputError for a folder without checkpoint, tensors that do not fit the config, and,
    with no head `wanted`, for a checkpoint without one.
    """
    data = read_json(_config_file(folder))
    config = EncoderConfig.from_json(data, where=str(folder / "config.json"))
    stored = read_head(data, config, where=str(folder / "config.json"))
    head = wanted or stored
    if head is None:
        raise InputError(
            f"{folder}: the checkpoint has no classification head; train one: "
            f"python train.py --model {folder} --data FILE"
        )
    if head.kind == "native" and head.pooling != native_pooling(config.family):
        raise InputError(
            f"a native {config.family} head reads the pooling {native_pooling(config.family)}, "
            f"not {head.pooling}"
        )
    file, tensors = read_tensors(folder)
    prefix = _prefix(tensors, config.family, file)
    table = ENCODER_NAMES[config.family]
    has_pooler = "pooler" in table and f"{prefix}pooler.dense.weight" in tensors
    if head.pooling == "pooler" and not has_pooler:
        raise InputError(f"{file}: the checkpoint has no pooler; use --pooling cls or mean")
    with torch.device("meta"):
        encoder = Encoder(config, pooler=has_pooler)
    names = _tensor_names(encoder.state_dict(), table, prefix)
    _fill(encoder, names, tensors, file)
    notes = [f"encoder: {sum(map(len, names.values()))} tensors from {file.name}"]

    kept = stored is not None and replace(stored, max_length=head.max_length) == head
    with torch.device("meta" if kept else "cpu"):
        head_module = Head(config, head)
    known = {name for group in names.values() for name in group}
    if kept:
        head_names = _tensor_names(head_module.state_dict(), _head_table(config, head), "")
        _fill(head_module, head_names, tensors, file)
        known |= {name for group in head_names.values() for name in group}
        notes.append(f"head: {head.kind}, {len(head.labels)} classes, from the checkpoint")
    else:
        notes.append(f"head: {head.kind}, {len(head.labels)} classes, new (its weights are random)")
        if stored is not None:
            unused = f"{stored.kind}, {len(stored.labels)} classes"
            notes.append(f"  the checkpoint's own is not used: {unused}")
    notes += _ignored(tensors.keys() - known, file)
    model = Classifier(encoder, head_module, pooling=head.pooling)
    if encoder.pooler is not None and head.pooling != "pooler":
        encoder.pooler.requires_grad_(False)
    return Checkpoint(model.eval(), config, head, tuple(notes))


def save_config(folder: Path, config: EncoderConfig, head: HeadConfig) -> None:
    """Write `config.json` so that transformers reads the encoder, and a native head too."""
    native = head.kind == "native"
    data = config.to_json()
    data["architectures"] = [
        CLASS_NAMES[config.family] + ("ForSequenceClassification" if native else "Model")
    ]
    data["dtype"] = "float32"
    data["id2label"] = {str(number): name for number, name in enumerate(head.labels)}
    data["label2id"] = {name: number for number, name in enumerate(head.labels)}
    data["minibert"] = {"head": head.kind, "pooling": head.pooling, "max_length": head.max_length}
    write_json(folder / "config.json", data)


def save_weights(folder: Path, model: Classifier, config: EncoderConfig, head: HeadConfig) -> None:
    """Write `model.safetensors` under the family's own names; it is whole or not there."""
    prefix = f"{config.family}." if head.kind == "native" else ""
    parts = (
        (model.encoder, ENCODER_NAMES[config.family], prefix),
        (model.head, _head_table(config, head), ""),
    )
    tensors = {}
    for module, table, start in parts:
        state = module.state_dict()
        for ours, theirs in _tensor_names(state, table, start).items():
            for name, tensor in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
                # A chunk must not be written as a view: safetensors refuses shared memory.
                tensors[name] = tensor.to("cpu", torch.float32).clone()
    path = folder / "model.safetensors"
    write_atomic(path, lambda beside: save_file(tensors, beside, metadata={"format": "pt"}))


def _config_file(folder: Path) -> Path:
    if file := model_file(folder, "config.json"):
        return file
    raise InputError(f"{folder}: holds no checkpoint (no config.json)")


def _prefix(tensors: Mapping[str, Tensor], family: str, file: Path) -> str:
    for prefix in ("", f"{family}."):
        if f"{prefix}embeddings.word_embeddings.weight" in tensors:
            return prefix
    raise InputError(
        f"{file}: has no tensor embeddings.word_embeddings.weight, with or without {family}. "
        "before it; it is not an encoder of this family"
    )


def _head_table(config: EncoderConfig, head: HeadConfig) -> dict[str, tuple[str, ...]]:
    return NATIVE_HEAD_NAMES[config.family] if head.kind == "native" else OWN_HEAD_NAMES


def _tensor_names(
    ours: Iterable[str], table: Mapping[str, tuple[str, ...]], prefix: str
) -> dict[str, list[str]]:
    """Map each of our tensors to the checkpoint's names of it."""
    names = {}
    for name in ours:
        module, _, kind = name.rpartition(".")
        layer = re.search(r"\.(\d+)\.", module)
        template = re.sub(r"\.\d+\.", ".{}.", module)
        number = layer[1] if layer else ""
        names[name] = [f"{prefix}{theirs.format(number)}.{kind}" for theirs in table[template]]
    return names


def _fill(
    module: torch.nn.Module,
    names: Mapping[str, list[str]],
    tensors: Mapping[str, Tensor],
    file: Path,
) -> None:
    """Put a checkpoint's tensors into a module, fp32; a missing or misshaped one is an error."""
    missing = [name for group in names.values() for name in group if name not in tensors]
    if missing:
        raise InputError(
            f"{file}: lacks {len(missing)} tensors that config.json asks for: {_some(missing)}"
        )
    state = {}
    for ours, empty in module.state_dict().items():
        theirs = names[ours]
        shape = (empty.shape[0] // len(theirs), *empty.shape[1:])
        parts = []
        for name in theirs:
            found = tensors[name]
            if tuple(found.shape) != shape:
                raise InputError(
                    f"{file}: {name} has the shape {list(found.shape)}, "
                    f"config.json asks for {list(shape)}"
                )
            if found.dtype not in FLOATS:
                raise InputError(f"{file}: {name} holds {found.dtype}, not numbers of 16 to 64 bit")
            parts.append(found.to(torch.float32))
            if not torch.isfinite(parts[-1]).all():
                raise InputError(f"{file}: {name} holds values that are not finite; fetch it again")
        state[ours] = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
    module.load_state_dict(state, assign=True)


def _ignored(names: Iterable[str], file: Path) -> list[str]:
    """Say what is not used; a tensor that nothing here knows is an error."""
    found: dict[str, list[str]] = {}
    unknown = []
    for name in sorted(names):
        reasons = [why for pattern, why in IGNORED.items() if re.fullmatch(pattern, name)]
        if reasons:
            found.setdefault(reasons[0], []).append(name)
        else:
            unknown.append(name)
    if unknown:
        raise InputError(
            f"{file}: {len(unknown)} tensors are unknown to this family: {_some(unknown)}; "
            "a checkpoint with more layers than config.json says, or of another model"
        )
    return [f"ignored: {_some(group)} ({why})" for why, group in found.items()]


def _some(names: list[str]) -> str:
    first = ", ".join(printable(name, 80) for name in names[:3])
    return first + (f" and {len(names) - 3} more" if len(names) > 3 else "")
