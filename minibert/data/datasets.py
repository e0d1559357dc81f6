"""Splits to datasets: tokenize texts, report their lengths, shorten the long ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minibert.data.batches import Dataset
from minibert.data.examples import Examples
from minibert.data.long_texts import TokenizedTexts, how_shortened, shorten
from minibert.data.options import DataOptions
from minibert.data.splits import Splits
from minibert.data.tokenizer import Tokenizer
from minibert.data.windows import text_dataset
from minibert.errors import InputError
from minibert.model.config import EncoderConfig, LongTexts

AUTO_LONG = 0.01  # of the training texts, at most, exceed the length of --max-length auto


@dataclass(frozen=True)
class TokenizedSplits:
    """The token ids of each split, and a report of texts over `max_length` tokens."""

    texts: dict[str, TokenizedTexts]
    max_length: int
    long_texts: LongTexts
    report: str


def tokenize_splits(splits: Splits, tokenizer: Tokenizer, options: DataOptions) -> TokenizedSplits:
    """Tokenize all splits, and shorten texts over `options.max_length` tokens.

    None takes the shortest length that at most 1% of the training texts exceed. Only training texts
    are limited to `options.max_windows`. Raises InputError for a length over the model's positions.
    """
    max_length, long_texts = options.max_length, options.for_long_texts()
    positions = tokenizer.config.max_tokens
    if max_length and long_texts.stride and long_texts.stride > max_length:
        raise InputError(
            f"--stride is {long_texts.stride}; windows of {max_length} tokens (--max-length) would "
            "leave tokens out"
        )
    if max_length is not None and max_length > positions:
        raise InputError(
            f"--max-length is {max_length}; this model has {positions} positions: give {positions} "
            "or less, or auto"
        )
    rows = {
        name: tokenizer.encode(split.texts, split.pairs) for name, split in splits.named().items()
    }
    lengths = np.array([len(row) for row in rows["train"]])
    if max_length is None:
        max_length = min(shortest_length(lengths), positions)
    lines = [length_histogram(lengths, max_length)]
    texts = {}
    for name, split in splits.named().items():
        texts[name] = shorten(
            tokenizer,
            rows[name],
            split.texts,
            split.pairs,
            max_length=max_length,
            long_texts=long_texts,
            max_windows=options.max_windows if name == "train" else None,
        )
        lines.append(f"  {name}: {describe_long(texts[name], long_texts, max_length)}")
    return TokenizedSplits(texts, max_length, long_texts, "\n".join(lines))


def describe_long(texts: TokenizedTexts, long_texts: LongTexts, max_length: int) -> str:
    """Return how many texts were shortened, and how many of all tokens that loses."""
    count, done = len(texts.counts), how_shortened(long_texts, max_length)
    long = int(np.count_nonzero(texts.lengths > max_length))
    if long_texts.how == "windows":
        windows = len(texts.rows) - (count - long)  # a short text has one row
        done = f"in {windows:,} windows of {max_length} tokens"
    line = f"{long:,} of {count:,} texts {done} ({100 * long / count:.1f}%)"
    lost, tokens = texts.lost.sum(), texts.lengths.sum()
    if lost:
        line += f", which loses {lost:,} of {tokens:,} tokens ({lost / tokens:.1%})"
    return line


def build_datasets(
    tokenized: TokenizedSplits,
    splits: Splits,
    targets: Callable[[Examples], np.ndarray],
    config: EncoderConfig,
) -> dict[str, Dataset]:
    """Join each split's token ids and targets. Raises InputError for an unknown label."""
    return {
        name: text_dataset(tokenized.texts[name], config, targets(split), places=split.places)
        for name, split in splits.named().items()
    }


def shortest_length(lengths: np.ndarray) -> int:
    """Return the shortest length, in tokens, that at most AUTO_LONG of the texts exceed."""
    ordered = np.sort(lengths)
    return int(max(3, ordered[len(ordered) - 1 - int(AUTO_LONG * len(ordered))]))


def length_histogram(
    lengths: np.ndarray, max_length: int, *, bars: int = 10, width: int = 40
) -> str:
    """Draw token lengths as text. Bars with texts over the length are marked."""
    step, counts = count_lengths(lengths, bars=bars)
    long = np.bincount((lengths[lengths > max_length] - 1) // step, minlength=len(counts))
    lines = [f"token lengths of the training texts (median {int(np.median(lengths))}):"]
    for number, count in enumerate(counts):
        first, last = number * step + 1, (number + 1) * step
        bar = "#" * int(np.ceil(width * count / counts.max()))
        over = "  over" if long[number] else ""
        lines.append(f"  {first:5d}-{last:<5d} {bar:{width}} {count:,}{over}")
    return "\n".join(lines)


def count_lengths(lengths: np.ndarray, *, bars: int) -> tuple[int, np.ndarray]:
    """Return the width of a bar in tokens, and the texts of each: 1 to `width` tokens, ..."""
    width = max(1, -(-int(lengths.max()) // bars))
    return width, np.bincount((lengths - 1) // width)
