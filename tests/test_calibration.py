"""Probabilities: calibration figures, the temperature, rejected texts, the ranking of a rare class.

Run: pytest tests/test_calibration.py
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import WORDS, read_table, strict_json, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss
from torch import Tensor

from minibert import InputError, Predictor, TextClassifier, load
from minibert.checkpoint.config_file import read_head_config
from minibert.commands import evaluate, predict, train
from minibert.commands.arguments import parse_evaluate, parse_predict, parse_train
from minibert.commands.options import RunOptions
from minibert.commands.probabilities import fit_probabilities
from minibert.commands.process import run_command
from minibert.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability,
    score_calibration,
)
from minibert.evaluation.probabilities import score_rare_class
from minibert.evaluation.rejection import lowest_probability, score_accepted
from minibert.model.config import TEMPERATURES, HeadConfig
from minibert.tasks.calibrated import calibrated, with_min_probability, with_temperature
from minibert.tasks.choice import task_of
from minibert.tasks.single_label import SingleLabel

HEAD = HeadConfig("linear", "cls", ("a", "b", "c"), 40)
SEVERAL = replace(HEAD, task="multi-label")
NUMBER = replace(HEAD, task="regression", labels=("stars",))


def drawn(texts: int, classes: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits, and class numbers drawn from their probabilities."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, classes, generator=random)
    drawn = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=random)
    return logits, drawn[:, 0]


def drawn_flags(texts: int, classes: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits, and 0 or 1 for each class drawn from its probability."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, classes, generator=random)
    return logits, torch.bernoulli(torch.sigmoid(logits), generator=random)


# --- figures


def test_the_calibration_error_of_a_case_computed_by_hand():
    probabilities = np.array([0.95, 0.95, 0.59, 0.58, 0.54])
    bins = reliability(probabilities, np.array([True, False, True, True, False]))
    # Of 15 bins, the decisions are in the 9th, (0.533, 0.6], and the 15th, (0.933, 1].
    assert [(x.decisions, x.accuracy) for x in bins] == [(3, pytest.approx(2 / 3)), (2, 0.5)]
    assert [x.probability for x in bins] == pytest.approx([0.57, 0.95])
    assert [(x.low, x.high) for x in bins] == [(8 / 15, 9 / 15), (14 / 15, 1)]
    assert expected_calibration_error(bins) == pytest.approx(
        3 / 5 * (2 / 3 - 0.57) + 2 / 5 * (0.95 - 0.5)
    )


def test_probabilities_of_0_and_1_are_in_the_first_and_the_last_bin():
    bins = reliability(np.array([0.0, 1.0, 1 / 15]), np.array([False, True, True]))
    assert [(x.low, x.decisions) for x in bins] == [(0, 2), (14 / 15, 1)]


def test_probabilities_from_which_the_labels_are_drawn_are_calibrated():
    for logits, targets in (drawn(20_000, 4), drawn_flags(9_000, 3)):
        assert score_calibration(logits, targets).expected_calibration_error < 0.015
        assert score_calibration(5 * logits, targets).expected_calibration_error > 0.1


def test_brier_score_and_log_loss_equal_scikit_learns():
    logits, targets = drawn(301, 2)
    found, expected = score_calibration(logits, targets), torch.softmax(logits.double(), dim=1)
    assert found.brier == pytest.approx(brier_score_loss(targets, expected[:, 1]))
    assert found.log_loss == pytest.approx(sklearn_log_loss(targets, expected))
    logits, targets = drawn_flags(151, 3)
    found, expected = score_calibration(logits, targets), torch.sigmoid(logits.double())
    assert found.brier == pytest.approx(brier_score_loss(targets.ravel(), expected.ravel()))
    assert found.log_loss == pytest.approx(sklearn_log_loss(targets.ravel(), expected.ravel()))


def test_the_brier_score_of_three_classes_computed_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]).log()
    squares = [0.5**2 + 0.25**2 + 0.25**2, 0.1**2 + 0.8**2 + 0.9**2]
    found = score_calibration(logits, torch.tensor([0, 2]))
    assert found.brier == pytest.approx(sum(squares) / 2)


def test_the_log_loss_of_a_probability_of_0_is_finite():
    found = score_calibration(torch.tensor([[0.0, 900.0]]), torch.tensor([0]))
    assert found.log_loss == pytest.approx(900) and found.brier == 1


# --- the temperature


@pytest.mark.parametrize("known", [0.4, 1.0, 2.5])
def test_the_temperature_of_labels_drawn_with_a_known_one_is_found(known):
    for logits, targets in (drawn(20_000, 3), drawn_flags(9_000, 2)):
        assert fit_temperature(known * logits, targets) == pytest.approx(known, rel=0.05)


@pytest.mark.parametrize("texts", [1, 4, 40, 4_000])
@pytest.mark.parametrize("right", [True, False])
def test_logits_that_are_all_right_or_all_wrong_give_a_temperature_in_range(texts, right):
    logits = torch.tensor([[5.0, 0.0]]).repeat(texts, 1)
    targets = torch.full((texts,), 0 if right else 1)
    lowest, highest = TEMPERATURES
    found = fit_temperature(logits, targets)
    assert lowest < found < 1 if right else 1 < found <= highest
    assert lowest <= fit_temperature(1e4 * logits, targets) <= highest


def test_a_few_texts_that_are_all_right_leave_the_temperature_near_1():
    assert 0.8 < fit_temperature(torch.tensor([[5.0, 0.0]] * 9), torch.zeros(9).long()) < 1


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_does_not_raise_the_log_loss(seed):
    for logits, targets in (drawn(17, 3, seed=seed), drawn_flags(17, 3, seed=seed)):
        for scale in (0.2, 1.0, 7.0):
            temperature = fit_temperature(scale * logits, targets)
            before = log_loss(scale * logits, targets)
            assert log_loss(scale * logits / temperature, targets) <= before + 1e-7


ROWS = st.lists(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=5
)


@settings(deadline=None)
@given(ROWS, st.floats(*TEMPERATURES))
def test_the_temperature_never_changes_the_predicted_class(rows, temperature):
    logits = torch.tensor(rows)
    plain, scaled = task_of(HEAD), task_of(with_temperature(HEAD, temperature))
    assert scaled.predict(logits) == plain.predict(logits)
    for record, row in zip(scaled.records(logits), scaled.probabilities(logits), strict=True):
        assert record["probability"] == round(float(row.max()), 6)
    assert [x["label"] for x in scaled.records(logits)] == plain.predict(logits)


@settings(deadline=None)
@given(st.integers(0, 999), st.floats(0.25, TEMPERATURES[1]), st.floats(0.5, 2))
def test_the_temperature_never_changes_the_predicted_labels(seed, temperature, first):
    """The thresholds move with the probabilities, also from one temperature to another."""
    logits, _ = drawn_flags(20, 3, seed=seed)
    head = replace(SEVERAL, thresholds=(0.1234, 0.5, 0.8765), temperature=first)
    scaled = with_temperature(head, temperature)
    assert task_of(scaled).predict(logits) == task_of(head).predict(logits)
    back = with_temperature(scaled, first)
    assert back.thresholds == pytest.approx(head.thresholds)


def test_temperature_1_gives_the_same_bits():
    logits, _ = drawn(50, 3)
    assert torch.equal(task_of(HEAD).probabilities(logits), torch.softmax(logits, dim=1))
    assert torch.equal(task_of(SEVERAL).probabilities(logits), torch.sigmoid(logits))


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="the logits are not finite"):
        calibrated(HEAD, torch.full((2, 3), torch.nan), torch.tensor([0, 1]))


# --- the reject option


def test_the_lowest_probability_of_a_case_computed_by_hand():
    highest = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = torch.tensor([True, True, False, True, False])
    assert lowest_probability(highest, correct, 1.0) == pytest.approx(0.75)
    assert lowest_probability(highest, correct, 0.75) == pytest.approx(0.55)
    assert lowest_probability(highest, correct, 0.6) == pytest.approx(0.25)  # every text
    assert lowest_probability(highest, ~correct, 0.7) is None
    found = score_accepted(highest, correct, 0.55)
    assert (found.texts, found.coverage, found.accuracy) == (4, 0.8, 0.75)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.4, 0.5, 0.7, 0.9, 1.0]), st.booleans()), min_size=1),
    st.sampled_from([0.0, 0.5, 0.8, 1.0]),
)
def test_the_accepted_texts_reach_the_accuracy_and_are_as_many_as_can_be(texts, accuracy):
    highest = torch.tensor([probability for probability, _ in texts])
    correct = torch.tensor([is_correct for _, is_correct in texts])
    accepted = [correct[highest >= bound] for bound in highest]
    best = max((len(x) for x in accepted if x.double().mean() >= accuracy), default=0)
    bound = lowest_probability(highest, correct, accuracy)
    assert (bound is None) == (best == 0)
    if bound is not None:
        found = score_accepted(highest, correct, bound)
        assert found.texts == best and found.accuracy >= accuracy


def test_new_texts_miss_the_target_accuracy_about_as_often_as_they_reach_it():
    """The bound is chosen on 300 texts with true probabilities, for an accuracy of 0.95."""
    random = np.random.default_rng(0)
    new = random.beta(6, 1, size=50_000)
    accuracies = []
    for _ in range(200):
        highest = torch.tensor(random.beta(6, 1, size=300))
        correct = torch.tensor(random.random(300)) < highest
        bound = lowest_probability(highest, correct, 0.95)
        accuracies.append(new[new >= bound].mean())
    assert np.mean(accuracies) == pytest.approx(0.95, abs=0.01)
    assert 0.4 < np.mean(np.array(accuracies) < 0.95) < 0.7


def test_if_no_text_is_accepted_the_accuracy_is_undefined():
    found = score_accepted(torch.tensor([0.5]), torch.tensor([True]), 0.75)
    assert found.to_json() == {
        **{"min_probability": 0.75, "texts": 0, "coverage": 0.0},
        **{"accuracy": None, "accuracy_95": None},
    }
    assert str(found) == "accepted with a probability of at least 0.75: 0 texts (0.0%)"


def test_texts_are_rejected_below_the_lowest_probability_and_the_others_accepted():
    logits = torch.tensor([[0.75, 0.125, 0.125], [0.5, 0.25, 0.25]]).log()
    task = task_of(with_min_probability(HEAD, 0.6))
    assert [record["rejected"] for record in task.records(logits)] == [False, True]
    assert list(task.records(logits)[0]) == list(task.keys)
    assert "rejected" in task.fields
    assert "rejected" not in task_of(HEAD).fields | task_of(HEAD).records(logits)[0].keys()


def test_another_temperature_drops_the_lowest_probability():
    head = with_min_probability(HEAD, 0.6)
    assert with_temperature(head, 2.0).min_probability == 0
    assert with_temperature(head, 1.0) == head


@pytest.mark.parametrize("accuracy", [None, 0.9])
def test_an_accuracy_that_validation_does_not_reach_is_one_line_and_stores_nothing(
    accuracy, capsys
):
    logits, targets = torch.eye(3)[[0, 1, 2]], torch.tensor([1, 2, 0])
    head = fit_probabilities(HEAD, logits, targets, RunOptions(target_accuracy=accuracy))
    assert head.min_probability == 0 and head.temperature > 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"temperature {head.temperature:.4g}, fitted on the validation split"
    assert lines[1:] == (
        [
            "--target-accuracy 0.9: the validation split does not reach it, however few texts are "
            "accepted; no text will be rejected"
        ]
        if accuracy
        else []
    )


# --- the rarer of two classes


def test_average_precision_and_roc_auc_are_those_of_the_rarer_class():
    logits = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    for rare in (0, 1):
        targets = torch.full((40,), 1 - rare)
        targets[::5] = rare
        found = score_rare_class(logits, targets, ("ham", "spam"))
        scores, truth = torch.softmax(logits, dim=1)[:, rare], targets == rare
        assert (found.name, found.texts) == (("ham", "spam")[rare], 8)
        assert found.average_precision == pytest.approx(average_precision_score(truth, scores))
        assert found.roc_auc == pytest.approx(roc_auc_score(truth, scores))


@pytest.mark.parametrize(("texts", "printed"), [(2, True), (3, True), (4, False)])
def test_the_rarer_class_is_printed_if_it_is_rare(texts, printed):
    logits, targets = torch.randn(9, 2), torch.zeros(9).long()
    targets[:texts] = 1
    head = HeadConfig("linear", "cls", ("ham", "spam"), 8)
    lines = SingleLabel(head).score_probabilities(logits, targets).lines()
    assert any("spam, the rarer class" in line for line in lines) == printed


def test_with_one_class_alone_the_ranking_is_undefined():
    found = score_rare_class(torch.zeros(3, 2), torch.zeros(3).long(), ("ham", "spam"))
    assert (found.name, found.texts) == ("spam", 0)
    assert found.average_precision is None and found.roc_auc is None
    assert str(found).endswith("average precision and ROC AUC undefined")


# --- Python, and the model's folder


@pytest.fixture
def classifier(tmp_path) -> TextClassifier:
    """A random classifier, whose logits are large."""
    folder = write_checkpoint(tmp_path / "classifier", "bert", HEAD)
    found = TextClassifier.from_folder(folder)
    with torch.no_grad():
        found.model.head.out.weight.mul_(30)
    return found


TEXTS = [f"the {a} was {b}" for a in WORDS[:8] for b in ("good", "bad", "slow")]
LABELS = [("a", "b", "c")[i % 3] for i in range(len(TEXTS))]
PLAIN = {"device": "cpu", "precision": "fp32"}


def test_a_classifier_is_calibrated_saved_and_loaded(classifier, tmp_path):
    raw = Predictor(classifier, **PLAIN)
    logits = raw.logits(TEXTS)
    before = raw.predict_proba(TEXTS)
    classifier.calibrate(classifier.dataset(TEXTS, LABELS))
    temperature = classifier.checkpoint.head.temperature
    assert temperature > 1.5
    classifier.save(tmp_path / "saved")
    found = load(str(tmp_path / "saved"), **PLAIN)
    torch.testing.assert_close(found.logits(TEXTS), logits)
    expected = torch.softmax(logits / temperature, dim=1).numpy()
    np.testing.assert_allclose(found.predict_proba(TEXTS), expected, atol=1e-5)
    assert found.predict(TEXTS) == raw.predict(TEXTS)
    without = load(str(tmp_path / "saved"), raw=True, **PLAIN)
    np.testing.assert_allclose(without.predict_proba(TEXTS), before, atol=1e-5)
    assert read_head_config(tmp_path / "saved").temperature == temperature


def test_raw_does_not_change_the_classifier(classifier):
    classifier.calibrate(classifier.dataset(TEXTS, LABELS))
    head = classifier.checkpoint.head
    assert Predictor(classifier, raw=True, **PLAIN).task.head.temperature == 1
    assert classifier.checkpoint.head == head


def test_a_folder_without_a_temperature_has_no_such_entry(classifier, tmp_path):
    classifier.save(tmp_path / "saved")
    entry = json.loads((tmp_path / "saved/config.json").read_text())["minibert"]
    assert entry == {"head": "linear", "pooling": "cls", "max_length": 40}


def test_several_labels_are_calibrated_before_their_thresholds_are_tuned(tmp_path):
    folder = write_checkpoint(tmp_path / "several", "bert", SEVERAL)
    several = TextClassifier.from_folder(folder)
    data = several.dataset(TEXTS, [[label] for label in LABELS])
    several.tune_thresholds(data)
    for threshold in ("0", "1.0", "abc", "nan"):
        with pytest.raises(InputError, match="over 0 and under 1"):
            several.tune_thresholds(data, how=threshold)
    predicted = Predictor(several, **PLAIN).predict(TEXTS)
    several.calibrate(data)
    assert several.checkpoint.head.temperature != 1
    assert Predictor(several, **PLAIN).predict(TEXTS) == predicted
    several.save(tmp_path / "saved")
    assert load(str(tmp_path / "saved"), **PLAIN).predict(TEXTS) == predicted
    assert load(str(tmp_path / "saved"), raw=True, **PLAIN).predict(TEXTS) == predicted


def test_a_regression_has_no_temperature_and_says_so(tmp_path):
    folder = write_checkpoint(tmp_path / "number", "bert", NUMBER)
    number = TextClassifier.from_folder(folder)
    with pytest.raises(InputError, match="predicts numbers, which have no probabilities"):
        number.calibrate(number.dataset(["good", "bad"], [1, 2]))
    with pytest.raises(InputError, match="predicts numbers, which have no probabilities"):
        load(str(folder), raw=True)


def test_validation_without_labels_is_refused(classifier):
    with pytest.raises(InputError, match="validation needs texts with labels"):
        classifier.calibrate(classifier.dataset(TEXTS))


# --- the commands

FLAGS = ("--device", "cpu", "--precision", "fp32")
QUICK = (
    *(*FLAGS, "--model", "encoder", "--max-length", "40", "--batch-size", "4"),
    *("--epochs", "3", "--encoder-lr", "0.003", "--head-lr", "0.003"),
)
REVIEWS = (*QUICK, "--data", "reviews.csv", "--seed", "0", "--target-accuracy", "0.8")


def run_train(*argv: str) -> None:
    train.main(parse_train(argv))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder with data of which one label in seven is wrong, and a run with a reject option."""
    folder = tmp_path_factory.mktemp("calibration")
    write_checkpoint(folder / "encoder")
    reviews, numbers = ["text,label"], ["text,label"]
    for i in range(100):
        a, b = WORDS[5 + i % 20], WORDS[5 + (7 * i + 3) % 20]
        good, is_wrong = i % 2, i % 7 == 0
        text = f"the {a} was {'good' if good else 'bad'} {b} {i}"
        reviews.append(f"{text},{'positive' if good != is_wrong else 'negative'}")
        numbers.append(f"{text},{good + 0.5}")
    (folder / "reviews.csv").write_text("\n".join(reviews) + "\n")
    (folder / "numbers.csv").write_text("\n".join(numbers) + "\n")
    before = Path.cwd()
    os.chdir(folder)
    run_train(*REVIEWS, "--out", "runs/reviews")
    run_train(*QUICK, "--data", "numbers.csv", "--out", "runs/numbers")
    yield folder
    os.chdir(before)


