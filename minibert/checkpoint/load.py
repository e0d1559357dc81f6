"""A checkpoint folder to a classifier, by the family's table of tensor names.

Reading is strict: every encoder tensor must be there, known and of the right shape. Only the head
may be new.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from minibert.checkpoint.config_file import parse_encoder, parse_head, read_config, read_head_config
from minibert.checkpoint.families import FAMILIES, IGNORED, Names, head_names
from minibert.checkpoint.tensors import read_tensors
from minibert.errors import InputError, printable
from minibert.model.classifier import Classifier, Head
from minibert.model.config import EncoderConfig, HeadConfig
from minibert.model.encoder import Encoder

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A classifier read from a folder, its numbers, and notes for the user, one line each."""

    model: Classifier
    encoder: EncoderConfig
    head: HeadConfig
    notes: tuple[str, ...]


def load_classifier(folder: Path, requested: HeadConfig | None = None) -> Checkpoint:
    """Read a folder's encoder and head, in float32 and evaluation mode.

    With `requested`, the classifier has that head; its weights are random unless the folder stores
    the same head. Raises InputError for a folder without a checkpoint, for tensors that do not fit
    `config.json`, and, if no head is requested, for a checkpoint without one.
    """
    data, where = read_config(folder)
    config = parse_encoder(data, where=where)
    stored = read_head_config(folder) if requested else parse_head(data, config, where=where)
    head = requested or stored
    if head is None:
        raise InputError(
            f"{folder}: the checkpoint has no classification head; train one: "
            f"python train.py --model {folder} --data FILE"
        )
    native_pooling = FAMILIES[config.family].native_pooling
    if head.kind == "native" and head.pooling != native_pooling:
        raise InputError(
            f"a native {config.family} head reads the pooling {native_pooling}, not {head.pooling}"
        )
    file, tensors = read_tensors(folder)
    encoder, known = load_encoder_tensors(config, tensors, file)
    if head.pooling == "pooler" and encoder.pooler is None:
        raise InputError(f"{file}: the checkpoint has no pooler; use --pooling cls or mean")
    if encoder.pooler is not None and head.pooling != "pooler":
        encoder.pooler.requires_grad_(False)
    notes = [f"encoder: {len(known)} tensors from {file.name}"]

    is_stored = stored is not None and replace(stored, max_length=head.max_length) == head
    with torch.device("meta" if is_stored else "cpu"):
        head_module = Head(config, head)
    origin = "new (its weights are random)"
    if is_stored:
        names = tensor_names(head_module.state_dict(), head_names(config.family, head.kind), "")
        fill(head_module, names, tensors, file)
        known |= {name for group in names.values() for name in group}
        origin = "from the checkpoint"
    notes.append(f"head: {head.kind}, {len(head.labels)} classes, {origin}")
    notes += _notes_on_ignored(tensors.keys() - known, file)
    model = Classifier(encoder, head_module, pooling=head.pooling)
    return Checkpoint(model.eval(), config, head, tuple(notes))


def load_encoder(folder: Path) -> tuple[Encoder, EncoderConfig]:
    """Read a folder's encoder alone, in float32 and evaluation mode; the errors are the same."""
    data, where = read_config(folder)
    config = parse_encoder(data, where=where)
    file, tensors = read_tensors(folder)
    encoder, known = load_encoder_tensors(config, tensors, file)
    _notes_on_ignored(tensors.keys() - known, file)
    return encoder.eval(), config


def load_encoder_tensors(
    config: EncoderConfig, tensors: Mapping[str, Tensor], file: Path
) -> tuple[Encoder, set[str]]:
    """Build the encoder from a checkpoint's tensors; return it and the names that it used."""
    prefix = _prefix(tensors, config.family, file)
    table = FAMILIES[config.family].encoder_names
    has_pooler = "pooler" in table and f"{prefix}pooler.dense.weight" in tensors
    with torch.device("meta"):
        encoder = Encoder(config, pooler=has_pooler)
    names = tensor_names(encoder.state_dict(), table, prefix)
    fill(encoder, names, tensors, file)
    return encoder, {name for group in names.values() for name in group}


def tensor_names(ours: Iterable[str], table: Names, prefix: str) -> dict[str, list[str]]:
    """Map each of our tensor names to the checkpoint's names of its parts."""
    names = {}
    for name in ours:
        module, _, kind = name.rpartition(".")
        layer = re.search(r"\.(\d+)\.", module)
        template = re.sub(r"\.\d+\.", ".{}.", module)
        number = layer[1] if layer else ""
        names[name] = [f"{prefix}{theirs.format(number)}.{kind}" for theirs in table[template]]
    return names


def fill(
    module: nn.Module,
    names: Mapping[str, list[str]],
    tensors: Mapping[str, Tensor],
    file: Path,
) -> None:
    """Put a checkpoint's tensors into a module as float32.

    Raises InputError for a tensor that is missing, has another shape, or is not finite.
    """
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
            tensor = tensors[name]
            if tuple(tensor.shape) != shape:
                raise InputError(
                    f"{file}: {name} has the shape {list(tensor.shape)}, "
                    f"config.json asks for {list(shape)}"
                )
            if tensor.dtype not in FLOATS:
                raise InputError(
                    f"{file}: {name} holds {tensor.dtype}, not numbers of 16 to 64 bit"
                )
            parts.append(tensor.to(torch.float32))
            if not torch.isfinite(parts[-1]).all():
                raise InputError(f"{file}: {name} holds values that are not finite; fetch it again")
        state[ours] = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
    module.load_state_dict(state, assign=True)


def _prefix(tensors: Mapping[str, Tensor], family: str, file: Path) -> str:
    for prefix in ("", f"{family}."):
        if f"{prefix}embeddings.word_embeddings.weight" in tensors:
            return prefix
    raise InputError(
        f"{file}: has no tensor embeddings.word_embeddings.weight, with or without {family}. "
        "before it; it is not an encoder of this family"
    )


def _notes_on_ignored(names: Iterable[str], file: Path) -> list[str]:
    """Return a note per kind of unused tensor. Raises InputError for an unknown tensor."""
    ignored: dict[str, list[str]] = {}
    unknown = []
    for name in sorted(names):
        reasons = [why for pattern, why in IGNORED.items() if re.fullmatch(pattern, name)]
        if reasons:
            ignored.setdefault(reasons[0], []).append(name)
        else:
            unknown.append(name)
    if unknown:
        raise InputError(
            f"{file}: {len(unknown)} tensors are unknown to this family: {_some(unknown)}; "
            "a checkpoint with more layers than config.json says, or of another model"
        )
    return [f"ignored: {_some(group)} ({why})" for why, group in ignored.items()]


def _some(names: list[str]) -> str:
    first = ", ".join(printable(name, 80) for name in names[:3])
    return first + (f" and {len(names) - 3} more" if len(names) > 3 else "")
