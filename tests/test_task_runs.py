"""Several labels and numbers in the three commands: train, resume, evaluate, predict, mistakes.

Single labels are in the tests of each command. Run: pytest tests/test_task_runs.py
"""

import csv
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    WORDS,
    assert_same_figures,
    read_table,
    start_script,
    strict_json,
    write_checkpoint,
)

from minibert import load
from minibert.checkpoint.config_file import read_head_config
from minibert.commands import evaluate, predict, train
from minibert.commands.arguments import parse_evaluate, parse_predict, parse_train
from minibert.commands.process import run_command
from minibert.model.config import HeadConfig

PLAIN = ("--device", "cpu", "--precision", "fp32")
QUICK = (
    *(*PLAIN, "--model", "encoder", "--max-length", "40", "--batch-size", "4"),
    *("--encoder-lr", "0.003", "--head-lr", "0.01"),
)
EPOCHS = 6
LONG = (*QUICK, "--epochs", str(EPOCHS))  # long enough to be killed
SEVERAL = (*QUICK, "--encoder-lr", "0.01", "--epochs", "6")
RUNS = {
    # "number" has a seed of its own: with some seeds, 0 among them, so small a model stays at the
    # mean, in random batches too.
    "several": ("--data", "lists.jsonl", *SEVERAL),
    "number": ("--data", "number.csv", "--head", "native", *QUICK, "--epochs", "10", "--seed", "1"),
    "numbers": ("--data", "columns.csv", "--label-columns", "stars,length", *QUICK),
}


def rows() -> Iterator[dict[str, Any]]:
    """60 texts. The word good is fun, bad is sad, kind is odd; stars and length are numbers.

    Two of them have no label.
    """
    for i in range(60):
        a, b = WORDS[5 + i % 20], WORDS[5 + (7 * i + 3) % 20]
        good, kind = i % 2, i % 3 == 0
        labels = (["fun"] if good else ["sad"] if i % 20 != 2 else []) + (["odd"] if kind else [])
        yield {
            "text": f"the {a} was {'good' if good else 'bad'} {'kind ' if kind else ''}{b} {i}",
            "labels": labels,
            "stars": 1.5 + 3 * good - kind,
            "length": 1000 + 100 * kind,
        }


