"""Cross-validation: the folds of the rows, and train.py --folds.

Run: pytest tests/test_folds.py
"""

import csv
import json
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import finish_script, start_script, strict_json, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.commands import train
from minibert.commands.arguments import parse_train
from minibert.commands.model_flags import ModelArguments
from minibert.commands.predict import load_predictor
from minibert.commands.report import report_run
from minibert.data.duplicates import normalize
from minibert.data.examples import Examples
from minibert.data.folds import fold_rows
from minibert.data.options import DataOptions
from minibert.data.splits import read_splits
from minibert.errors import InputError
from minibert.report.card import model_card
from minibert.run_folders import newest_run
from minibert.runs import RunFolder

# --- rows


def examples(texts: list[str], labels: list, task: str = "single-label") -> Examples:
    places = [f"data.csv, line {row + 2}" for row in range(len(texts))]
    return Examples("data.csv", texts, None, labels, task, places=places)


def texts_of(data: Examples, rows: np.ndarray) -> set[str]:
    return {normalize(data.texts[row]) for row in rows}


TEXTS = st.sampled_from([f"{word}{end}" for word in "abcdefghij" for end in ("", "!", " ?")])
CLASSES = {
    "single-label": st.sampled_from("xyz"),
    "multi-label": st.sets(st.sampled_from("xyz"), max_size=3).map(tuple),
    "regression": st.floats(0, 9).map(lambda number: (number,)),
}


@pytest.mark.parametrize("task", CLASSES)
@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(2, 4), st.sampled_from([None, (70, 15)]), st.integers(0, 9))
def test_every_row_is_held_out_once_and_no_text_is_in_two_parts(task, data, folds, ratios, seed):
    rows = data.draw(st.lists(st.tuples(TEXTS, CLASSES[task]), min_size=2, max_size=50))
    drawn = examples([text for text, _ in rows], [label for _, label in rows], task)
    held_out = []
    for number in range(1, folds + 1):
        try:
            parts = fold_rows(drawn, number, folds, ratios, seed=seed)
        except InputError:
            return  # too few texts: see below
        assert np.sort(np.concatenate(parts)).tolist() == list(range(len(rows)))
        texts = [texts_of(drawn, part) for part in parts]
        assert sum(map(len, texts)) == len(set.union(*texts))
        known = {name for row in parts[0] for name in drawn.take([row], "").classes()}
        assert known == set(drawn.classes())  # the run is trained on every class
        held_out += parts[2].tolist()
    assert sorted(held_out) == list(range(len(rows)))


def test_each_class_is_in_proportion_in_each_fold():
    data = examples([f"text {row}" for row in range(120)], ["x", "y", "y", "z", "z", "z"] * 20)
    for number in (1, 2, 3, 4):
        train_rows, validation, fold = fold_rows(data, number, 4, (70, 20), seed=3)
        assert Counter(data.labels[row] for row in fold) == {"x": 5, "y": 10, "z": 15}
        assert (len(train_rows), len(validation)) == (70, 20)


def test_a_class_whose_texts_are_all_in_one_fold_is_refused():
    data = examples(["one", "One!", *(f"text {row}" for row in range(20))], ["x"] * 2 + ["y"] * 20)
    with pytest.raises(InputError, match=r"the class 'x' has 1 distinct text, all in one of 3"):
        fold_rows(data, 1, 3, None, seed=0)


def test_fewer_distinct_texts_than_folds_are_refused():
    data = examples(["one", "ONE", "two", "two."], ["x", "y", "y", "x"])
    with pytest.raises(InputError, match="has 2 distinct texts, too few for 3 folds"):
        fold_rows(data, 1, 3, None, seed=0)


def written(file: Path, rows: int, start: int = 0) -> str:
    lines = [f"text {row},{'ab'[row % 2]}\n" for row in range(start, start + rows)]
    file.write_text("text,label\n" + "".join(lines))
    return str(file)


def test_the_test_split_of_an_ordinary_run_is_in_no_fold(tmp_path):
    data = written(tmp_path / "data.csv", 60)
    plain = read_splits(DataOptions(data))
    folds = [read_splits(DataOptions(data, fold=(number, 3))) for number in (1, 2, 3)]
    assert plain.test is not None
    held_out = [text for splits in folds for text in splits.test.texts]
    assert sorted(held_out) == sorted(plain.train.texts + plain.validation.texts)
    assert all(splits.rows.fingerprint() == folds[0].rows.fingerprint() for splits in folds)


