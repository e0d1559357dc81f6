"""A checkpoint folder to a classifier, by the family's table of tensor names.

Reading is strict: every encoder tensor must be there, known and of the right shape. Only the head
may be new.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minibert.checkpoint.config_file import parse_encoder, parse_head, read_config, read_head_config
from minibert.checkpoint.families import FAMILIES, IGNORED, Names, head_names
from minibert.checkpoint.tensors import read_tensors
from minibert.errors import InputError, command_line, printable
from minibert.model.classifier import Classifier, Head
from minibert.model.config import EncoderConfig, HeadConfig
from minibert.model.encoder import Encoder

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A classifier read from a folder, its numbers, and notes for the user, one line each."""

    model: Classifier
    encoder: EncoderConfig
    notes: tuple[str, ...]

    @property
    def head(self) -> HeadConfig:
        """The head's kind and what its outputs are."""
        return self.model.head.config


def load_classifier(folder: Path, requested: HeadConfig | None = None) -> Checkpoint:
    """Read a folder's encoder and head, in float32 and evaluation mode.

    With `requested`, the classifier has that head; its weights are random unless the folder stores
    the same head. Raises InputError for a folder without a checkpoint, for tensors that do not fit
    `config.json`, and, if no head is requested, for a checkpoint without a usable one.
    """
    data, where = read_config(folder)
    config = parse_encoder(data, where=where)
    head = requested or stored_head(folder, data, config, where)
    check_native_pooling(head, config)
    file, tensors = read_tensors(folder)
    encoder, known = load_encoder_tensors(config, tensors, file)
    if head.pooling == "pooler" and encoder.pooler is None:
        raise InputError(f"{file}: the checkpoint has no pooler; use --pooling cls or mean")
    if encoder.pooler is not None and head.pooling != "pooler":
        encoder.pooler.requires_grad_(False)
    notes = [f"encoder: {len(known)} tensors from {file.name}"]

    stored = read_head_config(folder)
    is_stored = stored is not None and same_head(stored, head)
    with torch.device("meta" if is_stored else "cpu"):
        head_module = Head(config, head)
    origin = "new (its weights are random)"
    if is_stored:
        names = tensor_names(head_module.state_dict(), head_names(config.family, head.kind), "")
        fill(head_module, names, tensors, file)
        known |= {name for group in names.values() for name in group}
        origin = "from the checkpoint"
    notes.append(f"head: {head.kind}, {outputs(head)}, {origin}")
    notes += notes_on_ignored(tensors.keys() - known, file)
    model = Classifier(encoder, head_module, pooling=head.pooling)
    return Checkpoint(model.eval(), config, tuple(notes))


def same_head(stored: HeadConfig, requested: HeadConfig) -> bool:
    """Return whether the weights of a stored head are those of the requested one."""
    shape = ("kind", "pooling", "labels", "task")
    return all(getattr(stored, name) == getattr(requested, name) for name in shape)


def outputs(head: HeadConfig) -> str:
    """Return the number of a head's outputs, for a person."""
    count = len(head.labels)
    if head.task == "regression":
        return f"{count} number{'s' if count > 1 else ''}"
    return f"{count} classes"


def stored_head(
    folder: Path, data: Mapping[str, Any], config: EncoderConfig, where: str
) -> HeadConfig:
    """Return the head that the checkpoint stores. Raises InputError without a usable one."""
    advice = f"train a new head: {command_line('train')} --model {folder} --data FILE"
    try:
        head = parse_head(data, config, where=where)
    except InputError as error:
        raise InputError(f"{error}; {advice}") from None
    if head is None:
        raise InputError(f"{folder}: the checkpoint has no classification head; {advice}")
    return head


def check_native_pooling(head: HeadConfig, config: EncoderConfig) -> None:
    """Raise InputError for a native head on another pooling than its family's."""
    native = FAMILIES[config.family].native_pooling
    if head.kind == "native" and head.pooling != native:
        raise InputError(
            f"a native {config.family} head reads the pooling {native}, not {head.pooling}"
        )


