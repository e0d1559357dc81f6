"""eval.py --compare: the paired difference and its test, which runs are compared, and looks.

Run: pytest tests/test_compare.py
"""

import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import WORDS, start_script, strict_json, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.commands import evaluate as evaluate_command
from minibert.commands import train as train_command
from minibert.commands.arguments import parse_evaluate, parse_train
from minibert.commands.labelled import count_look
from minibert.errors import InputError
from minibert.evaluation.compare import (
    compare_classes,
    compare_label_sets,
    compare_numbers,
    mcnemar,
)
from minibert.evaluation.multi_label import score_multi_label
from minibert.model.config import HeadConfig

PLAIN = ("--device", "cpu", "--precision", "fp32")

# --- the test and the intervals


def sum_of_binomials(only_a: int, only_b: int) -> float:
    """The exact McNemar test by its definition: twice the smaller tail, at most 1."""
    texts = only_a + only_b
    tail = sum(math.comb(texts, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**texts)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_a_sum_of_binomials(only_a, only_b):
    assert mcnemar(only_a, only_b) == pytest.approx(sum_of_binomials(only_a, only_b), rel=1e-9)


def predictions(only_a: int, only_b: int, texts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and the predictions of A and B, of which each alone has so many right."""
    true, a, b = np.zeros((3, texts), dtype=int)
    b[:only_a] = 1
    a[only_a : only_a + only_b] = 1
    return true, a, b


@pytest.mark.parametrize("texts", [30, 400])
def test_if_the_test_is_below_5_percent_the_interval_does_not_contain_0(texts):
    """Not the other way round: the exact test is more careful than the bootstrap."""
    for differ in range(1, 21):
        for only_a in range(differ // 2 + 1):
            found = compare_classes(*predictions(only_a, differ - only_a, texts))
            accuracy = found.figures["accuracy"]
            assert found.significant == (sum_of_binomials(only_a, differ - only_a) < 0.05)
            assert accuracy.excludes_0 or not found.significant, (only_a, differ)


def test_the_interval_of_a_difference_covers_it():
    """A alone is right for 12% of the texts, B alone for 18%: the true difference is 0.06."""
    random, covered = np.random.default_rng(0), 0
    for only_a, only_b, _ in random.multinomial(300, [0.12, 0.18, 0.7], size=400):
        found = compare_classes(*predictions(only_a, only_b, 300)).figures["accuracy"]
        covered += found.interval[0] <= 0.06 <= found.interval[1]
    assert 0.93 <= covered / 400 <= 0.97


def random_case(seed: int, texts: int = 25) -> Iterator[tuple]:
    """A comparison of each task: the function, the labels, the predictions of A and of B."""
    random = np.random.default_rng(seed)
    yield compare_classes, *random.integers(3, size=(3, texts))
    yield compare_label_sets, *(random.random((3, texts, 2)) < 0.5)
    yield compare_numbers, *random.normal(size=(3, texts, 2))


@pytest.mark.parametrize("seed", range(5))
def test_b_minus_a_is_the_negative_of_a_minus_b(seed):
    for compare, true, a, b in random_case(seed):
        found, mirrored = compare(true, a, b), compare(true, b, a)
        assert found.significant == mirrored.significant
        for name, one in found.figures.items():
            other = mirrored.figures[name]
            assert (one.a, one.b) == (other.b, other.a)
            width = one.interval[1] - one.interval[0]
            ends = (-other.interval[1], -other.interval[0])
            assert one.interval == pytest.approx(ends, abs=0.1 * width)  # of other samples


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_texts_does_not_matter(seed):
    order = np.random.default_rng(seed).permutation(25)
    for compare, *columns in random_case(seed):
        one = compare(*columns).to_json()
        other = compare(*(column[order] for column in columns)).to_json()
        assert one.keys() == other.keys() and one["texts"] == other["texts"]
        for name, figure in one.items():
            if isinstance(figure, dict):
                for key, value in figure.items():
                    assert value == pytest.approx(other[name][key]), (name, key)


def test_equal_predictions_do_not_differ():
    for compare, true, a, _ in random_case(0):
        found = compare(true, a, a)
        assert not found.significant
        for figure in found.figures.values():
            assert figure.a == figure.b and figure.interval is None
    assert mcnemar(0, 0) == 1


def test_the_figures_are_those_of_one_classifier_alone():
    for compare, true, a, b in random_case(3):
        figures = compare(true, a, b).figures
        if compare is compare_label_sets:
            scores = score_multi_label(
                torch.tensor(a) * 2.0 - 1, torch.tensor(true).float(), (0.5,) * 2
            )
            assert figures["micro_f1"].a == pytest.approx(scores.micro_f1)
            assert figures["macro_f1"].a == pytest.approx(scores.macro_f1)
            assert figures["samples_f1"].a == pytest.approx(scores.samples_f1)
        elif compare is compare_numbers:
            rmse = np.sqrt(np.mean((a - true) ** 2, axis=0)).mean()
            assert figures["rmse"].a == pytest.approx(rmse)
        else:
            assert figures["accuracy"].b == pytest.approx(np.mean(b == true))


def test_of_errors_the_lower_is_better():
    true = np.linspace(0, 9, 40)[:, None]
    noise = np.random.default_rng(0).normal(size=(40, 1))
    text = str(compare_numbers(true, true + noise, true + noise / 9))
    assert "RMSE: A 0." in text and "; B - A: -0." in text
    assert text.endswith("(its interval does not contain 0): B is better on texts like these.")


# --- runs


def train(*argv: str) -> None:
    train_command.main(parse_train(argv))


def evaluate(*argv: str) -> None:
    evaluate_command.main(parse_evaluate(argv))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder with data of each task and two finished runs on each: a and b, with other seeds."""
    folder = tmp_path_factory.mktemp("compare")
    write_checkpoint(folder / "encoder")
    classes, lists, numbers = ["text,label"], [], ["text,label"]
    for i in range(80):
        word, label = WORDS[5 + i % 20], "positive" if i % 2 else "negative"
        text = f"the {word} was {'good' if i % 2 else 'bad'} {i}"
        classes.append(f"{text},{label}")
        numbers.append(f"{text},{i % 2 + i / 100}")
        lists.append(json.dumps({"text": text, "labels": [label, "odd"][: 1 + i % 3 % 2]}) + "\n")
    (folder / "classes.csv").write_text("\n".join(classes) + "\n")
    (folder / "numbers.csv").write_text("\n".join(numbers) + "\n")
    (folder / "lists.jsonl").write_text("".join(lists))
    before = Path.cwd()
    os.chdir(folder)
    quick = ("--model", "encoder", "--max-length", "40", "--batch-size", "8", *PLAIN)
    for data in ("classes.csv", "numbers.csv", "lists.jsonl"):
        for name, rate in (("a", "1e-5"), ("b", "3e-3")):
            out = f"{Path(data).stem}-{name}"
            rates = ("--encoder-lr", rate, "--head-lr", rate, "--epochs", "3")
            train("--data", data, *quick, *rates, "--out", out)
    yield folder
    os.chdir(before)


def saved(run: Path) -> list[dict]:
    return [strict_json(line) for line in (run / "test_predictions.jsonl").open()]


def copy_of(run: Path, name: str, rows: list[dict]) -> None:
    """A copy of a run with other rows for its test split."""
    shutil.copytree(run, run.parent / name, dirs_exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (run.parent / name / "test_predictions.jsonl").write_text("".join(lines))


def test_two_runs_are_compared_by_the_predictions_that_they_saved(place, run_script):
    result = run_script(
        *("eval.py", "--compare", "classes-a", "classes-b", "--json", "c.json"), cwd=place
    )
    assert result.returncode == 0, result.stderr
    figures = strict_json((place / "c.json").read_text())
    a, b = saved(place / "classes-a"), saved(place / "classes-b")
    right = [[row["label"] == row["prediction"] for row in rows] for rows in (a, b)]
    assert figures["accuracy"]["a"] == np.mean(right[0])
    assert figures["accuracy"]["b"] == np.mean(right[1])
    only_a = sum(x and not y for x, y in zip(*right, strict=True))
    only_b = sum(y and not x for x, y in zip(*right, strict=True))
    p = sum_of_binomials(only_a, only_b)
    assert figures["mcnemar"] == {"only_a": only_a, "only_b": only_b, "p": pytest.approx(p)}
    assert figures["significant"] == (p < 0.05)
    assert f"A: classes-a\nB: classes-b\ndata: the test split of both runs, {len(a)} texts\n" in (
        result.stdout
    )
    assert re.search(
        r"^accuracy: A [\d.]+%, B [\d.]+%; B - A: \+[\d.]+ points \(95% interval ",
        (result.stdout),
        re.MULTILINE,
    )
    assert f"is {'' if p < 0.05 else 'not '}significant (p is" in result.stdout


@pytest.mark.parametrize("task", ["classes.csv", "numbers.csv", "lists.jsonl"])
def test_data_gives_the_figures_of_the_saved_predictions(place, task):
    """The file with the rows of the test split, in another order."""
    runs = [f"{Path(task).stem}-{name}" for name in "ab"]
    evaluate("--compare", *runs, "--json", "saved.json")
    texts = {row["text"] for row in saved(place / runs[0])}
    lines = (place / task).read_text().splitlines()
    head = lines[:1] if task.endswith("csv") else []
    rows = [
        x for x in lines[len(head) :] if any(f"{text}," in x or f'{text}"' in x for text in texts)
    ]
    assert len(rows) == len(texts)
    (place / f"test-{task}").write_text("\n".join([*head, *reversed(rows)]) + "\n")
    evaluate("--compare", *runs, "--data", f"test-{task}", "--json", "data.json", *PLAIN)
    one, other = (strict_json((place / f"{x}.json").read_text()) for x in ("saved", "data"))
    assert one.pop("data") != other.pop("data") and one.keys() == other.keys()
    for name, value in one.items():
        if not isinstance(value, dict):
            assert other[name] == value
            continue
        for key in value:
            assert other[name][key] == pytest.approx(value[key], rel=1e-4, abs=1e-5), (name, key)


def test_rows_are_matched_by_text_whatever_their_order(place):
    copy_of(place / "classes-b", "reversed", saved(place / "classes-b")[::-1])
    for run in ("classes-b", "reversed"):
        evaluate("--compare", "classes-a", run, "--json", f"{run}.json")
    one, other = (strict_json((place / f"{x}.json").read_text()) for x in ("classes-b", "reversed"))
    assert {**one, "b": "reversed"} == other


# --- mistakes


def mistake(*argv: str) -> str:
    with pytest.raises(InputError) as error:
        evaluate("--compare", *argv)
    return str(error.value)


def test_one_run_given_twice(place):
    assert "classes-a ../" in mistake("classes-a", f"../{place.name}/classes-a")
    assert mistake("classes-a", "classes-a").endswith("is one run; give two")


def test_other_texts_are_named_and_other_labels(place):
    rows = saved(place / "classes-b")
    copy_of(place / "classes-b", "fewer", rows[1:])
    assert mistake("classes-a", "fewer") == (
        f"--compare: 1 texts of classes-a are not in fewer, the first: {rows[0]['text']!r}; "
        "give --data"
    )
    assert "1 texts of classes-a are not in fewer" in mistake("fewer", "classes-a")
    rows[2]["label"] = {"positive": "negative", "negative": "positive"}[rows[2]["label"]]
    copy_of(place / "classes-b", "relabelled", rows)
    found = mistake("classes-a", "relabelled")
    assert f"the label of {rows[2]['text']!r} is" in found and "in relabelled; give" in found


def test_other_tasks_and_other_classes(place):
    assert mistake("classes-a", "lists-a") == (
        "--compare: classes-a is single-label, lists-a multi-label; give one task"
    )
    write_checkpoint(place / "stars", head=HeadConfig("mlp", "cls", ("positive", "bad"), 40))
    copy_of(place / "stars", "stars-run", saved(place / "classes-a"))
    assert "2 classes are not in both; 'bad' is in stars-run alone" in (
        mistake("classes-a", "stars-run")
    )


def test_a_model_without_predictions_needs_data(place):
    assert mistake("classes-a", "encoder").endswith("predictions of a test split; give --data")
    shutil.copytree(place / "classes-b", place / "lost")
    (place / "lost/test_predictions.jsonl").unlink()
    assert mistake("lost", "classes-b") == (
        "--compare lost: has no predictions of a test split; give --data"
    )


@pytest.mark.parametrize("row", [{"text": "good"}, {"text": "x", "label": 1, "prediction": "so"}])
def test_damaged_predictions_are_one_line(place, row, run_script):
    copy_of(place / "classes-b", "damaged", [row])
    result = run_script("eval.py", "--compare", "damaged", "classes-b", cwd=place)
    assert result.returncode == 2
    assert re.fullmatch(r"error: .*\n", result.stderr)


def test_flags_of_one_model_do_not_go_with_two(place, run_script):
    for flags in (("--model", "classes-a"), ("--plot", "a.png"), ("--precision", "fp32")):
        result = run_script("eval.py", "--compare", "classes-a", "classes-b", *flags, cwd=place)
        assert result.returncode == 2 and flags[0] in result.stderr


@pytest.mark.parametrize("flags", [["--raw"], ["--min-probability", "0.9"]])
def test_flags_that_change_no_compared_figure_are_refused(flags):
    """They change probabilities and rejections. A comparison is of predictions."""
    with pytest.raises(InputError, match=f"{flags[0]} changes no figure of --compare; drop it"):
        evaluate("--compare", "classes-a", "classes-b", "--data", "classes.csv", *flags)


def test_a_difference_of_macro_f1_has_no_interval_if_samples_often_lack_a_class():
    true, a = np.arange(1000) < 3, np.zeros(1000, dtype=bool)
    for found in (
        compare_classes(1 * true, 1 * a, 1 * true),
        compare_label_sets(*(np.stack((x, ~true), axis=1) for x in (true, a, true))),
    ):
        assert found.figures["macro_f1"].interval is None
        assert next(iter(found.figures.values())).interval is not None


# --- looks


def looks_in(output: str) -> list[str]:
    return re.findall(r"look (\d+) at this test split", output)


@pytest.fixture
def runs(place, tmp_path) -> list[Path]:
    """Copies of two runs that nobody has looked at."""
    copies = [tmp_path / name for name in "ab"]
    for copy in copies:
        shutil.copytree(place / f"classes-{copy.name}", copy)
        (copy / "test_looks.jsonl").unlink(missing_ok=True)
    return copies


def test_each_look_at_the_test_split_is_counted(runs, place, capsys):
    model = ("--model", str(runs[0]), *PLAIN)
    evaluate(*model)
    assert looks_in(capsys.readouterr().out) == ["2"]
    evaluate(*model, "--data", "classes.csv")  # has all texts of the test split
    assert looks_in(capsys.readouterr().out) == ["3"]
    (place / "new.csv").write_text("text,label\ngood food,positive\n")
    evaluate(*model, "--data", "new.csv")
    assert looks_in(capsys.readouterr().out) == []
    evaluate("--compare", *map(str, runs))
    assert looks_in(capsys.readouterr().out) == ["4", "2"]
    lines = (runs[0] / "test_looks.jsonl").read_text().splitlines()
    assert len([strict_json(line)["time"] for line in lines]) == 3


def test_a_failed_comparison_is_no_look(runs):
    copy_of(runs[1], "c", saved(runs[1])[1:])
    assert "give --data" in mistake(str(runs[0]), str(runs[1].parent / "c"))
    assert not (runs[0] / "test_looks.jsonl").exists()


def test_a_model_that_is_no_run_has_no_looks(runs):
    (runs[0] / "metrics.json").unlink()
    assert count_look(runs[0]) == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_can_be_looked_at(runs):
    runs[0].chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "look 2 at" in count_look(runs[0]) and "cannot be noted" in count_look(runs[0])
    runs[0].chmod(stat.S_IRWXU)


def test_a_link_in_a_folder_is_not_written_through(runs, tmp_path):
    """A run from a stranger must not make eval.py write to another file."""
    (tmp_path / "mine").write_text("mine\n")
    (runs[0] / "test_looks.jsonl").symlink_to(tmp_path / "mine")
    assert "cannot be noted" in count_look(runs[0])
    assert (tmp_path / "mine").read_text() == "mine\n"


def test_two_processes_lose_no_look(runs, place):
    code = (
        "from pathlib import Path; from minibert.commands.labelled import count_look; "
        f"[count_look(Path({str(runs[0])!r})) for _ in range(50)]"
    )
    processes = [start_script(["-c", code], cwd=place) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert "look 102 at" in count_look(runs[0])
