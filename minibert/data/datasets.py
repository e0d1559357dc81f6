"""Splits to datasets: tokenize texts, report their lengths, shorten the long ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minibert.data.batches import Dataset
from minibert.data.examples import Examples
from minibert.data.long_texts import TokenizedTexts, shorten
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


def tokenize_splits(
    splits: Splits,
    tokenizer: Tokenizer,
    *,
    max_length: int | None,
    positions: int,
    long_texts: LongTexts = LongTexts(),  # noqa: B008 (frozen)
    max_windows: int | None = None,
) -> TokenizedSplits:
    """Tokenize all splits, and shorten texts that are longer than `max_length` tokens.

    None takes the shortest length that at most 1% of the training texts exceed. Training texts
    have at most `max_windows` windows. Raises InputError for a length over the model's positions.
    """
    if max_length and long_texts.stride and long_texts.stride > max_length:
        raise InputError(
            f"--stride is {long_texts.stride}; windows of {max_length} tokens (--max-length) would "
            "leave tokens out"
        )
    if max_length is not None and max_length > positions:
        raise InputError(f"--max-length is {max_length}; this model has {positions} positions")
    rows = {
        name: tokenizer.encode(split.texts, split.pairs) for name, split in splits.named().items()
    }
    lengths = np.array([len(row) for row in rows["train"]])
    if max_length is None:
        max_length = min(shortest_length(lengths), positions)
    lines = [length_histogram(lengths, max_length)]
    texts = {}
    for name, split in splits.named().items():
        tokens = sum(map(len, rows[name]))
        texts[name] = shorten(
            tokenizer,
            rows[name],
            split.texts,
            split.pairs,
            max_length=max_length,
            long_texts=long_texts,
            max_windows=max_windows if name == "train" else None,
        )
        lines.append(f"  {name}: {describe_long(texts[name], long_texts, max_length, tokens)}")
    return TokenizedSplits(texts, max_length, long_texts, "\n".join(lines))


def describe_long(
    texts: TokenizedTexts, long_texts: LongTexts, max_length: int, tokens: int
) -> str:
    """Return how many texts were shortened, and how many of all `tokens` that loses."""
    count, windows = len(texts.counts), texts.long + len(texts.rows) - len(texts.counts)
    done = {
        "cut": f"cut at {max_length} tokens",
        "head-tail": f"reduced to {max_length} tokens from both ends",
        "windows": f"in {windows:,} windows of {max_length} tokens",
    }[long_texts.how]
    line = f"{texts.long:,} of {count:,} texts {done} ({100 * texts.long / count:.1f}%)"
    if texts.lost:
        percent = 100 * texts.lost / tokens
        line += f", which loses {texts.lost:,} of {tokens:,} tokens ({percent:.1f}%)"
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
    step = max(1, -(-int(lengths.max()) // bars))
    counts = np.bincount((lengths - 1) // step)
    long = np.bincount((lengths[lengths > max_length] - 1) // step, minlength=len(counts))
    lines = [f"token lengths of the training texts (median {int(np.median(lengths))}):"]
    for number, count in enumerate(counts):
        first, last = number * step + 1, (number + 1) * step
        bar = "#" * int(np.ceil(width * count / counts.max()))
        over = "  over" if long[number] else ""
        lines.append(f"  {first:5d}-{last:<5d} {bar:{width}} {count:,}{over}")
    return "\n".join(lines)
