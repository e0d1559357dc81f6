"""Several labels per text: scikit-learn's figures, and thresholds that no other threshold beats.

Run: pytest tests/test_multi_label.py
"""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    precision_recall_fscore_support,
)

from minibert.evaluation.multi_label import (
    precision_recall_f1,
    predict_labels,
    report_multi_label,
    score_multi_label,
    with_intervals,
)
from minibert.evaluation.thresholds import tune_thresholds

NAMES = ("red", "green", "blue")
HALVES = [0.5] * 3
GRID = np.linspace(0.01, 0.99, 99)


def random_case(
    seed: int, texts: int, classes: int = 3, steps: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits in coarse steps, so that some are equal, and targets in which some class is rare."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(texts, classes, generator=generator).mul(steps).round() / steps
    rates = torch.linspace(0.02, 0.8, classes)
    return logits, (torch.rand(texts, classes, generator=generator) < rates).float()


cases = st.builds(random_case, st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 5))


# --- figures


@settings(deadline=None, max_examples=60)
@given(cases, st.floats(0.05, 0.95))
def test_the_figures_are_scikit_learn_s(case, threshold):
    logits, targets = case
    found = score_multi_label(logits, targets, [threshold] * targets.shape[1])
    truth, predicted = targets.numpy(), (torch.sigmoid(logits) >= threshold).numpy()
    for name in ("micro", "macro", "samples"):
        value = f1_score(truth, predicted, average=name, zero_division=0)
        assert getattr(found, f"{name}_f1") == pytest.approx(value, abs=1e-12)
    assert found.hamming_loss == pytest.approx(hamming_loss(truth, predicted), abs=1e-12)
    assert found.subset_accuracy == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    columns = precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        figures = [per_class[name] for per_class in found.per_class.values()]
        assert figures == pytest.approx(values.tolist(), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(cases)
def test_average_precision_is_scikit_learn_s_and_leaves_out_classes_without_a_positive(case):
    logits, targets = case
    found = score_multi_label(logits, targets, [0.5] * targets.shape[1])
    expected = [
        average_precision_score(targets[:, i], logits[:, i]) if targets[:, i].any() else None
        for i in range(targets.shape[1])
    ]
    figures = [per_class["average_precision"] for per_class in found.per_class.values()]
    assert figures == pytest.approx(expected, abs=1e-12)
    known = [value for value in expected if value is not None]
    mean = np.mean(known) if known else None
    assert found.mean_average_precision == pytest.approx(mean, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(cases)
def test_the_loss_is_the_mean_binary_cross_entropy_over_texts_and_classes(case):
    logits, targets = case
    p = torch.sigmoid(logits.double())
    loss = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    found = score_multi_label(logits, targets, [0.5] * targets.shape[1])
    assert found.loss == pytest.approx(loss.item(), abs=1e-12)


def hand_computed() -> tuple[torch.Tensor, torch.Tensor]:
    """Four texts. Predicted at 0.5: red; red, green; nothing; blue. The last text has no label."""
    logits = torch.tensor([[2.0, -1, -3], [1, 3, -2], [-1, -2, -1], [-3, -4, 1]])
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    return logits, targets


def test_the_figures_of_four_texts_are_the_ones_computed_by_hand():
    logits, targets = hand_computed()
    found = score_multi_label(logits, targets, HALVES, NAMES)
    # Two labels are found, two are wrong (red of the second text, blue), one is missed.
    assert found.micro_f1 == pytest.approx(2 * 2 / (3 + 4))
    assert found.macro_f1 == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found.samples_f1 == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert found.hamming_loss == pytest.approx(3 / 12)
    assert found.subset_accuracy == 1 / 4
    assert found.intervals["subset_accuracy"] == pytest.approx((0.0456, 0.6994), abs=5e-5)
    # Red ranks text 1 first, a wrong one second, text 3 third: (1/1 + 2/3) / 2. Green is perfect.
    assert found.mean_average_precision == pytest.approx((5 / 6 + 1) / 2)
    assert found.per_class["red"] == {
        "precision": 1 / 2,
        "recall": 1 / 2,
        "f1": 1 / 2,
        "average_precision": pytest.approx(5 / 6),
        "support": 2,
        "threshold": 0.5,
    }
    assert found.per_class["blue"]["average_precision"] is None
    assert found.per_class["blue"]["f1"] == 0


def test_a_label_is_predicted_if_its_probability_reaches_its_threshold():
    probabilities = torch.tensor([[0.25, 0.5, 0.75], [0.125, 0.625, 0.75]])
    predicted = predict_labels(probabilities, [0.25, 0.625, 0.8])
    assert predicted.tolist() == [[True, False, False], [False, True, False]]


def test_each_class_has_its_own_threshold():
    logits, targets = hand_computed()
    found = score_multi_label(logits, targets, [0.2, 0.5, 0.9], NAMES)
    assert found.per_class["red"]["recall"] == 1 and found.per_class["blue"]["f1"] == 0
    assert [figures["threshold"] for figures in found.per_class.values()] == [0.2, 0.5, 0.9]
    assert found.hamming_loss == pytest.approx(1 / 12)


def test_a_text_without_labels_and_predictions_counts_in_subset_accuracy_and_not_in_samples_f1():
    found = score_multi_label(-torch.ones(2, 3), torch.zeros(2, 3), HALVES)
    assert (found.subset_accuracy, found.samples_f1, found.mean_average_precision) == (1, 0, None)


def test_one_class_is_scored_as_a_binary_label():
    logits, targets = torch.tensor([[1.0], [-1], [2]]), torch.tensor([[1.0], [1], [0]])
    found = score_multi_label(logits, targets, [0.5])
    assert found.micro_f1 == found.macro_f1 == pytest.approx(1 / 2)
    assert found.subset_accuracy == pytest.approx(1 / 3)


def test_large_logits_are_ranked_although_their_probabilities_are_all_1():
    logits, targets = torch.tensor([[40.0], [60], [50]]), torch.tensor([[0.0], [1], [1]])
    assert score_multi_label(logits, targets, [0.5]).mean_average_precision == 1


def test_half_precision_logits_are_scored():
    logits, targets = random_case(0, 7)
    found = score_multi_label(logits.bfloat16(), targets, HALVES)
    loss = F.binary_cross_entropy_with_logits(logits.bfloat16().double(), targets.double())
    assert found.loss == pytest.approx(loss.item())


def test_logits_that_are_not_finite_give_a_loss_that_is_not():
    logits, targets = random_case(1, 9)
    logits[3, 1] = float("nan")
    assert np.isnan(score_multi_label(logits, targets, HALVES).loss)


def test_a_higher_figure_is_better():
    logits, targets = random_case(2, 40)
    better, worse = (
        score_multi_label(6 * sign * (targets - 0.5) + 0.1 * logits, targets, HALVES)
        for sign in (1, -1)
    )
    for name in ("micro-f1", "macro-f1", "map", "loss"):
        assert better.figure(name) > worse.figure(name)
    assert better.figure("loss") == -better.loss


def test_the_figures_can_be_written_as_json_and_read_by_a_person():
    found = score_multi_label(*hand_computed(), HALVES, NAMES)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["per_class"]["blue"]["average_precision"] is None
    assert data["texts"] == 4 and len(data["subset_accuracy_95"]) == 2
    assert str(found).startswith(
        "micro-F1 57.1%, macro-F1 50.0%, mAP 91.7%, subset accuracy 25.0% "
        "(95% interval 4.6 to 69.9), loss 0.4259"
    )
    assert str(found).endswith(", 4 texts") and "\n" not in str(found)


# --- report


def test_the_report_has_a_line_per_class_and_the_averages():
    lines = report_multi_label(*hand_computed(), HALVES, NAMES).splitlines()
    cells = [line.split() for line in lines]
    assert ["red", "2", "0.500", "0.500", "0.500", "0.833", "0.500"] in cells
    assert ["green", "1", "1.000", "1.000", "1.000", "1.000", "0.500"] in cells
    assert ["blue", "0", "0.000", "0.000", "0.000", "-", "0.500"] in cells
    assert ["micro", "average", "3", "0.500", "0.667", "0.571"] in cells
    assert ["macro", "average", "3", "0.500", "0.500", "0.500", "0.917"] in cells
    assert ["samples", "average", "3", "0.375", "0.500", "0.417"] in cells
    assert len({len(line) for line in lines if "0.500" in line and "average" not in line}) == 1


def test_map_is_undefined_if_no_text_has_a_class():
    logits, targets = torch.full((3, 2), -1.0), torch.zeros(3, 2)
    scores = score_multi_label(logits, targets, [0.5, 0.5])
    scores = with_intervals(scores, logits, targets, logits > 0)
    assert scores.figure("map") == -math.inf
    assert scores.to_json()["mean_average_precision"] is None
    assert "mAP undefined, subset accuracy 100.0%" in str(scores)


def test_of_many_classes_the_report_lists_the_50_with_the_most_texts():
    targets = torch.tril(torch.ones(120, 120))  # class i has 120 - i texts
    names = [f"class {i}" for i in range(120)]
    report = report_multi_label(targets - 0.5, targets, [0.5] * 120, names)
    listed = [line.split()[1] for line in report.splitlines() if line.strip().startswith("class")]
    assert listed == [str(i) for i in range(50)]
    assert "... and 70 classes with at most 70 texts\n" in report


def test_the_report_has_no_control_characters():
    report = report_multi_label(*hand_computed(), HALVES, ["a\x1b[2J", "b\u202e", "c" * 99])
    assert report.replace("\n", "").isprintable()
    assert max(map(len, report.splitlines())) < 130


# --- thresholds


def f1_at(threshold: float, scores: np.ndarray, truth: np.ndarray) -> float:
    """The F1 of one class; test_the_figures_are_scikit_learn_s compares it."""
    return float(precision_recall_f1(truth, scores >= threshold, axis=None)[2])


@settings(deadline=None, max_examples=80)
@given(cases)
def test_no_threshold_has_a_higher_f1_than_the_tuned_one(case):
    logits, targets = case
    probabilities = torch.sigmoid(logits)
    tuned = tune_thresholds(probabilities, targets)
    for i, threshold in enumerate(tuned):
        column = probabilities[:, i].double().numpy(), targets[:, i].bool().numpy()
        best = f1_at(threshold, *column)
        assert all(f1_at(other, *column) <= best + 1e-12 for other in GRID)


@settings(deadline=None, max_examples=40)
@given(cases)
def test_no_threshold_for_all_classes_has_a_higher_micro_f1_than_the_tuned_one(case):
    logits, targets = case
    probabilities = torch.sigmoid(logits)
    tuned = tune_thresholds(probabilities, targets, per_class=False)
    assert len(tuned) == targets.shape[1] and len(set(tuned)) == 1

    every = probabilities.double().numpy(), targets.bool().numpy()
    best = f1_at(tuned[0], *every)
    assert all(f1_at(other, *every) <= best + 1e-12 for other in GRID)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.booleans())
        | st.tuples(st.sampled_from([0.0, 5e-324, 0.5, 1 - 2**-53, 1.0]), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_a_threshold_is_inside_0_and_1_and_is_the_best_for_any_probabilities(pairs):
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    (tuned,) = tune_thresholds(torch.tensor(scores)[:, None], torch.tensor(truth).float()[:, None])
    assert 0 < tuned < 1
    best = f1_at(tuned, scores, truth)
    others = [*GRID, *(score for score in scores if 0 < score < 1)]
    assert all(f1_at(other, scores, truth) <= best + 1e-12 for other in others)


def test_a_threshold_lies_halfway_between_two_probabilities():
    probabilities = torch.tensor([[0.125], [0.25], [0.5], [0.75]])
    targets = torch.tensor([[0.0], [0], [1], [1]])
    assert tune_thresholds(probabilities, targets) == [0.375]


def test_all_or_none_of_the_texts_can_be_predicted():
    every = torch.tensor([[0.125], [0.75]]), torch.ones(2, 1)
    assert tune_thresholds(*every) == [0.0625]
    best_alone = torch.tensor([[0.125, 0.5]]), torch.tensor([[1.0, 0.0]])
    assert tune_thresholds(*best_alone) == [0.0625, 0.5]


def test_of_equally_good_thresholds_the_nearest_to_one_half_is_taken():
    # F1 is 2/3 for the highest alone (threshold 0.85) and for the four highest (0.25).
    probabilities = torch.tensor([[0.9], [0.8], [0.7], [0.3], [0.2]])
    targets = torch.tensor([[1.0], [0], [0], [1], [0]])
    assert tune_thresholds(probabilities, targets) == [pytest.approx(0.25)]
    # The same ranks, where the thresholds are 0.45 and 0.05.
    shifted = torch.tensor([[0.6], [0.3], [0.2], [0.1], [0.0]])
    assert tune_thresholds(shifted, targets) == [pytest.approx(0.45)]


def test_a_class_without_a_positive_keeps_one_half():
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    assert tune_thresholds(probabilities, torch.tensor([[0.0, 1], [0, 1]]))[0] == 0.5
    assert tune_thresholds(probabilities, torch.zeros(2, 2), per_class=False) == [0.5, 0.5]


def test_rounding_the_probabilities_does_not_change_a_label_at_tuned_thresholds():
    logits, targets = random_case(3, 50)
    tuned = tune_thresholds(torch.sigmoid(logits), targets)
    low, high = torch.sigmoid(logits), torch.sigmoid(logits.double())
    assert torch.equal(predict_labels(low, tuned), predict_labels(high, tuned))


def test_a_threshold_separates_two_neighbouring_float32_probabilities():
    low = torch.tensor(0.3)
    probabilities = torch.stack([low, low.nextafter(torch.tensor(1.0))])[:, None]
    tuned = tune_thresholds(probabilities, torch.tensor([[0.0], [1]]))
    assert predict_labels(probabilities, tuned).tolist() == [[False], [True]]


def test_no_threshold_is_1_although_only_1_would_separate_the_probabilities():
    probabilities = torch.tensor([[1 - 2**-53], [1.0]], dtype=torch.float64)
    assert tune_thresholds(probabilities, torch.tensor([[0.0], [1]])) == [pytest.approx(0.5)]
