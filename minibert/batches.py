"""Batches of texts of like length; their order is a pure function of (seed, epoch)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from minibert.tokenizer import TokenIds

# Batches sorted by length together: enough to save padding. Several windows an epoch keep a small
# data set's batches from being the same in every epoch (transformers' LengthGroupedSampler).
WINDOW, WINDOWS = 50, 4


@dataclass(frozen=True)
class Batch:
    """What a model is called with, and the labels (B,) it should give."""

    inputs: tuple[Tensor | None, ...]
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move to a device; to a GPU without waiting for it."""

        def move(x: Tensor) -> Tensor:
            if device.type == "cuda":
                return x.pin_memory().to(device, non_blocking=True)
            return x.to(device)

        inputs = tuple(x if x is None else move(x) for x in self.inputs)
        return Batch(inputs, move(self.labels))


class Part(Protocol):
    """Labelled rows that come in batches: texts, or the kept features of a frozen encoder."""

    lengths: np.ndarray
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return these rows as one batch."""
        ...


class Texts:
    """Tokenized texts, padded a batch at a time to the longest in it."""

    def __init__(
        self, rows: Sequence[TokenIds], labels: np.ndarray | None, *, pad_token_id: int, types: bool
    ) -> None:
        self.rows = rows
        self.lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self.labels = torch.zeros(len(rows), dtype=torch.int64)
        if labels is not None:
            self.labels = torch.from_numpy(labels)
        self.pad_token_id = pad_token_id
        self.types = types and any(row.second < len(row) for row in rows)

    def __len__(self) -> int:
        return len(self.rows)

    def used_ids(self) -> Tensor:
        """Return the token ids that occur in the batches, padding's too, in rising order."""
        ids = np.concatenate([[self.pad_token_id], *(row.ids for row in self.rows)])
        return torch.from_numpy(np.unique(ids)).long()

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return ids, mask or none, token types or none, each (B, S), and the labels."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]  # (B, S)
        ids = np.full(real.shape, self.pad_token_id, dtype=np.int64)
        ids[real] = np.concatenate([self.rows[i].ids for i in rows])
        mask = None if real.all() else torch.from_numpy(real)
        types = None
        if self.types:
            seconds = np.array([self.rows[i].second for i in rows])
            types = torch.from_numpy(((columns >= seconds[:, None]) & real).astype(np.int64))
        return Batch((torch.from_numpy(ids), mask, types), self.labels[rows])


class Features:
    """What a frozen encoder made of each text, (N, D): the head's whole input."""

    def __init__(self, values: Tensor, labels: Tensor) -> None:
        self.values = values
        self.labels = labels
        self.lengths = np.ones(len(values), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return features (B, D) and labels."""
        chosen = torch.as_tensor(rows)
        return Batch((self.values[chosen],), self.labels[chosen])


def training_order(
    lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int
) -> list[np.ndarray]:
    """Return an epoch's batches as row numbers: shuffle, sort in windows, cut, shuffle the batches.

    Every row is in one batch; all batches but one are whole.
    """
    random = np.random.default_rng([seed, epoch])
    rows = random.permutation(len(lengths))
    window = batch_size * max(1, min(WINDOW, len(rows) // (WINDOWS * batch_size)))
    for start in range(0, len(rows), window):
        part = rows[start : start + window]
        rows[start : start + window] = part[np.argsort(lengths[part], kind="stable")]
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def length_order(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return all rows in batches from the longest text to the shortest."""
    rows = np.argsort(-lengths, kind="stable")
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