@pytest.fixture
def predicted(place, run_script) -> Callable[..., list[dict[str, Any]]]:
    """Run predict.py on three texts as a process; return its records."""

    def call(*argv: str) -> list[dict[str, Any]]:
        texts = ("the film was good soup 7", "bad", "the room was kind")
        result = run_script("predict.py", "--model", "runs/reviews", *FLAGS, *argv, *texts)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        return [strict_json(line) for line in result.stdout.splitlines()]

    run_script.place.rmdir()
    run_script.place.symlink_to(place)
    return call


def metrics(run: str) -> dict[str, Any]:
    return strict_json((Path(run) / "metrics.json").read_text())


def test_a_run_stores_a_temperature_and_tells_its_figures(place):
    head, figures = read_head_config(Path("runs/reviews")), metrics("runs/reviews")
    assert head.temperature != 1
    for split in ("validation", "test"):
        calibration = figures[split]["calibration"]
        assert calibration["temperature"] == head.temperature
        assert calibration["before"]["log_loss"] == pytest.approx(figures[split]["loss"], abs=1e-6)
        bins = calibration["after"]["reliability"]
        assert sum(x["decisions"] for x in bins) == figures[split]["texts"]
        assert figures[split]["rare_class"]["name"] in ("positive", "negative")
    before, after = (figures["validation"]["calibration"][x] for x in ("before", "after"))
    assert after["log_loss"] < before["log_loss"]


