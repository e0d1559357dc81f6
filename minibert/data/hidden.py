"""Hidden states of tokenized texts, computed once by frozen layers: kept, and padded to batches."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minibert.data.batches import Batch, Dataset, real_tokens
from minibert.errors import InputError

LARGE = 2**30  # bytes; larger arrays are kept in a file


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
        self.values[tokens[real]] = hidden[real].to(self.values)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return hidden states (B, S, D), mask (B, S) or None without padding, and labels."""
        real, tokens = self._tokens(rows)
        mask = None if real.all() else real
        return Batch((self.values[tokens], mask), self.labels[rows])

    def _tokens(self, rows: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Return which tokens of a batch are real, and the row of each in `values`: (B, S) each."""
        real = real_tokens(self.lengths[rows])
        tokens = self.starts[rows][:, None] + np.arange(real.shape[1])
        return torch.from_numpy(real), torch.from_numpy(np.where(real, tokens, -1))


def allocate(
    texts: Dataset, width: int, dtype: torch.dtype, *, folder: Path | None = None
) -> Tensor:
    """Return zeros (T + 1, D) for the T tokens of the texts; more than `LARGE` bytes in a file.

    The file is in `folder` (default: the system's temporary folder). It has no name and ends with
    the tensor or the process. Raises InputError if the folder has no room for it.
    """
    shape = (int(texts.lengths.sum()) + 1, width)
    size = shape[0] * shape[1] * dtype.itemsize
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


def in_file(values: Tensor) -> bool:
    """Return whether `allocate` keeps an array of this size in a file."""
    return values.nbytes > LARGE
