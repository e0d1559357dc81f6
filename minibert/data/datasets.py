"""Splits to datasets: tokenize texts, report their lengths, cut the long ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minibert.data.batches import TextDataset, TokenIds
from minibert.data.examples import Examples
from minibert.data.splits import Splits
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.model.config import EncoderConfig

AUTO_CUT = 0.01  # --max-length auto cuts at most this fraction of the training texts


@dataclass(frozen=True)
class TokenizedSplits:
    """The token ids of each split, cut at `max_length` tokens, and a report of what was cut."""

    rows: dict[str, list[TokenIds]]
    max_length: int
    report: str


def tokenize_splits(
    splits: Splits, tokenizer: Tokenizer, *, max_length: int | None, positions: int
) -> TokenizedSplits:
    """Tokenize all splits and cut texts that are longer than `max_length` tokens.

    None takes the shortest length that cuts at most 1% of the training texts. Raises InputError for
    a length over the model's positions.
    """
    if max_length is not None and max_length > positions:
        raise InputError(f"--max-length is {max_length}; this model has {positions} positions")
    rows = {
        name: tokenizer.encode(split.texts, split.pairs) for name, split in splits.named().items()
    }
    lengths = np.array([len(row) for row in rows["train"]])
    if max_length is None:
        max_length = min(shortest_length(lengths), positions)
    lines = [length_histogram(lengths, max_length)]
    for name, split in splits.named().items():
        cut = tokenizer.truncate(rows[name], split.texts, split.pairs, max_length=max_length)
        percent = 100 * cut / len(split)
        lines.append(
            f"  {name}: {cut:,} of {len(split):,} texts cut at {max_length} tokens ({percent:.1f}%)"
        )
    return TokenizedSplits(rows, max_length, "\n".join(lines))


def build_datasets(
    tokenized: TokenizedSplits,
    splits: Splits,
    targets: Callable[[Examples], np.ndarray],
    config: EncoderConfig,
) -> dict[str, TextDataset]:
    """Join each split's token ids and targets. Raises InputError for an unknown label."""
    return {
        name: TextDataset(
            tokenized.rows[name],
            targets(split),
            pad_token_id=config.pad_token_id,
            token_types=config.token_types > 1,
            places=split.places,
        )
        for name, split in splits.named().items()
    }


def shortest_length(lengths: np.ndarray) -> int:
    """Return the shortest length, in tokens, that cuts at most AUTO_CUT of the texts."""
    ordered = np.sort(lengths)
    return int(max(3, ordered[len(ordered) - 1 - int(AUTO_CUT * len(ordered))]))


def length_histogram(
    lengths: np.ndarray, max_length: int, *, bars: int = 10, width: int = 40
) -> str:
    """Draw token lengths as text. Bars that contain texts to cut are marked."""
    step = max(1, -(-int(lengths.max()) // bars))
    counts = np.bincount((lengths - 1) // step)
    cut = np.bincount((lengths[lengths > max_length] - 1) // step, minlength=len(counts))
    lines = [f"token lengths of the training texts (median {int(np.median(lengths))}):"]
    for number, count in enumerate(counts):
        first, last = number * step + 1, (number + 1) * step
        bar = "#" * int(np.ceil(width * count / counts.max()))
        over = "  cut" if cut[number] else ""
        lines.append(f"  {first:5d}-{last:<5d} {bar:{width}} {count:,}{over}")
    return "\n".join(lines)