def test_a_regression_has_no_figures_of_probabilities(place):
    assert not {"calibration", "accepted", "rare_class"} & metrics("runs/numbers")["test"].keys()
    assert read_head_config(Path("runs/numbers")).temperature == 1


def test_predict_uses_the_temperature_and_leaves_it_out_with_raw(place, predicted):
    temperature = read_head_config(Path("runs/reviews")).temperature
    found, raw = predicted(), predicted("--raw")
    assert [record["label"] for record in found] == [record["label"] for record in raw]
    for one, other in zip(found, raw, strict=True):
        logits = torch.tensor(list(other["probabilities"].values())).log()
        expected = torch.softmax(logits / temperature, dim=0).tolist()
        assert list(one["probabilities"].values()) == pytest.approx(expected, abs=1e-4)
        assert one["probability"] != other["probability"]


def test_the_stored_lowest_probability_rejects_an_explicit_one_wins_and_0_is_none(place, predicted):
    bound = read_head_config(Path("runs/reviews")).min_probability
    assert 0 < bound < 1
    for argv, expected in (((), bound), (("--min-probability", "0.9999"), 0.9999)):
        for record in predicted(*argv):
            assert list(record)[:4] == ["text", "label", "probability", "rejected"]
            assert record["rejected"] is (record["probability"] < expected)
    for argv in (("--min-probability", "0"), ("--raw",)):
        assert not any("rejected" in record for record in predicted(*argv))
    (first, *_) = predicted("--raw", "--min-probability", "0.9999")
    assert first["rejected"] is True


