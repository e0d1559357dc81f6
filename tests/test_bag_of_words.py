"""The cheap baseline equals scikit-learn's one-vs-rest and ridge, within its bounds.

Run: pytest tests/test_bag_of_words.py
"""

import numpy as np
import pytest
import torch
from helpers import WORDS
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from minibert.evaluation import bag_of_words
from minibert.evaluation.bag_of_words import C, fit_bag_of_words, words_and_pairs


def random_texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=random.integers(2, 9))) for _ in range(count)]


TEXTS, OTHERS = random_texts(60), random_texts(17, seed=1)
FILM = np.array(["film" in text for text in TEXTS], dtype=int)
NUMBERS = np.array([len(text) % 3 for text in TEXTS])


def one_hot(numbers: np.ndarray) -> np.ndarray:
    return np.eye(numbers.max() + 1)[numbers]


def test_words_are_cut_at_marks_and_chinese_and_japanese_characters() -> None:
    assert words_and_pairs("Not GOOD!") == ["not", "good", "!", "not good", "good !"]
    assert words_and_pairs("iPhone很好用か") == [
        *("iphone", "很", "好", "用", "か"),
        *("iphone 很", "很 好", "好 用", "用 か"),
    ]
    assert words_and_pairs("été 12_3") == ["été", "12_3", "été 12_3"]


@pytest.mark.parametrize("numbers", [FILM, NUMBERS])
def test_classes_have_the_probabilities_of_scikit_learn(numbers: np.ndarray) -> None:
    """With two classes and with three."""
    model = fit_bag_of_words(TEXTS, one_hot(numbers), "single-label")
    theirs = OneVsRestClassifier(LogisticRegression(C=C, solver="liblinear", tol=0.01))
    theirs.fit(model.vectorizer.transform(TEXTS), numbers)
    expected = theirs.predict_proba(model.vectorizer.transform(OTHERS))
    if expected.shape[1] == 1:
        expected = np.hstack([1 - expected, expected])
    found = torch.from_numpy(model.logits(OTHERS)).softmax(dim=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_several_classes_each_have_a_model() -> None:
    targets = np.stack([FILM, NUMBERS == 2, NUMBERS == 0], axis=1).astype(np.float32)
    model = fit_bag_of_words(TEXTS, targets, "multi-label")
    theirs = OneVsRestClassifier(LogisticRegression(C=C, solver="liblinear", tol=0.01))
    theirs.fit(model.vectorizer.transform(TEXTS), targets)
    expected = theirs.predict_proba(model.vectorizer.transform(OTHERS))
    found = torch.from_numpy(model.logits(OTHERS)).sigmoid()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_class_of_no_text_or_of_all_texts_has_its_frequency() -> None:
    targets = np.stack([0 * FILM, FILM, 0 * FILM + 1], axis=1)
    found = fit_bag_of_words(TEXTS, targets, "multi-label").logits(OTHERS)
    assert (found[:, 0] < -4).all() and (found[:, 2] > 4).all()
    assert np.ptp(found[:, 1]) > 0


@pytest.mark.parametrize("columns", [1, 2])
def test_numbers_are_those_of_ridge_regression(columns: int) -> None:
    targets = np.stack([1000.0 + FILM, NUMBERS], axis=1)[:, :columns].astype(np.float32)
    model = fit_bag_of_words(TEXTS, targets, "regression")
    theirs = Ridge(solver="lsqr", tol=1e-8).fit(model.vectorizer.transform(TEXTS), targets)
    expected = theirs.predict(model.vectorizer.transform(OTHERS)).reshape(-1, columns)
    np.testing.assert_allclose(model.logits(OTHERS), expected, atol=1e-3)


def test_it_learns_what_single_words_tell() -> None:
    model = fit_bag_of_words(TEXTS, one_hot(FILM), "single-label")
    predicted = model.logits(OTHERS).argmax(axis=1)
    assert (predicted == ["film" in text for text in OTHERS]).mean() > 0.9
    assert model.rows == len(TEXTS)


@pytest.mark.parametrize(("name", "outputs"), [("CHARACTERS", 1), ("WORK", 3)])
def test_of_too_much_text_it_reads_a_part(
    monkeypatch: pytest.MonkeyPatch, name: str, outputs: int
) -> None:
    half = sum(map(len, TEXTS)) // 2
    monkeypatch.setattr(bag_of_words, name, half * outputs)
    targets = one_hot(NUMBERS)[:, :outputs]
    models = [fit_bag_of_words(TEXTS, targets, "multi-label") for _ in range(2)]
    assert 20 < models[0].rows < 40
    np.testing.assert_array_equal(*[model.logits(OTHERS) for model in models])


def test_it_has_at_most_so_many_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag_of_words, "FEATURES", 11)
    model = fit_bag_of_words(TEXTS, one_hot(FILM), "single-label")
    assert model.weights.shape == (11, 2)
