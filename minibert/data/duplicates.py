"""Texts that are in the data twice: within a split, across splits, with one label or with two.

Two texts are equal here if they differ in case, spaces and punctuation only.
"""

import hashlib
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minibert.data import minhash
from minibert.data.examples import Examples
from minibert.data.labels import Label

LISTED = 20  # of the rows that are counted, those that are named
IGNORED = ("P", "Z", "Cc", "Cf")  # Unicode's punctuation, spaces, controls and format characters


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats another one."""

    place: str  # file and line
    other: str
    text: str
    label: Label
    other_label: Label

    def __str__(self) -> str:
        labels = ""
        if self.label != self.other_label:
            labels = f" (labels {_written(self.label)} and {_written(self.other_label)})"
        file, comma, line = self.other.rpartition(", ")
        other = line if self.place.startswith(file + comma) else self.other
        text = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        return f"{self.place} and {other}{labels}: {text!r}"


@dataclass(frozen=True)
class Duplicates:
    """The rows of a split that repeat a row of it, or of another split; the first of them."""

    count: int
    identical: int  # of them, those that are equal character for character
    contradicting: int  # of them, those with another label than the row they repeat
    first: tuple[Duplicate, ...]
    first_contradicting: tuple[Duplicate, ...]


class TextIndex:
    """A split whose texts can be looked up.

    Args:
        examples: the split.
        near: whether nearly equal texts are to be found too, which takes longer.
    """

    def __init__(self, examples: Examples, *, near: bool = False) -> None:
        self.examples = examples
        self.keys = text_keys(examples)
        self.earliest = first_rows(self.keys, self.keys)
        self.unique = np.flatnonzero(self.earliest == np.arange(len(examples)))
        self.signatures: np.ndarray | None = None
        if near:
            texts = normalized_texts(examples, self.unique)
            self.signatures = minhash.signatures(texts, len(self.unique))

    def duplicates(self) -> Duplicates:
        """Return the rows whose text an earlier row has."""
        repeated = np.flatnonzero(self.earliest != np.arange(len(self.keys)))
        texts = _as_written(self.examples)
        identical = len(texts) - len(set(texts))
        return _duplicates(self, repeated, self, self.earliest[repeated], identical)

    def duplicates_of(self, other: "TextIndex") -> Duplicates:
        """Return the rows whose text another split has."""
        partners = first_rows(self.keys, other.keys)
        found = np.flatnonzero(partners >= 0)
        known = set(_as_written(other.examples))
        identical = sum(text in known for text in _as_written(self.examples))
        return _duplicates(self, found, other, partners[found], identical)

    def near_duplicates(self) -> Duplicates:
        """Return the rows whose text is nearly equal to another row's; equal texts count once."""
        assert self.signatures is not None
        found, similar = minhash.nearest(self.signatures)
        near = similar >= minhash.SIMILAR
        return _duplicates(self, self.unique[near], self, self.unique[found[near]])

    def near_duplicates_of(self, other: "TextIndex") -> Duplicates:
        """Return the rows whose text is nearly equal to another split's, and equal to none."""
        assert self.signatures is not None
        found, similar = minhash.nearest(self.signatures, other.signatures)
        near = similar >= minhash.SIMILAR
        near &= first_rows(self.keys[self.unique], other.keys) < 0
        return _duplicates(self, self.unique[near], other, other.unique[found[near]])


def normalize(text: str) -> str:
    """Return a text without case, spaces and punctuation; one of punctuation only keeps it.

    Symbols such as emoji stay. Case and compatibility forms fold as in Unicode's definition D146.
    """
    folded = text.lower() if text.isascii() else _fold(text)
    kept = folded.translate(_kept()) or "".join(folded.split())
    return kept if kept.isascii() else unicodedata.normalize("NFKD", kept)  # puts marks in order


def normalized_texts(examples: Examples, rows: Sequence[int] | np.ndarray) -> Iterator[str]:
    """Yield the normalized text, or pair of texts, of each row."""
    for row in rows:
        text = normalize(examples.texts[row])
        yield text if examples.pairs is None else f"{text}\0{normalize(examples.pairs[row])}"


def text_keys(examples: Examples) -> np.ndarray:
    """Return a number for each text, or pair of texts, that only equal ones share: uint64 (N,)."""
    texts = normalized_texts(examples, range(len(examples)))
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def first_rows(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return the first place of each key among others, -1 for one that is not there: int64 (N,)."""
    values, first = np.unique(among, return_index=True)
    places = np.searchsorted(values, keys).clip(max=len(values) - 1)
    return np.where(values[places] == keys, first[places], -1)


def _duplicates(
    one: TextIndex, rows: np.ndarray, other: TextIndex, partners: np.ndarray, identical: int = 0
) -> Duplicates:
    """Count rows that repeat their partners, and name the first ones."""
    pairs = list(zip(rows.tolist(), partners.tolist(), strict=True))
    mine, theirs = one.examples, other.examples
    contradicting = [(i, j) for i, j in pairs if _meaning(mine, i) != _meaning(theirs, j)]

    def named(chosen: list[tuple[int, int]]) -> tuple[Duplicate, ...]:
        once = ((i, j) for i, j in chosen if one is not other or j < i)  # near ones are there twice
        return tuple(
            Duplicate(
                mine.places[i], theirs.places[j], mine.texts[i], mine.labels[i], theirs.labels[j]
            )
            for i, j in itertools.islice(once, LISTED)
        )

    return Duplicates(len(pairs), identical, len(contradicting), named(pairs), named(contradicting))


def _meaning(examples: Examples, row: int) -> Any:
    """Return a row's label such that labels that mean the same are equal."""
    label = examples.labels[row]
    if isinstance(label, str):
        return examples.class_key(label)
    return frozenset(label) if examples.task == "multi-label" else label


def _as_written(examples: Examples) -> list[Any]:
    """Return the texts, or pairs of texts, as they are."""
    if examples.pairs is None:
        return examples.texts
    return list(zip(examples.texts, examples.pairs, strict=True))


def _written(label: Label) -> str:
    return label if isinstance(label, str) else ", ".join(map(str, label)) or "none"


def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKD", folded.casefold())


class _Kept(dict[int, int | None]):
    """A table for str.translate that drops ignored characters; it grows as they are met."""

    def __missing__(self, character: int) -> int | None:
        ignored = unicodedata.category(chr(character)).startswith(IGNORED)
        self[character] = None if ignored else character
        return self[character]


@cache
def _kept() -> _Kept:
    return _Kept()
