"""Where a classifier is wrong: its most confident errors, frequent mistakes, groups of length.

Run: pytest tests/test_outcomes.py
"""

import numpy as np
import pytest
from helpers import strict_json, write_checkpoint

from minibert.commands import evaluate as evaluate_command
from minibert.commands.arguments import parse_evaluate
from minibert.errors import InputError
from minibert.evaluation.outcomes import (
    Outcome,
    accuracy_by_length,
    most_confident_errors,
    report_by_length,
    report_mistakes,
)
from minibert.model.config import HeadConfig, LongTexts


def outcome(
    text: str = "x",
    label: str = "a",
    prediction: str = "b",
    probability: float = 0.9,
    tokens: int = 5,
    *,
    pair: str | None = None,
    cut: bool = False,
) -> Outcome:
    return Outcome(text, pair, label, prediction, probability, tokens, cut)


def test_errors_come_by_probability_and_right_predictions_not_at_all():
    outcomes = [
        outcome("unsure", probability=0.6),
        outcome("right", prediction="a", probability=0.99),
        outcome("sure", probability=0.95),
    ]
    assert [error.text for error in most_confident_errors(outcomes)] == ["sure", "unsure"]
    assert most_confident_errors(outcomes[::-1]) == most_confident_errors(outcomes)


def test_a_line_is_printable_and_has_both_texts():
    line = str(outcome("one\x1b[31m\ntwo" + "o" * 99, pair="three", probability=0.25))
    assert line.startswith(" 25.0%  a -> b: one\\x1b[31m\\ntwoo")
    assert line.isprintable() and len(line) < 120
    assert str(outcome("one", pair="two")).endswith("one / two")


def test_the_report_is_short_whatever_is_wrong():
    outcomes = [
        outcome(f"text {i}", str(i % 40), str(i % 7), i / 999, tokens=i, cut=i > 700)
        for i in range(1, 999)
    ]
    lines = report_mistakes(outcomes).splitlines()
    assert len(lines) <= 14
    assert lines[0].startswith("most confident errors")
    assert lines[1].startswith(" 99.9%  38 -> 4: text 998")


def test_the_example_of_a_common_mistake_is_the_most_confident_that_is_not_shown_before():
    often = [outcome(f"often {i}", probability=0.9 - i / 100) for i in range(9)]
    once = outcome("once", "b", "a", 0.1)
    text = report_mistakes([*often, once])
    listed = text[text.index("examples") :]
    assert "     9   85.0%  a -> b: often 5" in listed and "     1   10.0%  b -> a: once" in listed


def test_texts_are_grouped_by_tokens_and_the_cut_ones_are_apart():
    lengths = np.array([1, 16, 17, 512, 513, 20, 600])
    right = np.array([True, False, True, True, True, False, False])
    groups = accuracy_by_length(lengths, np.arange(7) > 4, right)
    assert {name: (group["texts"], group["accuracy"]) for name, group in groups.items()} == {
        "1 to 16 tokens": (2, 0.5),
        "17 to 32 tokens": (1, 1.0),
        "257 to 512 tokens": (1, 1.0),
        "over 512 tokens": (1, 1.0),
        "cut": (2, 0.0),
    }
    assert list(groups)[-1] == "cut"
    line = "17 to 32 tokens: accuracy 100.0% (95% interval 20.7 to 100.0), 1 texts"
    assert line in report_by_length(groups)


def test_nothing_is_said_if_nothing_is_wrong_and_all_texts_are_short():
    assert report_mistakes([outcome(prediction="a")]) == ""
    assert report_by_length({"1 to 16 tokens": {"texts": 1}}) == ""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a classifier of pairs and labelled pairs."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "model", "bert", HeadConfig("linear", "cls", ("no", "yes"), 8))
    lines = [f"good {'film ' * i},bad food,{'yes' if i % 2 else 'no'}" for i in range(12)]
    (tmp_path / "pairs.csv").write_text("text,text_b,label\n" + "\n".join(lines) + "\n")
    return tmp_path


def evaluate(*argv: str) -> None:
    given = ("--model", "model", "--device", "cpu", "--precision", "fp32")
    evaluate_command.main(parse_evaluate((*given, *argv)))


def test_eval_py_writes_all_errors(place, capsys):
    flags = ("--data", "pairs.csv", "--pair-column", "text_b", "--json", "figures.json")
    evaluate(*flags, "--errors", "errors.jsonl")
    figures = strict_json((place / "figures.json").read_text())
    rows = [strict_json(line) for line in (place / "errors.jsonl").read_text().splitlines()]
    assert len(rows) == 12 - round(12 * figures["accuracy"]) > 0
    assert all(row["label"] != row["prediction"] and row["pair"] == "bad food" for row in rows)
    probabilities = [row["probability"] for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    # [CLS] good film * i [SEP] bad food [SEP]; 8 tokens are kept
    assert all(row["tokens"] == 6 + row["text"].count("film") for row in rows)
    assert all(row["cut"] == (row["tokens"] > 8) for row in rows)
    assert "\n                 cut: accuracy " in capsys.readouterr().out
    groups = figures["by_length"].values()
    assert sum(group["texts"] for group in groups) == 12
    right = sum(group["texts"] * group["accuracy"] for group in groups)
    assert right == pytest.approx(12 * figures["accuracy"])


def test_a_pair_in_windows_is_cut_if_its_shorter_text_loses_tokens(place):
    windows = LongTexts("windows")
    head = HeadConfig("linear", "cls", ("no", "yes"), 8, long_texts=windows)
    write_checkpoint(place / "model", "bert", head)
    lines = ["good,bad,no", f"{'film ' * 9},bad,no", f"{'film ' * 9},{'food ' * 8},no"]
    (place / "long.csv").write_text("text,text_b,label\n" + "\n".join(lines) + "\n")
    evaluate("--data", "long.csv", "--pair-column", "text_b", "--json", "figures.json")
    groups = strict_json((place / "figures.json").read_text())["by_length"]
    assert {name: group["texts"] for name, group in groups.items()} == {
        "1 to 16 tokens": 2,
        "cut": 1,
    }


def test_errors_of_other_tasks_and_over_the_data_are_refused(place):
    with pytest.raises(InputError, match=r"--errors pairs\.csv: is the file to score"):
        evaluate("--data", "pairs.csv", "--errors", "pairs.csv")
    write_checkpoint(place / "model", "bert", HeadConfig("linear", "cls", ("x",), 8, "regression"))
    with pytest.raises(InputError, match="--plot and --errors are for one class per text"):
        evaluate("--data", "pairs.csv", "--errors", "errors.jsonl")
