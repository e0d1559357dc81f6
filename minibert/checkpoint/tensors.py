"""A checkpoint folder's tensors, from any of four forms of weights. No code in a file is run."""

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from minibert.checkpoint.limits import check_archive, check_header, is_tensor_table, tensors_fit
from minibert.errors import InputError, printable
from minibert.files import SMALL_FILES, WEIGHT_FILES, model_file, read_json


def read_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the first of WEIGHT_FILES that exists, and its tensors under their modern names.

    Raises InputError for a folder without weights and for a damaged or unsafe file.
    """
    file = weight_file(folder)
    tensors: dict[str, Tensor] = {}
    for shard in shard_files(file):
        for name, tensor in read_shard(shard).items():
            name = modern_name(name)
            if name in tensors:
                raise InputError(f"{shard}: the tensor {name} is there twice")
            tensors[name] = tensor
    return file, tensors


def fingerprint(folder: Path) -> str:
    """Return a digest of all files of a checkpoint that are read. It tells whether they changed."""
    digest = hashlib.sha256()
    small = filter(None, (model_file(folder, name) for name in SMALL_FILES))
    for file in (*small, *shard_files(weight_file(folder))):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with open(file, "rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def weight_file(folder: Path) -> Path:
    """Return the folder's file of weights, or the index of their shards."""
    names = [form[0] for form in WEIGHT_FILES]
    file = next(filter(None, (model_file(folder, name) for name in names)), None)
    if file is None:
        raise InputError(f"{folder}: holds no checkpoint (none of {', '.join(names)})")
    return file


def shard_files(file: Path) -> list[Path]:
    """Return the shards that an index names, or the file itself if it is not an index."""
    if file.suffix != ".json":
        return [file]
    weight_map = read_json(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{file}: has no weight_map")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{file}: its weight_map names a shard with something else than a string")
    shards = []
    for name in sorted(set(weight_map.values())):
        shard = model_file(file.parent, name) if Path(name).name == name else None
        if shard is None:
            raise InputError(
                f"{file}: the shard {printable(name, 80)!r} is not a file of this folder"
            )
        shards.append(shard)
    return shards


def read_shard(file: Path) -> dict[str, Tensor]:
    """Read one file of tensors, safetensors or pickle, within the limits of `limits.py`."""
    try:
        if file.suffix == ".safetensors":
            check_header(file)
            return load_file(file)
        check_archive(file)
        data = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # PyTorch's message advises to run the file's code
        raise InputError(
            f"{file}: is damaged or unsafe (not a pickle, or one with more than tensors); fetch "
            "model.safetensors instead"
        ) from None
    except Exception as error:  # damaged bytes make torch.load raise a dozen unrelated types
        reason = printable(str(error).partition("\n")[0])
        raise InputError(f"{file}: is damaged or unsafe ({reason}); fetch it again") from None
    if not is_tensor_table(data):
        raise InputError(f"{file}: holds something else than a table of tensors")
    if not tensors_fit(data, file):
        raise InputError(f"{file}: its tensors are larger than the file; fetch it again")
    return data


def modern_name(name: str) -> str:
    """Rename gamma and beta, inside LayerNorm only (transformers' conversion_mapping.py)."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
