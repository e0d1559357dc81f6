"""Splits: read from files or split off one file, stratified; and what is printed about them.

Run: pytest tests/test_splits.py
"""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from minibert.data.classes import class_ids, class_names
from minibert.data.columns import Columns
from minibert.data.examples import Examples
from minibert.data.options import DataOptions
from minibert.data.splits import (
    Splits,
    describe_splits,
    read_splits,
    repeated_texts,
    split_examples,
)
from minibert.errors import InputError

RATIOS = (70, 15, 15)


def examples(*counts: int, paired: bool = False) -> Examples:
    """Examples with `counts` rows of each class, no text twice."""
    labels = [f"class {i}" for i, count in enumerate(counts) for _ in range(count)]
    texts = [f"text {i}" for i in range(len(labels))]
    return Examples(
        "some.csv", texts, pairs=list(texts) if paired else None, labels=labels, places=list(texts)
    )


def table(path: Path, *counts: int, word: str = "text") -> Path:
    """Write a CSV file with `counts` rows of each class."""
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
    splits = split_examples(whole, RATIOS, seed=seed)
    assert sorted(text for split in splits for text in split.texts) == sorted(whole.texts)
    for split, ratio in zip(splits, RATIOS, strict=True):
        assert abs(len(split) - len(whole) * ratio / 100) <= 2
        for label, count in Counter(whole.labels).items():
            assert abs(split.labels.count(label) - count * ratio / 100) < 2


@settings(deadline=None, max_examples=60)
@given(any_counts, st.sampled_from([RATIOS, (70, 15), (8, 1, 1), (98, 1, 1)]))
def test_every_split_has_every_class_or_splitting_raises(counts, ratios):
    try:
        splits = split_examples(examples(*counts), ratios, seed=0)
    except InputError:
        return
    assert all(len(set(split.labels)) == len(counts) for split in splits)


def test_a_row_keeps_its_text_second_text_label_and_place():
    whole = examples(20, 30, paired=True)
    known = set(zip(whole.texts, whole.pairs, whole.labels, whole.places, strict=True))
    for split in split_examples(whole, RATIOS, seed=1):
        assert set(zip(split.texts, split.pairs, split.labels, split.places, strict=True)) <= known


def test_dropped_rows_are_kept_with_the_training_split():
    whole = examples(20, 30)
    whole.dropped = ["some.csv, line 9: column text: is empty"]
    assert [split.dropped for split in split_examples(whole, RATIOS, seed=1)] == [
        whole.dropped,
        [],
        [],
    ]


def test_the_split_depends_on_the_seed_only():
    whole = examples(20, 30)
    texts = [split_examples(whole, RATIOS, seed=seed)[0].texts for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("counts", [(20, 30), (10, 77, 13)])
def test_the_split_equals_scikit_learn_s_with_the_same_seed(counts):
    """A split that was made elsewhere with seed 2021 and 70:15:15 can be reproduced."""
    whole = examples(*counts)
    train, rest, _, rest_labels = train_test_split(
        whole.texts, whole.labels, random_state=2021, test_size=0.3, stratify=whole.labels
    )
    validation, test = train_test_split(
        rest, random_state=2021, test_size=0.5, stratify=rest_labels
    )
    found = split_examples(whole, RATIOS, seed=2021)
    assert [split.texts for split in found] == [train, validation, test]


@pytest.mark.parametrize(
    ("counts", "ratios"),
    [((50, 2), RATIOS), ((50, 3), RATIOS), ((11, 2), RATIOS[:2]), ((999, 3), (98, 1, 1))],
)
def test_a_class_with_too_few_rows_raises_with_what_to_do(counts, ratios):
    with pytest.raises(InputError) as error:
        split_examples(examples(*counts), ratios, seed=0)
    assert f"the class 'class 1' has {counts[1]} of {sum(counts)} rows, too few" in str(error.value)
    assert "add rows, merge classes, or give --validation and --test" in str(error.value)


# --- files


def test_one_file_is_split_into_three(tmp_path):
    splits = read_splits(DataOptions(data=str(table(tmp_path / "one.csv", 20, 20))))
    assert {name: len(split) for name, split in splits.named().items()} == {
        "train": 28,
        "validation": 6,
        "test": 6,
    }


def test_with_a_validation_file_there_is_no_test_split(tmp_path):
    data, other = table(tmp_path / "a.csv", 9, 9), table(tmp_path / "b.csv", 2, 2, word="other")
    splits = read_splits(DataOptions(data=str(data), validation=str(other)))
    assert (len(splits.train), len(splits.validation), splits.test) == (18, 4, None)
    assert set(splits.named()) == {"train", "validation"}


def test_with_a_test_file_validation_is_split_off_the_training_file(tmp_path):
    data, other = table(tmp_path / "a.csv", 17, 17), table(tmp_path / "b.csv", 2, 2, word="other")
    splits = read_splits(DataOptions(data=str(data), test=str(other)))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (28, 6, 4)
    assert splits.test.texts[0] == "other 0 0"


def test_with_all_three_files_nothing_is_split(tmp_path):
    files = [table(tmp_path / f"{n}.csv", n, n, word=f"w{n}") for n in (5, 2, 3)]
    data, validation, test = map(str, files)
    splits = read_splits(DataOptions(data=data, validation=validation, test=test))
    assert [len(split) for split in splits.named().values()] == [10, 4, 6]


def test_a_single_class_raises_before_the_file_is_split(tmp_path):
    with pytest.raises(InputError, match="has only the label 'class 0'; it needs two or more"):
        read_splits(DataOptions(data=str(table(tmp_path / "one.csv", 1))))


def test_single_texts_and_pairs_in_one_run_raise(tmp_path):
    data = table(tmp_path / "a.csv", 9, 9)
    (tmp_path / "b.csv").write_text("text_a,text_b,label\nx,y,class 0\n")
    with pytest.raises(InputError, match=r"b.csv: no text column found; .* --text-column"):
        read_splits(DataOptions(data=str(data), validation=str(tmp_path / "b.csv")))
    (tmp_path / "c.csv").write_text("text_a,text_b,label\n" + "x,y,0\nv,w,1\n" * 9)
    with pytest.raises(InputError, match=r"a.csv: the model reads two texts; .* --pair-column"):
        read_splits(DataOptions(data=str(tmp_path / "c.csv"), validation=str(data)))


def test_texts_that_are_also_in_training_are_counted():
    train = Examples("train", ["a", "b", "c"], labels=["x", "x", "y"])
    split = Examples("test", ["b", "d", "b", "A"], labels=["y", "x", "y", "x"])
    assert repeated_texts(split, train) == 2
    train.pairs, split.pairs = ["1", "2", "3"], ["2", "2", "other", "1"]
    assert repeated_texts(split, train) == 1  # a pair repeats only if both texts do


def test_the_description_says_what_was_read_dropped_and_repeated():
    train = examples(3, 2)
    validation = Examples("other.csv", ["text 0", "new"], labels=["class 0", "class 1"])
    train.columns = Columns("body", None, "class")
    validation.dropped = ["other.csv, line 4: column text: is empty"]
    assert describe_splits(Splits(train, validation, None)).splitlines() == [
        "columns: text 'body', label 'class'",
        "train: 5 texts (class 0 3, class 1 2) from some.csv",
        "validation: 2 texts (class 0 1, class 1 1) from other.csv",
        "  dropped 1 bad rows: other.csv, line 4: column text: is empty",
        "  1 of them are also in the training split; scores on them do not measure generalization",
        "test: none; give --test (with a validation file, no test split is split off)",
    ]


def test_the_description_has_no_control_characters():
    """Labels may contain a right-to-left override or a joiner; they are shown as escapes."""
    train = Examples("a\x1b[2J.csv", ["x", "y"], labels=["a\u202e", "b\u200d"])
    train.columns = Columns("te\x07xt", None, "la\x9bbel")
    train.dropped = ["a\x1b[2J.csv, line 4: column \x1b]0;title\x07: is empty"]
    said = describe_splits(Splits(train, train, None))
    assert said.replace("\n", "").isprintable()
    assert all(
        name in said for name in (r"a\u202e 1", r"b\u200d 1", r"\x1b]0;title", r"\x1b[2J.csv")
    )


def test_fingerprints_change_for_the_split_that_changed():
    whole = examples(20, 20)
    splits = Splits(*split_examples(whole, RATIOS, seed=0))
    before = splits.fingerprints()
    assert set(before) == {"train", "validation", "test"}
    assert Splits(*split_examples(whole, RATIOS, seed=0)).fingerprints() == before
    splits.test.labels[0] = "class 9"
    after = splits.fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"test"}


