"""Hidden states of tokenized texts, computed once by frozen layers: kept, and padded to batches."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minibert.data.batches import Batch, Dataset, real_tokens, to_device
from minibert.errors import InputError
from minibert.processes import ONE_PROCESS, Processes

LARGE = 2**30  # bytes; larger arrays are kept in a file
GPU_FRACTION = 0.25  # of a GPU's free memory; larger arrays are not kept on it


class HiddenDataset:
    """One vector per token of each text. A batch is padded to its longest text.

    Args:
        texts: the dataset whose lengths, labels and places these are.
        values: (T + 1, D) for T tokens in the order of the texts, as `allocate` returns it. The
            last row is the padding's.
    """

    def __init__(self, texts: Dataset, values: Tensor) -> None:
        self.lengths, self.places = texts.lengths, texts.places
        self.labels, self.has_labels = texts.labels, texts.has_labels
        self.values = values
        self.starts = np.cumsum(texts.lengths) - texts.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def put(self, rows: Sequence[int] | np.ndarray, hidden: Tensor) -> None:
        """Keep the hidden states (B, S, D) of these texts."""
        real, tokens = self._tokens(rows)
        places = to_device(tokens[real], self.values.device)
        self.values[places] = hidden[to_device(real, hidden.device)].to(self.values)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return hidden states (B, S, D), mask (B, S) or None without padding, None, and labels."""
        real, tokens = self._tokens(rows)
        mask = None if real.all() else real
        values = self.values[to_device(tokens, self.values.device)]
        return Batch((values, mask, None), self.labels[rows])

    def _tokens(self, rows: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Return which tokens of a batch are real, and the row of each in `values`: (B, S) each."""
        real = real_tokens(self.lengths[rows])
        tokens = self.starts[rows][:, None] + np.arange(real.shape[1])
        return torch.from_numpy(real), torch.from_numpy(np.where(real, tokens, -1))


def allocate(
    texts: Dataset,
    width: int,
    dtype: torch.dtype,
    *,
    device: torch.device | None = None,
    folder: Path | None = None,
    processes: Processes = ONE_PROCESS,
) -> Tensor:
    """Return zeros (T + 1, D) for the T tokens of the texts; more than `LARGE` bytes in a file.

    They are on a `device` that is a GPU, if at most `GPU_FRACTION` of its free memory holds them,
    in each of several processes. The file is in `folder` (default: the system's temporary folder).
    It has no name and ends with the tensor or the process. Raises InputError if the folder has no
    room for it.
    """
    shape = (int(texts.lengths.sum()) + 1, width)
    size = shape[0] * shape[1] * dtype.itemsize
    fits = device is not None and size <= GPU_FRACTION * free_gpu_memory(device)
    if not processes.largest(int(not fits)):  # they add up what each computes: on one kind
        return torch.zeros(shape, dtype=dtype, device=device)
    if size <= LARGE:
        return torch.zeros(shape, dtype=dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # A file with holes on a full disk would end the process at a write to memory.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)
            values = np.memmap(file, mode="r+", shape=size, dtype=np.uint8)
    except OSError as error:
        raise InputError(
            f"{folder or tempfile.gettempdir()}: no room for the {size / 1e9:.1f} GB of the frozen "
            f"layers' output ({error.strerror}); free it, or drop --freeze-layers"
        ) from None
    return torch.from_numpy(values).view(dtype).view(shape)


def free_gpu_memory(device: torch.device) -> int:
    """Return the bytes that are free on a GPU; 0 for another device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def in_file(values: Tensor) -> bool:
    """Return whether this array is one that `allocate` keeps in a file."""
    return values.device.type == "cpu" and values.nbytes > LARGE
