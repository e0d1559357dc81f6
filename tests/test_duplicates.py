"""Repeated texts: equal ones by their keys, nearly equal ones by MinHash.

Run: pytest tests/test_duplicates.py
"""

import random
import unicodedata

import numpy as np
import pytest
from helpers import SHARED, WORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.data.duplicates import TextIndex, first_rows, normalize, text_keys
from minibert.data.examples import Examples, load_examples
from minibert.data.minhash import SHINGLE, SIMILAR, nearest, signatures, similarity

REVIEW = "the room was clean and the staff was kind but i would never go back to this place"
letters = st.text("ab", min_size=1, max_size=3)


def split(*rows: tuple[str, object], **options: object) -> Examples:
    """Examples with these texts and labels; the place of a row is its number."""
    texts, labels = (list(column) for column in zip(*rows, strict=True))
    places = [f"some.csv, line {number}" for number in range(len(rows))]
    return Examples("some.csv", texts, labels=labels, places=places, **options)


def shingles(text: str) -> set[str]:
    text = text.ljust(SHINGLE)
    return {text[start : start + SHINGLE] for start in range(len(text) - SHINGLE + 1)}


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


# --- equal up to case, spaces and punctuation


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Good film!", "good  film"),
        ("can't", "cant"),
        ("wi-fi\n", "WiFi"),
        ("STRASSE", "straße"),
        ("Cafe\u0301", "café"),  # two characters or one for the accented letter
        ("ｆｕｌｌ width", "full width"),
        ("soft\u00adhyphen", "soft hyphen"),
        (" :-) ", ":-)"),
    ],
)
def test_texts_are_equal_up_to_case_spaces_and_punctuation(one, other):
    assert normalize(one) == normalize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("good", "god"), ("cafe", "café"), ("fine 👍", "fine 👎"), (":-)", ":-("), ("$5", "5")],
)
def test_letters_accents_symbols_and_lone_punctuation_are_kept(one, other):
    assert normalize(one) != normalize(other)


@settings(max_examples=500)
@given(st.text())
def test_normalizing_twice_changes_nothing_more(text):
    assert normalize(normalize(text)) == normalize(text)


@given(st.text(st.characters(categories=("Ll", "Lo", "Nd")), min_size=1))
def test_normalizing_never_empties_a_text_of_letters(text):
    assert normalize(text)


# --- rows that repeat another one


@given(st.lists(letters, min_size=1), st.lists(letters, min_size=1), st.randoms())
def test_duplicates_are_found_in_every_order(mine, theirs, order):
    def counts() -> tuple[int, int]:
        one, other = (TextIndex(split(*((x, "a") for x in texts))) for texts in (mine, theirs))
        return one.duplicates().count, one.duplicates_of(other).count

    expected = len(mine) - len(set(mine)), sum(text in theirs for text in mine)
    assert counts() == expected
    order.shuffle(mine)
    order.shuffle(theirs)
    assert counts() == expected


def test_a_row_is_counted_with_the_first_row_it_repeats():
    found = TextIndex(split(("Fun", "a"), ("dull", "b"), ("fun!", "b"), ("Fun", "a"))).duplicates()
    assert (found.count, found.identical, found.contradicting) == (2, 1, 1)
    assert [str(x) for x in found.first] == [
        "some.csv, line 2 and line 0 (labels b and a): 'fun!'",
        "some.csv, line 3 and line 0: 'Fun'",
    ]
    assert found.first_contradicting == found.first[:1]


def test_a_pair_repeats_only_if_both_texts_do():
    whole = split(("a", 0), ("A", 0), ("a", 0))
    whole.pairs = ["b", "B.", "c"]
    assert TextIndex(whole).duplicates().count == 1
    whole.texts, whole.pairs = ["ab", "a"], ["c", "bc"]
    assert len(set(text_keys(whole).tolist())) == 2  # the border between the texts counts


@pytest.mark.parametrize(
    ("task", "labels", "contradicting"),
    [
        ("single-label", ("spam", "Spam"), 0),
        ("single-label", ("spam", "ham"), 1),
        ("multi-label", (("a", "b"), ("b", "a")), 0),
        ("multi-label", (("a",), ()), 1),
        ("regression", ((1.0,), (1.0,)), 0),
        ("regression", ((1.0, 2.0), (1.0, 2.5)), 1),
    ],
)
def test_labels_contradict_if_they_mean_different_things(task, labels, contradicting):
    found = TextIndex(split(*(("same text", label) for label in labels), task=task)).duplicates()
    assert (found.count, found.contradicting) == (1, contradicting)
    assert all(str(duplicate) for duplicate in found.first)


