"""BertClassifier, BertRegressor and BertFeatures follow scikit-learn's conventions.

Run: pytest tests/test_scikit_learn.py
"""

import pickle
import string
from typing import Any

import numpy as np
import pytest
import torch
from helpers import WORDS, write_checkpoint
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from minibert import BertClassifier, BertFeatures, BertRegressor, InputError, fit, load
from minibert.integrations import estimator

QUICK: dict[str, Any] = {
    "max_length": 24,
    "pooling": "mean",
    "epochs": 8,
    "batch_size": 4,
    "encoder_lr": 3e-3,
    "head_lr": 1e-2,
    "random_state": 0,
    "device": "cpu",
    "precision": "fp32",
}
TEXTS = [f"the {a} was {b} {c}" for a in WORDS[2:4] for b in WORDS[:2] for c in WORDS[20:29]]
LABELS = ["yes" if " good " in text else "no" for text in TEXTS]
LETTERS = string.ascii_lowercase


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("sklearn") / "checkpoint"))


@pytest.fixture(scope="module")
def fitted(checkpoint) -> BertClassifier:
    return BertClassifier(checkpoint, **QUICK).fit(TEXTS, LABELS)


# --- scikit-learn's own checks


class OnNumbers:
    """Gives an estimator numbers as text, a letter for each, since the checks give numbers."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        for kind in (tags.classifier_tags, tags.regressor_tags):
            if kind:
                kind.poor_score = True  # two epochs on letters; other tests check learning
        return tags

    def words(self, X: Any, *, reset: bool) -> list[str]:
        numbers = np.asarray(validate_data(self, X, reset=reset, dtype="numeric"), dtype=float)
        halves = np.clip(np.round(2 * numbers), -6, 6).astype(int) + 6
        return [" ".join(LETTERS[(13 * i + x) % 26] for i, x in enumerate(row)) for row in halves]

    def fit(self, X: Any, y: Any = None, **more: Any) -> Any:
        return super().fit(self.words(X, reset=True), y, **more)  # type: ignore[misc]


class ClassifierOnNumbers(OnNumbers, BertClassifier):
    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict_proba(self.words(X, reset=False))

    def predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict(self.words(X, reset=False))


class RegressorOnNumbers(OnNumbers, BertRegressor):
    def predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict(self.words(X, reset=False))


class FeaturesOnNumbers(OnNumbers, BertFeatures):
    def transform(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().transform(self.words(X, reset=False))


def checks() -> list[Any]:
    """Every check of every estimator; the model is set in the test."""
    small = {"max_length": 24, "device": "cpu", "precision": "fp32"}
    quicker = {"epochs": 2, "batch_size": 32, "random_state": 0, **small}
    estimators = (
        ClassifierOnNumbers(**quicker),
        RegressorOnNumbers(**quicker),
        FeaturesOnNumbers(**small),
    )
    return [
        pytest.param(estimator, check, id=f"{type(estimator).__name__}-{number}-{name_of(check)}")
        for estimator in estimators
        for number, (_, check) in enumerate(estimator_checks_generator(estimator))
    ]


def name_of(check: Any) -> str:
    return getattr(check, "func", check).__name__


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), checks())
def test_scikit_learn_checks(checkpoint, estimator, check):
    check(clone(estimator).set_params(model=checkpoint))


# --- a classifier


def test_it_learns_texts_and_answers_in_the_classes_of_y(fitted):
    assert fitted.classes_.tolist() == ["no", "yes"]
    assert fitted.predict(TEXTS).tolist() == LABELS
    assert fitted.score(TEXTS, LABELS) == 1.0
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 8
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]


@pytest.mark.parametrize("classes", [[3, 10], [False, True], [-1.0, 1.0], ["10", "9"]])
def test_classes_may_be_numbers(checkpoint, classes):
    y = np.array(classes)[[int(label == "yes") for label in LABELS]]
    classifier = BertClassifier(checkpoint, **QUICK).fit(np.array(TEXTS), y)
    np.testing.assert_array_equal(classifier.predict(TEXTS), y)
    assert classifier.predict(TEXTS).dtype == y.dtype


def test_a_table_of_two_columns_is_pairs(checkpoint):
    pairs = [[text, "it was good"] for text in TEXTS[:20]] + [["go back", t] for t in TEXTS[20:]]
    labels = ["first"] * 20 + ["second"] * (len(TEXTS) - 20)
    classifier = BertClassifier(checkpoint, **QUICK).fit(pairs, labels)
    assert classifier.score(pairs, labels) == 1.0
    swapped = [[b, a] for a, b in pairs]
    assert not np.allclose(classifier.predict_proba(swapped), classifier.predict_proba(pairs))


def test_a_table_of_0_and_1_is_several_labels(checkpoint):
    y = np.array([[" good " in text, "film" in text, " the " in f" {text} "] for text in TEXTS])
    classifier = BertClassifier(checkpoint, **{**QUICK, "epochs": 20}).fit(TEXTS, y.astype(int))
    assert classifier.classes_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(classifier.predict(TEXTS), y)
    assert classifier.predict_proba(TEXTS).shape == y.shape


def test_the_same_random_state_gives_the_same_model_and_leaves_torch_s_alone(checkpoint, fitted):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = BertClassifier(checkpoint, **QUICK).fit(TEXTS, LABELS)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    other = BertClassifier(checkpoint, **{**QUICK, "random_state": 1}).fit(TEXTS, LABELS)
    assert not np.allclose(other.predict_proba(TEXTS), fitted.predict_proba(TEXTS))


@pytest.mark.parametrize(("fraction", "trained", "keep_best"), [(0.25, 27, True), (0.0, 36, False)])
def test_validation_rows_are_not_trained_on(checkpoint, monkeypatch, fraction, trained, keep_best):
    seen = {}

    def look(model, train, validation, *options, **more):
        seen.update(train=train, validation=validation, keep_best=more["keep_best"])
        return fit(model, train, validation, *options, **more)

    monkeypatch.setattr(estimator, "fit", look)
    quicker = {**QUICK, "epochs": 1, "validation_fraction": fraction}
    BertClassifier(checkpoint, **quicker).fit(TEXTS, LABELS)
    assert len(seen["train"]) == trained and seen["keep_best"] is keep_best
    if fraction:
        assert len(seen["validation"]) == len(TEXTS) - trained
        assert sorted(np.bincount(seen["validation"].labels)) == [4, 5]


def test_a_pickle_holds_the_files_of_a_model_folder(fitted, tmp_path):
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    names = {"config.json", "model.safetensors", "tokenizer.json"}
    assert names <= fitted.__getstate__()["classifier_"].keys()
    copy.classifier_.save(tmp_path)
    assert load(str(tmp_path)).predict(TEXTS) == LABELS


@pytest.mark.parametrize(
    ("X", "y", "problem"),
    [
        (TEXTS, ["yes"] * len(TEXTS), "y has 1 class"),
        (TEXTS, LABELS[:-1], "X has 36 rows and y 35"),
        ([[text] * 3 for text in TEXTS], LABELS, r"X has the shape \(36, 3\)"),
        ([*TEXTS[:-1], None], LABELS, r"texts\[35\] is None, not a string"),
    ],
)
def test_what_cannot_be_used_is_named(checkpoint, X, y, problem):
    with pytest.raises(InputError, match=problem):
        BertClassifier(checkpoint, **QUICK).fit(X, y)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was(checkpoint):
    classifier = BertClassifier(checkpoint, **{**QUICK, "epochs": 1}).fit(TEXTS, LABELS)
    before = classifier.predict_proba(TEXTS)
    with pytest.raises(InputError):
        classifier.fit([*TEXTS[:-1], None], list("abc" * 12))
    assert classifier.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(classifier.predict_proba(TEXTS), before)


def test_a_search_may_give_numbers_of_numpy(checkpoint):
    numbers = {"epochs": np.int64(1), "head_lr": np.float32(1e-2), "freeze": np.bool_(True)}
    classifier = BertClassifier(checkpoint, **{**QUICK, **numbers}).fit(TEXTS, LABELS)
    assert classifier.n_iter_ == 1


def test_thresholds_and_temperature_that_are_set_later_count(checkpoint):
    classifier = BertClassifier(checkpoint, **{**QUICK, "epochs": 1}).fit(TEXTS, LABELS)
    labels = ["yes", *["no"] * (len(TEXTS) - 1)]
    data = classifier.classifier_.dataset(TEXTS, labels)
    classifier.classifier_.calibrate(data)
    classifier.classifier_.tune_thresholds(data, how="recall=1")
    copy = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_allclose(copy.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert copy.predict(TEXTS).tolist() == classifier.predict(TEXTS).tolist()


# --- other estimators, and scikit-learn around them


def test_a_regressor_answers_in_the_unit_of_y(checkpoint):
    prices = [1000.0 if label == "yes" else 200.0 for label in LABELS]
    regressor = BertRegressor(checkpoint, **{**QUICK, "epochs": 16}).fit(TEXTS, prices)
    assert regressor.predict(TEXTS).shape == (len(TEXTS),)
    assert regressor.score(TEXTS, prices) > 0.9
    both = BertRegressor(checkpoint, **QUICK).fit(TEXTS, np.transpose([prices, prices]))
    assert both.predict(TEXTS[:3]).shape == (3, 2)


def test_features_are_those_that_the_head_reads(checkpoint, fitted):
    features = BertFeatures(checkpoint, max_length=24, device="cpu", precision="fp32").fit(TEXTS)
    values = features.transform(TEXTS)
    assert values.shape == (len(TEXTS), 12) and values.dtype == np.float32
    assert features.get_feature_names_out()[-1] == "bertfeatures11"
    encoder = features.classifier_.model
    batch = features.classifier_.dataset(TEXTS[:1]).batch([0])
    with torch.no_grad():
        np.testing.assert_allclose(values[:1], encoder.features(*batch.inputs), atol=1e-5)
    assert features.transform([]).shape == (0, 12)


def test_features_in_a_pipeline(checkpoint):
    features = BertFeatures(checkpoint, max_length=24, device="cpu", precision="fp32")
    pipeline = make_pipeline(features, LogisticRegression(C=100.0))
    assert cross_val_score(pipeline, TEXTS, LABELS, cv=3).mean() > 0.9


def test_a_classifier_inside_scikit_learn_s_own(checkpoint):
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    classifier = BertClassifier(checkpoint, **QUICK)
    X, y = np.array(TEXTS), np.array(LABELS)
    search = GridSearchCV(
        make_pipeline(lower, classifier), {"bertclassifier__epochs": [1, 8]}, cv=2
    )
    assert search.fit(X, y).score(X, y) == 1.0
    assert search.best_params_ == {"bertclassifier__epochs": 8}
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(X, y)
    assert calibrated.predict_proba(X).shape == (len(X), 2)
    voting = VotingClassifier([("a", classifier), ("b", clone(classifier))], voting="soft")
    assert voting.fit(X, y).score(X, y) == 1.0