def test_rows_of_a_given_validation_or_test_file_are_in_no_fold(tmp_path):
    data, other = written(tmp_path / "data.csv", 40), written(tmp_path / "other.csv", 10, 100)
    splits = read_splits(DataOptions(data, validation=other, fold=(1, 4)))
    assert splits.validation.texts == [f"text {row}" for row in range(100, 110)]
    assert (len(splits.train), len(splits.test)) == (30, 10)
    splits = read_splits(DataOptions(data, test=other, fold=(1, 4)))
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (30, 10)
    assert not any(text.startswith("text 10") and len(text) > 7 for text in splits.test.texts)


# --- train.py --folds

QUICK = (
    *("--model", "checkpoint", "--data", "reviews.csv", "--device", "cpu", "--precision", "fp32"),
    *("--max-length", "40", "--batch-size", "4", "--encoder-lr", "0.003", "--head-lr", "0.01"),
    *("--epochs", "5", "--save-every", "2", "--no-baseline"),
)


def run(*argv: str | Path) -> None:
    train.main(parse_train(list(map(str, argv))))


def metrics(folder: str | Path) -> Any:
    return strict_json((Path(folder) / "metrics.json").read_text())


def out_of_fold(folder: str | Path) -> list[dict[str, Any]]:
    return [strict_json(x) for x in (Path(folder) / "out_of_fold.jsonl").read_text().splitlines()]


