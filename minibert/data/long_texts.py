"""Texts over `max_length` tokens: cut, reduced to their first and last tokens, or in windows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from minibert.data.batches import TokenIds
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.model.config import LongTexts

HEAD = 0.25  # of the tokens that head-tail keeps: 128 of 510 in Sun et al. 2019, section 5.3.1

Key = tuple[tuple[bytes, int], ...]  # a text's rows: their ids, and where segment B starts


@dataclass(frozen=True)
class TokenizedTexts:
    """The token ids of N texts: a row for each text, or several for a text in windows."""

    rows: list[TokenIds]
    counts: np.ndarray  # rows of each text, int64 (N,)
    lengths: np.ndarray  # tokens of each text before it was shortened, int64 (N,)
    lost: np.ndarray  # of them, those that are in no row, int64 (N,)

    @property
    def cut(self) -> int:
        """How many texts lost tokens."""
        return int(np.count_nonzero(self.lost))

    @property
    def is_whole(self) -> bool:
        """Whether each text is in one row, with all its tokens."""
        return len(self.rows) == len(self.counts) and not self.cut

    def distinct(self) -> tuple["TokenizedTexts", list[int]]:
        """Return the texts without repetitions, and the index of each text among them."""
        keys, rows = self.by_ids()
        numbers = {key: number for number, key in enumerate(keys)}
        chosen = list(numbers.values())
        indices = {key: index for index, key in enumerate(numbers)}
        distinct = join_rows(rows.values(), self.lengths[chosen], self.lost[chosen])
        return distinct, [indices[key] for key in keys]

    def by_ids(self) -> tuple[list[Key], dict[Key, list[TokenIds]]]:
        """Return what identifies each text's rows, and the rows of each distinct text."""
        ends = np.cumsum(self.counts)
        texts = [self.rows[start:end] for start, end in zip(ends - self.counts, ends, strict=True)]
        keys = [tuple((row.ids.tobytes(), row.segment_b_start) for row in text) for text in texts]
        return keys, dict(zip(keys, texts, strict=True))


def shorten(
    tokenizer: Tokenizer,
    rows: Sequence[TokenIds],
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int,
    long_texts: LongTexts,
    max_windows: int | None = None,
) -> TokenizedTexts:
    """Return encoded texts in rows of at most `max_length` tokens, special tokens included.

    Of a pair, the longer text loses tokens first. Windows are windows of the longer text; each has
    the first tokens of the shorter one too, at most half as many as there is room for. Of a text in
    more than `max_windows` windows, that many are kept, evenly spread. Raises InputError for a
    length without room for a text, and unless `max_windows` is 1 or more.
    """
    if max_windows is not None and (type(max_windows) is not int or max_windows < 1):
        raise InputError(f"max_windows is {max_windows!r}; give None or 1 or more")
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    long = np.flatnonzero(lengths > max_length).tolist()
    owners = tokenizer.owners([texts[i] for i in long], pairs and [pairs[i] for i in long])
    result, lost = [[row] for row in rows], np.zeros_like(lengths)
    for number, owner in zip(long, owners, strict=True):
        special = np.flatnonzero(owner < 0)
        room = max_length - len(special)
        if room < (long_texts.how == "windows"):
            raise InputError(
                f"--max-length is {max_length}; {len(special)} are special tokens alone"
            )
        parts = [np.flatnonzero(owner == text) for text in range(1 if pairs is None else 2)]
        kept, lost[number] = shorten_text(parts, room, long_texts, max_windows)
        result[number] = [_take(rows[number], [special, *indices]) for indices in kept]
    return join_rows(result, lengths, lost)


def how_shortened(long_texts: LongTexts, max_length: int) -> str:
    """Return what happened to the texts that lost tokens, such as "cut at 128 tokens"."""
    return {
        "cut": f"cut at {max_length} tokens",
        "head-tail": f"reduced to their first and last tokens, {max_length} in all",
        "windows": f"cut to fit windows of {max_length} tokens",
    }[long_texts.how]


def shorten_text(
    parts: Sequence[np.ndarray], room: int, long_texts: LongTexts, max_windows: int | None
) -> tuple[list[list[np.ndarray]], int]:
    """Return the rows of a text or pair with more than `room` tokens, and how many tokens are lost.

    `parts` are the tokens of its one or two texts, (T,) each; those of a row are some of each.
    """
    lengths = [len(part) for part in parts]
    longest = max(range(len(parts)), key=lambda text: (lengths[text], text))
    shorter = min(*lengths, room // 2) if len(parts) == 2 else 0
    rooms = [room - shorter if text == longest else shorter for text in range(len(parts))]
    reduce = head_and_tail if long_texts.how == "head-tail" else first_tokens
    kept = [reduce(part, space) for part, space in zip(parts, rooms, strict=True)]
    if long_texts.how != "windows":
        return [kept], sum(lengths) - room
    space = rooms[longest]
    starts = window_starts(lengths[longest], space, long_texts.stride, max_windows)
    rows = [list(kept) for _ in starts]
    for row, start in zip(rows, starts, strict=True):
        row[longest] = parts[longest][start : start + space]
    covered = space + int(np.minimum(np.diff(starts), space).sum())
    return rows, sum(lengths) - covered - shorter


def first_tokens(tokens: np.ndarray, room: int) -> np.ndarray:
    """Return the first `room` tokens."""
    return tokens[:room]


def head_and_tail(tokens: np.ndarray, room: int) -> np.ndarray:
    """Return `room` tokens, a quarter of them from the start and the others from the end."""
    head = round(HEAD * room)
    if len(tokens) <= room:
        return tokens
    return np.append(tokens[:head], tokens[len(tokens) - (room - head) :])


def window_starts(
    length: int, room: int, stride: int | None = None, limit: int | None = None
) -> np.ndarray:
    """Return where the windows of a text with more than `room` tokens start.

    Windows start `stride` tokens apart (default: half a window; at most a window), except the last,
    which ends with the text.
    """
    step = min(stride or -(-room // 2), room)
    starts = np.append(np.arange(0, length - room, step), length - room)
    if limit is not None and len(starts) > limit:
        starts = starts[np.linspace(0, len(starts) - 1, limit).round().astype(int)]
    return starts


def _take(row: TokenIds, indices: Sequence[np.ndarray]) -> TokenIds:
    """Return the tokens of a row that have these indices."""
    index = np.sort(np.concatenate(indices))
    return TokenIds(row.ids[index], int(np.searchsorted(index, row.segment_b_start)))


def join_rows(
    texts: Iterable[Sequence[TokenIds]],
    lengths: np.ndarray | None = None,
    lost: np.ndarray | None = None,
) -> TokenizedTexts:
    """Return texts that are given by their rows. Without `lengths` and `lost`, they are whole."""
    texts = list(texts)
    rows = [row for text in texts for row in text]
    counts = np.array([len(text) for text in texts], dtype=np.int64)
    if lengths is None or lost is None:
        lengths = np.array([sum(map(len, text)) for text in texts], dtype=np.int64)
        lost = np.zeros_like(lengths)
    return TokenizedTexts(rows, counts, lengths, lost)
