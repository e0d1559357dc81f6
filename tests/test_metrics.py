"""Figures from logits and labels: scikit-learn's.

Run: pytest tests/test_metrics.py
"""

import pytest
import torch
import torch.nn.functional as F
from helpers import strict_json
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from minibert.evaluation.metrics import (
    confusion,
    confusion_matrix,
    confusion_table,
    mean_class_distance,
    most_confused,
    report,
    score,
)
from minibert.files import json_text

NAMES = ("red", "green", "blue", "grey")


def logits_for(predicted: list[int], classes: int) -> torch.Tensor:
    """Logits whose highest is the given class."""
    return 3.0 * F.one_hot(torch.tensor(predicted), classes).float()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_scores_are_scikit_learn_s(seed, texts):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(texts, 4, generator=generator)
    labels = torch.randint(4, (texts,), generator=generator)
    found, predicted = score(logits, labels, NAMES), logits.argmax(dim=1)
    assert found.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    probabilities = torch.softmax(logits.double(), dim=1)
    assert found.loss == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-5)
    for name, function in (("precision", precision_score), ("recall", recall_score)):
        values = function(labels, predicted, labels=range(4), average=None, zero_division=0.0)
        assert [found.per_class[c][name] for c in NAMES] == pytest.approx(values.tolist())
    assert sum(figures["support"] for figures in found.per_class.values()) == texts


def test_a_class_without_labels_and_predictions_does_not_count_in_macro_f1():
    labels = torch.tensor([0, 0, 1, 1])
    assert score(logits_for([0, 0, 1, 1], 4), labels, NAMES).macro_f1 == 1.0
    # Blue is predicted once, so it counts, with an F1 of 0; red has 2/3, green 1.
    wrong = score(logits_for([0, 2, 1, 1], 4), labels, NAMES)
    assert wrong.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert wrong.per_class["blue"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_the_class_distance_is_the_mean_of_how_many_classes_each_prediction_is_off():
    stars = torch.tensor([0, 4, 2, 3])
    assert mean_class_distance(stars, stars) == 0
    assert mean_class_distance(torch.tensor([1, 4, 0, 3]), stars) == 3 / 4
    assert mean_class_distance(stars, torch.tensor([1, 4, 0, 3])) == 3 / 4


def test_half_precision_logits_are_scored_in_fp32():
    logits, labels = torch.randn(7, 4).bfloat16(), torch.arange(7) % 4
    found = score(logits, labels, NAMES)
    assert found.loss == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-5)


