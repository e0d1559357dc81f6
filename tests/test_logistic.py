"""Logistic regression on frozen features: scikit-learn's logits from a linear head, and its run.

Run: pytest tests/test_logistic.py
"""

import csv
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import finish_script, random_texts, strict_json, tiny_classifier, write_checkpoint
from sklearn.linear_model import LogisticRegression

from minibert import fit_logistic, load
from minibert.checkpoint.config_file import read_head_config
from minibert.commands.arguments import parse_train
from minibert.commands.train import main
from minibert.data.batches import TextDataset
from minibert.device import Compute
from minibert.errors import InputError, Interrupted
from minibert.inference.batched import prepare_for_inference
from minibert.model.classifier import Classifier
from minibert.model.config import HeadConfig
from minibert.training import logistic
from minibert.training.callback import Callback
from minibert.training.logistic import check_logistic, lowest_good, suggest_logistic
from minibert.training.options import TrainingOptions

CPU = Compute(torch.device("cpu"))


def texts_of(classes: int, count: int = 90, seed: int = 0) -> TextDataset:
    """Random texts; a text's class is that of its second token."""
    texts = random_texts(count, seed=seed)
    texts.labels = torch.tensor([int(row.ids[1]) % classes for row in texts.rows])
    return texts


def linear_classifier(classes: int, **changes: Any) -> Classifier:
    names = tuple(f"class {number}" for number in range(classes))
    return tiny_classifier(head="linear", pooling="mean", classes=names, **changes)


def features_of(model: Classifier, texts: TextDataset) -> np.ndarray:
    ready = prepare_for_inference(model, CPU, keep=True)
    return ready.features(texts, batch_size=8).values.double().numpy()


def logits_of(model: Classifier, texts: TextDataset) -> np.ndarray:
    return prepare_for_inference(model, CPU, keep=True).logits(texts, batch_size=8).numpy()


# --- the regression


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_logits_are_the_decision_function_of_scikit_learn(classes, weights):
    model, train, unseen = linear_classifier(classes), texts_of(classes), texts_of(classes, seed=1)
    options = TrainingOptions(class_weights=weights)
    result = fit_logistic(model, train, unseen, options, compute=CPU)
    x, new = features_of(model, train), features_of(model, unseen)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.sqrt(np.mean(scale**2))
    theirs = LogisticRegression(
        C=result.c, class_weight=None if weights == "none" else weights, max_iter=1000
    ).fit((x - mean) / scale, train.labels.numpy())
    expected, logits = theirs.decision_function((new - mean) / scale), logits_of(model, unseen)
    if classes == 2:
        assert np.all(logits[:, 0] == 0)
        logits = logits[:, 1]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    accuracy = result.history[0].validation["accuracy"]
    assert accuracy == pytest.approx(theirs.score((new - mean) / scale, unseen.labels.numpy()))
    assert result.folds == 5 and (result.best_epoch, result.steps) == (1, 0)


def test_the_head_alone_is_trained_and_the_seed_decides_the_folds():
    weights = []
    for _ in range(2):
        model = linear_classifier(3)
        before = {name: x.clone() for name, x in model.encoder.state_dict().items()}
        result = fit_logistic(model, texts_of(3), texts_of(3, seed=1), compute=CPU)
        assert all(torch.equal(before[name], x) for name, x in model.encoder.state_dict().items())
        weights.append((result.c, model.head.out.weight.clone()))
    assert weights[0][0] == weights[1][0] and torch.equal(weights[0][1], weights[1][1])


def test_the_record_has_the_loss_of_both_splits():
    model, train, validation = linear_classifier(3), texts_of(3), texts_of(3, seed=1)
    (record,) = fit_logistic(model, train, validation, compute=CPU).history
    for texts, loss in ((train, record.train_loss), (validation, record.validation["loss"])):
        logits = torch.from_numpy(logits_of(model, texts))
        expected = torch.nn.functional.cross_entropy(logits, texts.labels)
        assert loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("count", "folds"), [(1, 0), (2, 2), (4, 4), (5, 5), (6, 5)])
def test_the_rarest_class_limits_the_folds(count, folds):
    train = texts_of(2)
    rare = torch.arange(len(train)) < count
    train.labels = torch.where(rare, 2, train.labels)
    model = linear_classifier(3)
    result = fit_logistic(model, train, train, compute=CPU)
    assert result.folds == folds
    if not folds:
        assert result.c == 1
        assert "C 1 (not chosen by cross-validation, as a class has one training text)" in str(
            result
        )
    else:
        assert f"(by {folds}-fold cross-validation)" in str(result)
    assert np.isfinite(logits_of(model, train)).all()