# --- labels of other files


@pytest.mark.parametrize("role", ["validation", "test"])
def test_numbers_in_another_file_mean_what_the_training_file_s_label_text_says(tmp_path, role):
    """Not the position of a class: these labels begin at 1."""
    named = [("a", 1, "bad"), ("b", 2, "good")]
    rows = [f"{word} {i},{label},{name}" for i in range(9) for word, label, name in named]
    (tmp_path / "train.csv").write_text("text,label,label_text\n" + "\n".join(rows) + "\n")
    (tmp_path / "other.csv").write_text("text,label\nx,2\ny,1\n")
    data, other = str(tmp_path / "train.csv"), str(tmp_path / "other.csv")
    splits = read_splits(DataOptions(data, **{role: other}))
    classes = class_names(splits.train)
    assert classes == ("bad", "good")
    assert class_ids(splits.named()[role], classes).tolist() == [1, 0]


def test_a_column_that_may_be_a_second_text_is_described_with_the_flags(tmp_path):
    rows = [f"title {i},text {i},{i % 2}" for i in range(20)]
    (tmp_path / "news.csv").write_text("Title,text,label\n")
    with open(tmp_path / "news.csv", "a") as file:
        file.write("\n".join(rows) + "\n")
    splits = read_splits(DataOptions(str(tmp_path / "news.csv")))
    assert splits.train.pairs is None
    assert (
        "  one text per row; for 'Title' as second text give --text-column text --pair-column Title"
    ) in describe_splits(splits).splitlines()


def test_labels_that_differ_only_in_case_are_described():
    train = Examples("here", list("abcd"), labels=["Spam", "ham", "spam", "HAM2"])
    assert (
        "  labels that differ only in case are separate classes: Spam, spam; "
        "write them alike if they are one class"
    ) in describe_splits(Splits(train, train, None)).splitlines()
    train.labels = ["spam", "ham"] * 2
    assert "case" not in describe_splits(Splits(train, train, None))


def test_every_class_of_several_labels_is_in_the_training_split():
    labels = [("common", f"rare {i}") if i % 3 == 0 else ("common",) for i in range(60)]
    found = Examples(
        "some.csv",
        [f"text {i}" for i in range(60)],
        labels=labels,
        task="multi-label",
        places=[""] * 60,
        columns=Columns("text", label="labels"),
    )
    train, *others = split_examples(found, (70, 15, 15), seed=1)
    assert {name for label in train.labels for name in label} == {x for y in labels for x in y}
    assert all(len(split) for split in others) and len(train) + sum(map(len, others)) == 60
