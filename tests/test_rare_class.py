"""A threshold for the rarer of two classes: chosen on validation, stored, used everywhere.

Run: pytest tests/test_rare_class.py
"""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score
from torch import Tensor

from minibert import InputError, TextClassifier, load
from minibert.checkpoint.config_file import read_head_config
from minibert.commands import evaluate, predict, train
from minibert.commands.arguments import parse_evaluate, parse_predict, parse_train
from minibert.evaluation.thresholds import bounds, precision_threshold, recall_threshold
from minibert.model.config import HeadConfig
from minibert.tasks.calibrated import with_min_probability, with_temperature
from minibert.tasks.choice import task_of
from minibert.tasks.single_label import SingleLabel, with_rare_class

HEAD = HeadConfig("linear", "cls", ("ham", "spam"), 40)
ROWS = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0]), st.booleans()), min_size=1)


def drawn(texts: int, *, seed: int = 0, rare: int = 1) -> tuple[Tensor, Tensor]:
    """Random logits of two classes, and class numbers of which `rare` is the rarer."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(texts, 2, generator=random)
    logits[:, rare] -= 3
    targets = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=random)[:, 0]
    targets[0], targets[1:4] = rare, 1 - rare
    return logits, targets


# --- the choice


def test_a_lowest_probability_of_the_most_probable_class_is_dropped():
    logits, targets = drawn(40)
    found = with_rare_class(with_min_probability(HEAD, 0.9), logits, targets, how="f1")
    assert found is not None and found.min_probability == 0 and found.thresholds


def test_a_bound_lies_halfway_and_equal_probabilities_have_none():
    found = bounds(np.array([0.9, 0.5, 0.5, 0.25]))
    assert found[[0, 1, 3, 4]].tolist() == pytest.approx([0.95, 0.7, 0.375, 0.125])
    assert np.isnan(found[2])


@settings(deadline=None)
@given(ROWS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_the_precision_is_reached_by_as_many_texts_as_can_be(rows, wanted):
    scores, truth = (np.array(column) for column in zip(*rows, strict=True))
    possible = [truth[scores >= x] for x in scores]
    best = max((len(x) for x in possible if x.mean() >= wanted), default=0)
    threshold = precision_threshold(scores, truth, wanted)
    assert (0 if threshold is None else int((scores >= threshold).sum())) == best


@settings(deadline=None)
@given(ROWS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_the_recall_is_reached_by_as_few_texts_as_can_be(rows, wanted):
    scores, truth = (np.array(column) for column in zip(*rows, strict=True))
    threshold = recall_threshold(scores, truth, wanted)
    if not truth.any():
        assert threshold is None
        return
    needed = [
        int((scores >= x).sum()) for x in scores if truth[scores >= x].sum() >= wanted * truth.sum()
    ]
    assert int((scores >= threshold).sum()) == min(needed)


@pytest.mark.parametrize("rare", [0, 1])
@pytest.mark.parametrize("how", ["f1", "precision=0.6", "recall=0.9"])
def test_the_threshold_gives_the_rarer_class_what_it_was_chosen_for(how, rare):
    logits, targets = drawn(400, rare=rare)
    head = with_rare_class(HEAD, logits, targets, how=how)
    assert head is not None and sum(head.thresholds) == pytest.approx(1)
    before, after = (SingleLabel(x).decide(logits) for x in (HEAD, head))
    figure, _, wanted = how.partition("=")
    score = {"f1": f1_score, "precision": precision_score, "recall": recall_score}[figure]
    found = score(targets, after, pos_label=rare)
    assert found >= (float(wanted) if wanted else score(targets, before, pos_label=rare))


def test_a_precision_that_no_threshold_reaches_gives_none():
    logits = torch.tensor([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0]])
    assert with_rare_class(HEAD, logits, torch.tensor([0, 1, 0]), how="precision=0.9") is None


@settings(deadline=None)
@given(st.integers(0, 99), st.floats(0.25, 20), st.sampled_from(["f1", "recall=0.8"]))
def test_the_temperature_never_changes_the_predicted_class(seed, temperature, how):
    logits, targets = drawn(60, seed=seed)
    head = with_rare_class(HEAD, logits, targets, how=how)
    assert head is not None
    scaled = with_temperature(head, temperature)
    assert SingleLabel(scaled).predict(logits) == SingleLabel(head).predict(logits)


def test_all_that_a_task_says_agrees_with_the_threshold():
    logits, targets = drawn(300)
    head = with_rare_class(HEAD, logits, targets, how="recall=0.9")
    assert head is not None
    task = SingleLabel(head)
    predicted = task.decide(logits)
    assert (predicted != logits.argmax(dim=1)).any()
    assert task.predict(logits) == task.labels(predicted)
    scores, right = task.score(logits, targets), (predicted == targets).double().mean()
    assert scores.accuracy == pytest.approx(float(right))
    assert scores.loss == pytest.approx(task_of(HEAD).score(logits, targets).loss)
    assert f"accuracy                          {float(right):.3f}" in task.report(logits, targets)
    for record, name in zip(task.records(logits), task.predict(logits), strict=True):
        assert record["label"] == name
        assert record["probability"] == record["probabilities"][name]
    with pytest.raises(InputError, match="--min-probability is for the most probable class"):
        with_min_probability(head, 0.4)
    assert with_min_probability(head, 0.0) == head


# --- the commands


def metrics(folder: str | Path) -> Any:
    return json.loads(Path(folder, "metrics.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with two runs on messages of which one in five is spam: recall=0.9, and none."""
    folder = tmp_path_factory.mktemp("rare")
    write_checkpoint(folder / "checkpoint")
    random = np.random.default_rng(0)
    rows = []
    for number in range(150):
        spam = number % 5 == 0
        word = "fun" if random.random() < (0.7 if spam else 0.2) else "cold"
        rows.append(f"the {word} film {number},{'spam' if spam else 'ham'}\n")
    (folder / "data.csv").write_text("text,label\n" + "".join(rows))
    quick = ("--model", str(folder / "checkpoint"), "--data", str(folder / "data.csv"))
    quick += ("--head", "logistic", "--no-baseline", "--precision", "fp32", "--device", "cpu")
    for name, more in (("recall", ("--rare-class", "recall=0.9")), ("plain", ())):
        train.main(parse_train([*quick, *more, "--max-length", "40", "--out", str(folder / name)]))
    return folder


