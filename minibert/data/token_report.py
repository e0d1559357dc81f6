"""What a model's tokenizer makes of the texts: lengths, what a cut loses, unknown words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minibert.data.batches import TokenIds
from minibert.data.characters import main_script, script
from minibert.data.examples import Examples
from minibert.data.tokenizer import Tokenizer
from minibert.errors import command_line, printable

CANDIDATES = (64, 128, 256, 512)  # values of --max-length
BLOCK = 10_000  # texts that are tokenized at once
MANY_UNKNOWN = 0.01  # of the tokens: from here on, each run says it
SPELLED = 2.0  # characters per token; with fewer, the tokenizer spells words letter by letter
# Few characters make a word in these scripts, or none do.
SHORT_WORDS = ("CJK", "Hiragana", "Katakana", "symbols")


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
class Script:
    """The texts of which most letters are of one script."""

    texts: int
    characters_per_token: float


@dataclass(frozen=True)
class TokenReport:
    """The tokens of one split, special tokens included."""

    tokens: int
    quantiles: dict[str, int]  # of the tokens per text
    cuts: tuple[Cut, ...]  # for the candidates up to the model's positions, and for these
    scripts: dict[str, Script]
    unknown: int
    unknown_scripts: dict[str, int]  # unknown words and characters by script
    unknown_words: dict[str, int]  # the most frequent ones

    def lines(self, name: str) -> Iterator[str]:
        """Yield what a report prints, one fact per line."""
        lengths = ", ".join(f"{part} {length}" for part, length in self.quantiles.items())
        yield f"tokens of {name}: {self.tokens:,}; per text: {lengths}"
        needed = sum(cut.texts > 0 for cut in self.cuts) + 1  # the first one that cuts nothing
        yield from (f"  {cut}" for cut in self.cuts[:needed])
        for writing, found in self.scripts.items():
            ratio = found.characters_per_token
            if ratio < SPELLED and writing not in SHORT_WORDS:
                yield (
                    f"  the model's vocabulary has few words in {writing} script: {ratio:.1f} "
                    f"characters per token in {found.texts:,} texts"
                )
        if self.unknown:
            percent, scripts = _percent(self.unknown / self.tokens), _counted(self.unknown_scripts)
            yield f"  unknown to the model's vocabulary: {self.unknown:,}, {percent} ({scripts})"
            yield f"    the most frequent: {_counted(self.unknown_words)}"


def report_tokens(examples: Examples, tokenizer: Tokenizer) -> TokenReport:
    """Tokenize a split, a block of texts at a time, and count."""
    special = len(tokenizer.encode([""], examples.pairs and [""])[0])
    lengths = []
    texts_in, characters_in, tokens_in = Counter[str](), Counter[str](), Counter[str]()
    unknown_scripts, unknown_words = Counter[str](), Counter[str]()
    for texts, rows in _encoded(examples, tokenizer):
        lengths.append(np.array([len(row) for row in rows]))
        for text, length in zip(texts, lengths[-1].tolist(), strict=True):
            writing = main_script("".join(text))
            texts_in[writing] += 1
            characters_in[writing] += sum(len(part) - part.count(" ") for part in text)
            tokens_in[writing] += length - special
        lacking = np.flatnonzero(_unknown_per_row(rows, tokenizer))
        parts = tokenizer.unknown_parts([part for row in lacking for part in texts[row]])
        unknown_scripts.update(map(script, parts))
        unknown_words.update(parts)
    quantiles, cuts = _lengths(np.concatenate(lengths), tokenizer.config.max_tokens)
    return TokenReport(
        tokens=sum(int(found.sum()) for found in lengths),
        quantiles=quantiles,
        cuts=cuts,
        scripts={
            writing: Script(count, characters_in[writing] / max(1, tokens_in[writing]))
            for writing, count in texts_in.most_common()
        },
        unknown=unknown_words.total(),
        unknown_scripts=dict(unknown_scripts.most_common()),
        unknown_words=dict(unknown_words.most_common(10)),
    )


def unknown_warning(rows: Sequence[TokenIds], tokenizer: Tokenizer) -> list[str]:
    """Return a line if the vocabulary lacks many of the words of these texts."""
    fraction = _unknown_per_row(rows, tokenizer).sum() / sum(map(len, rows))
    if fraction < MANY_UNKNOWN:
        return []
    return [
        f"  {_percent(fraction)} of the training tokens are unknown to the model's vocabulary; "
        f"{command_line('train')} --check-data says which"
    ]


def _encoded(
    examples: Examples, tokenizer: Tokenizer
) -> Iterator[tuple[list[tuple[str, ...]], list[TokenIds]]]:
    """Yield blocks of texts, each a tuple of one or two, and their token ids."""
    for start in range(0, len(examples), BLOCK):
        texts = examples.texts[start : start + BLOCK]
        pairs = examples.pairs and examples.pairs[start : start + BLOCK]
        columns = (texts, pairs) if pairs else (texts,)
        yield list(zip(*columns, strict=True)), tokenizer.encode(texts, pairs)


def _unknown_per_row(rows: Sequence[TokenIds], tokenizer: Tokenizer) -> np.ndarray:
    """Return the number of unknown tokens of each text: int64 (N,)."""
    unknown = np.concatenate([row.ids for row in rows]) == tokenizer.unknown_id
    lengths = np.array([len(row) for row in rows])  # none is 0: each has special tokens
    return np.asarray(np.add.reduceat(unknown, np.cumsum(lengths) - lengths, dtype=np.int64))


def _lengths(lengths: np.ndarray, positions: int) -> tuple[dict[str, int], tuple[Cut, ...]]:
    """Return quantiles of the tokens per text, and what each candidate cuts."""
    names, parts = ("median", "95%", "99%", "longest"), (0.5, 0.95, 0.99, 1)
    quantiles = np.quantile(lengths, parts, method="higher").tolist()
    cuts = []
    for size in sorted({*(size for size in CANDIDATES if size <= positions), positions}):
        lost = (lengths - size).clip(0)
        cuts.append(Cut(size, float((lost > 0).mean()), float(lost.sum() / lengths.sum())))
    return dict(zip(names, quantiles, strict=True)), tuple(cuts)


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}" if fraction >= 0.001 else "under 0.1%"


def _counted(counts: dict[str, int]) -> str:
    """Return the first names with their counts."""
    return ", ".join(f"{printable(name, 40)} {count:,}" for name, count in list(counts.items())[:5])