def test_coverage_and_accuracy_are_those_of_the_rows_that_predict_accepts(place, capsys):
    run, output = Path("runs/reviews"), Path("out.csv")
    argv = ("--model", str(run), *FLAGS)
    rows = [strict_json(line) for line in (run / "test_predictions.jsonl").open()]
    lines = [json.dumps({"text": row["text"], "id": i}) for i, row in enumerate(rows)]
    Path("in.jsonl").write_text("\n".join([*lines, '{"text": 7, "rejected": "no"}']) + "\n")
    predict.main(parse_predict([*argv, "--input", "in.jsonl", "--output", str(output)]))
    *table, bad = read_table(output)
    assert len(table) == len(rows) and (bad["rejected"], bad["input_rejected"]) == ("", "no")
    accepted = [row for row, x in zip(rows, table, strict=True) if x["rejected"] == "False"]
    figures = metrics(str(run))["test"]["accepted"]
    assert figures["texts"] == len(accepted)
    assert figures["coverage"] == len(accepted) / len(rows)
    right = sum(row["label"] == row["prediction"] for row in accepted)
    assert figures["accuracy"] == (right / len(accepted) if accepted else None)
    chosen_by = metrics(str(run))["validation"]["accepted"]
    assert chosen_by["accuracy"] >= 0.8 and chosen_by["accuracy_95"] is None

    evaluate.main(parse_evaluate([*argv, "--json", "figures.json"]))
    assert strict_json(Path("figures.json").read_text())["accepted"] == figures
    shown = re.search(r"^accepted with .* (\d+) texts \((.*)%\)", capsys.readouterr().out, re.M)
    assert shown and int(shown[1]) == len(accepted)