def test_the_threshold_is_in_the_model_and_all_commands_use_it(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    head = read_head_config(Path("recall"))
    assert head is not None and head.thresholds[1] < 0.5
    assert read_head_config(Path("plain")).thresholds == ()
    recall, plain = (metrics(x)["validation"]["per_class"]["spam"] for x in ("recall", "plain"))
    assert recall["recall"] >= 0.9 > plain["recall"]
    evaluate.main(parse_evaluate(["--model", "recall", "--json", "eval.json"]))
    assert (
        json.loads(Path("eval.json").read_text())["accuracy"]
        == metrics("recall")["test"]["accuracy"]
    )
    for figures in (json.loads(Path("eval.json").read_text()), metrics("recall")["test"]):
        right = sum(x["accuracy"] * x["texts"] for x in figures["by_length"].values())
        assert right / figures["texts"] == pytest.approx(figures["accuracy"])
    words = ["--model", "recall", "--input", "data.csv", "--output", "out.csv"]
    predict.main(parse_predict([*words, "--explain", "why.jsonl"]))
    explained = [json.loads(line) for line in Path("why.jsonl").read_text().splitlines()]
    assert all(line["output"] == line["label"] for line in explained)
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    spam = [row for row in rows if row["label"] == "spam"]
    assert all(float(row["probability_spam"]) >= head.thresholds[1] - 1e-6 for row in spam)
    assert any(float(row["probability_spam"]) < 0.5 for row in spam)
    texts = [row["text"] for row in rows]
    labels = [row["label"] for row in rows]
    assert load("recall").predict(texts) == labels == load("recall", raw=True).predict(texts)


def test_the_report_names_the_rarer_class_and_its_threshold(place):
    threshold = read_head_config(place / "recall").thresholds[1]
    for name, expected in (("recall", 1), ("plain", 0)):
        fraction = metrics(place / name)["test"]["rare_class"]["fraction"]
        shown = (place / name / "report.html").read_text()
        assert f"is the class of {fraction:.1%} of the texts" in shown
        assert shown.count(f"is predicted from a probability of {threshold:.4g} on") == expected


def test_a_threshold_is_chosen_in_python(place):
    classifier = TextClassifier.from_folder(place / "plain")
    with open(place / "data.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    data = classifier.dataset([x["text"] for x in rows], [x["label"] for x in rows])
    classifier.tune_thresholds(data, how="recall=0.95")
    low, high = classifier.checkpoint.head.thresholds
    assert high < 0.5 and low + high == pytest.approx(1)
    few = classifier.dataset(["the fun film", "the cold film", "fun"], ["ham", "spam", "ham"])
    with pytest.raises(InputError, match="precision=1: no threshold reaches it"):
        classifier.tune_thresholds(few, how="precision=1")
    for how in ("shared", "precision=abc", "recall", 0.3):
        with pytest.raises(InputError, match=f"{how!r} is not like f1, precision=0"):
            classifier.tune_thresholds(few, how=how)


def test_a_config_whose_thresholds_do_not_add_up_is_refused(place, tmp_path):
    head = HeadConfig("linear", "cls", ("a", "b"), 40, thresholds=(0.25, 0.75))
    folder = write_checkpoint(tmp_path / "two", head=head)
    assert read_head_config(folder) == head
    write_checkpoint(tmp_path / "wrong", head=replace(head, thresholds=(0.25, 0.5)))
    with pytest.raises(InputError, match="holds values this version does not know"):
        load(str(tmp_path / "wrong"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--rare-class", "precision"), "'precision' is not like f1, precision=0.9 or recall=0.9"),
        (("--rare-class", "recall=2"), "'recall=2' is not like f1"),
        (("--rare-class", "f1", "--data", "three.csv"), "--rare-class is for two classes, one per"),
    ],
)
def test_a_mistake_is_one_line(place, monkeypatch, more, says):
    monkeypatch.chdir(place)
    rows = [f"film {number},{'abc'[number % 3]}\n" for number in range(60)]
    Path("three.csv").write_text("text,label\n" + "".join(rows))
    with pytest.raises(InputError, match=says):
        train.main(parse_train(["--model", "checkpoint", "--max-length", "40", *more]))