def load_encoder(folder: Path) -> tuple[Encoder, EncoderConfig]:
    """Read a folder's encoder alone, in float32 and evaluation mode; the errors are the same."""
    data, where = read_config(folder)
    config = parse_encoder(data, where=where)
    file, tensors = read_tensors(folder)
    encoder, known = load_encoder_tensors(config, tensors, file)
    notes_on_ignored(tensors.keys() - known, file)
    return encoder.eval(), config


def load_encoder_tensors(
    config: EncoderConfig, tensors: Mapping[str, Tensor], file: Path
) -> tuple[Encoder, set[str]]:
    """Build the encoder from a checkpoint's tensors; return it and the names that it used."""
    table = FAMILIES[config.family].encoder_names
    prefix = name_prefix(tensors, FAMILIES[config.family].prefix, file)
    has_pooler = "pooler" in table and f"{prefix}pooler.dense.weight" in tensors
    with torch.device("meta"):
        encoder = Encoder(config, pooler=has_pooler)
    names = tensor_names(encoder.state_dict(), table, prefix)
    fill(encoder, names, tensors, file)
    return encoder, {name for group in names.values() for name in group}


def tensor_names(ours: Iterable[str], table: Names, prefix: str) -> dict[str, list[str]]:
    """Map each of our tensor names to the checkpoint's: three for the fused query, key, value."""
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
    """Fill a module, in place, with a checkpoint's tensors as float32.

    Raises InputError for a tensor that is missing, has another shape, or is not finite.
    """
    missing = [name for group in names.values() for name in group if name not in tensors]
    if missing:
        raise InputError(
            f"{file}: lacks {len(missing)} tensors that config.json asks for: "
            f"{first_names(missing)}"
        )
    state = {}
    for ours, empty in module.state_dict().items():
        theirs = names[ours]
        shape = (empty.shape[0] // len(theirs), *empty.shape[1:])
        pieces = [to_float32(name, tensors[name], shape, file) for name in theirs]
        state[ours] = torch.cat(pieces) if len(pieces) > 1 else pieces[0].clone()
    module.load_state_dict(state, assign=True)


def to_float32(name: str, tensor: Tensor, shape: tuple[int, ...], file: Path) -> Tensor:
    """Return a checkpoint's tensor as float32, if it has this shape and finite floating values."""
    if tuple(tensor.shape) != shape:
        raise InputError(
            f"{file}: {name} has the shape {list(tensor.shape)}, config.json asks for {list(shape)}"
        )
    if tensor.dtype not in FLOATS:
        raise InputError(f"{file}: {name} holds {tensor.dtype}, not floating point of 16 to 64 bit")
    tensor = tensor.to(torch.float32)
    # Minimum and maximum are NaN if any value is. isfinite of all values takes ten times as long.
    if not torch.stack(tensor.aminmax()).isfinite().all():
        raise InputError(f"{file}: {name} holds values that are not finite; fetch it again")
    return tensor


def name_prefix(tensors: Mapping[str, Tensor], of_family: str, file: Path) -> str:
    """Return what stands before the encoder's names: nothing, or the family's, such as "bert."."""
    for prefix in ("", of_family):
        if f"{prefix}embeddings.word_embeddings.weight" in tensors:
            return prefix
    raise InputError(
        f"{file}: has no tensor embeddings.word_embeddings.weight, with or without {of_family} "
        "before it; it is not an encoder of this family"
    )


def notes_on_ignored(names: Iterable[str], file: Path) -> list[str]:
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
            f"{file}: {len(unknown)} tensors are unknown to this family: {first_names(unknown)}; "
            "a checkpoint with more layers than config.json says, or of another model"
        )
    return [f"ignored: {first_names(group)} ({why})" for why, group in ignored.items()]


def first_names(names: list[str]) -> str:
    """Return up to three names for a message, and the number of the others."""
    first = ", ".join(printable(name, 80) for name in names[:3])
    return first + (f" and {len(names) - 3} more" if len(names) > 3 else "")