def write_csv(file: Path, lines: list[dict[str, Any]]) -> None:
    with open(file, "w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0])
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a checkpoint and the same texts with labels in every form."""
    folder = tmp_path_factory.mktemp("tasks")
    write_checkpoint(folder / "encoder")
    write_checkpoint(folder / "classifier", "bert", HeadConfig("mlp", "cls", ("no", "yes"), 40))
    data = list(rows())
    lists = [{"text": row["text"], "labels": row["labels"]} for row in data]
    (folder / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists))
    write_csv(
        folder / "separated.csv",
        [{"text": row["text"], "label": "; ".join(row["labels"])} for row in data],
    )
    for row in data:
        row |= {name: int(name in row["labels"]) for name in ("fun", "odd", "sad")}
        del row["labels"]
    write_csv(folder / "columns.csv", data)
    write_csv(folder / "number.csv", [{"text": r["text"], "label": r["stars"]} for r in data])
    write_csv(
        folder / "whole.csv", [{"text": r["text"], "label": i % 3} for i, r in enumerate(data)]
    )
    numbers = [{"text": row["text"], "label": [row["stars"], row["length"]]} for row in data]
    (folder / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbers))
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch) -> None:
    monkeypatch.chdir(place)


def run_train(*argv: str) -> None:
    train.main(parse_train(argv))


@pytest.fixture(scope="module")
def runs(place) -> dict[str, Path]:
    """A finished run of each task."""
    before = Path.cwd()
    os.chdir(place)
    for name, argv in RUNS.items():
        run_train(*argv, "--out", name)
    os.chdir(before)
    return {name: place / name for name in RUNS}


ALL = pytest.mark.parametrize("name", RUNS)


def metrics(run: Path) -> dict[str, Any]:
    return strict_json((run / "metrics.json").read_text())


def history(run: Path) -> list[dict[str, str]]:
    """The lines of history.csv without what a clock says."""
    with open(run / "history.csv", newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "second" not in k} for row in found]


# --- training


def test_it_learns_the_easy_data(runs):
    assert metrics(runs["several"])["test"]["mean_average_precision"] > 0.9
    assert metrics(runs["several"])["test"]["micro_f1"] > 0.8
    assert metrics(runs["number"])["test"]["pearson"] > 0.9
    assert metrics(runs["number"])["test"]["rmse"] < 1  # the deviation is 1.6


@ALL
def test_history_has_the_figures_of_the_task_and_the_best_epoch_has_the_first(runs, name):
    lines = history(runs[name])
    first = "validation_map" if name == "several" else "validation_rmse"
    assert list(lines[0])[3] == first
    values = [float(line[first]) for line in lines]
    best = max(values) if name == "several" else min(values)
    assert metrics(runs[name])["training"]["best_epoch"] == values.index(best) + 1


def test_the_task_and_the_reason_are_printed(place, tmp_path, capsys):
    one = (*QUICK, "--epochs", "1")
    run_train(*one, "--data", "number.csv", "--out", str(tmp_path / "a"))
    output = capsys.readouterr().out
    assert "task: regression (the column label has numbers with fractions)" in output
    assert ", rmse " in output.lower() and "test: Pearson" in output
    run_train(*one, "--data", "whole.csv", "--out", str(tmp_path / "b"))
    assert "task: single-label (whole numbers are classes; --task reg" in capsys.readouterr().out
    run_train(*one, "--data", "whole.csv", "--task", "regression", "--out", str(tmp_path / "c"))
    assert "task: regression (as requested)" in capsys.readouterr().out
    assert metrics(tmp_path / "b")["test"].keys() >= {"accuracy", "confusion"}
    assert metrics(tmp_path / "c")["test"].keys() >= {"pearson", "rmse"}


@pytest.mark.parametrize(
    "argv",
    [
        ("--data", "separated.csv", "--label-separator", ";"),
        ("--data", "columns.csv", "--label-columns", "fun, odd,sad"),
    ],
)
def test_lists_a_separator_and_columns_of_0_and_1_are_the_same_labels(runs, tmp_path, argv):
    run_train(*argv, *SEVERAL, "--out", str(tmp_path / "run"))
    assert metrics(tmp_path / "run")["test"] == metrics(runs["several"])["test"]
    assert read_head_config(tmp_path / "run") == read_head_config(runs["several"])


def test_columns_and_lists_of_numbers_are_the_same_numbers(runs, tmp_path):
    run_train("--data", "numbers.jsonl", *QUICK, "--out", str(tmp_path / "run"))
    found, expected = metrics(tmp_path / "run")["test"], metrics(runs["numbers"])["test"]
    assert list(expected.pop("per_output")) == ["stars", "length"]
    assert list(found.pop("per_output")) == ["label_0", "label_1"]
    assert found == expected


@pytest.mark.parametrize(("how", "value"), [("0.25", 0.25), ("shared", None)])
def test_thresholds_can_be_given_or_shared(tmp_path, capsys, how, value):
    argv = ("--data", "lists.jsonl", *QUICK, "--epochs", "1", "--thresholds", how)
    run_train(*argv, "--out", str(tmp_path / "run"))
    head = read_head_config(tmp_path / "run")
    assert head is not None and len(set(head.thresholds)) == 1
    assert value is None or head.thresholds[0] == value
    (line,) = re.findall(r"^ +fun .+", capsys.readouterr().out, re.MULTILINE)
    assert line.endswith(f" {head.thresholds[0]:.3f}")  # the last column of the report


def test_balanced_weights_and_smoothing_of_several_labels_train(tmp_path):
    argv = ("--data", "lists.jsonl", *QUICK, "--epochs", "1", "--label-smoothing", "0.1")
    run_train(*argv, "--class-weights", "balanced", "--freeze", "--out", str(tmp_path / "run"))
    assert metrics(tmp_path / "run")["test"]["texts"] == 9


@pytest.mark.parametrize(("name", "count"), [("several", "3 classes"), ("number", "1 number")])
def test_training_continues_from_a_finished_run_with_its_head(runs, tmp_path, capsys, name, count):
    """With rates of zero the second run's figures are those of the first."""
    argv = [word if word != "encoder" else name for word in RUNS[name]]
    still = ("--encoder-lr", "0", "--head-lr", "0", "--epochs", "1")
    run_train(*argv, *still, "--out", str(tmp_path / "again"))
    assert f", {count}, from the checkpoint" in capsys.readouterr().out
    found, expected = (metrics(run)["validation"] for run in (tmp_path / "again", runs[name]))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_pairs_have_a_number(tmp_path):
    """As in STS: how alike two texts are."""
    lines = [
        {"sentence1": row["text"], "sentence2": f"it {i}", "label": i / 8}
        for i, row in enumerate(rows())
    ]
    write_csv(tmp_path / "pairs.csv", lines)
    run, data, output = (str(tmp_path / name) for name in ("run", "pairs.csv", "out.jsonl"))
    run_train("--data", data, *QUICK, "--epochs", "1", "--out", run)
    predict.main(parse_predict(["--model", run, *PLAIN, "--input", data, "--output", output]))
    records = [strict_json(line) for line in Path(output).read_text().splitlines()]
    answers = load(run, device="cpu", precision="fp32").predict(
        [line["sentence1"] for line in lines], [line["sentence2"] for line in lines]
    )
    assert [record["value"] for record in records] == pytest.approx(answers, rel=1e-5)


@pytest.mark.parametrize(
    "argv",
    [
        ("--data", "lists.jsonl", *LONG, "--freeze-layers", "1"),
        (
            *("--data", "columns.csv", "--label-columns", "stars,length"),
            *(*LONG, "--head", "native", "--regression-loss", "huber", "--select", "pearson"),
        ),
    ],
    ids=["several", "numbers"],
)
def test_a_killed_run_resumes_to_the_same_bytes(place, tmp_path, argv):
    whole, run = tmp_path / "whole", tmp_path / "killed"
    run_train(*argv, "--out", str(whole))
    process = start_script("train.py", *argv, "--out", run, cwd=place)
    while not (run / "history.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (run / "metrics.json").exists()
    assert 1 <= len(history(run)) < EPOCHS
    run_train("--resume", str(run))
    for file in ("model.safetensors", "config.json", "test_predictions.jsonl"):
        assert (run / file).read_bytes() == (whole / file).read_bytes(), file
    assert history(run) == history(whole)
    assert metrics(run)["test"] == metrics(whole)["test"]


# --- eval.py


@ALL
def test_eval_repeats_the_figures_of_the_runs_test_split(runs, tmp_path, name):
    figures = tmp_path / "figures.json"
    evaluate.main(parse_evaluate(["--model", name, *PLAIN, "--json", str(figures)]))
    found, expected = strict_json(figures.read_text()), metrics(runs[name])["test"]
    assert {"model", "data", *expected} == found.keys()
    assert_same_figures(found, expected)


@ALL
def test_a_run_has_a_report_and_predictions_that_can_be_compared(runs, tmp_path, capsys, name):
    assert "<h2>Figures</h2>" in (runs[name] / "report.html").read_text()
    shutil.copytree(runs[name], tmp_path / "copy")
    evaluate.main(parse_evaluate(["--compare", name, str(tmp_path / "copy")]))
    assert "is not significant" in capsys.readouterr().out


def test_a_cross_validation_has_the_figures_of_several_numbers(tmp_path):
    words = ("--data", "numbers.jsonl", *QUICK, "--epochs", "1", "--folds", "2", "--no-baseline")
    run_train(*words, "--out", str(tmp_path / "folds"))
    assert len(metrics(tmp_path / "folds")["folds"]["all_rows"]["per_output"]) == 2


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("several", ["separated.csv", "--label-separator", ";"], "micro-F1"),
        ("several", ["columns.csv", "--label-columns", "sad,odd,fun"], "micro-F1"),
        ("number", ["whole.csv"], "Pearson"),
        ("numbers", ["columns.csv"], "(means of 2 outputs)"),  # the run's own columns
    ],
)
def test_eval_reads_labels_in_every_form_as_the_models_task(runs, capsys, name, words, says):
    evaluate.main(parse_evaluate(["--model", name, *PLAIN, "--data", *words]))
    output = capsys.readouterr().out
    assert says in output and ", 60 texts" in output


