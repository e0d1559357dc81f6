"""The data report: each thing that it finds happens once; a clean data set gets a short one.

Run: pytest tests/test_report.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import VOCABULARY, WORDS, strict_json, tiny_config, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

import minibert
from minibert.data.characters import main_script, script, wrongly_encoded
from minibert.data.check import check_data, check_splits, similar_classes
from minibert.data.columns import Columns
from minibert.data.examples import Examples
from minibert.data.options import DataOptions
from minibert.data.report import FEW
from minibert.data.splits import Splits, read_splits
from minibert.data.token_report import CANDIDATES, SPELLED, report_tokens, unknown_warning
from minibert.data.tokenizer import Tokenizer


def examples(*counts: int) -> Examples:
    """Examples with `counts` rows of each class, no text twice or nearly twice."""
    labels = [f"class {i}" for i, count in enumerate(counts) for _ in range(count)]
    texts = [f"{WORDS[i % 35]} {WORDS[i * 7 % 33]} {i * i} text" for i in range(len(labels))]
    places = [f"some.csv, line {number}" for number in range(2, len(labels) + 2)]
    return Examples("some.csv", texts, labels=labels, places=places, columns=Columns("text"))


def others(*texts: str, source: str = "other.csv") -> Examples:
    """A split of these texts, in the two classes in turn."""
    labels = [f"class {i % 2}" for i in range(len(texts))]
    places = [f"{source}, line {number}" for number in range(2, len(texts) + 2)]
    return Examples(source, list(texts), labels=labels, places=places)


def table(file: Path, *rows: str) -> str:
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(file)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.from_folder(write_checkpoint(tmp_path / "model"), tiny_config("distilbert"))


# --- what is printed


def test_a_clean_data_set_has_a_line_for_each_split():
    splits = Splits(examples(12, 11), others("quite new", "also new"), others("last", "least"))
    expected = [
        "columns: text 'text'",
        "train: 23 texts (class 0 12, class 1 11) from some.csv",
        "validation: 2 texts (class 0 1, class 1 1) from other.csv",
        "test: 2 texts (class 0 1, class 1 1) from other.csv",
    ]
    assert str(check_splits(splits)).splitlines() == expected
    assert str(check_splits(splits, near=True)).splitlines() == expected


def test_duplicates_leaks_and_dropped_rows_are_listed_with_their_places():
    train, validation = examples(12, 11), others("a new text", "A new text.", "CLEAN")
    train.texts[5] = "clean"
    validation.dropped = ["other.csv, line 9: column text: is empty"]
    assert str(check_splits(Splits(train, validation, None))).splitlines() == [
        "columns: text 'text'",
        "train: 23 texts (class 0 12, class 1 11) from some.csv",
        "validation: 3 texts (class 0 2, class 1 1) from other.csv",
        "  dropped 1 bad rows (is empty 1)",
        "    other.csv, line 9: column text: is empty",
        "  repeat an earlier text (up to case, spaces and punctuation): 1 (1 with another label)",
        "    other.csv, line 3 and line 2 (labels class 1 and class 0): 'A new text.'",
        "  also in the training split (up to case, spaces and punctuation): 1",
        "    other.csv, line 4 and some.csv, line 7: 'CLEAN'",
        "    scores on them do not measure generalization; see --leaks",
        "test: none; give --test (with a validation file, no test split is split off)",
    ]


def test_a_full_report_has_near_duplicates_short_texts_and_what_two_other_splits_share():
    train = examples(12, 11)
    train.texts[3] = "the room was clean and the staff was kind and rude"
    validation = others("The room was clean; and the staff was kind and rud", "same", "no")
    report = check_splits(Splits(train, validation, others("SAME", "ok then")), near=True)
    assert report.splits["validation"].near_leaks.count == 1
    assert report.splits["validation"].short.first == ("other.csv, line 4: 'no'",)
    assert report.validation_in_test.first[0].text == "SAME"
    lines = str(report).splitlines()
    assert "  nearly in the training split (similarity 0.8 or more): 1" in lines
    assert "  under 3 characters: 1" in lines
    assert lines[-2:] == [
        "  also in the validation split (up to case, spaces and punctuation): 1 (1 with another "
        "label)",
        "    other.csv, line 2 and line 3 (labels class 0 and class 1): 'SAME'",
    ]


def test_leaks_that_were_dropped_are_counted():
    splits = Splits(examples(12, 11), others("new"), None, leaks_dropped=4)
    found = str(check_splits(splits)).splitlines()
    assert "  dropped 4 texts of another split (--leaks drop)" in found


def test_small_absent_and_many_classes_are_named():
    train = examples(30, *[FEW] * 8, FEW - 1)
    report = check_splits(Splits(train, others("first text"), None))
    assert report.small_classes == {"class 9": FEW - 1}
    assert report.splits["validation"].absent_classes == tuple(f"class {i}" for i in range(1, 10))
    lines = str(report).splitlines()
    assert "  classes with under 10 training texts: class 9 9" in lines
    assert "class 7 10, ...; 10 in all, the last class 9 9) from some.csv" in lines[2]
    assert any(line.startswith("  no text of class 1, class 2") for line in lines)


def test_a_class_is_not_absent_if_its_name_or_another_case_is_there():
    train, validation = examples(12, 11), others("new", "newer")
    train.labels = ["0"] * 12 + ["1"] * 11
    train.names = {"0": "class 0", "1": "Class 1"}
    report = check_splits(Splits(train, validation, None))
    assert all(split.absent_classes == () for split in report.splits.values())
    assert report.splits["validation"].classes == {"0": 1, "1": 1}  # as the training split's


def test_classes_that_differ_in_case_alone_are_counted_apart():
    train = examples(12, 11)
    train.labels = ["a"] * 12 + ["A"] * 11
    validation = others("new", "newer", "newest")
    validation.labels = ["a", "A", "A"]
    found = check_splits(Splits(train, validation, None)).splits["validation"]
    assert found.classes == {"A": 2, "a": 1}


def test_labels_that_differ_in_case_or_spaces_are_named():
    assert similar_classes(["Spam", "ham", "spam", "top up", "topup", "HAM2"]) == [
        *("Spam", "spam", "top up", "topup")
    ]
    train = Examples("here", list("abcd"), labels=["Spam", "ham", "spam", "HAM2"], places=[""] * 4)
    assert (
        "  labels that differ only in case or spaces are separate classes: Spam, spam; "
        "write them alike if they are one class"
    ) in str(check_splits(Splits(train, train, None))).splitlines()


def test_a_column_that_may_be_a_second_text_is_named_with_the_flags(tmp_path):
    rows = [f"title {i},text {i},{i % 2}" for i in range(20)]
    data = table(tmp_path / "news.csv", "Title,text,label", *rows)
    assert (
        "  one text per row; for 'Title' as second text give --text-column text --pair-column Title"
    ) in str(check_splits(read_splits(DataOptions(data)))).splitlines()


def test_the_report_has_no_control_characters():
    """Labels may contain a right-to-left override or a joiner; they are shown as escapes."""
    train = Examples("a\x1b[2J.csv", ["x\x1b", "X\x1b"], labels=["a\u202e", "b\u200d"])
    train.columns, train.places = Columns("te\x07xt", None, "la\x9bbel"), ["\x1b]1", "\x1b]2"]
    train.dropped = ["a\x1b[2J.csv, line 4: column \x1b]0;title\x07: is empty"]
    said = str(check_splits(Splits(train, train, None), near=True))
    assert said.replace("\n", "").isprintable()
    assert all(
        name in said for name in (r"a\u202e 1", r"b\u200d 1", r"\x1b]0;title", r"\x1b[2J.csv")
    )


# --- characters


@pytest.mark.parametrize(
    "text", ["cafÃ©", "itâ€™s", "Â£5", "ðŸ˜€", "ÐŸÑ€Ð¸", "it\x92s", "a \ufffd b"]
)
def test_a_wrong_encoding_is_found(text):
    assert wrongly_encoded(f"before it {text} after") is not None


@pytest.mark.parametrize(
    "text", ["café", "it’s", "£5", "😀", "Привет", "NÃO, SÃO!", "„Spaß“", "«CAFÉ»", "voilà…”"]
)
def test_texts_in_the_right_encoding_are_not_suspected(text):
    assert wrongly_encoded(text) is None


@given(st.text(st.characters(min_codepoint=0xA0, max_codepoint=0xFF, categories=("Ll", "Lu"))))
def test_accented_letters_read_in_the_wrong_encoding_are_found(text):
    assert (wrongly_encoded(text.encode().decode("latin-1")) is None) == (text == "")


def test_the_script_of_a_word_is_that_of_its_first_letter_and_of_a_text_that_of_most():
    assert [script(word) for word in ("word", "3слово", "語", "한", "👍", "")] == [
        *("Latin", "Cyrillic", "CJK", "Hangul", "symbols", "symbols")
    ]
    assert [main_script(text) for text in ("5!", "5! ok", "да yes нет", "cinéma", "👍")] == [
        *("symbols", "Latin", "Cyrillic", "Latin", "symbols")
    ]


# --- tokens


@pytest.mark.parametrize("pairs", [False, True])
def test_lengths_cuts_and_unknown_words_are_those_of_a_plain_count(tokenizer, pairs):
    texts = ["good film", "good плохо", "語 and 語", " ".join(WORDS)]
    split = Examples("here", texts, pairs=texts[::-1] if pairs else None)
    found = report_tokens(split, tokenizer)
    lengths = np.array([len(row) for row in tokenizer.encode(split.texts, split.pairs)])
    assert found.tokens == lengths.sum() and found.quantiles["longest"] == lengths.max()
    (cut,) = found.cuts  # the model has 40 positions, fewer than the candidates
    assert cut.max_length == 40 < min(CANDIDATES)
    assert cut.texts == np.mean(lengths > 40)
    assert cut.tokens == sum(max(0, length - 40) for length in lengths) / lengths.sum()
    times = 2 if pairs else 1
    assert found.unknown == 3 * times
    assert found.unknown_words == {"語": 2 * times, "плохо": times}
    assert found.unknown_scripts == {"CJK": 2 * times, "Cyrillic": times}


def test_words_that_are_spelled_letter_by_letter_are_reported(tmp_path):
    folder = write_checkpoint(tmp_path / "model", vocab_size=len(VOCABULARY) + 8)
    with open(folder / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("".join(f"{x}\n##{x}\n" for x in "суп"))
    config = tiny_config("distilbert", vocab_size=len(VOCABULARY) + 8)
    split = Examples("here", ["суп суп", "great film"])
    report = report_tokens(split, Tokenizer.from_folder(folder, config))
    assert report.scripts["Cyrillic"].characters_per_token == 1
    assert report.unknown == 0
    assert (
        "  the model's vocabulary has few words in Cyrillic script: 1.0 characters per token in "
        "1 texts"
    ) in list(report.lines("train"))


def test_texts_without_letters_are_not_words_that_the_vocabulary_lacks(tokenizer):
    report = report_tokens(Examples("here", ["!!!", "5 / 7 ...", "good film"]), tokenizer)
    assert report.scripts["symbols"].characters_per_token < SPELLED
    assert not [line for line in report.lines("train") if "few words" in line]


def test_a_run_warns_if_the_vocabulary_lacks_many_words(tokenizer):
    assert unknown_warning(tokenizer.encode(["good film"] * 99), tokenizer) == []
    rows = tokenizer.encode(["good film"] * 99 + ["語"] * 9)
    assert unknown_warning(rows, tokenizer) == [
        "  2.1% of the training tokens are unknown to the model's vocabulary; "
        "minibert train --check-data says which"
    ]


# --- each task, from files and in Python

TASKS = {
    "single-label": ("text,label", lambda i: f"{['good', 'bad'][i % 2]}"),
    "multi-label": ("text,fun,sad", lambda i: f"{i % 2},{int(i % 3 == 0)}"),
    "regression": ("text,label", lambda i: f"{i / 4}"),
    "pairs": ("text_a,text_b,label", lambda i: f"{['yes', 'no'][i % 2]}"),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_report(tmp_path, tokenizer, task):
    header, label = TASKS[task]
    second = ",second" if task == "pairs" else ""
    rows = [f"{WORDS[i % 35]} {i}{second},{label(i)}" for i in range(60)]
    data = table(tmp_path / "data.csv", header, *rows, f"{WORDS[0]} 0{second},{label(1)}")
    options = {"label_columns": ("fun", "sad")} if task == "multi-label" else {}
    report = check_data(DataOptions(data, **options), tokenizer)
    assert sum(split.rows for split in report.splits.values()) == 61
    splits = report.splits.values()
    found = [x for s in splits for x in (s.duplicates, s.leaks) if x] + [report.validation_in_test]
    assert sum(x.count for x in found) == sum(x.contradicting for x in found) == 1
    assert bool(report.splits["train"].numbers) == (task == "regression")
    assert f"train: {report.splits['train'].rows} texts (" in str(report)
    as_json = strict_json(json.dumps(report.to_json()))
    assert as_json["splits"]["train"]["rows"] == report.splits["train"].rows
    assert as_json["tokens"]["test"]["tokens"] == report.tokens["test"].tokens


def test_bad_rows_and_leaks_do_not_stop_the_check(tmp_path):
    rows = [f"text {i},{['good', 'bad'][i % 2]}" for i in range(30)]
    data = table(tmp_path / "data.csv", "text,label", *rows, ",good", "  ,bad")
    test = table(tmp_path / "test.csv", "text,label", "Text 1,bad", "new,good")
    options = minibert.DataOptions(data, validation=test, leaks="error")
    report = minibert.check_data(options)
    assert report.splits["train"].bad_kinds == {"is empty": 1, "is blank": 1}
    assert report.splits["validation"].leaks.count == 1
    assert "  2 bad rows need --bad-rows drop (is empty 1, is blank 1)" in str(report)
    assert report.tokens is None


def test_check_data_prints_the_report_trains_nothing_and_writes_nothing(
    run_script, checkpoint, reviews
):
    done = run_script("train.py", "--check-data", "--model", checkpoint, "--data", reviews)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("columns: text 'text', label 'label'\ntrain: 42 texts")
    assert "\ntokens of train: " in done.stdout and "epoch" not in done.stdout
    assert list(run_script.place.iterdir()) == []
