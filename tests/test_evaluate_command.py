"""eval.py: the figures that training gave, what is scored, and the picture of the confusion matrix.

Run: pytest tests/test_evaluate_command.py
"""

import csv
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import WORDS, assert_same_figures, strict_json, write_checkpoint

from minibert.commands import evaluate as evaluate_command
from minibert.commands import predict as predict_command
from minibert.commands import train as train_command
from minibert.commands.arguments import parse_evaluate, parse_predict, parse_train
from minibert.errors import InputError
from minibert.inference.cpu import int8_levels

PLAIN = ("--device", "cpu", "--precision", "fp32")
QUICK = (
    *(*PLAIN, "--max-length", "40", "--batch-size", "4"),
    *("--epochs", "3", "--encoder-lr", "0.003", "--head-lr", "0.003"),
)


def train(*argv: str) -> None:
    train_command.main(parse_train(argv))


def evaluate(*argv: str) -> None:
    evaluate_command.main(parse_evaluate(argv))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder with two data files and, under runs/, two finished runs and one that is not."""
    folder = tmp_path_factory.mktemp("eval")
    write_checkpoint(folder / "bert", "bert")
    reviews, pairs = ["text,label"], ["premise,hypothesis,label"]
    for i in range(60):
        a, b = WORDS[5 + i % 20], WORDS[5 + (7 * i + 3) % 20]
        quality, label = ("good", "positive") if i % 2 else ("bad", "negative")
        reviews.append(f"the {a} was {quality} {b} {i},{label}")
        pairs.append(f"the {a} {i},{a if i % 2 else b} was it,{'same' if i % 2 else 'other'}")
    (folder / "reviews.csv").write_text("\n".join(reviews) + "\n")
    (folder / "pairs.csv").write_text("\n".join(pairs) + "\n")
    before = Path.cwd()
    os.chdir(folder)
    # In another order than that of the names, which do not say when a run finished.
    train("--model", "bert", "--data", "reviews.csv", "--out", "runs/b", *QUICK)
    train("--model", "bert", "--data", "pairs.csv", "--out", "runs/pairs", *QUICK)
    shutil.copytree("runs/b", "runs/z-unfinished")
    os.remove("runs/z-unfinished/metrics.json")
    os.utime("runs/b/metrics.json", (2e9, 2e9))
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def test_split(place) -> list[dict]:
    return [strict_json(line) for line in (place / "runs/b/test_predictions.jsonl").open()]


def of_training(run: Path) -> dict:
    return strict_json((run / "metrics.json").read_text())["test"]


def test_without_flags_it_scores_the_newest_run_on_its_test_split(place, run_script):
    result = run_script(
        *("eval.py", "--json", "figures.json", "--plot", "matrix.png"),
        *PLAIN,
        cwd=place,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"^model: .*runs.b$", result.stdout, re.MULTILINE)
    assert "\nprecision: fp32 (as requested); device: cpu, " in result.stdout
    assert "the run's test split, 9 texts" in result.stdout
    expected = of_training(place / "runs/b")
    assert_same_figures(strict_json((place / "figures.json").read_text()), expected)
    assert f"accuracy {100 * expected['accuracy']:.1f}% (95% interval" in result.stdout
    assert (place / "matrix.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_report_and_the_confusion_matrix_count_the_predictions(place, test_split, capsys):
    evaluate("--model", "runs/b", *PLAIN)
    output = capsys.readouterr().out
    for label in ("negative", "positive"):
        true = [row for row in test_split if row["label"] == label]
        assert re.search(rf"^ +{label}( +\d\.\d+){{3}} +{len(true)}$", output, re.MULTILINE)
        counts = [sum(r["prediction"] == p for r in true) for p in ("negative", "positive")]
        assert re.search(rf"^ +{label} +{counts[0]} +{counts[1]}$", output, re.MULTILINE)


@pytest.mark.usefixtures("pictures")
def test_a_picture_of_too_many_classes_has_those_of_the_largest_mistakes(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_command, "PLOTTED", 2)
    cells = [(0, 0, 9), (4, 1, 3), (2, 3, 1)]
    classes = ("ant", "bee", "cat", "dog", "eel")
    evaluate_command.plot_confusion(tmp_path / "many.svg", cells, classes)
    texts = re.findall("<!-- (.+) -->", (tmp_path / "many.svg").read_text())
    assert "2 of 5 classes, with the largest mistakes" in texts
    assert [name for name in classes if name in texts] == ["bee", "eel"]
    assert texts.count("3") == 1 and "0" not in texts  # the other cells are empty


def test_a_file_with_numbers_for_labels_gives_the_same_figures(place, test_split):
    """Numbers count the classes in the model's order: 0 is negative, 1 is positive."""
    with open(place / "numbers.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in test_split:
            writer.writerow([row["text"], ["negative", "positive"].index(row["label"])])
    evaluate("--model", "runs/b", "--data", "numbers.csv", "--json", "numbers.json", *PLAIN)
    figures = strict_json((place / "numbers.json").read_text())
    assert_same_figures(figures, of_training(place / "runs/b"))
    assert figures["data"] == "numbers.csv"


def test_a_run_on_pairs_is_scored_on_both_texts(place):
    evaluate("--model", "runs/pairs", "--json", "pairs.json", *PLAIN)
    figures = strict_json((place / "pairs.json").read_text())
    assert_same_figures(figures, of_training(place / "runs/pairs"))


def test_a_text_of_the_command_line_is_no_pair(place):
    with pytest.raises(InputError, match="give --input FILE with a column for each"):
        predict_command.main(parse_predict(["--model", "runs/pairs", "good film", *PLAIN]))


@pytest.mark.skipif(not int8_levels(torch.float32), reason="needs x86 and oneDNN")
def test_int8_gives_nearly_the_same_figures(place, capsys):
    argv = ("--model", "runs/b", "--device", "cpu", "--precision", "int8", "--json", "int8.json")
    evaluate(*argv)
    assert "\nprecision: int8 (as requested); device: cpu, " in capsys.readouterr().out
    figures, expected = (
        strict_json((place / "int8.json").read_text()),
        of_training(place / "runs/b"),
    )
    assert figures["loss"] != expected["loss"]
    assert figures["loss"] == pytest.approx(expected["loss"], abs=0.1)


def test_bad_rows_are_dropped_and_named_on_request(place, capsys):
    lines = ["text,label", "good film,positive", ",negative", "bad film,negative", "bad food"]
    (place / "bad.csv").write_text("\n".join(lines) + "\n")
    evaluate("--model", "runs/b", "--data", "bad.csv", "--bad-rows", "drop", *PLAIN)
    output = capsys.readouterr().out
    assert "bad.csv, 2 texts" in output
    assert "dropped 2 bad rows" in output
    assert "bad.csv, line 3: column text" in output and "bad.csv, line 5: has 1 field" in output


def test_a_text_over_the_length_is_cut_and_counted(place, capsys):
    (place / "long.csv").write_text(f"text,label\n{'good ' * 99},positive\nbad,negative\n")
    evaluate("--model", "runs/b", "--data", "long.csv", *PLAIN)
    assert "1 texts cut at 40 tokens" in capsys.readouterr().out


def test_a_bare_encoder_is_one_line_of_error(place, run_script):
    result = run_script("eval.py", "--model", "bert", "--data", "reviews.csv", cwd=place)
    assert result.returncode == 2
    assert re.fullmatch(r"error: bert: .*no classification head.*train.py.*\n", result.stderr)


@pytest.mark.parametrize("flag", ["--json", "--errors", "--plot"])
def test_nothing_is_written_into_the_models_folder(place, flag):
    """It might replace a file: without test_predictions.jsonl, the run has no test split."""
    for folder in ("runs/z-unfinished/../b", "runs/pairs"):  # of this run, and of another
        with pytest.raises(InputError, match=rf"{flag} .*\.jsonl: could replace a file of the"):
            evaluate("--model", "runs/b", flag, f"{folder}/test_predictions.jsonl", *PLAIN)
    with pytest.raises(InputError, match=rf"{flag} runs.b.x\.json: could replace a file of the"):
        evaluate("--model", "runs/b", flag, "runs/b/x.json", *PLAIN)
    assert len((place / "runs/b/test_predictions.jsonl").read_text().splitlines()) == 9


def test_two_outputs_are_two_files(place):
    with pytest.raises(InputError, match=r"--errors x\.json: is the file of --json too"):
        evaluate("--model", "runs/b", "--json", "x.json", "--errors", "./x.json", *PLAIN)
    assert not (place / "x.json").exists()


@pytest.mark.parametrize("name", ["matrix", "matrix.safetensors"])
@pytest.mark.usefixtures("pictures")
def test_a_picture_of_no_kind_is_refused_before_the_texts_are_scored(place, capsys, name):
    with pytest.raises(InputError, match="is not a picture format of matplotlib; use"):
        evaluate("--model", "runs/b", "--plot", name, *PLAIN)
    assert capsys.readouterr().out == "" and not (place / name).exists()


def test_a_picture_without_matplotlib_is_refused_before_scoring(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    with pytest.raises(InputError, match="--plot needs the extra plots"):
        evaluate("--model", "runs/b", "--plot", "matrix.png", *PLAIN)
    assert capsys.readouterr().out == ""


def test_a_model_without_a_test_split_needs_data(place):
    shutil.copytree(place / "runs/b", place / "plain-model")
    (place / "plain-model" / "test_predictions.jsonl").unlink()
    with pytest.raises(InputError, match="plain-model: has no test split; give --data"):
        evaluate("--model", "plain-model", *PLAIN)
