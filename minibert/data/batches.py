"""Token ids to batches of similar length. The order is a pure function of (seed, epoch)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# The noise in the order of training's rows, in batches. Less noise saves padding, but then a small
# dataset has more of the same batches in each epoch.
NOISE_BATCHES = 2


@dataclass(frozen=True)
class TokenIds:
    """The ids of one text or pair, int32, special tokens included.

    Tokens from index `segment_b_start` on have token type 1; for a single text, it is the length.
    """

    ids: np.ndarray
    segment_b_start: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """The arguments of a model's forward pass, and the labels: a task's targets, (B,) or (B, C)."""

    inputs: tuple[Tensor | None, ...]
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        inputs = tuple(x if x is None else to_device(x, device) for x in self.inputs)
        return Batch(inputs, to_device(self.labels, device))


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device. A copy from the CPU to a GPU does not wait for the GPU."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


class Dataset(Protocol):
    """Labelled rows that can be batched: tokenized texts, or what frozen layers made of them."""

    lengths: np.ndarray  # tokens per row, int64 (N,)
    labels: Tensor  # a task's targets: class numbers, int64 (N,), or float32 (N, C)
    has_labels: bool
    places: Sequence[str] | None  # file and line of each row, for error messages

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return these rows as one batch."""
        ...


def as_tensor(labels: np.ndarray | None, count: int) -> Tensor:
    """Return a task's targets as a tensor; `count` zeros if there are none."""
    return torch.zeros(count, dtype=torch.int64) if labels is None else torch.from_numpy(labels)


class TextDataset:
    """Tokenized texts. A batch is padded to its longest text.

    Args:
        rows: the token ids of each text.
        labels: a task's targets, (N,) or (N, C); None if the texts have no labels.
        pad_token_id: the id that fills a batch up.
        token_types: whether the model has token types. Batches have them only if any text does.
        places: file and line of each text, for error messages.
    """

    def __init__(
        self,
        rows: Sequence[TokenIds],
        labels: np.ndarray | None,
        *,
        pad_token_id: int,
        token_types: bool,
        places: Sequence[str] | None = None,
    ) -> None:
        self.rows = rows
        self.lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self.has_labels, self.labels = labels is not None, as_tensor(labels, len(rows))
        self.pad_token_id = pad_token_id
        self.token_types = token_types and any(row.segment_b_start < len(row) for row in rows)
        self.places = places

    def __len__(self) -> int:
        return len(self.rows)

    def used_ids(self) -> Tensor:
        """Return the ids of the texts and of the padding, sorted, without repeats, int64."""
        ids = np.concatenate([[self.pad_token_id], *(row.ids for row in self.rows)])
        return torch.from_numpy(np.unique(ids)).long()

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return ids (B, S), mask (B, S) or None without padding, token types (B, S) or None.

        S is the longest length in the batch. The mask is True for real tokens.
        """
        real = real_tokens(self.lengths[rows])
        ids = np.full(real.shape, self.pad_token_id, dtype=np.int64)
        ids[real] = np.concatenate([self.rows[i].ids for i in rows])
        mask = None if real.all() else torch.from_numpy(real)
        types = None
        if self.token_types:
            starts = np.array([self.rows[i].segment_b_start for i in rows])
            segment_b = np.arange(real.shape[1]) >= starts[:, None]
            types = torch.from_numpy((segment_b & real).astype(np.int64))
        return Batch((torch.from_numpy(ids), mask, types), self.labels[rows])


def real_tokens(lengths: np.ndarray) -> np.ndarray:
    """Return which tokens of a padded batch are real: (B,) lengths -> (B, S) bool."""
    return np.arange(lengths.max()) < lengths[:, None]


class FeatureDataset:
    """Features (N, D) that a frozen encoder computed once: the head's input.

    Batches are on the device of the features; the labels are on the CPU.
    """

    def __init__(
        self, values: Tensor, labels: Tensor, *, places: Sequence[str] | None = None
    ) -> None:
        self.values = values
        self.labels, self.has_labels = labels, True
        self.lengths = np.ones(len(values), dtype=np.int64)
        self.places = places

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return features (B, D) and labels."""
        chosen = torch.as_tensor(rows)
        return Batch((self.values[to_device(chosen, self.values.device)],), self.labels[chosen])


def training_order(
    lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int
) -> list[np.ndarray]:
    """Return the row numbers of each batch of an epoch, every row once.

    Rows are sorted by rank in length plus noise, and cut into batches; the batches are shuffled. If
    the batch size does not divide the number of rows, a random batch is smaller: its rows weigh
    more in their step, and should not always be the longest.
    """
    random = np.random.default_rng([seed, epoch])
    rows = random.permutation(len(lengths))  # rows of the same length are in random order
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    places = np.arange(len(rows)) + random.uniform(0, NOISE_BATCHES * batch_size, len(rows))
    rows = rows[np.argsort(places, kind="stable")]
    sizes = np.full(math.ceil(len(rows) / batch_size), batch_size)
    sizes[random.integers(len(sizes))] -= sizes.sum() - len(rows)
    batches = np.split(rows, np.cumsum(sizes)[:-1])
    return [batches[i] for i in random.permutation(len(batches))]


def length_order(
    lengths: np.ndarray,
    batch_size: int,
    *,
    max_tokens: int | None = None,
    equal_lengths: bool = False,
) -> list[np.ndarray]:
    """Return the row numbers of each batch, from the longest text to the shortest.

    A batch has at most `batch_size` texts and at most `max_tokens` tokens, padding included; a
    longer text is a batch of its own. With `equal_lengths` all texts of a batch have the same
    length, and nothing is padded.
    """
    rows = np.argsort(-lengths, kind="stable")
    groups = [rows]
    if equal_lengths:
        groups = np.split(rows, np.flatnonzero(np.diff(lengths[rows])) + 1)
    batches = []
    for group in groups:
        while len(group):
            fitting = batch_size if max_tokens is None else max(1, max_tokens // lengths[group[0]])
            count = math.ceil(len(group) / min(batch_size, fitting))
            size = math.ceil(len(group) / count)  # the last batch is not much smaller
            batches.append(group[:size])
            group = group[size:]
    return batches
