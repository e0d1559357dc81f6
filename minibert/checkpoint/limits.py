"""Limits for files of weights from elsewhere, which may be damaged or made to do harm.

The checks raise ValueError with the reason. None of them reads more than a header.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minibert.files import parse_json

HEADER_LIMIT = 4 * 2**20  # bytes of a safetensors header: the names of some 30,000 tensors


def check_header(file: Path) -> None:
    """Refuse a safetensors header that is too long or has a name twice, which the library reads."""
    with open(file, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > HEADER_LIMIT:
            raise ValueError(f"its header is {size:,} bytes long")
        parse_json(stream.read(size))


def check_archive(file: Path) -> None:
    """Refuse a zip archive that unpacks to more than its size. PyTorch does not compress."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
                raise ValueError("it unpacks to more than its size")


def is_tensor_table(data: Any) -> bool:
    """Return whether an unpickled object is a dict of names and plain CPU tensors."""
    return isinstance(data, dict) and all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.is_cpu
        for name, value in data.items()
    )


def tensors_fit(data: dict[str, Tensor], file: Path) -> bool:
    """Return whether the tensors take no more memory than their file explains.

    A few bytes can be one number expanded to a huge tensor. Tied tensors count twice.
    """
    return sum(tensor.nbytes for tensor in data.values()) <= 2 * file.stat().st_size
