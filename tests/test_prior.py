"""What a model scores that ignores its texts equals scikit-learn's DummyClassifier and -Regressor.

Run: pytest tests/test_prior.py
"""

import numpy as np
import pytest
import torch
from helpers import a_task
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_squared_error

from minibert.tasks import prior
from minibert.tasks.prior import prior_of
from minibert.training.options import TrainingOptions

OPTIONS = TrainingOptions()
TRAIN, VALIDATION = torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.tensor([1, 0, 0, 2, 1])
SETS = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]]).float()
NUMBERS = torch.tensor([[3.0, 10.0], [5.0, 10.0], [4.0, 40.0], [12.0, 30.0]])


@pytest.mark.parametrize("rows", [3, 4096])
def test_classes_are_predicted_by_their_frequency(monkeypatch, rows):
    monkeypatch.setattr(prior, "ROWS", rows)
    found = prior_of(a_task(), TRAIN, VALIDATION, OPTIONS)
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((7, 1)), TRAIN)
    expected = log_loss(TRAIN, dummy.predict_proba(np.zeros((7, 1))))
    assert found.train_loss == pytest.approx(expected, rel=1e-5)
    predicted = dummy.predict(np.zeros((5, 1)))
    assert found.validation["accuracy"] == pytest.approx(accuracy_score(VALIDATION, predicted))
    macro = f1_score(VALIDATION, predicted, average="macro", zero_division=0)
    assert found.validation["macro-f1"] == pytest.approx(macro)
    assert found.distinct_targets == 3


def test_several_labels_have_their_mean_binary_entropy_and_frequencies():
    task = a_task(kind="multi-label")
    found = prior_of(task, SETS, SETS, OPTIONS)
    p = SETS.double().mean(dim=0)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    assert found.train_loss == pytest.approx(float(entropy), rel=1e-5)
    assert found.validation["map"] == pytest.approx(float(p.mean()))
    assert found.distinct_targets == 4  # the same set is there twice


def test_numbers_are_predicted_by_their_mean_and_have_a_loss_of_1():
    task = a_task("price", "weight", kind="regression")
    found = prior_of(task, NUMBERS, NUMBERS[:3], OPTIONS)
    assert found.train_loss == pytest.approx(1.0)
    dummy = DummyRegressor().fit(np.zeros((4, 1)), NUMBERS)
    squared = mean_squared_error(
        NUMBERS[:3], dummy.predict(np.zeros((3, 1))), multioutput="raw_values"
    )
    assert found.validation["rmse"] == pytest.approx(np.sqrt(squared).mean(), rel=1e-5)
    assert found.validation["pearson"] is None  # a constant has no correlation


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["none", "sqrt", "balanced"])
@pytest.mark.parametrize(("kind", "targets"), [("single-label", TRAIN), ("multi-label", SETS)])
def test_no_constant_has_a_lower_loss(kind, targets, weights, smoothing):
    """The loss is weighted and smoothed as in training, so the best constant is too."""
    task = a_task(kind=kind)
    options = TrainingOptions(class_weights=weights, label_smoothing=smoothing)
    weight = task.weights(targets, options)

    def loss(logits: torch.Tensor) -> float:
        losses = task.losses(logits.expand(len(targets), -1), targets, weight, options)
        return float(losses.sum() / task.row_weights(targets, weight).sum())

    best = task.constant(targets, weight, options)
    assert prior_of(task, targets, targets, options).train_loss == pytest.approx(loss(best))
    for column in range(3):
        for change in (-0.1, 0.1):
            moved = best.clone()
            moved[column] += change
            assert loss(moved) > loss(best)


def test_a_class_without_training_texts_has_finite_figures():
    for kind, targets in (("single-label", TRAIN[:4]), ("multi-label", SETS[:3])):
        found = prior_of(a_task(kind=kind), targets, targets, OPTIONS)
        assert np.isfinite(found.train_loss) and found.validation["loss"] < 1
