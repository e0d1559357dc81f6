"""The word embeddings that training texts use, trained in place of the whole table.

Equal, up to rounding, to nn.Embedding under AdamW. A row that no text uses never has a gradient, so
AdamW only decays it: that is one product per epoch. The table is half of a small model; most of its
gradient, its moments and the time for them are saved.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.data.batches import Dataset, TextDataset
from minibert.data.windows import encoded_rows
from minibert.model.encoder import Encoder


class CompactEmbedding(nn.Module):
    """An embedding whose used rows are its parameter, and whose other rows only decay.

    Args:
        table: the plain embedding (V, D); it keeps its values until `write_back`.
        used: the ids of the used rows, int64 (U,), sorted.
    """

    def __init__(self, table: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        weight = table.weight.detach()
        used = used.to(weight.device)
        self.rows = nn.Parameter(weight[used])  # (U, D)
        # AdamW decays this number exactly as it decays every unused row.
        self.decay = decay = nn.Parameter(torch.ones(1, 1, device=weight.device))

        # Not a method: Python does not free a parameter with a hook that refers to it.
        def give_decay_a_gradient(_: Tensor) -> None:
            decay.grad = torch.zeros_like(decay)

        self.rows.register_post_accumulate_grad_hook(give_decay_a_gradient)
        self.register_buffer("table", weight)  # (V, D); its used rows are out of date
        self.used = used
        self.places = torch.full((len(weight),), len(used), device=weight.device)
        self.places[used] = torch.arange(len(used), device=weight.device)
        pad = table.padding_idx
        self.padding_idx = None if pad is None else int(self.places[pad])

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) ids, all of them used -> (B, S, D)."""
        return F.embedding(self.places[input_ids], self.rows, padding_idx=self.padding_idx)

    @torch.no_grad()
    def write_back(self) -> None:
        """Bring the table up to date: decay the unused rows and copy the used ones."""
        assert isinstance(self.table, Tensor)
        self.table.mul_(self.decay)
        self.table[self.used] = self.rows
        self.decay.fill_(1.0)


@contextmanager
def compact_word_rows(
    encoder: nn.Module, train: Dataset
) -> Iterator[Callable[[], AbstractContextManager]]:
    """Train the used word rows in place of the whole table inside this context.

    Yields a function that returns a context in which the encoder has its whole table again, up to
    date, to be validated or saved. Without texts to train on, or with a frozen table, nothing
    changes.
    """
    trained = isinstance(encoder, Encoder) and encoder.embeddings.word.weight.requires_grad
    texts = encoded_rows(train)
    if not (trained and isinstance(texts, TextDataset)):
        yield nullcontext
        return
    assert isinstance(encoder, Encoder)
    embeddings, table = encoder.embeddings, encoder.embeddings.word
    compact = CompactEmbedding(table, texts.used_ids())

    def whole_table() -> AbstractContextManager:
        # At the call and not on entry: an interrupt of the context must not cut it short.
        compact.write_back()
        return in_place()

    @contextmanager
    def in_place() -> Iterator[None]:
        embeddings.word = table
        try:
            yield
        finally:
            embeddings.word = compact  # type: ignore[assignment]

    embeddings.word = compact  # type: ignore[assignment]
    try:
        yield whole_table
    finally:
        compact.write_back()
        embeddings.word = table