# --- predict.py


def predicted(place: Path, name: str, suffix: str) -> list[dict[str, Any]]:
    """The records of all texts, in reverse order, with a row that has no text in the middle."""
    texts = [row["text"] for row in rows()][::-1]
    texts.insert(30, "")
    lines = "".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(texts))
    (place / "input.jsonl").write_text(lines)
    output = place / f"answers{suffix}"
    output.unlink(missing_ok=True)
    argv = ["--model", name, *PLAIN, "--input", "input.jsonl", "--output", str(output)]
    predict.main(parse_predict(argv))
    if suffix == ".jsonl":
        return [strict_json(line) for line in output.read_text().splitlines()]
    return list(read_table(output))


def expected_of(name: str, run: Path, suffix: str) -> list[dict[str, Any]]:
    """What the columns of a table, or the keys of a record, are for each text by itself."""
    predictor = load(str(run), device="cpu", precision="fp32")
    found: list[dict[str, Any]] = []
    for row in list(rows())[::-1]:
        answer = predictor.predict(row["text"])[0]
        if name == "several":
            found.append({"labels": list(answer) if suffix == ".jsonl" else "|".join(answer)})
        elif name == "number":
            found.append({"value": answer})
        elif suffix == ".jsonl":
            found.append({"values": dict(zip(("stars", "length"), answer, strict=True))})
        else:
            found.append({"value_stars": answer[0], "value_length": answer[1]})
    return found