def test_eval_tells_the_raw_probabilities_on_request(place, capsys):
    argv = ("--model", "runs/reviews", *FLAGS, "--raw", "--json", "raw.json")
    evaluate.main(parse_evaluate(argv))
    found, expected = strict_json(Path("raw.json").read_text()), metrics("runs/reviews")["test"]
    assert found["calibration"]["temperature"] == 1
    before = expected["calibration"]["before"]
    for name in ("expected_calibration_error", "brier", "log_loss"):
        assert found["calibration"]["after"][name] == pytest.approx(before[name], abs=1e-6)
    assert re.search(r"^probabilities: calibration error ", capsys.readouterr().out, re.M)


def test_a_run_that_dies_after_calibration_ends_as_one_that_does_not(place, monkeypatch):
    def die(*_: Any) -> None:
        raise InputError("died")

    with monkeypatch.context() as patched, pytest.raises(InputError, match="died"):
        patched.setattr(train, "evaluate", die)
        run_train(*REVIEWS, "--out", "runs/died")
    run_train("--resume", "runs/died")
    for name in ("config.json", "model.safetensors", "test_predictions.jsonl"):
        died, whole = (Path("runs", run, name).read_bytes() for run in ("died", "reviews"))
        assert died == whole
    figures, expected = metrics("runs/died"), metrics("runs/reviews")
    assert figures["validation"] == expected["validation"] and figures["test"] == expected["test"]


