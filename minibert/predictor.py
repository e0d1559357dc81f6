"""Answers: batches in length order, results in input order."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minibert.batches import Part, Texts, length_order
from minibert.hf import load_classifier
from minibert.runtime import autocast, choose_device, choose_precision
from minibert.tokenizer import Tokenizer


@torch.no_grad()
def in_length_order(
    function: Callable[..., Tensor],
    part: Part,
    *,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Call `function` on every batch of a part; return its rows, fp32 on the CPU, in the part's order."""
    rows, results = [], []
    # One context around all batches: it keeps the weights' half-precision copies.
    with autocast(device, dtype):
        for batch_rows in length_order(part.lengths, batch_size):
            batch = part.batch(batch_rows).to(device)
            results.append(function(*batch.inputs).float())
            rows.append(torch.from_numpy(batch_rows))
    values = torch.cat(results).cpu()
    ordered = torch.empty_like(values)
    ordered[torch.cat(rows)] = values
    return ordered


class Predictor:
    """A finished run's, folder's or hub model's classifier, ready to answer."""

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
        max_length: int | None = None,
    ) -> None:
        checkpoint = load_classifier(folder)
        self.device = choose_device(device)
        self.dtype, self.why = choose_precision(precision, self.device)
        self.model = checkpoint.model.to(self.device)
        self.config = checkpoint.encoder
        self.classes = checkpoint.head.labels
        self.max_length = min(max_length or checkpoint.head.max_length, self.config.positions)
        self.tokenizer = Tokenizer.from_folder(folder, self.config)
        self.batch_size = batch_size
        self.truncated = 0  # texts cut so far

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        """Return logits (N, C) of N texts; texts over `max_length` tokens are cut and counted."""
        if not texts:
            return torch.empty(0, len(self.classes))
        rows = self.tokenizer.encode(texts, pairs)
        self.truncated += self.tokenizer.truncate(rows, texts, pairs, max_length=self.max_length)
        part = Texts(
            rows, None, pad_token_id=self.config.pad_token_id, types=self.config.token_types > 1
        )
        return in_length_order(
            self.model, part, batch_size=self.batch_size, device=self.device, dtype=self.dtype
        )
