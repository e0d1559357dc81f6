"""Datasets of texts in windows: a window is encoded, a text is labelled."""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from minibert.data.batches import Batch, Dataset, TextDataset, as_tensor
from minibert.data.long_texts import TokenizedTexts
from minibert.model.config import EncoderConfig


class WindowDataset:
    """Texts of one or several windows. A batch has all windows of its texts.

    Args:
        windows: the windows of all texts, in the order of the texts.
        counts: the number of windows of each text, int64 (N,).
        labels: a task's targets, (N,) or (N, C); None if the texts have no labels.
        places: file and line of each text, for error messages.
    """

    def __init__(
        self,
        windows: Dataset,
        counts: np.ndarray,
        labels: np.ndarray | None,
        *,
        places: Sequence[str] | None = None,
    ) -> None:
        self.windows, self.counts, self.places = windows, counts, places
        self.has_labels, self.labels = labels is not None, as_tensor(labels, len(counts))
        self.starts = np.cumsum(counts) - counts
        self.lengths = np.add.reduceat(windows.lengths, self.starts)  # tokens of all windows

    def __len__(self) -> int:
        return len(self.counts)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return the inputs of all windows of these texts, how many each has, and the labels."""
        chosen = [np.arange(self.starts[i], self.starts[i] + self.counts[i]) for i in rows]
        inputs = self.windows.batch(np.concatenate(chosen)).inputs
        return Batch((*inputs, torch.from_numpy(self.counts[rows])), self.labels[rows])


def text_dataset(
    texts: TokenizedTexts,
    config: EncoderConfig,
    labels: np.ndarray | None = None,
    *,
    places: Sequence[str] | None = None,
) -> TextDataset | WindowDataset:
    """Return the dataset of tokenized texts and a task's targets, for an encoder."""
    in_windows = len(texts.rows) > len(texts.counts)
    rows = TextDataset(
        texts.rows,
        None if in_windows else labels,
        pad_token_id=config.pad_token_id,
        token_types=config.token_types > 1,
        places=None if in_windows else places,
    )
    return WindowDataset(rows, texts.counts, labels, places=places) if in_windows else rows


def encoded_rows(dataset: Dataset) -> Dataset:
    """Return the dataset of what is encoded: the windows of a dataset in windows, or itself."""
    return dataset.windows if isinstance(dataset, WindowDataset) else dataset


def with_rows(dataset: Dataset, rows: Dataset) -> Dataset:
    """Return the dataset of the same texts, of which other `rows` are encoded."""
    if not isinstance(dataset, WindowDataset):
        return rows
    result = copy.copy(dataset)
    result.windows = rows
    return result


def split_batch(dataset: Dataset, rows: np.ndarray, limit: int) -> list[np.ndarray]:
    """Split a batch into batches of at most `limit` windows; a text is not split."""
    if not isinstance(dataset, WindowDataset):
        return [rows]
    parts: list[list[int]] = [[]]
    room = limit
    for row in rows:
        if parts[-1] and dataset.counts[row] > room:
            parts.append([])
            room = limit
        parts[-1].append(row)
        room -= dataset.counts[row]
    return [np.array(part) for part in parts]
