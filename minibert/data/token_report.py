"""What a model's tokenizer makes of the texts: lengths, what a cut loses, unknown words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minibert.data.batches import TokenIds
from minibert.data.characters import script
from minibert.data.examples import Examples
from minibert.data.tokenizer import Tokenizer
from minibert.errors import printable

CANDIDATES = (64, 128, 256, 512)  # values of --max-length
BLOCK = 10_000  # texts that are tokenized at once
MANY_UNKNOWN = 0.01  # of the tokens: from here on, each run says it


@dataclass(frozen=True)
class Cut:
    """What a --max-length takes: fractions of the texts that are cut, and of the tokens lost."""

    max_length: int
    texts: float
    tokens: float

    def __str__(self) -> str:
        texts, tokens = _percent(self.texts), _percent(self.tokens)
        what = f"cuts {texts} of the texts and loses {tokens} of the tokens"
        return f"--max-length {self.max_length} {what if self.texts else 'cuts no text'}"


@dataclass(frozen=True)
class TokenReport:
    """The tokens of one split, special tokens included."""

    tokens: int
    quantiles: dict[str, int]  # of the tokens per text
    cuts: tuple[Cut, ...]  # for the candidates up to the model's positions, and for these
    unknown: int
    unknown_scripts: dict[str, int]  # unknown words and characters by script
    unknown_words: dict[str, int]  # the commonest ones

    def lines(self, name: str) -> Iterator[str]:
        """Yield what a report prints, one fact per line."""
        lengths = ", ".join(f"{part} {length}" for part, length in self.quantiles.items())
        yield f"tokens of {name}: {self.tokens:,}; per text: {lengths}"
        needed = sum(cut.texts > 0 for cut in self.cuts) + 1  # the first one that cuts nothing
        yield from (f"  {cut}" for cut in self.cuts[:needed])
        if self.unknown:
            share, scripts = _percent(self.unknown / self.tokens), _counted(self.unknown_scripts)
            yield f"  unknown to the model's vocabulary: {self.unknown:,}, {share} ({scripts})"
            yield f"    the commonest: {_counted(self.unknown_words)}"


def report_tokens(examples: Examples, tokenizer: Tokenizer) -> TokenReport:
    """Tokenize a split, a block of texts at a time, and count."""
    lengths, unknown = [], 0
    scripts: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for texts, rows in _encoded(examples, tokenizer):
        lengths.append(np.array([len(row) for row in rows]))
        found = [_count_unknown([row], tokenizer) for row in rows]
        unknown += sum(found)
        lacking = [text for text, count in zip(texts, found, strict=True) if count]
        parts = tokenizer.unknown_parts([part for text in lacking for part in text])
        scripts.update(map(script, parts))
        words.update(parts)
    return _summary(np.concatenate(lengths), tokenizer.config.max_tokens, unknown, scripts, words)


def unknown_warning(rows: Sequence[TokenIds], tokenizer: Tokenizer) -> list[str]:
    """Return a line if the vocabulary lacks many of the words of these texts."""
    tokens, unknown = sum(map(len, rows)), _count_unknown(rows, tokenizer)
    if unknown < MANY_UNKNOWN * tokens:
        return []
    return [
        f"  {unknown / tokens:.1%} of the training tokens are unknown to the model's vocabulary; "
        "python train.py --check-data says which"
    ]


def _encoded(
    examples: Examples, tokenizer: Tokenizer
) -> Iterator[tuple[list[tuple[str, ...]], list[TokenIds]]]:
    """Yield blocks of texts (or pairs) and their token ids."""
    for start in range(0, len(examples), BLOCK):
        texts = examples.texts[start : start + BLOCK]
        pairs = examples.pairs and examples.pairs[start : start + BLOCK]
        columns = (texts, pairs) if pairs else (texts,)
        yield list(zip(*columns, strict=True)), tokenizer.encode(texts, pairs)


def _count_unknown(rows: Sequence[TokenIds], tokenizer: Tokenizer) -> int:
    number = tokenizer.unknown_id
    return 0 if number is None else sum(int((row.ids == number).sum()) for row in rows)


def _summary(
    lengths: np.ndarray, positions: int, unknown: int, scripts: Counter[str], words: Counter[str]
) -> TokenReport:
    total = int(lengths.sum())
    quantiles = np.quantile(lengths, (0.5, 0.95, 0.99, 1), method="higher").tolist()
    cuts = (
        Cut(size, float((lengths > size).mean()), float((lengths - size).clip(0).sum() / total))
        for size in sorted({*CANDIDATES, positions})
        if size <= positions
    )
    names = ("median", "95%", "99%", "longest")
    return TokenReport(
        total,
        dict(zip(names, quantiles, strict=True)),
        tuple(cuts),
        unknown,
        dict(scripts.most_common()),
        dict(words.most_common(10)),
    )


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}" if fraction >= 0.001 else "under 0.1%"


def _counted(counts: dict[str, int]) -> str:
    """Return the first names with their counts."""
    return ", ".join(f"{printable(name, 40)} {count:,}" for name, count in list(counts.items())[:5])
