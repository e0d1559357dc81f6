"""Proves what stands between file and batches: the parts, the split, the lengths.

The rooms are minibert.data.splits and minibert.data.datasets. Run: pytest tests/test_parts.py
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import WORDS, tiny_config, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from minibert.commands.options import RunSettings
from minibert.data.datasets import AUTO_CUT, length_histogram, shortest_length, tokenize
from minibert.data.examples import Columns, Examples
from minibert.data.splits import (
    Splits,
    describe_splits,
    digests,
    read_splits,
    repeated_texts,
    split_examples,
)
from minibert.data.tokenizer import Tokenizer
from minibert.errors import InputError

SHARES = (70, 15, 15)


def examples(*counts: int, paired: bool = False) -> Examples:
    """Examples with so many rows of each class, no text twice."""
    labels = [f"class {i}" for i, count in enumerate(counts) for _ in range(count)]
    texts = [f"text {i}" for i in range(len(labels))]
    return Examples(
        "some.csv", texts, pairs=list(texts) if paired else None, labels=labels, places=list(texts)
    )


def table(path: Path, *counts: int, word: str = "text") -> Path:
    """A CSV file with so many rows of each class."""
    rows = [f"{word} {i} {j},class {i}" for i, count in enumerate(counts) for j in range(count)]
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


# --- split

enough = st.lists(st.integers(7, 40), min_size=2, max_size=5)
any_counts = st.lists(st.integers(1, 30), min_size=2, max_size=5)


@settings(deadline=None, max_examples=60)
@given(enough, st.integers(0, 2**32 - 1))
def test_a_split_has_every_row_once_and_every_class_in_proportion(counts, seed):
    whole = examples(*counts)
    parts = split_examples(whole, SHARES, seed=seed)
    assert sorted(text for part in parts for text in part.texts) == sorted(whole.texts)
    for part, share in zip(parts, SHARES, strict=True):
        assert abs(len(part) - len(whole) * share / 100) <= 2
        for label, count in Counter(whole.labels).items():
            assert abs(part.labels.count(label) - count * share / 100) < 2


@settings(deadline=None, max_examples=60)
@given(any_counts, st.sampled_from([SHARES, (70, 15), (8, 1, 1), (98, 1, 1)]))
def test_every_class_stands_in_every_part_or_there_is_no_split(counts, shares):
    try:
        parts = split_examples(examples(*counts), shares, seed=0)
    except InputError:
        return
    assert all(len(set(part.labels)) == len(counts) for part in parts)


def test_a_row_keeps_its_text_second_text_label_and_place():
    whole = examples(20, 30, paired=True)
    known = set(zip(whole.texts, whole.pairs, whole.labels, whole.places, strict=True))
    for part in split_examples(whole, SHARES, seed=1):
        assert set(zip(part.texts, part.pairs, part.labels, part.places, strict=True)) <= known


def test_rows_that_were_left_out_are_told_of_once():
    whole = examples(20, 30)
    whole.dropped = ["some.csv, line 9: column text: is empty"]
    assert [part.dropped for part in split_examples(whole, SHARES, seed=1)] == [
        whole.dropped,
        [],
        [],
    ]


def test_one_seed_gives_one_split_and_another_seed_another():
    whole = examples(20, 30)
    texts = [split_examples(whole, SHARES, seed=seed)[0].texts for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("counts", [(20, 30), (10, 77, 13)])
def test_the_split_is_scikit_learn_s_with_that_seed(counts):
    """So a split made elsewhere with the seed 2021, 70:15:15, can be had again."""
    whole = examples(*counts)
    train, rest, _, rest_labels = train_test_split(
        whole.texts, whole.labels, random_state=2021, test_size=0.3, stratify=whole.labels
    )
    validation, test = train_test_split(
        rest, random_state=2021, test_size=0.5, stratify=rest_labels
    )
    found = split_examples(whole, SHARES, seed=2021)
    assert [part.texts for part in found] == [train, validation, test]


@pytest.mark.parametrize(
    ("counts", "shares"),
    [((50, 2), SHARES), ((50, 3), SHARES), ((11, 2), SHARES[:2]), ((999, 3), (98, 1, 1))],
)
def test_a_class_with_too_few_rows_is_named_with_what_to_do(counts, shares):
    with pytest.raises(InputError) as error:
        split_examples(examples(*counts), shares, seed=0)
    assert f"the class 'class 1' has {counts[1]} of {sum(counts)} rows, too few" in str(error.value)
    assert "add rows, merge classes, or give --validation and --test" in str(error.value)


# --- parts


def test_one_file_is_split_in_three(tmp_path):
    parts = read_splits(RunSettings(data=str(table(tmp_path / "one.csv", 20, 20))))
    assert {name: len(part) for name, part in parts.named().items()} == {
        "train": 28,
        "validation": 6,
        "test": 6,
    }


def test_with_a_validation_file_there_is_no_test_part(tmp_path):
    data, other = table(tmp_path / "a.csv", 9, 9), table(tmp_path / "b.csv", 2, 2, word="other")
    parts = read_splits(RunSettings(data=str(data), validation=str(other)))
    assert (len(parts.train), len(parts.validation), parts.test) == (18, 4, None)
    assert set(parts.named()) == {"train", "validation"}


def test_with_a_test_file_validation_is_split_off_the_training_file(tmp_path):
    data, other = table(tmp_path / "a.csv", 17, 17), table(tmp_path / "b.csv", 2, 2, word="other")
    parts = read_splits(RunSettings(data=str(data), test=str(other)))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (28, 6, 4)
    assert parts.test.texts[0] == "other 0 0"


def test_with_all_three_files_nothing_is_split(tmp_path):
    files = [table(tmp_path / f"{n}.csv", n, n, word=f"w{n}") for n in (5, 2, 3)]
    data, validation, test = map(str, files)
    parts = read_splits(RunSettings(data=data, validation=validation, test=test))
    assert [len(part) for part in parts.named().values()] == [10, 4, 6]


def test_one_class_is_said_before_the_split_is_tried(tmp_path):
    with pytest.raises(InputError, match="has the one label 'class 0'; a classifier needs two"):
        read_splits(RunSettings(data=str(table(tmp_path / "one.csv", 1))))


def test_parts_with_and_without_a_second_text_do_not_go_together(tmp_path):
    data = table(tmp_path / "a.csv", 9, 9)
    (tmp_path / "b.csv").write_text("text_a,text_b,label\nx,y,class 0\n")
    with pytest.raises(InputError, match=r"b.csv: no text column found; .* --text-column"):
        read_splits(RunSettings(data=str(data), validation=str(tmp_path / "b.csv")))
    (tmp_path / "c.csv").write_text("text_a,text_b,label\n" + "x,y,0\nv,w,1\n" * 9)
    with pytest.raises(InputError, match=r"a.csv: the model reads two texts; .* --pair-column"):
        read_splits(
            RunSettings(data=str(tmp_path / "c.csv"), validation=str(data), text_column=None)
        )


def test_texts_that_stand_in_training_too_are_counted():
    train = Examples("train", ["a", "b", "c"], labels=["x", "x", "y"])
    part = Examples("test", ["b", "d", "b", "A"], labels=["y", "x", "y", "x"])
    assert repeated_texts(part, train) == 2
    train.pairs, part.pairs = ["1", "2", "3"], ["2", "2", "other", "1"]
    assert repeated_texts(part, train) == 1  # only both texts together are the same question


def test_what_was_read_left_out_and_repeated_is_printed(capsys):
    train = examples(3, 2)
    validation = Examples("other.csv", ["text 0", "new"], labels=["class 0", "class 1"])
    train.columns = Columns("body", None, "class")
    validation.dropped = ["other.csv, line 4: column text: is empty"]
    describe_splits(Splits(train, validation, None))
    assert capsys.readouterr().out.splitlines() == [
        "columns: text 'body', label 'class'",
        "train: 5 texts (class 0 3, class 1 2) from some.csv",
        "validation: 2 texts (class 0 1, class 1 1) from other.csv",
        "  left out 1 bad rows: other.csv, line 4: column text: is empty",
        "  1 of them also stand in the training part: their score is no proof",
        "test: none given, and none split off since a validation part is given",
    ]


def test_nothing_that_a_terminal_obeys_is_printed(capsys):
    """A right-to-left override and a joiner are letters of honest labels, and shown as escapes."""
    train = Examples("a\x1b[2J.csv", ["x", "y"], labels=["a\u202e", "b\u200d"])
    train.columns = Columns("te\x07xt", None, "la\x9bbel")
    train.dropped = ["a\x1b[2J.csv, line 4: column \x1b]0;title\x07: is empty"]
    describe_splits(Splits(train, train, None))
    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable()
    assert all(
        name in said for name in (r"a\u202e 1", r"b\u200d 1", r"\x1b]0;title", r"\x1b[2J.csv")
    )


def test_digests_tell_each_part_that_is_not_as_before():
    whole = examples(20, 20)
    parts = Splits(*split_examples(whole, SHARES, seed=0))
    before = digests(parts)
    assert set(before) == {"train", "validation", "test"}
    assert digests(Splits(*split_examples(whole, SHARES, seed=0))) == before
    parts.test.labels[0] = "class 9"
    after = digests(parts)
    assert {name for name in before if before[name] != after[name]} == {"test"}


# --- lengths

lengths_of_texts = st.lists(st.integers(2, 300), min_size=1, max_size=400).map(np.array)


@settings(deadline=None)
@given(lengths_of_texts)
def test_auto_is_the_shortest_length_that_cuts_at_most_one_text_in_a_hundred(lengths):
    chosen = shortest_length(lengths)
    assert np.mean(lengths > chosen) <= AUTO_CUT == 0.01
    assert chosen == 3 or np.mean(lengths > chosen - 1) > AUTO_CUT


@settings(deadline=None)
@given(lengths_of_texts, st.integers(3, 300))
def test_the_histogram_adds_up_and_marks_the_bars_with_texts_that_are_cut(lengths, longest):
    title, *bars = length_histogram(lengths, longest).splitlines()
    assert f"(median {int(np.median(lengths))})" in title
    assert 1 <= len(bars) <= 10
    total, next_first = 0, 1
    for bar in bars:
        words = bar.replace("#", "").split()
        (first, last), count = map(int, words[0].split("-")), int(words[1])
        inside = lengths[(lengths >= first) & (lengths <= last)]
        assert first == next_first and len(inside) == count
        assert bar.endswith("cut") == bool((inside > longest).any())
        assert ("#" in bar) == bool(count)
        total, next_first = total + count, last + 1
    assert total == len(lengths)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.from_folder(write_checkpoint(tmp_path / "model"), tiny_config("distilbert"))


def long_and_short() -> Splits:
    """150 texts of 2 words, one of 5 and one of 9; each token a word, and two special ones."""
    texts = ["good film"] * 150 + [" ".join(WORDS[:5]), " ".join(WORDS[:9])]
    part = Examples("here", texts, labels=["a", "b"] * 76, places=texts)
    return Splits(part, part.take(range(149, 152), "there"), None)


def test_texts_are_cut_at_the_length_given(tokenizer, capsys):
    chosen, rows = tokenize(long_and_short(), tokenizer, longest=8, positions=40)
    assert chosen == 8
    assert [len(row) for row in rows["validation"]] == [4, 7, 8]
    printed = capsys.readouterr().out
    assert "  train: 1 of 152 texts cut at 8 tokens (0.7%)" in printed
    assert "  validation: 1 of 3 texts cut at 8 tokens (33.3%)" in printed


def test_auto_looks_at_the_training_texts_and_the_model_s_positions(tokenizer):
    chosen, rows = tokenize(long_and_short(), tokenizer, longest=None, positions=40)
    assert chosen == 7 and max(len(row) for row in rows["train"]) == 7
    chosen, _ = tokenize(long_and_short(), tokenizer, longest=None, positions=6)
    assert chosen == 6


def test_more_tokens_than_the_model_has_positions_is_refused(tokenizer):
    with pytest.raises(InputError, match="--max-length is 41; this model has 40 positions"):
        tokenize(long_and_short(), tokenizer, longest=41, positions=40)