def test_a_number_and_the_name_it_stands_for_do_not_contradict():
    one, other = split(("same", "1"), names={"1": "good"}), split(("same", "good"))
    assert TextIndex(one).duplicates_of(TextIndex(other)).contradicting == 0


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_first_rows_are_those_of_a_list(keys, among):
    found = first_rows(np.array(keys), np.array(among))
    assert found.tolist() == [among.index(key) if key in among else -1 for key in keys]


# --- nearly equal


def edited(text: str, count: int, random: random.Random) -> str:
    """Return the text with `count` words replaced."""
    words = text.split()
    for place in random.sample(range(len(words)), count):
        words[place] = random.choice(WORDS)
    return " ".join(words)


def test_the_estimated_similarity_is_the_true_one_on_average():
    """Each estimate is a mean of 128 draws: its deviation is at most 0.044."""
    draw = random.Random(3)
    ones = [" ".join(draw.choices(WORDS, k=15)) for _ in range(300)]
    others = [edited(text, draw.randint(0, 8), draw) for text in ones]
    true = np.array([jaccard(*pair) for pair in zip(ones, others, strict=True)])
    found = similarity(signatures(ones, 300), signatures(others, 300))
    assert true.min() < 0.4 and true.max() == 1
    assert abs((found - true).mean()) < 0.01
    assert np.abs(found - true).max() < 0.2


def test_a_signature_does_not_depend_on_the_other_texts():
    texts = ["", "a", "four", "fives", REVIEW, REVIEW * 2000, "é😀" * 9, "the end"]
    together = signatures(texts, len(texts))
    for number, text in enumerate(texts):
        assert (signatures([text], 1)[0] == together[number]).all()


def test_short_texts_are_one_shingle():
    rows = signatures(["good", "good ", "goof"], 3)
    assert similarity(rows[0], rows[1]) == 1 and similarity(rows[0], rows[2]) < 0.1


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=False))
def test_a_nearly_equal_text_is_found_in_every_order(order):
    texts = [" ".join(order.choices(WORDS, k=14)) for _ in range(40)]
    texts += [REVIEW, REVIEW.replace("place", "palace")]
    assert jaccard(*texts[-2:]) > 0.85
    order.shuffle(texts)
    found, similar = nearest(signatures(texts, len(texts)))
    ends = [number for number, text in enumerate(texts) if text.startswith("the room was clean an")]
    assert found[ends].tolist() == ends[::-1] and (similar[ends] > SIMILAR).all()
    assert (found[similar == 0] == -1).all()


def test_nearly_equal_texts_of_two_splits_are_found_and_equal_ones_are_not_counted_again():
    train = split((REVIEW, "a"), ("a slow and boring plot", "b"))
    test = split((REVIEW + "!", "a"), (REVIEW + "s", "b"), ("warm soup, cold room", "a"))
    one, other = TextIndex(test, near=True), TextIndex(train, near=True)
    found = one.near_duplicates_of(other)
    assert (found.count, found.contradicting) == (1, 1)
    assert found.first[0].text == REVIEW + "s" and found.first[0].other == "some.csv, line 0"
    assert one.duplicates_of(other).count == 1
    assert one.near_duplicates().count == 2  # each of the two is near the other one


def test_no_text_is_near_another_in_a_split_of_one():
    assert TextIndex(split(("alone", "a")), near=True).near_duplicates().count == 0


# --- real data


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_duplicates_of_sst2_are_those_of_a_plain_count():
    """SST-2's training file has 66,978 different texts; this one counts without our keys."""
    train, dev = (load_examples([SHARED / "data" / "sst2" / f"{x}.tsv"]) for x in ("train", "dev"))

    def plain(text: str) -> str:
        folded = unicodedata.normalize("NFKD", text.lower())
        kept = "".join(c for c in folded if unicodedata.category(c)[0] not in "PZC")
        return kept or "".join(folded.split())

    known = [plain(text) for text in train.texts]
    index = TextIndex(train)
    found = index.duplicates()
    assert (found.count, found.identical) == (len(known) - len(set(known)), 67_349 - 66_978)
    leaks = TextIndex(dev).duplicates_of(index)
    assert leaks.count == sum(plain(text) in set(known) for text in dev.texts)
