"""train.py scores two baselines on the rows of its run: a guess, and a model of the words.

Run: pytest tests/test_baselines.py
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import strict_json, write_checkpoint
from sklearn.metrics import f1_score

from minibert.commands import baselines, train
from minibert.commands.arguments import parse_train

QUICK = (
    *("--model", "checkpoint", "--device", "cpu", "--precision", "fp32", "--max-length", "40"),
    *("--epochs", "1", "--split", "3:1:1"),
)
ROWS = 60


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a checkpoint."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "checkpoint")
    return tmp_path


def write_rows(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(*argv: str) -> dict[str, Any]:
    """Train in the folder `run`; return its figures."""
    train.main(parse_train([*QUICK, *argv, "--out", "run"]))
    return strict_json(Path("run/metrics.json").read_text())


def write_classes() -> None:
    """Every third text is good; the last word of all others, bad, decides too."""
    rows = [
        {"text": f"the film {i} was {'bad' if i % 3 else 'good'}", "label": "ny"[i % 3 == 0]}
        for i in range(ROWS)
    ]
    write_rows("data.jsonl", rows)


def test_the_guess_is_the_most_frequent_class_and_words_tell_the_rest(capsys) -> None:
    write_classes()
    figures = run("--data", "data.jsonl")
    guess, words = figures["baselines"]["guess"], figures["baselines"]["tf_idf"]
    for split in ("validation", "test"):
        assert guess[split]["texts"] == words[split]["texts"] == figures[split]["texts"] == 12
        assert guess[split]["accuracy"] == pytest.approx(2 / 3)
        assert words[split]["accuracy"] == 1.0
    assert words["training_texts"] == 36 and words["seconds"] >= 0
    lines = capsys.readouterr().out.rpartition("\ntest: ")[2].splitlines()
    after = [line for line in lines if line.startswith("baseline of ")]
    assert after[0].startswith("baseline of the most frequent class alone: accuracy 66.7% (95% ")
    assert re.match(
        r"baseline of TF-IDF and logistic regression \(\d+\.\d s\): accuracy 100.0%", after[1]
    )


def test_figures_of_single_classes_are_left_out() -> None:
    write_classes()
    figures = run("--data", "data.jsonl")
    assert "per_class" in figures["test"]
    assert not {"per_class", "confusion"} & figures["baselines"]["tf_idf"]["test"].keys()


def test_without_a_test_split_the_lines_have_the_validation(capsys) -> None:
    write_classes()
    write_rows("more.jsonl", [{"text": "it was good", "label": "y"}])
    figures = run("--data", "data.jsonl", "--validation", "more.jsonl")
    assert figures["baselines"]["tf_idf"].keys() == {"validation", "training_texts", "seconds"}
    assert "regression" in capsys.readouterr().out


def test_no_baseline_leaves_both_out(capsys) -> None:
    write_classes()
    assert "baselines" not in run("--data", "data.jsonl", "--no-baseline")
    assert "baseline" not in capsys.readouterr().out


def test_pairs_are_read_with_both_texts() -> None:
    rows = [
        {"text": f"the film {i}", "text_b": f"was {'bad' if i % 3 else 'good'}", "label": i % 3 > 0}
        for i in range(ROWS)
    ]
    write_rows("pairs.jsonl", rows)
    figures = run("--data", "pairs.jsonl", "--text-column", "text", "--pair-column", "text_b")
    assert figures["baselines"]["tf_idf"]["test"]["accuracy"] == 1.0


def test_several_labels_have_thresholds_tuned_on_validation() -> None:
    """A guess with one probability for all texts then has the F1 of predicting all or none."""
    rows = [
        {"text": f"film {i} was {'good' if i % 3 == 0 else 'bad'}", "labels": ["b", "a"][i % 3 :]}
        for i in range(ROWS)
    ]
    write_rows("sets.jsonl", rows)
    figures = run("--data", "sets.jsonl")["baselines"]
    truth = [["b", "a"][i % 3 :] for i in range(12)]
    all_a = f1_score(["a" in row for row in truth], [True] * 12)
    all_b = f1_score(["b" in row for row in truth], [True] * 12)
    assert figures["guess"]["test"]["macro_f1"] == pytest.approx((all_a + all_b) / 2, abs=0.05)
    assert figures["tf_idf"]["test"]["mean_average_precision"] > 0.8


def test_numbers_have_the_mean_and_ridge_regression(capsys) -> None:
    rows = [
        {"text": f"film {i} was {'good' if i % 2 else 'bad'}", "label": 100.5 + 10 * (i % 2)}
        for i in range(ROWS)
    ]
    write_rows("numbers.jsonl", rows)
    figures = run("--data", "numbers.jsonl")["baselines"]
    assert figures["guess"]["test"]["rmse"] == pytest.approx(5, abs=0.2)
    assert figures["guess"]["test"]["pearson"] is None
    assert figures["tf_idf"]["test"]["rmse"] < 2.5
    output = capsys.readouterr().out
    assert "\nbaseline of the mean alone: Pearson undefined" in output
    assert "\nbaseline of TF-IDF and ridge regression (" in output


def test_too_many_classes_leave_one_baseline_out(monkeypatch, capsys) -> None:
    monkeypatch.setattr(baselines, "OUTPUTS", 1)
    write_classes()
    assert run("--data", "data.jsonl")["baselines"].keys() == {"guess"}
    assert "\nbaseline of TF-IDF: left out, 2 outputs are over 1\n" in capsys.readouterr().out


def test_a_part_of_the_training_texts_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setattr("minibert.evaluation.bag_of_words.CHARACTERS", 200)
    write_classes()
    rows = run("--data", "data.jsonl")["baselines"]["tf_idf"]["training_texts"]
    assert 5 < rows < 36
    assert f"regression on {rows} of the training texts (" in capsys.readouterr().out
