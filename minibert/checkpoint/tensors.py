"""A checkpoint folder's tensors, from whichever of the four forms; no code in a file is run."""

import hashlib
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from minibert.errors import InputError, printable
from minibert.files import SMALL_FILES, WEIGHT_FILES, model_file, parse_json, read_json

HEADER_LIMIT = 4 * 2**20  # bytes that name tensors: some 30,000 of them


def read_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the first of WEIGHT_FILES that is there, and its tensors under their modern names."""
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
    """Return a digest of all files that are read of a checkpoint, to tell whether they changed."""
    digest = hashlib.sha256()
    small = filter(None, (model_file(folder, name) for name in SMALL_FILES))
    for file in (*small, *_shards(_first_form(folder))):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with open(file, "rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _first_form(folder: Path) -> Path:
    names = [form[0] for form in WEIGHT_FILES]
    file = next(filter(None, (model_file(folder, name) for name in names)), None)
    if file is None:
        raise InputError(f"{folder}: holds no checkpoint (none of {', '.join(names)})")
    return file


def _shards(index: Path) -> list[Path]:
    if index.suffix != ".json":
        return [index]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: has no weight_map")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{index}: its weight_map names shards with other things than strings")
    shards = []
    for name in sorted(set(weight_map.values())):
        file = model_file(index.parent, name) if Path(name).name == name else None
        if file is None:
            raise InputError(
                f"{index}: the shard {printable(name, 80)!r} is not a file of this folder"
            )
        shards.append(file)
    return shards


def _read_shard(file: Path) -> dict[str, Tensor]:
    size = file.stat().st_size
    try:
        if file.suffix == ".safetensors":
            _check_header(file)
            return load_file(file)
        _check_archive(file, size)
        data = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose message advises to run the file's code
        raise InputError(
            f"{file}: is damaged or unsafe (no pickle, or one with more than tensors); fetch "
            "model.safetensors instead"
        ) from None
    except Exception as error:  # damaged bytes make torch.load raise a dozen unrelated types
        reason = printable(str(error).partition("\n")[0])
        raise InputError(f"{file}: is damaged or unsafe ({reason}); fetch it again") from None
    if not isinstance(data, dict) or not all(map(_plain, data.keys(), data.values())):
        raise InputError(f"{file}: holds no table of tensors")
    # A tied tensor counts twice; more is one row of numbers stretched over a giant.
    if sum(tensor.nbytes for tensor in data.values()) > 2 * size:
        raise InputError(f"{file}: its tensors are larger than the file; fetch it again")
    return data


def _check_header(file: Path) -> None:
    """Refuse what safetensors would take: a header of a million names, or one name twice."""
    with open(file, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > HEADER_LIMIT:
            raise ValueError(f"its header is {size:,} bytes long")
        parse_json(stream.read(size))


def _check_archive(file: Path, size: int) -> None:
    """Refuse a zip archive that unpacks to more than its size; PyTorch does not compress."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > size:
                raise ValueError("it unpacks to more than its size")


def _plain(name: object, value: object) -> bool:
    """Say whether this is a name and a tensor whose numbers are there, one after the other."""
    plain = isinstance(value, Tensor) and value.layout is torch.strided and value.is_cpu
    return isinstance(name, str) and plain


def _modern(name: str) -> str:
    """Rename gamma and beta, inside LayerNorm only (transformers' conversion_mapping.py)."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
