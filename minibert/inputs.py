"""Parts to what the model reads: token ids, their lengths drawn and cut, class numbers."""

from collections.abc import Sequence

import numpy as np

from minibert.batches import Texts
from minibert.config import EncoderConfig
from minibert.data import class_ids
from minibert.errors import InputError
from minibert.parts import Parts
from minibert.tokenizer import TokenIds, Tokenizer

AUTO_CUT = 0.01  # --max-length auto: at most this share of the training texts is cut


def tokenize(
    parts: Parts, tokenizer: Tokenizer, *, longest: int | None, positions: int
) -> tuple[int, dict[str, list[TokenIds]]]:
    """Tokenize all parts, print the histogram, and cut texts over `longest` tokens (none: auto).

    Returns the length used and each part's rows.
    """
    if longest is not None and longest > positions:
        raise InputError(f"--max-length is {longest}; this model has {positions} positions")
    rows = {name: tokenizer.encode(part.texts, part.pairs) for name, part in parts.named().items()}
    lengths = np.array([len(row) for row in rows["train"]])
    if longest is None:
        longest = min(shortest_length(lengths), positions)
    print(length_histogram(lengths, longest))
    for name, part in parts.named().items():
        cut = tokenizer.truncate(rows[name], part.texts, part.pairs, max_length=longest)
        share = 100 * cut / len(part)
        print(f"  {name}: {cut:,} of {len(part):,} texts cut at {longest} tokens ({share:.1f}%)")
    return longest, rows


def labelled(
    rows: dict[str, list[TokenIds]], parts: Parts, classes: Sequence[str], config: EncoderConfig
) -> dict[str, Texts]:
    """Join each part's token ids and class numbers."""
    return {
        name: Texts(
            rows[name],
            class_ids(part, classes),
            pad_token_id=config.pad_token_id,
            types=config.token_types > 1,
        )
        for name, part in parts.named().items()
    }


def shortest_length(lengths: np.ndarray) -> int:
    """Return the shortest length that cuts at most AUTO_CUT of the texts."""
    ordered = np.sort(lengths)
    return int(max(3, ordered[len(ordered) - 1 - int(AUTO_CUT * len(ordered))]))


def length_histogram(
    lengths: np.ndarray, max_length: int, *, bars: int = 10, width: int = 40
) -> str:
    """Draw token lengths as text, the bars that --max-length cuts marked."""
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
