"""Texts over the model's length: cut, reduced to their ends, or in windows.

Run: pytest tests/test_long_texts.py
"""

from pathlib import Path

import numpy as np
import pytest
from helpers import WORDS, tiny_config, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from minibert.data.long_texts import TokenizedTexts, head_tail, kept_tokens, shorten, windows
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
    every = windows(length, room, stride)
    assert all(len(window) == room and (np.diff(window) == 1).all() for window in every)
    starts = [int(window[0]) for window in every]
    assert starts == sorted(set(starts)) and starts[0] == 0 and every[-1][-1] == length - 1
    assert (np.unique(np.concatenate(every)) == np.arange(length)).all()
    some = [window.tolist() for window in windows(length, room, stride, limit)]
    assert len(some) == min(limit or len(every), len(every))
    assert [x for x in [window.tolist() for window in every] if x in some] == some
    if len(some) > 1:
        assert (some[0][0], some[-1][-1]) == (0, length - 1)


def test_windows_overlap_by_half_unless_a_stride_is_given():
    assert [x.tolist() for x in windows(7, 4)] == [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert [x.tolist() for x in windows(7, 4, 3)] == [[0, 1, 2, 3], [3, 4, 5, 6]]


def test_head_tail_keeps_128_and_382_tokens_of_a_long_text_as_in_the_paper():
    places = head_tail(2000, 510)
    assert places[:128].tolist() == [*range(128)]
    assert places[128:].tolist() == [*range(2000 - 382, 2000)]
    assert head_tail(7, 9).tolist() == [*range(7)]


@given(first=st.integers(1, 30), second=st.integers(1, 30), room=st.integers(2, 29))
def test_of_a_pair_the_longer_text_loses_tokens_first(first, second, room):
    lengths = [first, second]
    if sum(lengths) <= room:
        return
    ((a, b),) = kept_tokens(lengths, room, HEAD_TAIL, None)
    assert len(a) + len(b) == room
    shorter, longer = sorted([(first, len(a)), (second, len(b))])
    assert shorter[1] == min(shorter[0], room // 2) and longer[1] == room - shorter[1]
    rows = kept_tokens(lengths, room, WINDOWS, None)
    assert all(len(a) + len(b) == room for a, b in rows)
    in_windows, repeated = zip(*rows, strict=True)
    if second > first:
        in_windows, repeated = repeated, in_windows
    assert len(np.unique(np.concatenate(in_windows))) == max(lengths)
    assert {tuple(places) for places in repeated} == {tuple(range(shorter[1]))}


def test_a_window_is_encoded_as_a_text_of_its_own(tokenizer):
    texts = found(tokenizer, [words(0, 6), words(0, 11), words(3, 4)])
    parts = [words(0, 6), words(0, 6), words(3, 9), words(5, 11), words(3, 4)]
    assert_rows(texts, tokenizer, parts)
    assert texts.counts.tolist() == [1, 3, 1]
    assert (texts.cut, texts.lost) == (0, 0)


def test_head_tail_drops_the_middle(tokenizer):
    texts = found(tokenizer, [words(0, 6), words(0, 11)], long_texts=HEAD_TAIL)
    ends = f"{words(0, 2)} {words(7, 11)}"
    assert_rows(texts, tokenizer, [words(0, 6), ends])
    assert (texts.counts.tolist(), texts.cut, texts.lost) == ([1, 1], 1, 5)


def test_cut_keeps_the_first_tokens(tokenizer):
    texts = found(tokenizer, [words(0, 6), words(0, 11)], long_texts=LongTexts())
    assert_rows(texts, tokenizer, [words(0, 6), words(0, 6)])
    assert (texts.counts.tolist(), texts.cut, texts.lost) == ([1, 1], 1, 5)


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
    assert (tokenized.cut, tokenized.lost) == (1, 7)  # of the last pair's shorter text


def test_of_many_windows_the_first_the_last_and_some_between_are_kept(tokenizer):
    texts = found(tokenizer, [words(0, 30)], max_windows=3)
    assert_rows(texts, tokenizer, [words(0, 6), words(12, 18), words(24, 30)])
    assert (texts.cut, texts.lost) == (1, 12)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"long_texts": LongTexts("windows", stride=7)},
            "--stride is 7; a window of 8 tokens has 6",
        ),
        (
            {"max_length": 2},
            "--max-length is 2, of which 2 are special tokens; --long-texts windows",
        ),
        ({"max_length": 2, "long_texts": HEAD_TAIL}, "--long-texts head-tail needs more"),
    ],
)
def test_a_length_or_stride_that_covers_no_text_is_refused(tokenizer, options, problem):
    with pytest.raises(InputError, match=problem):
        found(tokenizer, ["good"], **options)


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
