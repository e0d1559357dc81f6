"""Splits: read from files or split off one file, stratified; leaks dropped.

Run: pytest tests/test_splits.py
"""

import tracemalloc
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
from minibert.data.splits import Splits, read_splits, split_examples, without_leaks
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


def test_a_long_label_takes_the_memory_of_one():
    """An array of strings has the length of the longest one for each: 4 GB here."""
    whole = examples(20_000, 20_000)
    whole.labels[0] = "x" * 25_000
    tracemalloc.start()
    with pytest.raises(InputError, match="has 1 of 40000 rows, too few"):
        split_examples(whole, RATIOS, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


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


def test_fingerprints_change_for_the_split_that_changed():
    whole = examples(20, 20)
    splits = Splits(*split_examples(whole, RATIOS, seed=0))
    before = splits.fingerprints()
    assert set(before) == {"train", "validation", "test"}
    assert Splits(*split_examples(whole, RATIOS, seed=0)).fingerprints() == before
    splits.test.labels[0] = "class 9"
    after = splits.fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"test"}


# --- leaks


def leaking() -> Splits:
    """Two of six training texts are in validation, a third one is in test."""
    train, validation, test = examples(3, 3), examples(1, 1), examples(2, 2)
    validation.texts = ["text 0!", "new"]
    train.texts[4] = "TEXT 0"
    test.texts = ["other", "news", "text  1", "more"]
    train.dropped, train.possible_pair = ["line 9: is blank"], "title"
    return Splits(train, validation, test)


def test_dropped_leaks_are_those_of_training_and_nothing_else_changes():
    before = leaking()
    found = without_leaks(before, "drop")
    assert found.train.texts == ["text 2", "text 3", "text 5"] and found.leaks_dropped == 3
    assert found.train.labels == ["class 0", "class 1", "class 1"]
    assert (found.train.dropped, found.train.possible_pair) == (["line 9: is blank"], "title")
    assert found.validation is before.validation and found.test is before.test
    assert without_leaks(found, "error").train.texts == found.train.texts  # nothing leaks now


def test_leaks_are_an_error_on_request_with_the_first_two_places():
    with pytest.raises(InputError) as error:
        without_leaks(leaking(), "error")
    assert str(error.value) == (
        "--leaks error: 2 training texts are also in the validation split, the first at text 0 and "
        "text 0; drop them with --leaks drop"
    )


def test_dropping_all_texts_of_a_class_raises():
    splits = leaking()
    splits.test.texts[:3] = ["text 1", "text 2", "text 3"]
    with pytest.raises(InputError, match="are all texts of a class; give other files"):
        without_leaks(splits, "drop")


@pytest.mark.parametrize(("leaks", "rows"), [("keep", 34), ("drop", 33)])
def test_the_option_says_what_happens_to_leaks(tmp_path, leaks, rows):
    data, other = table(tmp_path / "a.csv", 17, 17), table(tmp_path / "b.csv", 2, 2, word="other")
    with open(other, "a") as file:
        file.write("Text 0 16.,class 0\n")
    options = DataOptions(str(data), validation=str(other), leaks=leaks)
    assert len(read_splits(options).train) == rows


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


def test_all_folds_have_the_same_fingerprints_and_a_validation_file_has_its_own(reviews, tmp_path):
    """So a series of folds notices that a file changed between two of them."""
    alone = [read_splits(DataOptions(str(reviews), fold=(k, 3))).fingerprints() for k in (1, 2)]
    assert alone[0] == alone[1] and alone[0].keys() == {"rows"}
    file = tmp_path / "validation.csv"
    file.write_text("text,label\nso good,positive\nso bad,negative\n")
    options = DataOptions(str(reviews), validation=str(file), fold=(1, 3))
    found = read_splits(options).fingerprints()
    assert found.keys() == {"rows", "validation"}
    file.write_text("text,label\nso good,negative\nso bad,positive\n")
    changed = read_splits(options).fingerprints()
    assert {name for name in found if found[name] != changed[name]} == {"validation"}
