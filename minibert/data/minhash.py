"""Texts that are nearly equal, by MinHash and bands (Broder 1997; Leskovec et al. 2020, section 3).

The similarity of two texts is the Jaccard index of their sets of shingles, which are all runs of
five characters. The probability that two texts have the same minimum of a random hash over their
shingles is that similarity, so it is estimated by the fraction of equal minima. Only texts that
have all eight minima of a band in common are compared.
"""

from collections.abc import Iterable, Iterator

import numpy as np

SHINGLE = 5  # characters
HASHES, BANDS = 128, 16  # 8 hashes a band: 95% of pairs of similarity 0.8 meet, 6% of 0.5
SIMILAR = 0.8  # from here on, two texts are nearly equal
BLOCK = 2**15  # characters at once, so that all arrays are in the cache
COMPARED = 2**16  # pairs at once


def signatures(texts: Iterable[str], count: int) -> np.ndarray:
    """Return the minima of each of `count` texts: uint16 (N, HASHES), 256 bytes a text."""
    random = np.random.default_rng(0)
    factors, terms = random.integers(0, 2**32, (2, HASHES), dtype=np.uint32)
    factors |= 1
    result = np.empty((count, HASHES), dtype=np.uint16)
    done = 0
    for block in _blocks(texts):
        shingles, starts = _shingles(block)
        rows = result[done : done + len(block)]
        for number in range(HASHES):
            hashed = shingles * factors[number] + terms[number]
            rows[:, number] = np.minimum.reduceat(hashed, starts)  # its lower 16 bits
        done += len(block)
    return result


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the estimated similarity of texts from their signatures: (N, HASHES) -> (N,)."""
    return np.asarray((one == other).mean(axis=-1))


def nearest(rows: np.ndarray, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each signature, a near one `among` others, and their similarity: (N,) each.

    Without `among`, it is another one of `rows`. A text is compared with the first and the last
    text that has a band in common, and the most similar one is returned; -1 and 0 if there is none.
    """
    other = among is None
    among = rows if among is None else among
    found, best = np.full(len(rows), -1), np.zeros(len(rows))
    for band in range(BANDS if len(among) else 0):
        wanted, known = _band(rows, band), _band(among, band)
        order = np.argsort(known, kind="stable")
        known = known[order]
        first = np.searchsorted(known, wanted)
        last = np.searchsorted(known, wanted, side="right") - 1
        for places in (first, last):
            places = places.clip(0, len(known) - 1)
            partners = order[places]
            meets = known[places] == wanted
            if other:
                meets &= partners != np.arange(len(rows))
            for some in _pieces(np.flatnonzero(meets)):
                similar = similarity(rows[some], among[partners[some]])
                better = similar > best[some]
                best[some[better]] = similar[better]
                found[some[better]] = partners[some[better]]
    return found, best


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield texts in lists of about BLOCK characters. Short texts are filled up to a shingle."""
    block, size = [], 0
    for text in texts:
        block.append(text.ljust(SHINGLE))
        size += len(block[-1])
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _shingles(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of every shingle of each text, uint32, and where each text starts."""
    characters = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    count = len(characters) - SHINGLE + 1
    hashed = np.zeros(count, dtype=np.uint32)
    for offset in range(SHINGLE):
        hashed = _mix(hashed * np.uint32(31) + characters[offset : offset + count])
    lengths = np.array([len(text) for text in texts])
    inside = np.ones(len(characters), dtype=bool)
    for offset in range(1, SHINGLE):
        inside[np.cumsum(lengths) - offset] = False  # these would reach into the next text
    counts = lengths - SHINGLE + 1
    return hashed[inside[:count]], np.cumsum(counts) - counts


def _mix(x: np.ndarray) -> np.ndarray:
    """Spread every bit over all 32 (MurmurHash3's finalizer)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _band(rows: np.ndarray, band: int) -> np.ndarray:
    """Return a hash of a band's minima: (N, HASHES) -> uint64 (N,)."""
    width = HASHES // BANDS
    minima = np.ascontiguousarray(rows[:, band * width : (band + 1) * width]).view(np.uint64)
    return minima[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ minima[:, 1]


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), COMPARED):
        yield rows[start : start + COMPARED]
