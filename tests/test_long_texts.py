"""Texts over the model's length: cut, reduced to their ends, or in windows.

Run: pytest tests/test_long_texts.py
"""

from pathlib import Path

import numpy as np
import pytest
from helpers import WORDS, tiny_config, write_checkpoint
from hypothesis import assume, given
from hypothesis import strategies as st

from minibert.data.long_texts import (
    TokenizedTexts,
    head_and_tail,
    shorten,
    shorten_text,
    window_starts,
)
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError
from minibert.model.config import LongTexts

WINDOWS, HEAD_TAIL = LongTexts("windows"), LongTexts("head-tail")


@pytest.fixture(params=["bert", "distilbert"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    """A tokenizer with token types, and one without; a word of WORDS is one token."""
    config = tiny_config(request.param)
    return Tokenizer.from_folder(write_checkpoint(tmp_path / "model", request.param), config)


def words(start: int, stop: int) -> str:
    return " ".join(WORDS[start:stop])


def found(tokenizer: Tokenizer, texts: list[str], pairs: list[str] | None = None, **options):
    """Texts in rows of at most 8 tokens."""
    options = {"max_length": 8, "long_texts": WINDOWS, **options}
    return shorten(tokenizer, tokenizer.encode(texts, pairs), texts, pairs, **options)


def assert_rows(
    texts: TokenizedTexts, tokenizer: Tokenizer, parts: list[str], pairs: list[str] | None = None
) -> None:
    """The rows are what the tokenizer makes of these parts of the texts."""
    expected = tokenizer.encode(parts, pairs)
    assert [row.ids.tolist() for row in texts.rows] == [row.ids.tolist() for row in expected]
    starts = [row.segment_b_start for row in texts.rows]
    assert starts == [row.segment_b_start for row in expected]


@given(
    length=st.integers(2, 60),
    room=st.integers(1, 59),
    stride=st.none() | st.integers(1, 59),
    limit=st.none() | st.integers(1, 9),
)
def test_windows_cover_a_text_from_end_to_end(length, room, stride, limit):
    room = min(room, length - 1)
    starts = window_starts(length, room, stride)
    assert (starts[0], starts[-1]) == (0, length - room)
    steps = np.diff(starts)
    assert (steps > 0).all() and (steps <= room).all()  # in order, no token left out
    assert (steps[:-1] == min(stride or -(-room // 2), room)).all()
    some = window_starts(length, room, stride, limit)
    assert len(some) == min(limit or len(starts), len(starts))
    assert [start for start in starts if start in some] == some.tolist()
    if len(some) > 1:
        assert (some[0], some[-1]) == (0, length - room)


def test_windows_overlap_by_half_unless_a_stride_is_given():
    assert window_starts(7, 4).tolist() == [0, 2, 3]
    assert window_starts(7, 4, 3).tolist() == [0, 3]
    assert window_starts(9, 4, 99).tolist() == [0, 4, 5]  # no token is left out


def test_head_tail_keeps_128_and_382_tokens_of_a_long_text_as_in_the_paper():
    tokens = head_and_tail(np.arange(2000), 510)
    assert tokens[:128].tolist() == [*range(128)]
    assert tokens[128:].tolist() == [*range(2000 - 382, 2000)]
    assert head_and_tail(np.arange(7), 9).tolist() == [*range(7)]


@given(first=st.integers(1, 30), second=st.integers(1, 30), room=st.integers(2, 29))
def test_of_a_pair_the_longer_text_loses_tokens_first(first, second, room):
    assume(first + second > room)
    lengths = np.array([first, second])
    parts = [np.arange(length) for length in lengths]
    longer = int(second >= first)
    shorter_room = min(lengths[1 - longer], room // 2)
    for how in (LongTexts(), HEAD_TAIL):
        ((*kept,), lost) = (*shorten_text(parts, room, how, None)[0], first + second - room)
        assert [len(kept[longer]), len(kept[1 - longer])] == [room - shorter_room, shorter_room]
        assert shorten_text(parts, room, how, None)[1] == lost
    rows, lost = shorten_text(parts, room, WINDOWS, None)
    assert all(len(a) + len(b) == room for a, b in rows)
    assert len(np.unique(np.concatenate([row[longer] for row in rows]))) == lengths[longer]
    assert {tuple(row[1 - longer]) for row in rows} == {tuple(range(shorter_room))}
    assert lost == lengths[1 - longer] - shorter_room


def test_a_window_is_encoded_as_a_text_of_its_own(tokenizer):
    texts = found(tokenizer, [words(0, 6), words(0, 11), words(3, 4)])
    parts = [words(0, 6), words(0, 6), words(3, 9), words(5, 11), words(3, 4)]
    assert_rows(texts, tokenizer, parts)
    assert texts.counts.tolist() == [1, 3, 1]
    assert texts.cut == 0 and texts.lost.tolist() == [0, 0, 0]


def test_head_tail_drops_the_middle(tokenizer):
    texts = found(tokenizer, [words(0, 6), words(0, 11)], long_texts=HEAD_TAIL)
    ends = f"{words(0, 2)} {words(7, 11)}"
    assert_rows(texts, tokenizer, [words(0, 6), ends])
    assert texts.counts.tolist() == [1, 1]
    assert texts.lost.tolist() == [0, 5] and texts.cut == 1


def test_cut_keeps_the_first_tokens(tokenizer):
    texts = found(tokenizer, [words(0, 6), words(0, 11)], long_texts=LongTexts())
    assert_rows(texts, tokenizer, [words(0, 6), words(0, 6)])
    assert texts.counts.tolist() == [1, 1]
    assert texts.lost.tolist() == [0, 5] and texts.cut == 1


def test_windows_of_a_pair_are_of_its_longer_text(tokenizer):
    texts, pairs = (
        [words(0, 2), words(0, 8), words(0, 9)],
        [words(9, 10), words(9, 10), words(9, 30)],
    )
    tokenized = found(tokenizer, texts, pairs)
    one = [words(9, 10)]
    assert_rows(
        tokenized,
        tokenizer,
        [words(0, 2), words(0, 4), words(2, 6), words(4, 8), *[words(0, 2)] * 10],
        [*one * 4, *(words(9 + x, 12 + x) for x in (0, 2, 4, 6, 8, 10, 12, 14, 16, 18))],
    )
    assert tokenized.counts.tolist() == [1, 3, 10]
    assert tokenized.lost.tolist() == [0, 0, 7]  # of the last pair's shorter text


def test_of_many_windows_the_first_the_last_and_some_between_are_kept(tokenizer):
    texts = found(tokenizer, [words(0, 30)], max_windows=3)
    assert_rows(texts, tokenizer, [words(0, 6), words(12, 18), words(24, 30)])
    assert texts.lost.tolist() == [12]


@pytest.mark.parametrize(
    ("how", "length", "special"), [("cut", 2, 3), ("head-tail", 2, 3), ("windows", 3, 3)]
)
def test_a_length_without_room_for_a_text_is_refused(tokenizer, how, length, special):
    with pytest.raises(InputError, match=f"--max-length is {length}; {special} are special tokens"):
        found(tokenizer, ["good"], ["bad"], max_length=length, long_texts=LongTexts(how))


def test_equal_texts_are_found_with_all_their_windows(tokenizer):
    long, other = words(0, 11), words(0, 12)
    texts, places = found(tokenizer, [long, "good", other, long, "good"]).distinct()
    assert places == [0, 1, 2, 0, 1]
    assert_rows(
        texts,
        tokenizer,
        [
            *(words(0, 6), words(3, 9), words(5, 11)),
            "good",
            *(words(0, 6), words(3, 9), words(6, 12)),
        ],
    )
    assert texts.counts.tolist() == [3, 1, 3]