def issues(folder: str | Path) -> list[dict[str, str]]:
    with open(Path(folder) / "label_issues.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with reviews.csv, of which line 4 is wrong, a checkpoint, and a cross-validation."""
    folder = tmp_path_factory.mktemp("folds")
    write_checkpoint(folder / "checkpoint")
    lines = [f"the film {i} was good,yes\nthe film {i} was bad,no\n" for i in range(30)]
    lines[1] = "the film 1 was good,no\nthe film 1 was bad,no\n"
    (folder / "reviews.csv").write_text("text,label\n" + "".join(lines))
    before = Path.cwd()
    os.chdir(folder)
    run(*QUICK, "--folds", "3", "--out", "folds")
    os.chdir(before)
    return folder


def test_every_row_has_a_prediction_of_a_run_that_held_it_out_in_the_order_of_the_file(place):
    rows = out_of_fold(place / "folds")
    lines = (place / "reviews.csv").read_text().splitlines()
    assert [f"{row['text']},{row['label']}" for row in rows] == [
        lines[row["line"] - 1] for row in rows
    ]
    assert [row["line"] for row in rows] == sorted({row["line"] for row in rows})
    assert len(rows) == 51 and {row["file"] for row in rows} == {"reviews.csv"}
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == row["probabilities"][row["prediction"]]


def test_metrics_have_the_figures_of_the_folds_and_of_all_rows(place):
    figures = metrics(place / "folds")["folds"]
    accuracies = [metrics(place / "folds" / f"fold-{k}")["test"]["accuracy"] for k in (1, 2, 3)]
    assert [fold["accuracy"] for fold in figures["runs"].values()] == accuracies
    assert figures["held_out"]["accuracy"] == {
        "mean": pytest.approx(np.mean(accuracies)),
        "deviation": pytest.approx(np.std(accuracies, ddof=1)),
    }
    rows = out_of_fold(place / "folds")
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert figures["all_rows"]["texts"] == len(rows)
    assert figures["all_rows"]["accuracy"] == pytest.approx(right)
    low, high = figures["all_rows"]["accuracy_95"]
    assert low < right <= high
    assert "loss" not in figures["all_rows"]


def test_rows_with_a_suggested_label_are_a_table(place):
    listed = issues(place / "folds")
    assert len(listed) == metrics(place / "folds")["folds"]["label_issues"]
    assert list(listed[0]) == [
        *("text", "label", "suggested", "label_probability", "suggested_probability"),
        *("file", "line"),
    ]


def test_the_wrong_label_is_the_first_of_the_list(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    run(*QUICK[:10], "--head", "logistic", "--folds", "3", "--out", tmp_path / "folds")
    first = issues(tmp_path / "folds")[0]
    assert (first["text"], first["line"]) == ("the film 1 was good", "4")
    assert (first["label"], first["suggested"]) == ("no", "yes")


def test_a_run_of_one_fold_is_as_in_the_series(place, monkeypatch):
    monkeypatch.chdir(place)
    run(*QUICK, "--fold", "2/3", "--out", "alone")
    for name in ("model.safetensors", "test_predictions.jsonl"):
        one, other = (Path(x, name).read_bytes() for x in ("alone", "folds/fold-2"))
        assert one == other


def test_a_killed_cross_validation_resumes_to_the_same_bytes(place, tmp_path):
    out = tmp_path / "killed"
    process = start_script("train.py", *QUICK, "--folds", "3", "--out", out, cwd=place)
    while not list(out.glob("fold-2/resume-*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    finished = finish_script("train.py", "--resume", out, cwd=place)
    assert finished.returncode == 0, finished.stderr
    for name in ("out_of_fold.jsonl", "label_issues.csv", "metrics.json"):
        assert (out / name).read_bytes() == (place / "folds" / name).read_bytes()


def test_there_is_no_model_to_use(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "folds", "runs/folds")
    with pytest.raises(InputError, match="no finished run"):
        newest_run()
    with pytest.raises(InputError, match="a cross-validation has no model; train without"):
        load_predictor(ModelArguments("runs/folds", {}))
    with pytest.raises(InputError, match="the run is finished; a cross-validation has no model"):
        RunFolder(Path("runs/folds")).check_unfinished()
    for use in (lambda folder: model_card(folder, "me/reviews"), report_run):
        with pytest.raises(InputError, match=r"folds: a cross-validation has no model; train with"):
            use(Path("runs/folds"))
    shutil.copytree(place / "folds" / "fold-1", "runs/model")
    os.utime("runs/model/metrics.json", (0, 0))
    assert newest_run() == Path("runs/model")


@pytest.mark.parametrize("how", [("--freeze",), ("--head", "logistic", "--pooling", "mean")])
def test_a_frozen_encoder_reads_each_text_once(place, tmp_path, capsys, how, monkeypatch):
    monkeypatch.chdir(place)
    quick = QUICK[:10] if "logistic" in how else QUICK  # without learning rates
    run(*quick, *how, "--folds", "3", "--out", tmp_path / "frozen")
    lines = [x for x in capsys.readouterr().out.splitlines() if "frozen layers: " in x]
    assert "51 texts encoded once" in lines[0]
    assert sum("that of an earlier run" in line for line in lines) == 2
    # A later process encodes them again, to the same bits.
    shutil.rmtree(tmp_path / "frozen" / "fold-3")
    before = {x: (tmp_path / "frozen" / x).read_bytes() for x in ("out_of_fold.jsonl",)}
    (tmp_path / "frozen" / "metrics.json").unlink()
    run("--resume", tmp_path / "frozen")
    assert (tmp_path / "frozen" / "out_of_fold.jsonl").read_bytes() == before["out_of_fold.jsonl"]


def test_a_changed_label_between_two_folds_is_one_line(place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    shutil.rmtree("folds/fold-3")
    Path("folds/metrics.json").unlink()
    for number in (1, 2):
        file = Path(f"folds/fold-{number}/settings.json")
        values = json.loads(file.read_text())
        values |= {"data": str(Path("reviews.csv").resolve())}
        values["environment"]["model_folder"] = str(Path("checkpoint").resolve())
        file.write_text(json.dumps({**values, "model": str(Path("checkpoint").resolve())}))
    text = Path("reviews.csv").read_text().replace("film 7 was good,yes", "film 7 was good,no")
    Path("reviews.csv").write_text(text)
    with pytest.raises(InputError, match=r"fold-3: rows changed since the run fold-1; start"):
        run("--resume", "folds")


@pytest.mark.parametrize(
    ("task", "labels"),
    [("multi-label", ["x|y", "y", "", "x"]), ("regression", ["0.5", "1.25", "2.5", "-1"])],
)
def test_other_tasks_have_figures_and_no_list(place, tmp_path, capsys, task, labels, monkeypatch):
    monkeypatch.chdir(place)
    rows = [f"the film {row} was good,{labels[row % 4]}\n" for row in range(40)]
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(rows))
    out = tmp_path / "folds"
    run(*QUICK, "--data", tmp_path / "data.csv", "--task", task, "--folds", "2", "--out", out)
    assert "wrong labels are listed for one class per text only" in capsys.readouterr().out
    assert not (out / "label_issues.csv").exists() and len(out_of_fold(out)) == 34
    name = "micro_f1" if task == "multi-label" else "rmse"
    assert metrics(out)["folds"]["all_rows"][name] >= 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--folds", "1"), "--folds is 1; it must be from 2 to 1000"),
        (("--folds", "3", "--seeds", "2"), "--seeds and --folds are different series of runs"),
        (("--folds", "3", "--fold", "1/3"), "--folds trains one run for each fold; drop --fold"),
        (("--fold", "4/3"), r"--fold is \(4, 3\); it needs a fold from 1 on, of 2 or more"),
        (("--fold", "3"), "'3' is not like 2/5"),
    ],
)
def test_a_mistake_is_one_line(argv, says):
    with pytest.raises(InputError, match=says):
        parse_train(list(argv))