def test_texts_that_are_all_the_same_are_no_error():
    train = texts_of(2)
    train.rows = [train.rows[0]] * len(train)
    train.lengths[:] = len(train.rows[0])
    model = linear_classifier(2)
    fit_logistic(model, train, train, compute=CPU)
    assert np.isfinite(logits_of(model, train)).all()


def test_the_lowest_c_within_a_standard_error_of_the_best():
    scores = {f"split{fold}_test_score": np.zeros(4) for fold in range(4)}
    scores["mean_test_score"] = np.array([-0.9, -0.55, -0.5, -0.6])
    scores["std_test_score"] = np.array([9.0, 9.0, 0.11, 9.0])  # a standard error of 0.055
    assert lowest_good(scores) == 1
    scores["std_test_score"][2] = 0.09
    assert lowest_good(scores) == 2


def test_the_callback_sees_the_features_and_the_fitted_weights():
    seen: list[object] = []

    class Watch(Callback):
        def on_encoded(self, encoding):
            seen.append(encoding.texts)

        def on_best(self, model):
            seen.append(model.head.out.weight.clone())

        def close(self):
            seen.append("closed")

    model = linear_classifier(3)
    fit_logistic(model, texts_of(3), texts_of(3, count=7), compute=CPU, callback=Watch())
    texts, weight, closed = seen
    assert (texts, closed) == (97, "closed") and torch.equal(weight, model.head.out.weight)
    assert not model.training


# --- mistakes


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"epochs": 5}, "--epochs"),
        ({"encoder_lr": 1e-4, "head_lr": 1e-3}, "--encoder-lr, --head-lr"),
        ({"schedule": "constant", "warmup": 0.0}, "--schedule, --warmup"),
        ({"freeze_layers": 1, "patience": 1}, "--freeze-layers, --patience"),
        ({"label_smoothing": 0.1, "accumulate": 2}, "--accumulate, --label-smoothing"),
        ({"select": "loss"}, "--select"),
    ],
)
def test_options_of_training_steps_are_named(options, flags):
    head = HeadConfig("linear", "mean", ("a", "b"), 8)
    with pytest.raises(InputError) as error:
        check_logistic(head, TrainingOptions(**options))
    assert str(error.value) == f"--head logistic has no training steps; drop {flags}"


def test_other_options_apply():
    head = HeadConfig("linear", "mean", ("a", "b"), 8)
    options = {"class_weights": "balanced", "batch_size": 7, "seed": 5, "freeze": True}
    check_logistic(head, TrainingOptions(**options))


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_other_tasks_are_named(task):
    head = HeadConfig("linear", "mean", ("a", "b"), 8, task)
    with pytest.raises(InputError, match=f"is for one class per text, not for {task}$"):
        check_logistic(head, TrainingOptions())


def test_another_head_is_named():
    model = tiny_classifier(head="mlp")
    with pytest.raises(InputError, match='the head is mlp; fit_logistic needs head="linear"'):
        fit_logistic(model, texts_of(3), texts_of(3), compute=CPU)


def test_a_class_without_a_training_text_is_named():
    with pytest.raises(InputError, match="the class 'class 2' has no training text"):
        fit_logistic(linear_classifier(3), texts_of(2), texts_of(2), compute=CPU)


def test_features_that_are_not_finite_are_one_line():
    model = linear_classifier(2)
    with torch.no_grad():
        model.encoder.embeddings.norm.bias[0] = float("nan")
    with pytest.raises(InputError, match="features are not finite; use --precision fp32"):
        fit_logistic(model, texts_of(2), texts_of(2), compute=CPU)


# --- the suggestion


@pytest.mark.parametrize(("count", "suggested"), [(2, True), (98, True), (100, False)])
def test_it_is_suggested_for_few_texts_per_class(count, suggested):
    head = HeadConfig("mlp", "cls", ("a", "b"), 8)
    lines = suggest_logistic(head, torch.arange(count) % 2)
    assert bool(lines) == suggested
    assert not lines or f"with {count // 2} training texts per class, try" in lines[0]


def test_it_is_not_suggested_for_one_rare_class():
    targets = torch.cat([torch.zeros(197), torch.ones(3)]).long()
    assert suggest_logistic(HeadConfig("mlp", "cls", ("a", "b"), 8), targets) == []


def test_it_is_not_suggested_for_other_tasks():
    assert suggest_logistic(HeadConfig("mlp", "cls", ("a",), 8, "regression"), torch.ones(9)) == []


# --- the commands