MAINS = {
    "train": lambda argv: train.main(parse_train(argv)),
    "eval": lambda argv: evaluate.main(parse_evaluate(argv)),
    "predict": lambda argv: predict.main(parse_predict(argv)),
}
TRAIN = " ".join(("train", *QUICK))
MISTAKES = [
    (f"{TRAIN} --data reviews.csv --target-accuracy 98", "--target-accuracy is 98.0; it must be"),
    (f"{TRAIN} --data numbers.csv --target-accuracy 0.9", "--target-accuracy is for one class per"),
    ("predict --model runs/reviews --min-probability 2 x", "--min-probability: 2 is not a probab"),
    ("predict --model runs/reviews --min-probability nan x", "--min-probability: nan is not a"),
    ("predict --model runs/numbers --min-probability 0.5 x", "--min-probability is for one class"),
    ("predict --model runs/numbers --raw x", "this model predicts numbers, which have no probab"),
    ("eval --model runs/numbers --raw", "this model predicts numbers, which have no probabilities"),
]


@pytest.mark.parametrize(("command", "says"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line(place, monkeypatch, capfd, command, says):
    script, *words = command.split()
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    status = run_command(MAINS[script])
    errors = capfd.readouterr().err
    assert status == 2 and errors.startswith("error: ") and errors.count("\n") == 1
    assert says in errors
