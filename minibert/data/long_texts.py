"""Texts over `max_length` tokens: cut, reduced to their first and last tokens, or in windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibert.data.batches import TokenIds
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.model.config import LongTexts

HEAD = 0.25  # of the tokens that head-tail keeps: 128 of 510 in Sun et al. 2019, section 5.3.1


@dataclass(frozen=True)
class TokenizedTexts:
    """The token ids of N texts: a row for each text, or several for a text in windows."""

    rows: list[TokenIds]
    counts: np.ndarray  # rows of each text, int64 (N,)
    cut: int = 0  # texts that lost tokens
    lost: int = 0  # tokens that are in no row

    def distinct(self) -> tuple["TokenizedTexts", list[int]]:
        """Return the texts without repetitions, and the place of each text among them."""
        ends = np.cumsum(self.counts)
        texts = [self.rows[start:end] for start, end in zip(ends - self.counts, ends, strict=True)]
        keys = [tuple((row.ids.tobytes(), row.segment_b_start) for row in text) for text in texts]
        distinct = dict(zip(keys, texts, strict=True))
        places = {key: place for place, key in enumerate(distinct)}
        return _joined(list(distinct.values())), [places[key] for key in keys]


def shorten(
    tokenizer: Tokenizer,
    rows: list[TokenIds],
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int,
    long_texts: LongTexts,
    max_windows: int | None = None,
) -> TokenizedTexts:
    """Return encoded texts in rows of at most `max_length` tokens, special tokens included.

    Of a pair, the longer text loses tokens first. Windows are windows of the longer text; each has
    the shorter one too, of which at most half the room is kept. Of a text in more than
    `max_windows` windows, that many are kept, evenly spread. Raises InputError for a length without
    room, and for a stride that would leave tokens out.
    """
    long = [number for number, row in enumerate(rows) if len(row) > max_length]
    if long_texts.how == "cut":
        lengths = [len(rows[number]) for number in long]
        tokenizer.truncate(rows, texts, pairs, max_length=max_length)
        lost = sum(lengths) - sum(len(rows[number]) for number in long)
        return _joined([[row] for row in rows], cut=len(long), lost=lost)
    frame = tokenizer.frame(paired=pairs is not None)
    room = max_length - sum(map(len, frame))
    _check_room(room, max_length, long_texts, paired=pairs is not None)
    sides = [[column[number] for number in long] for column in (texts, pairs) if column is not None]
    encoded = [[row.ids for row in tokenizer.encode(x, special_tokens=False)] for x in sides]
    result, cut, lost = [[row] for row in rows], 0, 0
    for number, sequences in zip(long, zip(*encoded, strict=True), strict=True):
        lengths = [len(sequence) for sequence in sequences]
        kept = kept_tokens(lengths, room, long_texts, max_windows)
        result[number] = [
            _framed([ids[x] for ids, x in zip(sequences, places, strict=True)], frame, tokenizer)
            for places in kept
        ]
        covered = sum(len(np.unique(np.concatenate(x))) for x in zip(*kept, strict=True))
        cut += covered < sum(lengths)
        lost += sum(lengths) - covered
    return _joined(result, cut=cut, lost=lost)


def kept_tokens(
    lengths: Sequence[int], room: int, long_texts: LongTexts, max_windows: int | None
) -> list[list[np.ndarray]]:
    """Return, for each row of a long text or pair, the places of the tokens of each of its texts.

    `lengths` are the tokens of the text or of the two texts, `room` the tokens of a row.
    """
    shorter = min(min(lengths), room // 2) if len(lengths) == 2 else 0
    longest = int(np.argmax(lengths))
    rooms = [room - shorter if text == longest else shorter for text in range(len(lengths))]
    if long_texts.how == "head-tail":
        return [[head_tail(n, space) for n, space in zip(lengths, rooms, strict=True)]]
    first = [np.arange(space) for space in rooms]
    found = windows(lengths[longest], rooms[longest], long_texts.stride, max_windows)
    return [[*first[:longest], window, *first[longest + 1 :]] for window in found]


def head_tail(length: int, room: int) -> np.ndarray:
    """Return the places of a text's first and last tokens, `room` of them or all."""
    if length <= room:
        return np.arange(length)
    head = round(HEAD * room)
    return np.concatenate([np.arange(head), np.arange(length - (room - head), length)])


def windows(
    length: int, room: int, stride: int | None = None, limit: int | None = None
) -> list[np.ndarray]:
    """Return the places of the tokens of each window of a text with more than `room` tokens.

    Windows begin `stride` tokens apart (default: half a window), except the last, which ends with
    the text.
    """
    step = min(stride or -(-room // 2), room)
    starts = np.append(np.arange(0, length - room, step), length - room)
    if limit is not None and len(starts) > limit:
        starts = starts[np.linspace(0, len(starts) - 1, limit).round().astype(int)]
    return [np.arange(start, start + room) for start in starts]


def _check_room(room: int, max_length: int, long_texts: LongTexts, *, paired: bool) -> None:
    """Raise InputError for a length or a stride with which no window covers a text."""
    if room < 1 + paired:
        raise InputError(
            f"--max-length is {max_length}, of which {max_length - room} are special tokens; "
            f"--long-texts {long_texts.how} needs more"
        )
    if long_texts.stride is not None and long_texts.stride > room:
        raise InputError(
            f"--stride is {long_texts.stride}; a window of {max_length} tokens has {room} of the "
            "text, and more would leave tokens out"
        )


def _framed(
    sequences: Sequence[np.ndarray], frame: Sequence[np.ndarray], tokenizer: Tokenizer
) -> TokenIds:
    """Return one or two sequences of ids with the special tokens around them."""
    parts = [frame[0]]
    for sequence, after in zip(sequences, frame[1:], strict=True):
        parts += [sequence, after]
    ids = np.concatenate(parts)
    typed = len(sequences) == 2 and tokenizer.token_types
    return TokenIds(ids, sum(map(len, parts[:3])) if typed else len(ids))


def _joined(texts: Sequence[Sequence[TokenIds]], *, cut: int = 0, lost: int = 0) -> TokenizedTexts:
    """Return texts that are given by their rows."""
    counts = np.array([len(rows) for rows in texts], dtype=np.int64)
    return TokenizedTexts([row for rows in texts for row in rows], counts, cut, lost)