RUN = (
    *("--model", "encoder", "--data", "reviews.csv", "--max-length", "40"),
    *("--device", "cpu", "--precision", "fp32"),
)
SUGGESTION = "try --head logistic"


@pytest.fixture
def place(tmp_path, reviews, monkeypatch) -> Path:
    """The current folder, with a bare encoder and 60 reviews, 42 of them to train on."""
    write_checkpoint(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_evaluate_and_predict(place):
    done = finish_script("train.py", *RUN, "--head", "logistic", "--out", "run", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    run = place / "run"
    assert {file.name for file in run.iterdir()} == {
        *("config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
        *("settings.json", "history.csv", "metrics.json", "test_predictions.jsonl"),
        "report.html",
    }
    head = read_head_config(run)
    assert head is not None and (head.kind, head.pooling) == ("linear", "mean")
    assert re.search(r"^3 frozen layers: 60 texts encoded once", done.stdout, re.MULTILINE)
    assert re.search(
        r"^logistic regression: C [\d.]+ \(by 5-fold cross-validation\) in [\d.]+ s; loss \d\.\d+; "
        r"validation accuracy [\d.]+%, macro-F1 [\d.]+%, loss \d\.\d+$",
        done.stdout,
        re.MULTILINE,
    )
    assert SUGGESTION not in done.stdout
    assert "this is one seed" not in done.stdout
    metrics = strict_json((run / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.8
    assert metrics["training"]["folds"] == 5 and metrics["training"]["epochs"] == 1
    with open(run / "history.csv", newline="") as file:
        (record,) = csv.DictReader(file)
    assert record["learning_rate"] == ""
    assert float(record["validation_loss"]) == pytest.approx(
        metrics["validation"]["loss"], abs=1e-4
    )

    scored = finish_script("eval.py", "--model", "run", "--json", "scores.json", cwd=place)
    assert scored.returncode == 0, scored.stderr
    assert strict_json((place / "scores.json").read_text())["accuracy"] == pytest.approx(
        metrics["test"]["accuracy"]
    )
    rows = [json.loads(line) for line in (run / "test_predictions.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rows]
    predicted = finish_script("predict.py", "--model", "run", *texts, cwd=place)
    labels = [json.loads(line)["label"] for line in predicted.stdout.splitlines()]
    assert labels == [row["prediction"] for row in rows]
    assert load("run", precision="fp32").predict(texts) == labels


@pytest.mark.parametrize("lost", [[], ["history.csv"], ["history.csv", "model.safetensors"]])
def test_a_killed_run_starts_again_and_ends_with_the_same_bytes(place, lost):
    main(parse_train([*RUN, "--head", "logistic", "--out", "run"]))
    shutil.copytree("run", "killed")
    for name in ("metrics.json", "test_predictions.jsonl", *lost):
        (place / "killed" / name).unlink()
    main(parse_train(["--resume", "killed"]))
    for name in ("model.safetensors", "config.json", "test_predictions.jsonl"):
        assert (place / "run" / name).read_bytes() == (place / "killed" / name).read_bytes()


def test_a_signal_leaves_no_weights_and_says_how_to_start_again(place, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)  # in this thread, whichever others there are

    monkeypatch.setattr(logistic, "fit_regression", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    try:
        with pytest.raises(Interrupted, match=r"resume with: .* --resume run$"):
            main(parse_train([*RUN, "--head", "logistic", "--out", "run"]))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not {"model.safetensors", "history.csv"} & {file.name for file in Path("run").iterdir()}
    monkeypatch.undo()
    monkeypatch.chdir(place)
    main(parse_train(["--resume", "run"]))
    assert Path("run/metrics.json").exists()


@pytest.mark.parametrize(
    ("flags", "suggested"), [((), True), (("--freeze",), False), (("--head", "logistic"), False)]
)
def test_train_suggests_it_unless_the_encoder_is_frozen(place, capsys, flags, suggested):
    epochs = () if "logistic" in flags else ("--epochs", "1")
    main(parse_train([*RUN, *flags, *epochs]))
    assert (SUGGESTION in capsys.readouterr().out) == suggested


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--epochs", "5", "--clip", "2"), "has no training steps; drop --epochs, --clip"),
        (("--save-every", "5"), "has no steps to save; drop --save-every and --keep-states"),
        (("--task", "multi-label"), "is for one class per text, not for multi-label"),
    ],
)
def test_a_mistake_is_told_before_there_is_a_run(place, flags, problem):
    with pytest.raises(InputError, match=problem):
        main(parse_train([*RUN, "--head", "logistic", "--out", "run", *flags]))
    assert not (place / "run").exists()