@ALL
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_predictions_are_in_order_in_every_format(place, runs, name, suffix):
    records = predicted(place, name, suffix)
    assert [str(record["id"]) for record in records] == [str(i) for i in range(61)]
    bad = records.pop(30)
    assert bad["error"].startswith("line 31: column text: is empty")
    expected = expected_of(name, runs[name], suffix)
    for record, values in zip(records, expected, strict=True):
        assert not record.get("error")
        for key, value in values.items():
            assert bad[key if key in bad else "values"] in (None, "")
            if isinstance(value, float):
                assert float(record[key]) == pytest.approx(value, rel=1e-5, abs=1e-5)
            elif isinstance(value, dict):
                assert record[key] == pytest.approx(value, rel=1e-5)
            else:
                assert record[key] == value
    if name == "several":
        one = records[0] if suffix != ".jsonl" else records[0]["probabilities"]
        names = [x if suffix == ".jsonl" else f"probability_{x}" for x in ("fun", "odd", "sad")]
        assert all(0 <= float(one[x]) <= 1 for x in names)


def test_python_answers_in_the_form_of_the_task(runs):
    several = load(str(runs["several"]), device="cpu", precision="fp32")
    assert several.predict_proba(["good film", "bad"]).shape == (2, 3)
    assert several.predict([]) == [] and isinstance(several.predict("good")[0], tuple)
    number = load(str(runs["number"]), device="cpu", precision="fp32")
    assert isinstance(number.predict("good")[0], float) and number.classes == ("label",)
    with pytest.raises(ValueError, match="numbers, which have no probabilities"):
        number.predict_proba("good")


