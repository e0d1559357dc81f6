"""Intervals contain the true figure in 93 to 97 of 100 samples; how they are computed and shown.

Run: pytest tests/test_intervals.py
"""

from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from helpers import a_task, strict_json
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, hamming_loss

from minibert.evaluation import weighted
from minibert.evaluation.intervals import (
    Interval,
    Statistic,
    bootstrap,
    class_intervals,
    f1_interval,
    resample,
    spearman_interval,
    wilson_interval,
)
from minibert.evaluation.multi_label import average_precision
from minibert.files import json_text
from minibert.tasks.multi_label import MultiLabel
from minibert.tasks.task import Task

# --- proportions


@pytest.mark.parametrize(
    ("correct", "texts", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_the_published_one(correct, texts, low, high):
    """Newcombe, Two-sided confidence intervals for the single proportion (1998), method 3."""
    assert wilson_interval(correct, texts) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_contains_the_accuracy_and_stays_between_0_and_1(counts):
    correct, texts = counts
    low, high = wilson_interval(correct, texts)
    assert 0 <= low <= correct / texts + 1e-12 and correct / texts - 1e-12 <= high <= 1
    mirrored = wilson_interval(texts - correct, texts)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


# --- coverage: how often the interval of a sample contains the true figure


def covered(true: float, intervals: list[Interval | None]) -> float:
    """The proportion of intervals that contain the true figure. One that is None does not."""
    return float(np.mean([x is not None and x[0] <= true <= x[1] for x in intervals]))


def ones(texts: int) -> np.ndarray:
    return np.ones(texts, dtype=int)


def test_the_interval_of_one_class_s_f1_covers_it_also_with_few_texts():
    """30 texts have the class or are predicted to; 80% of them are both."""
    hits = np.random.default_rng(0).binomial(30, 0.8, size=2000)
    true = 2 * 0.8 / (1 + 0.8)
    assert 0.93 <= covered(true, [f1_interval(x, 30) for x in hits]) <= 0.97


CONFUSIONS = {
    "two classes": [[0.45, 0.05], [0.08, 0.42]],
    "a rare class": [[0.86, 0.04], [0.04, 0.06]],
    "three classes": [[0.3, 0.02, 0.01], [0.04, 0.2, 0.06], [0.02, 0.03, 0.32]],
}


@pytest.mark.parametrize("name", CONFUSIONS)
def test_the_interval_of_macro_f1_covers_it(name):
    matrix = np.array(CONFUSIONS[name])
    true, predicted = np.indices(matrix.shape).reshape(2, -1)
    statistic = weighted.macro_f1(true, predicted)
    samples = np.random.default_rng(1).multinomial(300, matrix.ravel(), size=800)
    intervals = [bootstrap(statistic, sample)[0] for sample in samples]
    assert 0.93 <= covered(float(statistic(1e6 * matrix.reshape(1, -1))[0, 0]), intervals) <= 0.97


def test_the_intervals_of_errors_cover_them(monkeypatch):
    """Values are targets of deviation 2 plus errors of deviation 1."""
    monkeypatch.setattr("minibert.evaluation.intervals.RESAMPLES", 500)
    random, found = np.random.default_rng(2), []
    for _ in range(500):
        targets = random.normal(5, 2, size=(150, 1))
        values = targets + random.normal(size=(150, 1))
        found.append(bootstrap(weighted.errors(values, targets), ones(150))[:4])
    for k, true in enumerate((np.sqrt(2 / np.pi), 1, 1 - 1 / 4, np.sqrt(4 / 5))):
        assert 0.93 <= covered(true, [intervals[k] for intervals in found]) <= 0.97


def test_the_intervals_of_several_labels_cover_their_figures(monkeypatch):
    monkeypatch.setattr("minibert.evaluation.intervals.RESAMPLES", 300)
    random, every = np.random.default_rng(3), 100_000

    def draw(texts: int) -> tuple[np.ndarray, np.ndarray]:
        truth = random.random((texts, 3)) < [0.5, 0.3, 0.2]
        return random.normal(size=(texts, 3)) + 2 * truth, truth

    def statistics(texts: int) -> list[Statistic]:
        scores, truth = draw(texts)
        labels = weighted.label_figures(truth, scores > 1)
        return [labels, weighted.mean_average_precision(scores, truth)]

    expected = np.hstack([figures(np.ones((1, every)))[0] for figures in statistics(every)])
    found = [
        [interval for figures in statistics(300) for interval in bootstrap(figures, ones(300))]
        for _ in range(400)
    ]
    for k, true in enumerate(expected):
        assert 0.93 <= covered(true, [intervals[k] for intervals in found]) <= 0.97


def test_the_interval_of_a_rank_correlation_covers_it():
    random, r = np.random.default_rng(4), 0.7
    pairs = random.multivariate_normal([0, 0], [[1, r], [r, 1]], size=(2000, 60))
    ranks = pairs.argsort(axis=1).argsort(axis=1)
    intervals = [spearman_interval(np.corrcoef(sample.T)[0, 1], 60) for sample in ranks]
    assert 0.93 <= covered(6 / np.pi * np.arcsin(r / 2), intervals) <= 0.97  # Pearson 1907


def test_the_interval_of_a_correlation_covers_it_also_if_errors_grow_with_the_number(monkeypatch):
    """The formula for normal numbers, Fisher's z, covers far fewer: some 82 of 100."""
    monkeypatch.setattr("minibert.evaluation.intervals.RESAMPLES", 300)
    random, intervals, fisher = np.random.default_rng(5), [], []
    for _ in range(400):
        targets = random.normal(size=(200, 1))
        values = targets * (1 + random.normal(size=(200, 1)))
        intervals.append(bootstrap(weighted.errors(values, targets), ones(200))[3])
        z, reach = np.arctanh(np.corrcoef(values.T, targets.T)[0, 1]), 1.96 / np.sqrt(200 - 3)
        fisher.append((np.tanh(z - reach), np.tanh(z + reach)))
    true = np.sqrt(1 / 2)
    assert 0.88 <= covered(true, intervals) <= 0.97 and covered(true, fisher) < 0.86


# --- weighted texts


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.integers(1, 4))
def test_weights_are_as_if_a_text_were_there_as_often(seed, texts, classes):
    random = np.random.default_rng(seed)
    weights = random.integers(0, 3, size=texts)
    weights[0] += 1
    again = np.repeat(np.arange(texts), weights)
    true, predicted = random.integers(classes, size=(2, texts))
    (found,) = weighted.macro_f1(true, predicted)(weights[None])
    assert found == pytest.approx(f1_score(true[again], predicted[again], average="macro"))

    scores = random.integers(0, 4, size=(texts, classes)).astype(float)  # some are equal
    truth = random.random((texts, classes)) < 0.4
    (found,) = weighted.label_figures(truth, scores > 1)(weights[None])
    there, guessed = truth[again], scores[again] > 1
    options = {"zero_division": 0.0}
    micro = 2 * (there & guessed).sum() / max(1, there.sum() + guessed.sum())
    each = [f1_score(there[:, k], guessed[:, k], **options) for k in range(classes)]
    rows = [f1_score(*pair, **options) for pair in zip(there, guessed, strict=True)]
    wrong = hamming_loss(there.ravel(), guessed.ravel())
    assert found == pytest.approx([micro, np.mean(each), np.mean(rows), wrong])
    (found,) = weighted.mean_average_precision(scores, truth)(weights[None])
    precisions = [average_precision(scores[again, k], there[:, k]) for k in range(classes)]
    known = [x for x in precisions if x is not None]
    assert found == pytest.approx(np.mean(known) if known else 0)


def test_a_sample_has_as_many_texts_as_the_data_and_each_text_is_as_likely():
    for counts in (np.array([1, 4, 2, 1]), np.array([70, 10])):  # many rows, and many texts a row
        weights = np.concatenate(list(resample(counts)))
        assert weights.shape == (2000, len(counts)) and set(weights.sum(axis=1)) == {counts.sum()}
        assert weights.mean(axis=0) == pytest.approx(counts, rel=0.1)


# --- what a task's intervals are


def a_case(kind: str, texts: int = 40) -> tuple[Task, torch.Tensor, torch.Tensor]:
    """A task, and logits that are right for most texts."""
    torch.manual_seed(0)
    logits = torch.randn(texts, 3)
    task = a_task(kind=kind)
    if kind == "single-label":
        return task, logits, (logits + torch.randn(texts, 3)).argmax(dim=1)
    if kind == "multi-label":
        return task, logits, (logits + torch.randn(texts, 3) > 0).float()
    return task, logits, logits + torch.randn(texts, 3)


KINDS = ("single-label", "multi-label", "regression")


@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_stay_as_they_are_and_lie_in_their_intervals(kind):
    task, logits, targets = a_case(kind)
    plain = strict_json(json_text(task.score(logits, targets).to_json()))
    data = strict_json(json_text(task.score_with_intervals(logits, targets).to_json()))

    def check(figures: dict, before: dict) -> int:
        count = 0
        for name, value in figures.items():
            if isinstance(value, dict):
                count += check(value, before[name])
            elif name.endswith("_95"):
                low, high = value
                assert low <= figures[name.removesuffix("_95")] <= high and low < high, name
                count += 1
            else:
                assert before[name] == value
        return count

    assert check(data, plain) == {"single-label": 2 + 9, "multi-label": 6 + 9}.get(kind, 4 + 15)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_texts_does_not_matter(kind):
    task, logits, targets = a_case(kind)
    order = torch.randperm(len(logits))
    one, other = (
        task.score_with_intervals(logits[rows], targets[rows]).to_json()
        for rows in (torch.arange(len(logits)), order)
    )

    def flat(figures: dict) -> list[float]:
        values = []
        for _, value in sorted(figures.items()):
            values += flat(value) if isinstance(value, dict) else np.ravel(value).tolist()
        return values

    assert flat(one) == pytest.approx(flat(other), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_hardly_changes_an_interval(kind):
    """eval.py computes a run's logits in other batches than train.py did."""
    task, logits, targets = a_case(kind)
    scores = [
        task.score_with_intervals(x, targets) for x in (logits, logits + 1e-6 * logits.sign())
    ]
    one, other = (getattr(found, "mean", found).intervals for found in scores)
    for name, interval in one.items():
        assert other[name] == pytest.approx(interval, abs=1e-4), name


def test_a_perfect_prediction_has_the_intervals_of_proportions_alone():
    """All samples of perfect predictions are perfect: the bootstrap says nothing."""
    logits = 5 * torch.eye(3)[torch.arange(30) % 3]
    found = a_task().score_with_intervals(logits, torch.arange(30) % 3)
    assert found.intervals["accuracy"] == pytest.approx(wilson_interval(30, 30))
    assert found.intervals["macro_f1"] is None
    assert found.to_json()["macro_f1_95"] is None
    assert found.per_class["a"]["f1_95"] == pytest.approx(list(f1_interval(10, 10)))
    assert "accuracy 100.0% (95% interval 88.6 to 100.0), macro-F1 100.0%, " in str(found)


def test_macro_f1_has_no_interval_if_samples_of_the_texts_have_another():
    """With one text for each class, a sample lacks a third of the classes."""
    random = np.random.default_rng(0)
    true, guesses = random.integers(500, size=(2, 500))
    predicted = np.where(random.random(500) < 0.2, true, guesses)
    assert bootstrap(weighted.macro_f1(true, predicted), ones(500)) == [None]


@pytest.mark.parametrize("kind", ["single-label", "multi-label"])
def test_a_mean_over_classes_has_no_interval_if_samples_often_lack_a_class(kind):
    """A model never predicts b: a sample without b would have twice the macro-F1."""
    task = a_task("a", "b", kind=kind)
    logits = torch.tensor([2.0, -2.0]).repeat(1000, 1)

    def found(rare: int) -> dict:
        is_rare = torch.arange(1000) < rare
        targets = torch.stack((~is_rare, is_rare), dim=1).float()
        if kind == "single-label":
            targets = targets.argmax(dim=1)
        return task.score_with_intervals(logits, targets).to_json()

    for name in ("macro_f1_95", *(["mean_average_precision_95"] if kind == "multi-label" else [])):
        assert found(3)[name] is None
        low, high = found(30)[name]
        assert high - low < 0.02


def test_a_rare_class_among_many_does_not_take_the_interval_of_macro_f1():
    counts = np.array([2, *[20] * 76])
    assert not weighted.often_absent(counts, counts.sum())
    assert weighted.often_absent(np.array([2, 20, 20]), 42)
    assert not weighted.often_absent(np.array([0, 20, 20]), 40)  # in no sample


def test_intervals_are_of_the_predictions_also_just_below_a_threshold():
    task = MultiLabel(replace(a_task(kind="multi-label").head, thresholds=(1 - 1e-8,) * 3))
    logits = torch.tensor([25.0, 18.0]).repeat(20)[:, None].repeat(1, 3)  # 18: 1 in float32
    found = task.score_with_intervals(logits, (logits > 20).float())
    assert found.micro_f1 == 1 and found.per_class["a"]["f1_95"] == list(f1_interval(20, 20))


def test_a_class_without_a_text_has_no_intervals():
    assert class_intervals(0, 0, 0) == {"precision": None, "recall": None, "f1": None}
    found = class_intervals(0, 2, 0)  # never predicted
    assert found == {"precision": None, "recall": (0, ANY), "f1": (0, ANY)}


def test_numbers_that_are_all_equal_have_no_interval_of_r2():
    task = a_task("stars", kind="regression")
    values = torch.randn(20, 1, generator=torch.Generator().manual_seed(1))
    found = task.score_with_intervals(values, torch.full((20, 1), 3.0)).to_json()
    assert found["r2_95"] is None and found["pearson_95"] is None and len(found["mae_95"]) == 2


def test_one_text_has_an_interval_of_accuracy():
    found = a_task().score_with_intervals(torch.eye(3)[:1], torch.tensor([0]))
    assert found.intervals["macro_f1"] is None and found.intervals["accuracy"] is not None
    for kind in KINDS[1:]:
        one = a_task(kind=kind).score_with_intervals(torch.ones(1, 3), torch.ones(1, 3))
        assert strict_json(json_text(one.to_json()))["texts"] == 1


def test_many_ranked_labels_have_no_interval_of_average_precision(monkeypatch):
    monkeypatch.setattr("minibert.evaluation.multi_label.RANKED", 100)
    found = a_case("multi-label")
    assert found[0].score_with_intervals(*found[1:]).intervals["mean_average_precision"] is None