def test_the_figures_can_be_written_as_json_and_read_by_a_person():
    found = score(logits_for([0, 1, 1, 3], 4), torch.tensor([0, 1, 2, 3]), NAMES)
    data = strict_json(json_text(found.to_json()))
    assert data["accuracy"] == 0.75 and data["texts"] == 4 and len(data["accuracy_95"]) == 2
    assert data["per_class"]["green"] == {"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1}
    assert str(found).startswith("accuracy 75.0% (95% interval 30.1 to 95.4), macro-F1 66.7%")


def test_the_confusion_matrix_has_true_classes_in_rows():
    cells = confusion(torch.tensor([1, 0, 0]), torch.tensor([1, 1, 1]))
    assert cells == [(0, 1, 2), (1, 1, 1)]
    assert confusion_matrix(cells, range(3)).tolist() == [[0, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert confusion_matrix(cells, [1, 2]).tolist() == [[1, 0], [0, 0]]


def test_the_figures_have_the_confusion_matrix_without_its_zeros():
    found = score(logits_for([1, 1, 0, 3], 4), torch.tensor([0, 0, 0, 2]), NAMES)
    assert found.to_json()["confusion"] == {"red": {"green": 2, "red": 1}, "blue": {"grey": 1}}


def test_the_report_names_every_class_and_counts_the_confusions():
    labels = torch.tensor([0] * 17 + [1] * 5)
    predicted = [1] * 13 + [0] * 4 + [1] * 5
    classes = ("bad", "good", "a very long name")
    lines = report(torch.tensor(predicted), labels, classes).split("\n")
    cells = [line.split() for line in lines]
    assert ["bad", "4", "13", "0"] in cells
    assert ["good", "0", "5", "0"] in cells
    assert ["a", "very", "long", "name", "0", "0", "0"] in cells
    assert ["bad", "1.000", "0.235", "0.381", "17"] in cells
    table = lines[lines.index("confusion matrix (rows: true, columns: predicted)") + 1 :]
    assert len({len(line) for line in table if line}) == 1  # the columns are aligned


def test_over_12_classes_the_most_frequent_mistakes_are_listed_instead():
    names = tuple(f"class {i}" for i in range(13))
    right = [(number, number, 50) for number in range(13)]
    cells = [*right, (7, 2, 9), (2, 7, 3), (12, 0, 1)]
    assert confusion_table(cells, names).splitlines() == [
        "most frequent mistakes (true -> predicted):",
        "     9  class 7 -> class 2",
        "     3  class 2 -> class 7",
        "     1  class 12 -> class 0",
    ]
    assert "mistakes" not in confusion_table(right[:12], names[:12])


def test_at_most_15_mistakes_are_listed():
    cells = [(true, predicted, 1) for true in range(14) for predicted in range(14)]
    table = confusion_table(cells, [f"c{i}" for i in range(14)])
    assert len(table.splitlines()) == 16


def test_over_100_classes_the_report_has_the_20_with_the_lowest_f1_and_all_averages():
    """Class 7 has three texts and no hit, class 5 one; class 9 is right once in two."""
    labels = torch.tensor([*range(101), 7, 7, 9])
    predicted = torch.tensor([*range(101), 8, 8, 10])
    predicted[[5, 7]] = torch.tensor([6, 8])
    classes = tuple(f"class {number}" for number in range(101))
    lines = report(predicted, labels, classes).splitlines()
    assert lines[0].startswith("the 20 of 101 classes with the lowest F1 (metrics.json, ")
    assert lines[1].split() == ["precision", "recall", "f1-score", "support"]
    rows = [line.split() for line in lines[3:23]]
    assert [row[:2] for row in rows[:4]] == [["class", name] for name in ("7", "5", "8", "9")]
    assert rows[0] == ["class", "7", "0.000", "0.000", "0.000", "3"]
    averages = [line.split() for line in lines[24:27]]
    assert [row[0] for row in averages] == ["accuracy", "macro", "weighted"]
    scores = score(logits_for(predicted.tolist(), 101), labels, classes)
    assert float(averages[0][1]) == pytest.approx(scores.accuracy, abs=1e-3)
    assert float(averages[1][4]) == pytest.approx(scores.macro_f1, abs=1e-3)
    assert "     3  class 7 -> class 8" in lines and len(lines) < 45


def test_the_figures_of_20_000_classes_are_sparse():
    """A matrix of all of them takes 3.2 GB; the cells that are not zero take one per text."""
    labels = torch.arange(20_000)
    cells = confusion(labels, labels.roll(1))
    assert len(cells) == 20_000
    assert len(confusion_table(cells, [str(number) for number in range(20_000)])) < 1000
    assert most_confused(cells, 3) == [0, 1, 19_999]


def test_the_most_confused_classes_are_those_of_the_largest_mistakes_then_any():
    cells = [(4, 4, 9), (3, 1, 5), (2, 1, 4), (0, 0, 1)]
    assert most_confused(cells, 2) == [1, 3]
    assert most_confused(cells, 4) == [1, 2, 3, 4]
    assert most_confused(cells, 99) == [0, 1, 2, 3, 4]


def test_macro_f1_is_the_reports_if_a_class_is_missing():
    labels, logits = torch.tensor([0, 1, 1]), torch.tensor([[9.0, 0, 0], [0, 9, 0], [9, 0, 0]])
    classes = ("a", "b", "c")
    lines = report(logits.argmax(dim=1), labels, classes).splitlines()
    (macro,) = (line.split()[4] for line in lines if "macro" in line)
    assert float(macro) == pytest.approx(score(logits, labels, classes).macro_f1, abs=1e-3)