def test_transformers_opens_a_run_and_gives_the_same_numbers(runs):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(runs["number"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(runs["number"])
    texts = [row["text"] for row in rows()][:7]
    with torch.no_grad():
        logits = theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    ours = load(str(runs["number"]), device="cpu", precision="fp32").logits(texts)
    torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)


# --- mistakes

MAINS = {
    "train": lambda argv: train.main(parse_train(argv)),
    "eval": lambda argv: evaluate.main(parse_evaluate(argv)),
}
TRAIN = " ".join(("train", *QUICK))
BAD = {
    "odd.jsonl": '{"text": "a", "labels": ["fun"]}\n{"text": "b", "labels": ["fun", "new"]}\n',
    "word.csv": "text,label\n" + "".join(f"x{i},{i}.5\n" for i in range(9)) + "y,four\n",
    "empty.csv": "text,fun,sad\n" + "".join(f"x{i},{i % 2},0\n" for i in range(9)),
    "two.csv": "text,fun,sad\n" + "".join(f"x{i},{i % 2},0\n" for i in range(9)) + "y,1,2\n",
    "letters.csv": "text,fun,sad\n" + "".join(f"x{i},{i % 2},0\n" for i in range(9)) + "y,x,1\n",
    "none.jsonl": '{"text": "a", "labels": []}\n' * 9,
    "null.jsonl": '{"text": "a", "labels": ["b"]}\n{"text": "a", "labels": null}\n',
    "ragged.jsonl": '{"text": "a", "label": [0.5, 1]}\n{"text": "b", "label": [0.5]}\n' * 9,
    "few.csv": "text,label\na,0.5\nb,1.5\nc,2.5\n",
    "huge.csv": "text,label\nx,0.5\ny,1e39\nz,2.5\n",
}
MISTAKES = [
    (
        f"{TRAIN} --data lists.jsonl --validation odd.jsonl",
        ["odd.jsonl, line 2: the label 'new' is none of the model's 3 classes (fun, odd, sad)"],
    ),
    (f"{TRAIN} --data word.csv", ["word.csv, line 11: column label: holds 'four', not a number"]),
    (
        f"{TRAIN} --data separated.csv --task regression",
        ["line 2: column label: holds 'sad; odd', not a number", "--bad-rows drop"],
    ),
    (
        f"{TRAIN} --data empty.csv --label-columns fun,sad",
        ["empty.csv: no row has the class 'sad'; drop it from --label-columns"],
    ),
    (
        f"{TRAIN} --data two.csv --label-columns fun,sad --task multi-label",
        ["two.csv, line 11: column fun, sad: sad holds '2', not 0 or 1"],
    ),
    (
        f"{TRAIN} --data letters.csv --label-columns fun,sad",
        ["letters.csv, line 11: column fun, sad: fun holds 'x', not 0 or 1"],
    ),
    (f"{TRAIN} --data none.jsonl", ["none.jsonl: no row has a class"]),
    (f"{TRAIN} --data null.jsonl", ["null.jsonl, line 2: column labels: has no label; an empty"]),
    (f"{TRAIN} --data ragged.jsonl", ["ragged.jsonl, line ", ": 1 number", "the model predicts 2"]),
    (f"{TRAIN} --data few.csv", ["few.csv: has 3 rows, too few for 3 splits of 70:15:15; add"]),
    (f"{TRAIN} --data huge.csv", ["huge.csv, line 3: column label: holds '1e39', not a number"]),
    (
        f"{TRAIN} --data columns.csv --label-columns fun,gone",
        ["no column 'gone' for --label-columns", "text, stars, length, fun"],
    ),
    (
        f"{TRAIN} --data columns.csv --label-columns fun,fun",
        ["--label-columns names a column twic"],
    ),
    (
        f"{TRAIN} --data columns.csv --label-columns fun,text",
        ["columns.csv: no text column found", "choose with --text-column"],
    ),
    (f"{TRAIN} --data lists.jsonl --thresholds 1.5", ["--thresholds: '1.5' is neither tuned nor"]),
    (f"{TRAIN} --data number.csv --thresholds 0.5", ["--thresholds is for several labels"]),
    (
        f"{TRAIN} --data number.csv --select accuracy",
        ["--select accuracy is not a figure of this task; it has rmse, mae, pearson"],
    ),
    (f"{TRAIN} --data lists.jsonl --select pearson", ["--select pearson is not", "map, micro-f1"]),
    (
        f"{TRAIN} --data number.csv --label-smoothing 0.1",
        ["--label-smoothing and --class-weights are for classes; drop them"],
    ),
    (f"{TRAIN} --data number.csv --class-weights balanced", ["are for classes; drop them"]),
    (f"{TRAIN} --data lists.jsonl --regression-loss huber", ["--regression-loss huber is for reg"]),
    ("eval --model several --plot a.png", ["--plot and --errors are for one class per text"]),
    ("eval --model number --plot a.png", ["--plot and --errors are for one class per text"]),
    (
        "eval --model several --data odd.jsonl",
        ["odd.jsonl, line 2: the label 'new' is none of the model's 3 classes"],
    ),
    (
        "eval --model numbers --data number.csv",
        [
            "number.csv: no column 'stars', a label column of the run",
            "give --label-columns",
        ],
    ),
    ("eval --model number --data separated.csv", ["line 2: column label: holds 'sad; odd', no"]),
    ("eval --model classifier --data lists.jsonl", ["line 1: column labels: holds ['sad', 'odd']"]),
]


@pytest.mark.parametrize(("command", "says"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_makes_no_run(
    place, runs, tmp_path, monkeypatch, capfd, command, says
):
    for name, content in BAD.items():
        (place / name).write_text(content)
    script, *words = command.split()
    out = ["--out", str(tmp_path / "run")] if script == "train" else [*PLAIN]
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words, *out])
    status = run_command(MAINS[script])
    errors = capfd.readouterr().err
    assert status == 2 and errors.startswith("error: ") and errors.count("\n") == 1
    for text in says:
        assert text in errors
    assert not list(tmp_path.iterdir()) and not (place / "a.png").exists()
