"""A checkpoint folder's tensors, from whichever of the four forms; no code in a file is run."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from minibert.errors import InputError
from minibert.files import read_json

FORMS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the first of FORMS that the folder has, and its tensors, legacy names renewed."""
    file = _first_form(folder)
    tensors: dict[str, Tensor] = {}
    for shard in _shards(file):
        for name, tensor in _read_shard(shard).items():
            name = _modern(name)
            if name in tensors:
                raise InputError(f"{shard}: the tensor {name} is there twice")
            tensors[name] = tensor
    return file, tensors


def fingerprint(folder: Path) -> str:
    """Return a digest of a checkpoint's config.json and weights, to tell whether they changed."""
    digest = hashlib.sha256()
    for file in (folder / "config.json", *_shards(_first_form(folder))):
        with open(file, "rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _first_form(folder: Path) -> Path:
    file = next((folder / name for name in FORMS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"{folder}: holds no checkpoint (none of {', '.join(FORMS)})")
    return file


def _shards(index: Path) -> list[Path]:
    if index.suffix != ".json":
        return [index]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise InputError(f"{index}: the shard {name!r} is not a file of this folder")
    return [index.parent / name for name in names]


def _read_shard(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        data = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch.load raise a dozen unrelated types
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file}: is damaged or unsafe ({reason}); fetch it again") from None
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        raise InputError(f"{file}: holds no table of tensors")
    return data


def _modern(name: str) -> str:
    """Rename gamma and beta, inside LayerNorm only (transformers' conversion_mapping.py)."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
